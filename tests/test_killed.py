# SPDX-License-Identifier: GPL-2.0-only
"""`make report`, killed at any moment: no broken run, no changed sysctl, no stray process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from anonvma import runs
from anonvma.errors import RunError

MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
# More mappings than vm.max_map_count allows by default, so that it has to be raised.
REPORT = ["report", "--bytes", "2800m", "--repeats", "2"]


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
    deadline = time.monotonic() + 20
    while left := marked(mark):
        names = [Path(f"/proc/{pid}/cmdline") for pid in left]
        said = [name.read_bytes() for name in names if name.exists()]
        assert time.monotonic() < deadline, f"still there: {said}"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGKILL, 0.5),
        (signal.SIGKILL, 3.0),
        (signal.SIGKILL, 5.0),
        (signal.SIGTERM, 4.0),
        (signal.SIGINT, 4.5),
        (signal.SIGHUP, 8.0),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_killed(tmp_path: Path, build: Path, number: signal.Signals, after: float) -> None:
    before = MAX_MAP_COUNT.read_text()
    mark = f"ANONVMA_TEST={uuid.uuid4().hex}"
    makefile = tmp_path / "Makefile"
    words = ["setpriv --pdeathsig TERM --", sys.executable, "-m anonvma", *REPORT]
    makefile.write_text(f"report:\n\t@{' '.join(words)}\n")  # as the project's own does
    environment = {
        **os.environ,
        "ANONVMA_TEST": mark.partition("=")[2],
        "ANONVMA_RUNS": str(tmp_path / "runs"),
        "ANONVMA_BUILD": str(build),
    }
    make = subprocess.Popen(
        ["make", "-f", makefile, "report"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    if number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(make.pid, number)  # as a terminal does
    else:
        make.send_signal(number)
    assert make.wait(timeout=20) != 0
    wait_for_all_gone(mark)
    assert MAX_MAP_COUNT.read_text() == before
    for directory in (tmp_path / "runs").glob("*"):
        if directory.suffix == ".partial":
            with pytest.raises(RunError, match="unfinished"):
                runs.Run.open(directory)
        else:
            runs.Run.open(directory)
    runs.sweep(tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*.partial"))
