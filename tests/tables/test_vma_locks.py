# SPDX-License-Identifier: GPL-2.0-only
"""Locks of VMAs, and forks: the tables, and what they say where the kernel does not show all."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from anonvma.base.numerals import percent
from anonvma.tables import forks, vma_locks

STATES = {"asked_by": "mprotect", "because_of": None, "origin": "heap", "state": "anon_vma"}
READER = {"asked_by": "page fault", "because_of": "fork", "origin": "heap", "state": "bare"}


def row(where: dict[str, Any], owner: int, success: bool, *counts: int) -> dict[str, Any]:
    count, contended, wait_ns = counts
    told = {"count": count, "contended": contended, "wait_ns": wait_ns, "longest_ns": wait_ns}
    at = {"owner": owner, "start": 4096 * owner, "end": 4096 * owner + 4096, "log2_ns": [count]}
    return {"repeat": 1, "lock": "VMA lock", "success": success, **where, **told, **at}


CONTENDED = pd.DataFrame(
    [
        row(STATES | {"origin": None, "state": None}, 0, True, 97, 0, 0),
        row(STATES, 1, True, 2, 2, 6_000_000),
        row(STATES, 2, True, 1, 1, 3_000_000),
        row(READER, 2, False, 4, 4, 0),
        row(STATES, 1, True, 1, 1, 0) | {"lock": "mmap_lock"},
    ]
)


def test_writers_and_readers_are_told_apart() -> None:
    (writer,) = vma_locks.by_caller(CONTENDED).to_dict("records")
    assert (writer["asked_by"], writer["acquired"], writer["waited"]) == ("mprotect", 100, 3)
    assert writer["wait_ms"] == pytest.approx(9) and writer["mean_ns"] == pytest.approx(3e6)
    waits = vma_locks.waits(CONTENDED).set_index("what")
    assert waits.loc["writer waited", ["vmas", "times"]].to_list() == [2, 3]
    failed = waits.loc["reader failed"]
    assert (failed["times"], failed["because_of"], failed["state"]) == (4, "fork", "bare")
    assert vma_locks.whole(CONTENDED).left_out(vma_locks.waits(CONTENDED)) == 0
    assert vma_locks.each(CONTENDED)["start"].to_list() == [4096, 8192, 8192]
    said = vma_locks.said(CONTENDED)
    assert "waited 3 times, 9.0 ms" in said and "failed 4 times" in said
    assert f"{percent(4 / 7)} of both on VMAs that were heap, bare." in said
    # A kernel that does not show locks that were free is not said to have had none.
    assert vma_locks.whole_by_caller(CONTENDED).what == "acquisitions"
    assert vma_locks.whole_by_caller(CONTENDED.iloc[1:]).what == "acquisitions that waited"
    # That none failed is not said where nothing shows it.
    writers = vma_locks.said(CONTENDED.drop(index=3))
    assert "waited 3 times, 9.0 ms" in writers and "failed 0 times" not in writers
    assert vma_locks.said(CONTENDED.iloc[:0]).startswith("No writer waited")


HEADER = {"vma_locks": True, "calls": "kprobe", "why_no_calls": None}
HEADER |= {"writers_seen": True, "readers_seen": True}


def test_what_is_not_known_is_said_with_its_remedy() -> None:
    assert vma_locks.known_said(HEADER) == "The kernel's functions were seen by kprobe."
    assert "6.4" in vma_locks.known_said(HEADER | {"vma_locks": False})
    assert "6.15" in vma_locks.known_said(HEADER | {"writers_seen": False})
    blind = {"calls": None, "why_no_calls": "fentry: no", "writers_seen": False}
    said = vma_locks.known_said(HEADER | blind | {"readers_seen": False})
    assert "fentry: no" in said and "CONFIG_FPROBE" in said


def fork(**known: int | None) -> dict[str, Any]:
    one = {"repeat": 1, "process": 1, "child": 2, "comm": "server", "held_ns": 2_000_000}
    unseen = dict.fromkeys(("vmas", "locked", "skipped", "shut_out", "shut_out_ns", "longest_ns"))
    return {**one, **unseen, "child_faults": 7, **known}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    numbers = [name for name in table if name != "comm"]
    return table.astype(dict.fromkeys(numbers, "Int64"))


def test_forks_that_are_wholly_seen() -> None:
    seen = {"vmas": 100, "locked": 100, "skipped": 25, "shut_out": 3}
    one = fork(**seen, shut_out_ns=5_000_000, longest_ns=4_000_000)
    (row,) = forks.by_program(frame(one, one)).to_dict("records")
    assert (row["forks"], row["skipped"], row["shut_out"], row["child_faults"]) == (2, 25, 6, 7)
    assert row["held_ms"] == pytest.approx(4) and row["longest_ms"] == pytest.approx(4)
    said = forks.said(frame(one, one))
    assert "2 forks held mmap_lock for 4.00 ms" in said and f"{percent(0.25)} were bare" in said
    assert forks.plot_by_program(frame(one)).collections


def test_of_forks_that_are_not_wholly_seen_nothing_is_a_number() -> None:
    (row,) = forks.by_program(frame(fork())).to_dict("records")
    assert row["held_ms"] == pytest.approx(2)
    assert all(pd.isna(row[name]) for name in ("vmas", "skipped", "shut_out", "longest_ms"))
    assert "bare" not in forks.said(frame(fork()))


def test_no_fork() -> None:
    assert forks.said(frame(fork()).iloc[:0]) == "The workload did not fork."
    assert forks.plot_by_program(frame(fork()).iloc[:0]) is not None
