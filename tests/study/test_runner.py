# SPDX-License-Identifier: GPL-2.0-only
"""Studies carried out: resumed, killed, failing, hostile; and once on real guests."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import studies
import yaml
from commands import run_here
from processes import VARIABLE, new_token, survivors
from waiting import PATIENCE, until

from anonvma.base import marker, paths
from anonvma.run import runs
from anonvma.study import directory as directory_module
from anonvma.study import fingerprint, job
from anonvma.study import matrix as study

pytestmark = pytest.mark.usefixtures("build")


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """What every study here has in common."""
    return {"name": "tiny", "notebook": studies.write_notebook(tmp_path).name}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory of its own for a study at which several tests look, with the notebook."""

    def made(name: str) -> Path:
        directory = tmp_path_factory.mktemp(name)
        studies.write_notebook(directory)
        return directory

    return made


def runs_by_cell(output: Path) -> dict[str, str]:
    """The run of every job that is there; each of them opens."""
    found = {}
    for directory in output.glob("cells/*"):
        runs.Run.open(directory)
        found[directory.name] = json.loads((directory / "cell.json").read_bytes())["finished"]
    return found


def wait_for_tries(study: Path, count: int) -> None:
    until(lambda: len(studies.tries(study)) >= count)


def records(output: Path, events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The failures among events, each with all that is kept of it."""
    failed = [event for event in events if event["event"] == "failed"]
    for event in failed:
        record = output / event["record"]
        assert json.loads((record / "failure.json").read_bytes())["reason"] == event["reason"]
        assert (record / "log.txt").exists() and (record / "notebook.ipynb").exists()
    return failed


# ---- a target that is late: begun first, for it does nothing but let time pass ----


@pytest.fixture(scope="module", autouse=True)
def late(place: Callable[[str], Path]) -> Iterator[tuple[subprocess.Popen[str], Path, str]]:
    """A study whose only job hangs, under way; its output; the token of all that belongs to it."""
    directory, token = place("late"), new_token()
    file = studies.write(
        directory, name="tiny", notebook="tiny.ipynb", workloads=["hang"], timeout="20s", retries=0
    )
    with subprocess.Popen(
        studies.command(file, directory / "out"),
        env={**studies.environment(directory), VARIABLE: token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process, directory / "out", token
        process.kill()


# ---- interrupted, and gone on with ----


@dataclasses.dataclass
class Interrupted:
    """A study of three jobs: Ctrl-C in the second, the same command again, and once more."""

    file: Path
    output: Path
    token: str
    ended: int
    words: str
    left: list[str]
    before: dict[str, str]
    resumed: subprocess.CompletedProcess[str]
    after: dict[str, str]
    again: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def interrupted(place: Callable[[str], Path]) -> Interrupted:
    """The study, done; nobody changes it."""
    directory, token = place("interrupted"), new_token()
    file = studies.write(
        directory,
        name="tiny",
        notebook="tiny.ipynb",
        workloads=["slow"],
        parameters={"threads": [1, 2, 3]},
    )
    output = directory / "out"
    process = subprocess.Popen(
        studies.command(file, output),
        env={**studies.environment(directory), VARIABLE: token},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_tries(file, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    words, _ = process.communicate(timeout=PATIENCE)
    left = [*survivors(token), *map(str, (output / "work").glob("*/"))]
    before = runs_by_cell(output)
    resumed = studies.run(file, output)
    after = runs_by_cell(output)
    again = studies.run(file, output)
    return Interrupted(
        file, output, token, process.returncode, words, left, before, resumed, after, again
    )


def test_ctrl_c_stops_and_the_same_command_goes_on(interrupted: Interrupted) -> None:
    assert interrupted.ended == 130
    assert "Interrupted: 1 of 3 jobs are done" in interrupted.words
    assert interrupted.left == []
    assert interrupted.resumed.returncode == 0, interrupted.resumed.stderr
    assert len(interrupted.before) == 1 and len(interrupted.after) == 3
    assert interrupted.before.items() <= interrupted.after.items()


def test_a_study_is_kept_together(interrupted: Interrupted) -> None:
    lines = interrupted.resumed.stderr.splitlines()
    assert lines[0] == "Study tiny: 3 jobs, 1 done, 2 to do."
    assert [line.split()[0] for line in lines[1:]] == ["[2/3]", "[3/3]"]
    names = {f"slow-threads-{number}-1" for number in (1, 2, 3)}
    assert {line.split()[1] for line in lines[1:]} == names - set(interrupted.before)
    for name in names:
        cell = interrupted.output / "cells" / name
        runs.Run.open(cell)
        assert "20260101T000000Z-copied" in (cell / "log.txt").read_text()
        notebook = json.loads((cell / "notebook.ipynb").read_bytes())
        assert all(c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code")
    report = interrupted.output / "report"
    text = (report / "report.txt").read_text()
    assert "All 3 jobs are done" in text
    assert "1 of threads 1, 1 of threads 2, 1 of threads 3" in text
    assert "<title>anonvma: study tiny</title>" in (report / "report.html").read_text()


def test_what_is_done_is_not_done_again(interrupted: Interrupted) -> None:
    assert interrupted.again.returncode == 0
    assert "3 done, 0 to do" in interrupted.again.stderr
    assert runs_by_cell(interrupted.output) == interrupted.after
    # One that was interrupted, and each of the three once.
    assert len(studies.tries(interrupted.file)) == 4


def states(file: Path, output: Path) -> Counter[str]:
    """How many jobs are in which state; what ``--dry-run`` says."""
    fingerprint.tools.cache_clear()
    return Counter(directory_module.status(study.read(file), output).values())


def test_what_has_changed_is_done_again_and_nothing_else(
    interrupted: Interrupted, tmp_path: Path
) -> None:
    """Of a copy of that study."""
    beside = shutil.ignore_patterns("work")
    shutil.copytree(interrupted.file.parent, tmp_path, ignore=beside, dirs_exist_ok=True)
    file, output = tmp_path / interrupted.file.name, tmp_path / "out"
    (tmp_path / "tries").unlink()
    keys: dict[str, Any] = yaml.safe_load(file.read_text())
    assert states(file, tmp_path / "none") == {"to do": 3}
    assert states(file, output) == {"done": 3}
    # Cells are known by what they are, not by their names.
    keys["workloads"] = [{"workload": "slow", "name": "x"}]
    keys["parameters"] = {"threads": [1, 2, 3, 4]}
    studies.write(tmp_path, **keys)
    done = run_here("batch", file, "--output", output, "--dry-run")
    assert "4 jobs on 1 host: 3 done, 1 to do." in done.stdout
    # A damaged run is none.
    (output / "cells" / "slow-threads-2-1" / "repeats.parquet").write_bytes(b"x")
    assert states(file, output) == {"done": 2, "changed": 1, "to do": 1}
    assert studies.run(file, output).returncode == 0
    assert len(studies.tries(file)) == 2
    after = runs_by_cell(output)
    assert set(after) == {f"x-threads-{number}-1" for number in (1, 2, 3, 4)}
    for number in (1, 3):
        before = interrupted.after[f"slow-threads-{number}-1"]
        assert after[f"x-threads-{number}-1"] == before
    assert (output / "superseded" / "x-threads-2-1.1").is_dir()
    # Another notebook makes everything another thing; other outputs in it do not.
    notebook = tmp_path / "tiny.ipynb"
    content = json.loads(notebook.read_bytes())
    content["metadata"]["x"] = 1
    notebook.write_text(json.dumps(content))
    assert states(file, output) == {"done": 4}
    content["cells"][1]["source"] = ["pass\n", *content["cells"][1]["source"]]
    notebook.write_text(json.dumps(content))
    assert states(file, output) == {"changed": 4}


# ---- failures ----


def test_a_lost_target_or_program_is_a_failure_of_its_cell_alone_and_another_ends_the_study(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    slow = [{"workload": "slow", "name": f"slow{n}", "threads": n} for n in (1, 2, 3)]
    for seed in range(10000):  # an order that begins with the failures
        file = studies.write(tmp_path, **tiny, workloads=["lose", "lack", "fail", *slow], seed=seed)
        cells = [cell.name for cell in study.read(file).cells]
        if cells[:3] == ["lose-1", "lack-1", "fail-1"]:
            break
    output = tmp_path / "out"
    done = studies.run(file, output, "--json")
    assert done.returncode == 1, done.stderr
    told = studies.events(done)
    assert told[0]["event"] == "plan" and told[-1]["event"] == "end"
    assert studies.tries(file)[:4] == ["lose 1", "lose 1", "lack 1", "fail 1"]
    failed = records(output, told)
    assert [(e["cell"], e["again"]) for e in failed] == [
        ("lose-1", True), ("lose-1", False), ("lack-1", False), ("fail-1", False),
    ]  # fmt: skip
    assert told[-1]["failed"]["lose-1"] == "the guest panicked"
    assert told[-1]["failed"]["lack-1"] == "it is not here"
    # What Snakemake had begun by then is done; it had not begun everything.
    assert cells[-1] not in runs_by_cell(output)


# Which job runs where. The notebook does not care what its target is, so ssh targets need no
# hosts here.
HOSTS = {"here": "local", "lab1": "ssh:one", "lab2": "ssh:two"}
FATES = {"here": ("a", "slow"), "lab1": ("lose-once", "fail"), "lab2": ("die", "nothing", "slow")}


@dataclasses.dataclass
class Fates:
    """A study of jobs that fail in all sorts of ways, and go on; and the same command again."""

    file: Path
    output: Path
    first: subprocess.CompletedProcess[str]
    tries: Counter[str]
    report: str
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def fates(place: Callable[[str], Path]) -> Fates:
    """The study, as far as it comes."""
    directory = place("fates")
    workloads = sorted({load for loads in FATES.values() for load in loads})
    file = studies.write(
        directory,
        name="tiny",
        notebook="tiny.ipynb",
        targets=HOSTS,
        workloads=workloads,
        exclude=[
            {"target": host, "workload": load}
            for host, load in itertools.product(HOSTS, workloads)
            if load not in FATES[host]
        ],
    )
    output = directory / "out"
    first = studies.run(file, output, "--keep-going", "--json")
    tries = Counter(studies.tries(file))
    report = (output / "report" / "report.txt").read_text()
    return Fates(file, output, first, tries, report, studies.run(file, output, "--keep-going"))


def test_only_a_lost_target_is_tried_again(fates: Fates) -> None:
    assert fates.first.returncode == 1, fates.first.stderr
    once = {f"{load} 1": 1 for load in ("a", "fail", "die", "nothing")}  # they would fail alike
    assert fates.tries == {**once, "slow 1": 2, "lose-once 1": 2}
    told = studies.events(fates.first)
    failed = records(fates.output, told)
    assert Counter((event["cell"], event["again"]) for event in failed) == {
        ("lab1-lose-once-1", True): 1,
        ("lab1-fail-1", False): 1,
        ("lab2-die-1", False): 1,
        ("lab2-nothing-1", False): 1,
    }
    assert told[-1]["done"] == 4 and len(told[-1]["failed"]) == 3
    assert "4 of 7 jobs are done" in fates.report


def test_the_same_command_tries_what_failed_and_nothing_else_again(fates: Fates) -> None:
    assert fates.second.returncode == 1
    tries = Counter(studies.tries(fates.file)) - fates.tries
    assert tries == {"fail 1": 1, "die 1": 1, "nothing 1": 1}
    for sentence in ("there is no such thing", "kernel was killed", "left 0 runs, not one"):
        assert sentence in fates.second.stderr and sentence in fates.report
    assert "Traceback" not in fates.second.stderr + fates.second.stdout


def test_cells_of_one_machine_take_turns_and_hosts_do_not(fates: Fates) -> None:
    running: Counter[str] = Counter()
    together = 0
    for event in studies.events(fates.first):
        host = event.get("cell", "").split("-")[0]
        if event["event"] == "started":
            running[host] += 1
            assert running[host] == 1
            together = max(together, running.total())
        elif event["event"] in ("done", "failed"):
            running[host] -= 1
    assert together >= 2


def test_a_late_target_is_ended(late: tuple[subprocess.Popen[str], Path, str]) -> None:
    process, output, token = late
    _, words = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "it took longer than 20 s, the study's time-out" in words
    assert (output / "failed" / "hang-1.1" / "notebook.ipynb").exists()
    assert survivors(token) == []


# ---- killed ----


def kill(victim: str, process: subprocess.Popen[Any], token: str) -> None:
    """Kill the command itself, Snakemake, or whoever works on a cell."""
    words = {"snakemake": b"-m\0snakemake", "cell": f"-m\0{job.__name__}".encode()}.get(victim)
    if words is None:
        process.kill()
        return
    mark = f"{VARIABLE}={token}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark in (directory / "environ").read_bytes().split(b"\0")
            if ours and words in (directory / "cmdline").read_bytes():
                os.kill(int(directory.name), signal.SIGKILL)
        except OSError:  # it ended meanwhile
            continue


def kill_and_resume(study: Path, output: Path, moments: list[float], cells: int) -> None:
    """Kill a study at these moments, then let it end: nothing is lost, nothing is done twice."""
    token = new_token()
    environment = {**studies.environment(study.parent), VARIABLE: token}
    seen: dict[str, str] = {}
    for number, moment in enumerate(moments):
        victim = ("anonvma", "snakemake", "cell")[number % 3]
        with (study.parent / "said").open("ab") as said:
            process = subprocess.Popen(
                studies.command(study, output), env=environment, stdout=said, stderr=said
            )
            time.sleep(moment)
            kill(victim, process, token)
            if victim == "cell":  # which alone ends nothing
                time.sleep(1)
                process.kill()
            process.wait()
        now = runs_by_cell(output)
        assert seen.items() <= now.items(), "a run that was done is gone, or another"
        seen = now
    # At once, while what the last one left may still be ending.
    done = studies.run(study, output)
    assert done.returncode == 0, done.stderr
    assert survivors(token) == []
    now = runs_by_cell(output)
    assert seen.items() <= now.items() and len(now) == cells
    manifests = list(output.rglob("manifest.json"))
    assert len(manifests) == cells, "a run is there that belongs to no cell"
    assert not (output / "superseded").exists()
    assert (output / "report" / "report.txt").exists()


def test_killed_at_random_moments(tiny: dict[str, Any], tmp_path: Path) -> None:
    parameters = {"threads": [1, 2]}
    study = studies.write(tmp_path, **tiny, workloads=["a", "slow"], parameters=parameters)
    moments = [random.uniform(1.5, 5) for _ in range(3)]
    kill_and_resume(study, tmp_path / "out", moments, 4)


@pytest.mark.kernels
def test_two_kernels_killed_five_times(tmp_path: Path) -> None:
    """2 kernels x 3 workloads x 2 thread counts, a boot each, by one command."""
    images = {k: str(paths.build() / "kernels" / k / "bzImage") for k in ("early", "delayed")}
    study = studies.write(
        tmp_path,
        targets=["guest:{kernel},memory=512M"],
        kernels=images,
        workloads=["small-allocs-mt", {"workload": "anon-w-seq-mt", "unit": "40k"},
                   "anon-r-rand-mt"],
        parameters={"threads": [1, 4]},
        defaults={"bytes": "4m", "trace": False, "repeats": 1},
        timeout="5m",
    )  # fmt: skip
    output = tmp_path / "out"
    kill_and_resume(study, output, [random.uniform(4, 25) for _ in range(5)], 12)
    # Each kernel did in each job what it does: 1,024 read faults found a bare VMA.
    for threads in (1, 4):
        for kernel, aborts in (("early", 1024), ("delayed", 0)):
            run = runs.Run.open(output / "cells" / f"{kernel}-small-allocs-mt-threads-{threads}-1")
            assert run.manifest.features["regime"]["name"] == kernel
            vmstat = run.table("vmstat").set_index("counter")["difference"]
            assert aborts <= vmstat["vma_lock_abort"] < aborts + 100
    text = (output / "report" / "report.txt").read_text()
    assert "small-allocs-mt, threads 4" in text and "1 of early, 1 of delayed" in text


def test_two_at_once_are_refused_and_other_directories_too(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    study = studies.write(tmp_path, **tiny, workloads=["a"])
    output = tmp_path / "out"
    output.mkdir()
    held = os.open(output, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as a batch does
    second = run_here("batch", study, "--output", output)
    os.close(held)
    assert second.returncode == 2 and "another anonvma batch works in" in second.stderr
    assert not list(output.iterdir())
    (output / "cells.json").write_text('{"study": "tiny"}')
    other = studies.write(tmp_path, **{**tiny, "name": "other"}, workloads=["a"])
    done = run_here("batch", other, "--output", output)
    assert done.returncode == 2 and "is of study 'tiny'" in done.stderr
    (tmp_path / "full").mkdir()
    # Left by one that was killed before it had a plan: it is no other thing.
    killed = tmp_path / "full" / ".study.yaml.x.partial"
    killed.mkdir()
    (killed / marker.MARK).write_text('{"maker": [1, 1]}')
    (tmp_path / "full" / "letter.txt").touch()
    done = run_here("batch", other, "--output", tmp_path / "full")
    assert done.returncode == 2 and "holds other things ('letter.txt')" in done.stderr


def test_a_cluster_is_given_the_same_cells(tiny: dict[str, Any], tmp_path: Path) -> None:
    """The executor for any cluster, its submit command a plain shell: a real job script."""
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text(
        "executor: cluster-generic\ncluster-generic-submit-cmd: 'sh'\njobs: 2\nlatency-wait: 30\n"
        "seconds-between-status-checks: 1\n"
    )
    study = studies.write(tmp_path, **tiny, workloads=["lose-once"])
    output = tmp_path / "out"
    done = studies.run(study, output, "--profile", "profile")
    if shlex.quote(sys.executable) != sys.executable:
        assert done.returncode == 2 and "Snakemake does not quote it" in done.stderr
        return
    assert done.returncode == 0, done.stderr + (output / "snakemake.log").read_text()
    assert set(runs_by_cell(output)) == {"lose-once-1"}
    assert studies.tries(study) == ["lose-once 1", "lose-once 1"]


HOSTILE = "$(touch pwned); `touch pwned` '; touch pwned; ' && touch pwned {x} {{y}} %s"


def test_nothing_in_a_study_is_run_that_is_no_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "$(touch pwned) {threads};'"
    directory.mkdir()
    for name in ("anonvma.py", "json.py", "papermill.py"):  # what a current directory could slip in
        (directory / name).write_text("raise SystemExit('pwned')")
    notebook = studies.write_notebook(directory)
    image = directory / "$(touch pwned).bzImage"
    image.touch()
    study = studies.write(
        directory,
        name="tiny",
        notebook=notebook.name,
        targets={"a": f"ssh:-oProxyCommand={HOSTILE}", "b": "guest:{kernel}"},
        kernels={"k": image.name},
        workloads=[{"workload": HOSTILE, "name": HOSTILE}],
        parameters={"threads": [HOSTILE, 1]},
    )
    output = directory / "out $(touch pwned) {cell}"
    with monkeypatch.context() as context:
        context.chdir(directory)
        done = run_here("batch", study, "--output", output)
    assert "pwned" not in {path.name for path in tmp_path.rglob("*")}
    assert done.returncode == 2 and "threads" in done.stderr  # no number of threads is like this
    study = studies.write(
        directory,
        name="tiny",
        notebook=notebook.name,
        targets={"a": f"ssh:-oProxyCommand={HOSTILE}", "b": "guest:{kernel}"},
        kernels={"k": image.name},
        workloads=[{"workload": HOSTILE, "name": HOSTILE}],
    )
    done = studies.run(study, output, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert "pwned" not in {path.name for path in tmp_path.rglob("*")}
    for cell in (output / "cells").iterdir():
        notebook_done = json.loads((cell / "notebook.ipynb").read_bytes())
        assert any("ProxyCommand" in "".join(c["source"]) for c in notebook_done["cells"]) or (
            "b-k-" in cell.name
        )
    assert len(list((output / "cells").iterdir())) == 2
