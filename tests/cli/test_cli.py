# SPDX-License-Identifier: GPL-2.0-only
"""The command line: its answers, its sentences, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from commands import run_here
from nbformat import NotebookNode
from waiting import PATIENCE

from anonvma.base.errors import PrivilegeError
from anonvma.cli import main
from anonvma.report import notebooks
from anonvma.target.local import Local

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(build: Path, tmp_path: Path) -> Cli:
    environment = {**os.environ, "ANONVMA_RUNS": str(tmp_path / "runs")}

    def run(*words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "anonvma", *words]
        return subprocess.run(
            command,
            input=input,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture
def here(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The same in this process, for what prints nothing but by Python's own streams."""
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return run_here


def test_help_teaches(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    for command in (
        *("batch", "census", "demo", "doctor", "faults", "locks", "query", "record", "report"),
        *("runs", "trend"),
    ):
        assert command in done.stdout
        assert run_here(command, "--help").stdout.startswith("Usage: ")


def test_help_is_grouped_and_its_summaries_are_whole() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0 and "..." not in done.output.partition("Options:")[2]
    assert "See this machine:" in done.output and "More:" not in done.output
    for name, command in main.commands.items():
        assert f"\n  {name} " in done.output
        shown = CliRunner().invoke(main, [name, "--help"]).output
        assert "\\b" not in shown and "\b" not in shown, name
        assert shown.count("[OPTIONS]") == 1, name
        assert _whole(command.help or "") in " ".join(done.output.split()), name
    assert all(len(line) <= 80 for line in done.output.splitlines())


def _whole(words: str) -> str:
    return " ".join(words.strip().partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def test_unknown_command_is_exit_code_2(here: Cli) -> None:
    done = here("sensus")
    assert done.returncode == 2 and "did you mean 'census'?" in done.stderr
    assert here("census", "--pid", "-1").returncode == 2


def test_census_of_one_process(here: Cli, odd_process: Callable[..., list[int]]) -> None:
    (pid,) = odd_process("many", "1000")
    done = here("census", "--pid", str(pid), "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    assert found["vmas"] == len([line for line in lines if "[vsyscall]" not in line])
    classes = {row["class"]: row["vmas"] for row in found["by_class"]}
    assert classes["untouched"] >= 1000
    (process,) = found["by_process"]
    assert (process["tgid"], process["comm"]) == (pid, "odd_process")
    text = here("census", "--pid", str(pid)).stdout
    assert "Bare VMAs by class" in text and "odd_process" in text


LOAD = ["--case", "small-allocs-mt", "-t", "2", "--unit", "40k", "4m"]  # 1,024 pages a task


def test_faults_of_a_command(cli: Cli, build: Path) -> None:
    done = cli("faults", "--json", "--", str(build / "vmload"), *LOAD)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] in ("fentry", "kprobe", "tracepoint")
    assert set(found["losses"].values()) == {0}
    changes = {(row["before"], row["after"]): row["faults"] for row in found["transitions"]}
    assert changes["bare", "bare"] == 2048
    counted = {row["origin"]: row for row in found["counterfactual"]}
    assert counted["private /dev/zero"] == {
        "origin": "private /dev/zero",
        "found bare": 2048,
        "make anon_vma": 0,
        "spared": 2048,
    }
    assert "KB/s" in done.stderr  # what the command prints
    text = cli("faults", "--", str(build / "vmload"), *LOAD).stdout
    assert "By what they found and left" in text and "lost: nothing." in text.lower()
    assert max(map(len, text.splitlines())) <= 80


def test_locks_of_a_command(cli: Cli, build: Path) -> None:
    done = cli("locks", "--json", "--", str(build / "vmload"), *LOAD)
    assert done.returncode == 0, done.stderr
    callers = {(row["asked_by"], row["mode"]): row for row in json.loads(done.stdout)["callers"]}
    assert 206 <= callers["mmap", "write"]["taken"] < 260
    assert "By who took it" in cli("locks", "--", str(build / "vmload"), *LOAD).stdout


def test_faults_of_a_process(here: Cli, odd_process: Callable[..., list[int]]) -> None:
    (pid,) = odd_process("many", "10")
    done = here("faults", "--pid", str(pid), "--seconds", "0.2")
    assert done.returncode == 0 and "0 page faults" in done.stdout
    assert done.stderr == f"watching odd_process ({pid}) for 0.2 s ...\n"


@pytest.mark.parametrize("what", ["faults", "locks"])
def test_a_command_traced_reads_the_standard_input_that_it_was_given(cli: Cli, what: str) -> None:
    done = cli(what, "--", "sh", "-c", "wc -c; wc -c >&2", input="hello\n")
    assert done.returncode == 0 and done.stderr.split() == ["6", "0"]


def test_faults_of_a_command_that_fails(cli: Cli) -> None:
    done = cli("faults", "--json", "--", "sh", "-c", "echo said; exit 7")
    assert done.returncode == 7 and json.loads(done.stdout)["transitions"]  # as perf stat ends
    assert "said" in done.stderr
    assert done.stderr.endswith("anonvma: sh ended with exit status 7.\n")


@pytest.mark.parametrize("words", [[], ["--pid", "1", "--", "true"], ["--nonsense"]])
def test_faults_and_locks_of_nothing(here: Cli, words: list[str]) -> None:
    for command in ("faults", "locks"):
        assert here(command, *words).returncode == 2


def test_faults_of_what_is_not_there(cli: Cli) -> None:
    done = cli("faults", "--", "/no/such/program")
    assert done.returncode == 127 and done.stdout == ""
    assert done.stderr == "anonvma: there is no program '/no/such/program'.\n"
    done = cli("faults", "--pid", "4000000")
    assert done.returncode == 5 and "no process 4000000" in done.stderr


def test_census_of_no_process_passes_the_probes_exit_code_on(here: Cli) -> None:
    done = here("census", "--pid", "2")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("anonvma: process 2 has no memory of its own: it is a kernel")
    assert done.stderr.count("\n") == 1


def test_doctor(here: Cli) -> None:
    assert "pagemap_scan" in here("doctor").stdout
    assert json.loads(here("doctor", "--json").stdout)["kernel"] == os.uname().release
    done = here("doctor", "--target", "moon")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_doctor_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is not built: what the kernel tells of itself is told, and what remains unknown."""
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0
    assert f"kernel                 yes  {os.uname().release}" in done.stdout
    assert "vmaprobe is not built" in done.stderr and "anonvma demo" in done.stderr
    told = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert told["without_probe"]["btf"]["has"] == Path("/sys/kernel/btf/vmlinux").exists()


def test_without_privilege_the_demo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Local) -> None:
        raise PrivilegeError("no privilege.")

    monkeypatch.setattr(Local, "require_privilege", refuse)
    for words in (["census"], ["faults", "--", "true"], ["locks", "--pid", "1"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 3 and "anonvma demo" in done.stderr


@pytest.fixture
def only_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A report without the notebooks that analyse the run: for tests of what the report says.

    All are executed in test_reproduction.py.
    """
    execute = notebooks.execute

    def collecting_and_reporting(name: str, *rest: Any) -> NotebookNode:
        if name in ("02-census", "03-faults", "04-profile"):
            return nbformat.from_dict({})
        return execute(name, *rest)

    monkeypatch.setattr(notebooks, "execute", collecting_and_reporting)
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


def test_report_of_an_impossible_workload_is_one_sentence(here: Cli, tmp_path: Path) -> None:
    done = here("report", "--workload", "small-alocs-mt")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("anonvma: ")
    assert "did you mean 'small-allocs-mt'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("only_the_report")
def test_demo_says_that_it_is_one(tmp_path: Path) -> None:
    done = run_here("demo")
    assert done.returncode == 0, done.stderr
    answer = done.stdout.index("Yes. After")
    assert 0 < done.stdout.index("rendered from recorded data") < answer
    text = (tmp_path / "demo" / "report.txt").read_text()
    assert "rendered from recorded data" in text[:400]
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.index("rendered from recorded data") < page.index("Yes. After")


def test_record_refuses_what_is_there() -> None:
    done = run_here("record", "small-allocs-mt", "specimens")
    assert done.returncode == 1
    assert "there is a run" in done.stderr
    assert run_here("record", "small-allocs-mt", "../x").returncode == 1
    assert run_here("record", "no-such-run", "x").returncode == 1


@pytest.mark.parametrize("name", ["faults", "locks"])
def test_a_time_is_for_processes_and_above_0(name: str) -> None:
    for words, why in (
        (["--seconds", "3", "--", "true"], "--seconds would be ignored: a COMMAND is traced"),
        (["--seconds", "0", "--pid", str(os.getpid())], "0.0 is not in the range"),
    ):
        done = CliRunner().invoke(main, [name, *words])
        assert done.exit_code == 2 and why in done.output
