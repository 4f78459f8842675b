# SPDX-License-Identifier: GPL-2.0-only
"""What is told of VMA locks and of forks, beside what vma_locks.c knows of them itself.

The same on this machine and in guests, whatever of it the kernel there shows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import pytest

from anonvma.probe.counts import STATE_OF_BITS
from anonvma.probe.vma_kinds import origin_of_kind
from anonvma.run.vocabulary import STATES


class Overlaps(NamedTuple):
    """A kind of overlap in vma_locks.c, and what its VMA is, once or twice."""

    kind: str
    origin: str
    states: tuple[str, ...]

    def words(self, mebibytes: int = 32) -> tuple[str, ...]:
        """The program's; so much is enough for a guest, which is slow."""
        return "overlap", self.kind, str(WAITS), str(mebibytes)


WAITS = 5
PREPARED = Overlaps("prepared", "private anonymous", ("anon_vma",))
FILE = Overlaps("file", "memfd", ("vm_ops",))
BARE = Overlaps("bare", "private anonymous", ("bare", "anon_vma"))
FORKS = 10
BOTH = tuple(("forks", str(FORKS), bare, "20") for bare in ("10", "60"))


def check_overlaps(found: dict[str, Any], said: bytes, overlaps: Overlaps) -> None:
    """Calls of mprotect(2) that gave up the processor waited for the VMA, none for the other.

    Or for mmap_lock, where somebody reads the process in /proc meanwhile. One that was about to
    sleep as the lock was given back is contended and sleeps not at all. Each wait is of the VMA as
    it then was.
    """
    things = {each["id"]: each for each in found["things"]}
    mine = [each for each in found["contended"] if each["asked_by"] == "mprotect"]
    of_vmas = [each for each in found["contended"] if each["lock"] == "VMA lock"]
    for_mm = sum(each["contended"] for each in mine if each["lock"] == "mmap_lock")
    writers = [each for each in of_vmas if each["contended"] and each["success"]]
    assert {each["asked_by"] for each in writers} == {"mprotect"}
    lines = [[int(word) for word in line.split()] for line in said.splitlines()]
    waits: Counter[str] = Counter()
    for each in writers:
        vma = things[each["thing"]]
        assert vma["start"] == lines[0][0], "a wait for the neighbour, or another VMA"
        assert origin_of_kind(vma) == overlaps.origin
        waits[STATES[STATE_OF_BITS[vma["found"]]]] += each["contended"]
    assert tuple(sorted(waits)) == tuple(sorted(overlaps.states))
    for state, (_, _, calls, waited, beside) in zip(overlaps.states, lines, strict=True):
        assert waited == WAITS and beside <= for_mm, (said, mine)  # the forcing worked
        assert waited - for_mm <= waits[state] <= calls, (said, mine, found["waits_lost"])
    assert found["unnamed_vmas"] == 0
    if found["writers_seen"]:  # each call locks one VMA, but the first, which finds it so
        acquired = sum(each["count"] for each in of_vmas if each["asked_by"] == "mprotect")
        assert acquired >= 2 * WAITS


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
