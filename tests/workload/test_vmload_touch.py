# SPDX-License-Identifier: GPL-2.0-only
"""vmload --touch: the same mappings, calls and faults under either lock, by vmaprobe locks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tracing import require

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 2 * 1280  # two tasks of 5 MiB


def vmload(build: Path, *words: str) -> list[str]:
    return [str(build / "vmload"), "--case", *words, str(PAGES // 2 * PAGE)]


def traced(build: Path, what: str, command: list[str]) -> dict[str, Any]:
    """What the probe saw of a command."""
    done = subprocess.run(
        [build / "vmaprobe", what, "--", *command], capture_output=True, stdin=subprocess.DEVNULL
    )
    require(done)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def by_faults(found: dict[str, Any]) -> int:
    """How often a page fault of the workload acquired mmap_lock, from where user memory is read."""
    kinds = ("mode", "success", "foreign")
    return sum(
        group["count"]
        for group in found["groups"]
        if tuple(group[kind] for kind in kinds) == ("read", True, False)
        and "rt_sigprocmask" in "".join(found["stacks"].get(str(group["kernel_stack"]), []))
    )


def other_locks(found: dict[str, Any], mode: str) -> int:
    """How often anything but a page fault of its own acquired mmap_lock."""
    return sum(
        group["count"]
        for group in found["groups"]
        if group["mode"] == mode and group["success"] and group["process"]
        if group["asked_by"] != "page fault"
    )


@pytest.mark.parametrize("case", ["small-allocs-mt", "anon-r-seq-mt", "mmap-pread-seq-mt"])
def test_the_ways_differ_in_the_lock_alone(build: Path, case: str) -> None:
    user, kernel = (
        traced(build, "locks", vmload(build, case, "-t", "2", "--touch", who))
        for who in ("user", "kernel")
    )
    # In kernel mode each page's fault acquires mmap_lock, in user mode none of them does: from
    # 6.10 on for anonymous memory, from 6.6 on for a file's.
    file = case.startswith("mmap-pread")  # faults around what is asked for: fewer than pages
    assert by_faults(user) == 0
    assert 0 < by_faults(kernel) <= PAGES if file else by_faults(kernel) == PAGES
    for mode in ("read", "write"):
        assert other_locks(kernel, mode) == other_locks(user, mode)
    if not file:  # what a fault finds to map around it depends on which folios are locked just then
        assert abs(kernel["minor_faults"] - user["minor_faults"]) <= 8


def test_writing_in_the_kernel_takes_mmap_lock_too(build: Path) -> None:
    user, kernel = (
        traced(build, "locks", vmload(build, "anon-w-seq-mt", "-t", "2", "--touch", who))
        for who in ("user", "kernel")
    )
    assert by_faults(user) == 0
    assert by_faults(kernel) == PAGES


def test_nothing_is_changed_by_the_touch(build: Path, tmp_path: Path) -> None:
    """Pages of a file that are no empty signal set block no signal and stay as they are."""
    file = tmp_path / "pages"
    file.write_bytes(b"\xff" * 16 * PAGE)
    words = ["-f", str(file), "--readonly", "--touch", "kernel", "--hold", str(16 * PAGE)]
    with subprocess.Popen(
        [build / "vmload", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        hold = next(line for line in iter(process.stdout.readline, "") if line.startswith("hold:"))
        status = Path(f"/proc/{hold.split()[1]}/status").read_text()
        process.communicate("\n")
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    assert int(blocked.split()[1], 16) == 0
    assert file.read_bytes() == b"\xff" * 16 * PAGE


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--touch", "me"], "--touch must be user or kernel, not 'me'."),
        (["--cpus", "3-1"], "--cpus must be a list such as 0-3,8"),
        (["--cpus", "0,"], "--cpus must be a list such as 0-3,8"),
        (["--cpus", "0", "--bind", "1"], "--cpus and --bind both say where tasks run"),
    ],
)
def test_what_cannot_be_is_refused(build: Path, words: list[str], sentence: str) -> None:
    done = subprocess.run([build / "vmload", *words, "1m"], capture_output=True, text=True)
    assert done.returncode == 2
    assert sentence in done.stderr and done.stderr.count("\n") == 1


def test_tasks_stay_on_the_cpus_named(build: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with subprocess.Popen(
        [build / "vmload", "--cpus", str(cpu), "-t", "2", "--hold", "1m"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        hold = next(line for line in iter(process.stdout.readline, "") if line.startswith("hold:"))
        allowed = os.sched_getaffinity(int(hold.split()[1]))
        process.communicate("\n")
    assert allowed == {cpu}
