# SPDX-License-Identifier: GPL-2.0-only
"""vmaprobe faults and locks: usage, refusals, and every way to be ended in the middle."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tracing import one_sentence, require, tracing
from waiting import PATIENCE, until

# ---- what cannot be ----

USAGE = {
    "nothing": [],
    "both": ["--pid", "1", "--", "true"],
    "not a pid": ["--pid", "1x"],
    "no pid": ["--pid"],
    "seconds of a command": ["--seconds", "1", "--", "true"],
    "no time": ["--pid", "1", "--seconds", "0"],
    "not a time": ["--pid", "1", "--seconds", "soon"],
    "no number": ["--pid", "1", "--seconds", "nan"],
    "unknown option": ["--pidd", "1"],
}


@pytest.mark.parametrize("what", ["faults", "locks"])
@pytest.mark.parametrize("case", [*USAGE, "unknown source"])
def test_usage_is_exit_code_2(build: Path, what: str, case: str) -> None:
    words = USAGE.get(case, ["--source", "magic", "--", "true"])
    done = subprocess.run([build / "vmaprobe", what, *words], capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    one_sentence(done.stderr)


@pytest.mark.parametrize("what", ["faults", "locks"])
def test_vanished_is_exit_code_5(build: Path, what: str) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        for pid in (gone.pid, zombie.pid, 2):
            words = [build / "vmaprobe", what, "--pid", str(os.getpid()), "--pid", str(pid)]
            done = subprocess.run(words, capture_output=True, timeout=PATIENCE)
            require(done)
            assert (done.returncode, done.stdout) == (5, b"")
            one_sentence(done.stderr, b"process %d " % pid)


@pytest.mark.parametrize("what", ["faults", "locks"])
def test_without_privilege_is_exit_code_3(build: Path, what: str) -> None:
    program = Path("/tmp") / f"vmaprobe-{os.getpid()}"
    shutil.copy(build / "vmaprobe", program)
    program.chmod(0o755)
    try:
        words = [
            "setpriv",
            "--reuid",
            "65534",
            "--clear-groups",
            program,
            what,
            "--",
            "echo",
            "ran",
        ]
        done = subprocess.run(words, capture_output=True, cwd="/")
    finally:
        program.unlink()
    assert (done.returncode, done.stdout) == (3, b"")
    one_sentence(done.stderr, b"root")


@pytest.mark.parametrize("source", ["fentry", "kprobe"])
def test_a_source_that_is_refused(build: Path, source: str) -> None:
    words = [build / "vmaprobe", "faults", "--source", source, "--", "true"]
    done = subprocess.run(words, capture_output=True)
    if done.returncode == 0:
        assert json.loads(done.stdout)["source"] == source
    else:
        assert done.returncode in (3, 4)
        one_sentence(done.stderr)


# ---- ended in the middle ----


def programs_of(pid: int) -> set[int]:
    """Numbers of the BPF programs that a process holds."""
    found = set()
    with contextlib.suppress(OSError):
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                for line in info.read_text().splitlines():
                    if line.startswith("prog_id:"):
                        found.add(int(line.split()[1]))
    return found


def is_loaded(program: int) -> bool:
    """By BPF_PROG_GET_FD_BY_ID."""
    number = {"x86_64": 321}.get(os.uname().machine, 280)
    attributes = (ctypes.c_uint32 * 32)(program)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, 13, attributes, ctypes.sizeof(attributes))
    if descriptor >= 0:
        os.close(descriptor)
        return True
    assert ctypes.get_errno() == errno.ENOENT
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("what", ["faults", "locks"])
def test_killed_leaves_nothing(
    build: Path, tmp_path: Path, what: str, number: signal.Signals
) -> None:
    options = ["--output", str(tmp_path / "result")]
    if what == "faults":
        options += ["--events", str(tmp_path / "events")]
    with tracing(build, what, *options, "--", "sleep", "61") as probe:
        (command,) = Path(f"/proc/{probe.pid}/task/{probe.pid}/children").read_text().split()
        programs = programs_of(probe.pid)
        assert len(programs) > 3 and all(is_loaded(each) for each in programs)
        probe.send_signal(number)
        status = probe.wait(PATIENCE)
    assert status == (-9 if number == signal.SIGKILL else 128 + number)
    until(lambda: not any(is_loaded(each) for each in programs))
    until(lambda: not Path(f"/proc/{command}").exists())
    left = {each.name for each in tmp_path.iterdir()}
    partial = {"result.partial", "events.partial"} if number == signal.SIGKILL else set()
    assert left <= partial


@pytest.mark.parametrize("what", ["faults", "locks"])
def test_a_signal_at_any_moment_ends_it(build: Path, what: str) -> None:
    for delay in np.linspace(0, 0.12, 7):
        probe = subprocess.Popen([build / "vmaprobe", what, "--", "sleep", "62"])
        time.sleep(delay)
        probe.terminate()
        try:
            assert probe.wait(PATIENCE) in (128 + signal.SIGTERM, -signal.SIGTERM, 3, 4)
        finally:
            probe.kill()


FULL = {
    "at the end": "4m",
    "in the middle": "160m",  # a first megabyte of events is written then
}


@pytest.mark.parametrize("which", ["--events", "--output"])
@pytest.mark.parametrize("when", FULL)
def test_a_full_disk(build: Path, tmp_path: Path, which: str, when: str) -> None:
    full, other = tmp_path / "full", tmp_path / "other"
    full.mkdir()
    other.mkdir()
    second = "--output" if which == "--events" else "--events"
    words = [build / "vmaprobe", "faults", which, full / "one", second, other / "two", "--"]
    command = [build / "vmload", "-t", "1", "--readonly", "--unit", "1m", FULL[when]]
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", full]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    try:
        done = subprocess.run([*words, *command], capture_output=True)
        left = [*full.iterdir(), *other.iterdir()]
    finally:
        subprocess.run(["umount", full], check=True)
    require(done)
    assert (done.returncode, left) == (1, [])
    one_sentence(done.stderr, b"cannot write", b"No space left")


@pytest.mark.parametrize("what", ["faults", "locks"])
def test_a_file_that_may_not_grow(build: Path, tmp_path: Path, what: str) -> None:
    words = ["prlimit", "--fsize=100", build / "vmaprobe", what, "--output", tmp_path / "result"]
    # Python ignores SIGXFSZ, and so does then what it starts.
    done = subprocess.run([*words, "--", "true"], capture_output=True, restore_signals=False)
    require(done)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    one_sentence(done.stderr, b"File too large")
