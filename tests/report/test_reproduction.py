# SPDX-License-Identifier: GPL-2.0-only
"""How to repeat it: someone who has only the mail comes to the same verdict."""

from __future__ import annotations

import email
import email.policy
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from commands import run_here

from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.report import cost_report, layout, reproduction, run_report
from anonvma.run import runs
from anonvma.run.version import version
from anonvma.target.local import Local

ROOT = Path(__file__).resolve().parents[2]
# What make builds, and the programs that come of it, in build/.
BUILT = ("probe", "workload", "guest")
PROGRAMS = ("vmaprobe", "vmload", "specimens", "guest-init", "anonvma-agent")


def typed_in(body: str) -> str:
    """What a mail says to type: the indented lines below "How to repeat it"."""
    told = body.partition("How to repeat it\n----------------\n")[2].partition("\n-- \n")[0]
    return "\n".join(line[4:] for line in told.splitlines() if line.startswith("    ")) + "\n"


def counted(text: str, figure: str) -> str:
    match = re.search(rf"^{figure} +\d+ +(\S+) ", text, re.M)
    assert match, text
    return match[1]


def environment_of(clone: Path) -> None:
    """A .venv as `make venv` makes it there, with the packages that were installed here."""
    packages, theirs = Path(sysconfig.get_path("purelib")), clone.resolve() / ".venv"
    there = theirs / packages.relative_to(sys.prefix)
    there.mkdir(parents=True)
    for each in packages.iterdir():
        if each.suffix == ".pth":  # one of which says where our own package lies
            (there / each.name).write_text(each.read_text().replace(str(ROOT), str(clone)))
        else:
            (there / each.name).symlink_to(each)
    (theirs / "share").symlink_to(Path(sys.prefix) / "share")  # the kernel of the notebooks
    (theirs / "pyvenv.cfg").write_bytes((Path(sys.prefix) / "pyvenv.cfg").read_bytes())
    (theirs / "bin").mkdir()
    (theirs / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    command = theirs / "bin" / "anonvma"
    command.write_text(f'#!/bin/sh\nexec "{theirs}/bin/python" -P -m anonvma "$@"\n')
    command.chmod(0o755)
    (theirs / ".ready").write_text(f"{theirs}\n")


def test_only_the_mail_is_needed(tmp_path: Path, build: Path) -> None:
    """Follow it, in a clean clone, with a workload of another size than usual.

    The clone is spared compiling the programs and installing packages, nothing else: make finds
    what was made here by the same rules, and takes it for up to date.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout, so there is nothing to clone")
    load = Workload(workload="small-allocs-mt", bytes="12m", unit="80k")
    with Local() as target:
        made = collect(target, load, repeats=2, out=tmp_path / "runs")
    out = tmp_path / "out"
    sent = run_here("publish", made.path, "--to", "l@example.org", "--output", out)
    assert sent.returncode == 0, sent.stderr
    mail = email.message_from_bytes((out / "report.eml").read_bytes(), policy=email.policy.default)
    body = mail.get_content()  # type: ignore[attr-defined]

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / "build").mkdir()
    for name in (*BUILT, *PROGRAMS):
        copy = shutil.copytree if (build / name).is_dir() else shutil.copy
        copy(build / name, clone / "build" / name)
    subprocess.run(["make", "--silent", "--touch", *BUILT], cwd=clone, check=True)
    environment_of(clone)
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("ANONVMA_")}
    for name in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"):  # or ours is compiled by each process
        theirs.pop(name, None)
    typed = typed_in(body)
    assert typed.startswith("git checkout ") and "make report COST=0 " in typed
    # But for a round or two of what mmap_lock costs here, which is of no use to whoever repeats it.
    typed = typed.replace("COST=0 ", "COST=0.001 ")
    done = subprocess.run(
        ["sh", "-euc", typed],
        cwd=clone,
        env=theirs,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^answer +yes$", done.stdout, re.M), done.stdout[-1000:]
    # Where the parts of the report are, which is printed before it is published.
    places = dict(reversed(re.findall(r"^(text|HTML|run) +(\S.*)$", done.stdout, re.M)))
    run = runs.Run.open(clone / places["run"])
    assert layout.text(run_report.sections(run)[:1], run_report.title(run)) in done.stdout
    report = " ".join((clone / places["text"]).read_text().split())
    assert "All 3,072 pages that they span are present" in report
    assert (clone / places["HTML"]).read_text().startswith("<!DOCTYPE html>")
    profiled = "samples" in run.manifest.tables  # where there is a perf
    assert len(list((clone / places["text"]).parent.glob("*.ipynb"))) == 5 + profiled
    # What the lock costs is told last, of the run of that experiment; here, and in the report.
    (measured,) = (clone / places["run"]).parent.glob("*-cost-small-allocs-mt")
    (cost,) = cost_report.brief(runs.Run.open(measured))
    assert layout.text([cost], "").strip() in done.stdout
    assert cost.paragraphs[1][:60] in report
    (again,) = (clone / "data" / "published").glob("*/report.eml")
    other = email.message_from_bytes(again.read_bytes(), policy=email.policy.default)
    text = other.get_content()  # type: ignore[attr-defined]
    assert "\n\nYes. " in body and "\n\nYes. " in text
    # 12 MiB in mappings of 80 KiB, in two tasks.
    for figure, expected in (
        ("of these, read and never written", "154"),
        ("zero pages in those", "3,072"),
    ):
        assert counted(body, figure) == counted(text, figure) == expected


def test_commands_are_whole_for_a_shell() -> None:
    """No quote is broken where a line is, and papermill knows every parameter."""
    import papermill

    for name in ("small-allocs-mt", "early-small-allocs-mt-1", "specimens"):
        commands = reproduction.commands([runs.find(name)], analysed=True)
        lines = list(layout.command_lines(commands))
        assert max(map(len, lines)) <= 80
        joined = "\n".join(lines).replace("\\\n", " ")
        assert [shlex.split(line) for line in joined.splitlines()] == list(
            map(shlex.split, commands)
        )
        for words in map(shlex.split, commands):
            if words[0].endswith("papermill"):
                known = papermill.inspect_notebook(str(ROOT / words[1]))
                given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
                assert given and set(given) <= set(known)


def test_the_pair_is_repeated_by_its_own_command() -> None:
    opened = runs.find_all("early-small-allocs-mt-*") + runs.find_all("delayed-small-allocs-mt-*")
    assert reproduction.commands(opened)[-3:] == [
        "make venv build",
        "make kernels",
        f".venv/bin/anonvma pair --boots {len(opened) // 2} --cpus 2",
    ]


def test_a_process_is_repeated_by_one_like_it() -> None:
    run = runs.find("small-allocs-mt")
    manifest = run.manifest.model_copy(update={"parameters": {"workload": "pid:4711"}})
    said = reproduction.section([runs.Run(run.path, manifest)])
    assert any("--workload pid:PID --repeats 5" in typed for typed in said.commands)
    assert said.words[-1].endswith("; PID is that of a process like it:")


def test_many_runs_have_one_hash_that_coreutils_makes_again() -> None:
    opened = runs.find_all("early-small-allocs-mt-*") + runs.find_all("delayed-small-allocs-mt-*")
    files = sorted(f"{run.id}/manifest.json" for run in opened)
    made = subprocess.run(
        ["sh", "-c", 'LC_ALL=C cat "$@" | sha256sum', "sh", *files],
        cwd=opened[0].path.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.split()[0] in " ".join(reproduction.words(opened))


@pytest.mark.parametrize("workload", ["stress-ng --vm 2 -t 5", "sh -c 'echo \"$HOME\" `id`'"])
def test_any_workload_survives_make_and_the_shell(workload: str, tmp_path: Path) -> None:
    """`make report ARGS=` takes the words apart twice; a Makefile like ours is the witness."""
    run = runs.find("small-allocs-mt")
    manifest = run.manifest.model_copy(update={"parameters": {"workload": workload}})
    changed = runs.Run(run.path, manifest)
    command = next(c for c in reproduction.commands([changed]) if c.startswith("make report"))
    (tmp_path / "Makefile").write_text("report:\n\t@printf '%s\\n' $(ARGS)\n")
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["--workload", workload, "--repeats", "5"]


def test_versions_name_their_commit() -> None:
    head = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    commit = reproduction.commit_of(version())
    assert commit is None or head.startswith(commit)
    assert reproduction.commit_of("0.1.0") is None
    assert reproduction.commit_of("0.1.0+g0123456789ab.dirty") == "0123456789ab"
