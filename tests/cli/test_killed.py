# SPDX-License-Identifier: GPL-2.0-only
"""`make report`, killed at any moment: no broken run, no changed sysctl, no stray process."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import processes
import pytest
from waiting import PATIENCE, until

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.run import runs
from anonvma.run.writer import sweep

pytestmark = pytest.mark.xdist_group("max_map_count")

MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
# More mappings than vm.max_map_count allows by default, so that it has to be raised; when the
# report is written it has long been put back, however many there were.
MANY = "2800m"
BYTES = {"reporting": "40m"}


def marked(mark: str) -> list[int]:
    """Processes that inherited our mark in their environment, zombies aside."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
        except OSError:  # gone, or not ours to look at
            continue
        if mark.encode() in environment:
            found.append(int(directory.name))
    return found


def wait_for_all_gone(mark: str) -> None:
    until(lambda: not marked(mark), lambda: f"still there: {command_lines(mark)}")


def command_lines(mark: str) -> list[bytes]:
    names = [Path(f"/proc/{pid}/cmdline") for pid in marked(mark)]
    return [name.read_bytes() for name in names if name.exists()]


def reached(stage: str, mark: str, directory: Path) -> bool:
    """Whether the report has come so far."""
    match stage:
        case "started":  # whatever make has begun
            return bool(command_lines(mark))
        case "collecting":
            return any(directory.glob("*.partial"))
        case "working":
            return any(b"vmload" in line.split(b"\0")[0] for line in command_lines(mark))
        case _:
            return any(directory.glob("*/manifest.json"))


def recipe(words: list[str]) -> str:
    """A Makefile that runs these as the project's own runs what goes on for long."""
    own = (paths.root() / "Makefile").read_text()
    with_make = re.search(r"^WITH_MAKE\b(?:.*\\\n)*.*\n", own, re.MULTILINE)
    assert with_make
    return f"{with_make[0]}report:\n\t@$(WITH_MAKE) {shlex.join(words)}\n"


def test_killed_before_it_can_be_told(tmp_path: Path) -> None:
    """Make is gone between its fork and setpriv's prctl(): nothing begins."""
    (tmp_path / "Makefile").write_text(recipe(["touch", str(tmp_path / "begun")]))
    slow, real = tmp_path / "setpriv", shutil.which("setpriv")
    slow.write_text(
        f'#!/bin/sh\nmake=$PPID\nkill -9 $make\nwhile kill -0 $make; do :; done\nexec {real} "$@"\n'
    )
    slow.chmod(0o755)
    token = processes.new_token()
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", processes.VARIABLE: token}
    done = subprocess.run(
        ["make", "report"], cwd=tmp_path, env={**os.environ, **own}, stderr=subprocess.DEVNULL,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert processes.survivors(token) == []
    assert not (tmp_path / "begun").exists()
    slow.unlink()
    subprocess.run(["make", "report"], cwd=tmp_path, check=True)
    assert (tmp_path / "begun").exists()


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGKILL, "started"),
        (signal.SIGKILL, "collecting"),
        (signal.SIGKILL, "working"),
        (signal.SIGTERM, "collecting"),
        (signal.SIGINT, "working"),
        (signal.SIGHUP, "reporting"),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_killed(tmp_path: Path, build: Path, number: signal.Signals, stage: str) -> None:
    before = MAX_MAP_COUNT.read_text()
    mark = f"ANONVMA_TEST={uuid.uuid4().hex}"
    makefile = tmp_path / "Makefile"
    words = [sys.executable, "-m", "anonvma", "report"]
    words += ["--bytes", BYTES.get(stage, MANY), "--repeats", "1", "--cost", "0"]
    makefile.write_text(recipe(words))
    environment = {
        **os.environ,
        "ANONVMA_TEST": mark.partition("=")[2],
        "ANONVMA_RUNS": str(tmp_path / "runs"),
        "ANONVMA_BUILD": str(build),
    }
    log = tmp_path / "log"
    with log.open("w") as file:
        make = subprocess.Popen(
            ["make", "-f", makefile, "report"],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    until(lambda: make.poll() is not None or reached(stage, mark, tmp_path / "runs"))
    assert make.poll() is None, log.read_text()
    if number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(make.pid, number)  # as a terminal does
    else:
        make.send_signal(number)
    assert make.wait(timeout=PATIENCE) != 0
    wait_for_all_gone(mark)
    assert MAX_MAP_COUNT.read_text() == before
    for directory in (tmp_path / "runs").glob("*"):
        if directory.suffix == ".partial":
            with pytest.raises(RunError, match="unfinished"):
                runs.Run.open(directory)
        else:
            runs.Run.open(directory)
    sweep(tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*.partial"))
