# SPDX-License-Identifier: GPL-2.0-only
"""What is told of VMA locks and of forks, beside what vma_locks.c knows of them itself.

The same on this machine and in guests, whatever of it the kernel there shows.
"""

from __future__ import annotations

from typing import Any

import pytest

OVERLAPS = ("overlap", "10", "32")  # MiB: enough for a guest, which is slow
FORKS = 10
BOTH = tuple(("forks", str(FORKS), bare, "20") for bare in ("10", "60"))


def check_overlaps(found: dict[str, Any], said: bytes) -> None:
    """Calls of mprotect(2) that gave up the processor waited for the VMA, none for the other.

    Or for mmap_lock, where somebody reads the process in /proc meanwhile. One that was about to
    sleep as the lock was given back is contended and sleeps not at all.
    """
    start, neighbour, calls, waited, beside = (int(word) for word in said.split())
    things = {each["id"]: each for each in found["things"]}
    contended = [each for each in found["contended"] if each["contended"]]
    waits = [
        (things[each["thing"]]["start"], each["asked_by"], each["count"])
        for each in contended
        if each["lock"] == "VMA lock" and each["success"]
    ]
    for_mm = sum(
        each["count"]
        for each in contended
        if each["lock"] == "mmap_lock" and each["asked_by"] == "mprotect"
    )
    assert waited == int(OVERLAPS[1]) and beside <= for_mm, (said, contended)  # the forcing worked
    assert waited + beside - for_mm <= sum(count for _, _, count in waits) <= calls, (
        said,
        [each for each in contended if each["asked_by"] == "mprotect"],
        {key: found[key] for key in ("lost", "waits_lost", "unended")},
    )
    assert {(at, asked_by) for at, asked_by, _ in waits} == {(start, "mprotect")}
    assert neighbour not in {at for at, _, _ in waits}
    assert found["unnamed_vmas"] == 0
    if found["writers_seen"]:  # each call locks one VMA, but the first, which finds it so
        acquired = [e for e in found["contended"] if e["lock"] == "VMA lock" and e["success"]]
        mine = sum(each["count"] for each in acquired if each["asked_by"] == "mprotect")
        assert mine >= 2 * waited


def check_forks(small: dict[str, Any], large: dict[str, Any], said: list[bytes]) -> None:
    """The forks of two processes, of which the second has 50 bare VMAs more."""
    for found, words in zip((small, large), said, strict=True):
        vmas, faults = (int(word) for word in words.split())
        forks = [each for each in found["forks"] if each["process"] == _forking(found)]
        assert len(forks) == FORKS and found["forks_lost"] == 0
        assert sum(each["child_faults"] for each in forks) == faults
        assert all(each["held_ns"] > 0 and each["child"] for each in forks)
        if found["calls"]:
            # Each VMA is copied and locked, but those of the kernel that no child has.
            assert {each["vmas"] for each in forks} == {vmas}
            assert {each["locked"] for each in forks} == {vmas if found["vma_locks"] else None}
    if small["calls"]:
        few, many = (found["forks"][-1]["skipped"] for found in (small, large))
        assert many - few == 50
    few, many = (sum(each["child_faults"] for each in found["forks"]) for found in (small, large))
    # Each bare page is faulted again; what else a child writes lies on a page more or less.
    assert (many - few) / FORKS == pytest.approx(50, abs=2)


def _forking(found: dict[str, Any]) -> int:
    """The process that forks: the last that is executed."""
    return max(each["id"] for each in found["processes"] if each["how"] == "execed")
