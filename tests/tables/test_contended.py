# SPDX-License-Identifier: GPL-2.0-only
"""Contended locks, by name: from what the probe wrote to the tables and what they say."""

from __future__ import annotations

import types
from typing import Any, cast

import pandas as pd
import pytest

from anonvma.compare.attribution import waits
from anonvma.probe.contended_file import read_contended
from anonvma.run.runs import Run
from anonvma.tables import contended

PROCESSES = pd.DataFrame(
    [[1, 10, 0, "execed", "load"]], columns=["process", "tgid", "parent", "how", "comm"]
)
NOTHING = {"symbol": None, "mm": 0, "foreign": False, "found": 0, "start": 0, "end": 0, "bits": 0}
NOTHING |= {"prot": 0, "flags": 0, "dev": 0, "inode": 0, "vm_ops": None, "file": ""}
STACKS = {
    "1": ["rwsem_down_write_slowpath", "down_write", "__mmap_region", "do_mmap"],
    "2": ["__pv_queued_spin_lock_slowpath", "_raw_spin_lock", "__schedule", "schedule"],
}


def wait(lock: str, thing: int, kind: str, stack: int, count: int, ns: int) -> dict[str, Any]:
    counts = {"count": count, "contended": count, "wait_ns": ns, "longest_ns": ns}
    where: dict[str, Any] = {
        "asked_by": "mmap",
        "thing": thing,
        "success": True,
        "kernel_stack": stack,
    }
    where["because_of"] = None
    return {"process": 1, "lock": lock, "type": kind, **where, **counts, "log2_ns": [0, count]}


def read() -> pd.DataFrame:
    zero = {"dev": 0 << 20 | 5, "inode": 4, "file": "zero", "bits": 1 << 10 | 4}
    found = {
        "things": [
            NOTHING | {"id": 1, "lock": "i_mmap_rwsem"} | zero,
            NOTHING | {"id": 2, "lock": "other", "symbol": "tasklist_lock"},
            NOTHING | {"id": 3, "lock": "mmap_lock", "foreign": True},
            NOTHING | {"id": 4, "lock": "VMA lock", "found": 3, "start": 4096, "end": 8192},
        ],
        "contended": [
            wait("i_mmap_rwsem", 1, "rwsem:W", 1, 3, 9_000_000),
            wait("other", 2, "rwlock:R", 2, 1, 10),
            wait("other", 0, "spinlock", 2, 2, 20),
            wait("mmap_lock", 3, "rwsem:R", 1, 1, 5),
            wait("VMA lock", 4, "rwsem:W", 1, 1, 4),
        ],
        "stacks": STACKS,
    }
    return read_contended(found, PROCESSES).assign(repeat=1)


def test_each_lock_is_named_with_what_it_belongs_to() -> None:
    named = contended.named(read()).set_index("lock")["of"].to_dict()
    assert named == {
        "i_mmap_rwsem": "zero",
        "tasklist_lock": "in __schedule",
        "other": "in __schedule",
        "mmap_lock": "of another process",
        "VMA lock": "private anonymous, bare",
    }
    file = read().set_index("lock").loc["i_mmap_rwsem"]
    assert (file["device"], file["inode"], file["file"]) == ("0:5", 4, "zero")


def test_the_rows_add_up_and_the_most_is_said() -> None:
    table = contended.by_name(read())
    assert table["waits"].sum() == 8 and table["lock"].iloc[0] == "i_mmap_rwsem"
    assert contended.whole(read()).left_out(table) == 0
    assert "i_mmap_rwsem (zero)" in contended.said(read())
    assert contended.plot_by_name(read()).patches


def test_no_lock_was_found_taken() -> None:
    found = {"things": [], "contended": [], "stacks": {}}
    none = read_contended(found, PROCESSES).assign(repeat=1)
    assert contended.said(none) == "No lock was contended."
    assert contended.plot_by_name(none) is not None


@pytest.mark.parametrize("known", [True, False])
def test_what_the_kernel_does_not_show_is_said(known: bool) -> None:
    assert ("5.19" in contended.known_said({"contention_known": known})) is not known


class Traced:
    """As much of a run as the waits of two conditions are taken from."""

    def __init__(self, ms: float) -> None:
        zero = wait("i_mmap_rwsem", 1, "rwsem:W", 1, 3, int(ms * 1e6))
        rest = wait("other", 0, "spinlock", 2, 2, 2_000_000)
        thing = NOTHING | {"id": 1, "lock": "i_mmap_rwsem", "inode": 4, "file": "zero"}
        found = {"things": [thing], "contended": [zero, rest], "stacks": STACKS}
        self._table = read_contended(found, PROCESSES).assign(repeat=1)
        self.manifest = types.SimpleNamespace(tables={waits.TABLE: None})

    def table(self, name: str) -> pd.DataFrame:
        assert name == waits.TABLE
        return self._table


def runs(*ms: float) -> list[Run]:
    return [cast(Run, Traced(each)) for each in ms]


def test_a_change_in_waiting_is_laid_to_the_lock_that_it_comes_from() -> None:
    table, whole = waits.taken_apart(runs(300, 310, 305), runs(3, 4, 5))
    assert table["lock"].to_list() == ["i_mmap_rwsem"] and table["of"][0] == "zero"
    assert whole is not None and whole.change == pytest.approx(4 - 305)
    assert table["share"][0] == pytest.approx(100)
    said = waits.said("before", "after", table, whole)
    assert "301 ms less for contended locks in after than in before" in said
    assert "i_mmap_rwsem (zero), waited for 305.0 ms and 4.0 ms" in said
    shown = waits.printed(table)
    assert list(shown) == waits.COLUMNS and shown["wait ms"][0] == "305.0 > 4.0"
    assert waits.said("a", "b", *waits.taken_apart(runs(300, 1, 8), runs(299, 2, 7))) == ""


def test_a_lock_that_only_one_side_waited_for() -> None:
    none = {"things": [], "contended": [], "stacks": {}}
    idle = Traced(1)
    idle._table = read_contended(none, PROCESSES).assign(repeat=1)
    table, whole = waits.taken_apart([cast(Run, idle)], runs(5))
    assert whole is not None and whole.change == pytest.approx(7)
    assert table["change"].sum() == pytest.approx(7)


def test_runs_without_the_table_have_no_such_rows() -> None:
    old = Traced(1)
    old.manifest.tables = {}
    table, whole = waits.taken_apart([cast(Run, old)], runs(1))
    assert table.empty and whole is None and waits.said("a", "b", table, whole) == ""
