# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of one mapping goes, and which part of it made a change: worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made import MadeRun

from anonvma.compare import time_attribution
from anonvma.compare.time_attribution import SHARED
from anonvma.report import time_report
from anonvma.tables import mapping_time
from anonvma.tables.mapping_time import (
    BEHIND,
    EXECUTION,
    FAULT,
    LEFT,
    MAPPING,
    QUEUED,
    TRACER,
    WHOLE,
)

State = tuple[str, str, str]
MAPPINGS = 100

# µs of one mapping by state, of a side that waits for nothing.
PLAIN: dict[State, float] = {
    ("user", "none", "running"): 3.0,
    ("fault", "none", "running"): 5.0,
    ("mmap", "none", "running"): 0.5,
    ("mmap", "writing", "running"): 1.5,
}
WAITS: dict[State, float] = {
    ("fault", "waiting", "running"): 4.0,
    ("fault", "waiting", "sleeping"): 10.0,
    ("fault", "waiting", "woken"): 6.0,
    ("fault", "reading", "running"): 5.0,
    ("mmap", "waiting", "sleeping"): 2.0,
}


def run(
    times: dict[State, float],
    *,
    scale: float = 1.0,
    left: float = 0.0,
    faults: Sequence[dict[str, Any]] = (),
    **totals: Any,
) -> Any:
    """A run of two like repeats, its times given in µs of a mapping."""
    rows = [
        {"repeat": repeat, "context": state[0], "lock": state[1], "cpu": state[2],
         "ns": round(1000 * MAPPINGS * us * scale)}
        for repeat in (1, 2)
        for state, us in times.items()
    ]  # fmt: skip
    known = sum(row["ns"] for row in rows) // 2 + 20_000 + 10_000
    whole = {
        "in_window": True, "cpus": 2, "tasks": 4, "mmaps": MAPPINGS, "munmaps": 0,
        "faults_begun": 1000, "faults_ended": 1000, "faults_charged": 1000,
        "tracer_ns": 20_000, "before_ns": 10_000, "user_ns": 2000 * MAPPINGS,
        "clock_ns": round(known * (1 + left)),
        **totals,
    }  # fmt: skip
    # Untraced it is as fast as traced, but for the tracer.
    usecs = (whole["clock_ns"] or known) / 1000 - 20
    speed = 1e6 / usecs
    tables = {
        "time": pd.DataFrame(rows),
        "time_totals": pd.DataFrame([{"repeat": r, **whole} for r in (1, 2)]),
        "tracing": pd.DataFrame(
            [
                {"repeat": r, "traced": what, "kb_per_s": speed * share}
                for r in (1, 2)
                for what, share in (("untraced", 1.0), ("time", 0.8))
            ]
        ),
        "throughput": pd.DataFrame(
            {"repeat": [1], "kb_per_s": [speed], "bytes": [8], "usecs": [usecs]}
        ),
        "repeats": pd.DataFrame(
            {
                "repeat": [1], "seconds": [1.0], "user_s": [0.5], "system_s": [0.5],
                "voluntary_ctxt": [1], "involuntary_ctxt": [1], "minor_faults": [1],
                "major_faults": [0],
            }
        ),
    }  # fmt: skip
    if faults:
        usual = {"repeat": 1, "mode": "user", "result": "minor", "before": "bare"}
        tables["faults"] = pd.DataFrame([{**usual, **each} for each in faults])
    made = MadeRun(tables)
    made.manifest.unobserved = []
    return made


def three(times: dict[State, float], **more: Any) -> list[Any]:
    return [run(times, scale=scale, **more) for scale in (0.99, 1.0, 1.01)]


def explained(base: list[Any], head: list[Any]) -> time_attribution.TimeCause:
    found = time_attribution.explain({"base": base, "head": head})
    assert found is not None
    assert found.table["made"].sum() == pytest.approx(found.change)
    return found


# ---- the table ----


def test_parts_of_one_mapping_by_hand() -> None:
    table = mapping_time.table({"plain": [run(PLAIN, left=0.02)], "waits": [run(PLAIN | WAITS)]})
    rows = table.set_index("part")
    # By the kernel's own account 2 of the 3 µs in which no event was seen.
    assert rows.loc["user mode", "plain"] == pytest.approx(2.0)
    assert rows.loc["into the kernel and out of it", "plain"] == pytest.approx(1.0)
    assert rows.loc["page faults, at work"].tolist() == pytest.approx([5.0, 10.0])
    assert rows.loc["page faults, waiting for mmap_lock"].tolist() == pytest.approx([0, 20.0])
    assert rows.loc["mmap(), at work", "plain"] == pytest.approx(0.5)
    assert rows.loc["mmap(), holding mmap_lock", "plain"] == pytest.approx(1.5)
    assert rows.loc["mmap(), waiting for mmap_lock"].tolist() == pytest.approx([0, 2.0])
    assert rows.loc["before the work began", "plain"] == pytest.approx(0.1)
    # 2 % of the 10.3 µs that are known, 0.2 of which are the tracer's.
    assert rows.loc[LEFT].tolist() == pytest.approx([0.206, 0.0], abs=1e-3)
    assert rows.loc[WHOLE].tolist() == pytest.approx([10.306, 37.1], abs=1e-3)
    assert rows["plain"].iloc[:-1].sum() == pytest.approx(rows["plain"].iloc[-1])


def test_every_state_has_a_part() -> None:
    from anonvma.probe.time_file import LOCKS
    from anonvma.run.vocabulary import CONTEXTS, CPUS

    parts = {mapping_time._part(*state) for state in
             ((c, lock, cpu) for c in CONTEXTS for lock in LOCKS for cpu in CPUS)}  # fmt: skip
    assert parts <= set(mapping_time.PARTS)
    assert set(mapping_time.PARTS) - parts == {
        *(TRACER, LEFT, "before the work began", "into the kernel and out of it")
    }


def test_what_the_time_is_divided_by() -> None:
    plain, without = run(PLAIN), run(PLAIN, mmaps=0)
    command = run(PLAIN, in_window=False, clock_ns=None)
    assert mapping_time.unit_of({"a": [plain]}) == MAPPING
    assert mapping_time.unit_of({"a": [plain], "b": [without]}) == FAULT
    assert mapping_time.unit_of({"a": [plain], "b": [command]}) == EXECUTION
    table = mapping_time.table({"command": [command]}).set_index("part")["command"]
    assert table["user mode"] == pytest.approx(2.0 * MAPPINGS)
    assert pd.isna(table[LEFT])  # it has no clock of its own


def test_what_is_said_of_the_table() -> None:
    held = {**PLAIN, ("mmap", "writing", "preempted"): 1.5}
    said = " ".join(time_report.said({"x": [run(held, faults_charged=1003)]}))
    assert "100 mappings of 10 page faults each" in said
    assert "In each execution traced 3 faults were charged to the tasks and not seen" in said
    assert "held for writing for 3 µs of each mapping traced, 50 % of that by a task" in said
    assert "in the traced executions 100 % of tasks x elapsed is accounted for" in said
    assert "Throughput was 80 % of what it was untraced" in said


def test_runs_without_times_are_said_to_have_none() -> None:
    old: Any = MadeRun({})
    old.manifest.unobserved = []
    assert mapping_time.lacking({"old": [old]}) == "no run of old has a table 'time'"
    assert time_attribution.explain({"a": [run(PLAIN)], "old": [old]}) is None
    ax = mapping_time.plot({"old": [old]})
    assert [text.get_text() for text in ax.texts] == ["not recorded with these runs"]
    plt.close("all")
    # Not each boot is traced.
    both = mapping_time.table({"a": [run(PLAIN), old]})
    assert both.equals(mapping_time.table({"a": [run(PLAIN)]}))


def test_figure_has_a_bar_a_condition_as_long_as_its_time() -> None:
    ax = mapping_time.plot({"early": three(PLAIN | WAITS), "delayed": three(PLAIN)})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["early", "delayed"]
    ends = [max(bars[place].get_x() + bars[place].get_width() for bars in ax.containers)
            for place in (0, 1)]  # fmt: skip
    assert ends == pytest.approx([37.1, 10.1])
    words = [text.get_text().strip() for text in ax.texts]
    assert {"37.1 µs", "10.1 µs"} <= set(words)
    plt.close("all")


# ---- the cause ----


def test_effects_add_up_whatever_the_parts() -> None:
    random = np.random.default_rng(7)
    off = [("other call", "none", "sleeping"), ("user", "none", "preempted"),
           ("user", "none", "woken, behind others")]  # fmt: skip
    states = [*PLAIN, *WAITS, ("munmap", "writing", "running"), *off]
    for _ in range(4):
        sides = [
            [run(dict(zip(states, random.uniform(0, 9, len(states)), strict=True)), left=0.01)
             for _ in range(3)]
            for _ in range(2)
        ]  # fmt: skip
        explained(*sides)


def test_waits_of_faults_are_the_cause_and_laid_to_their_vmas() -> None:
    zero = {"origin": "private /dev/zero", "count": 990, "path": "mmap"}
    stack = {"origin": "stack", "before": "anon_vma", "count": 10, "path": "vma"}
    vma = {**zero, "path": "vma"}
    found = explained(three(PLAIN | WAITS, faults=[zero, stack]), three(PLAIN, faults=[vma, stack]))
    assert found.cause == "page faults, waiting for mmap_lock"
    first = found.table.iloc[0]
    assert first["made"] == pytest.approx(-20.0) and first["low"] < -20 < first["high"] < 0
    assert found.unexplained == pytest.approx(0, abs=1e-6)
    waits = found.vmas[found.vmas["part"] == found.cause].iloc[0]
    assert waits[["origin", "state"]].tolist() == ["private /dev/zero", "bare"]
    assert waits["made"] == pytest.approx(-20.0)
    words = " ".join(found.sentences)
    assert "100 % of it on private /dev/zero VMAs that were found bare" in words
    assert "So most of the change is this: page faults, waiting for mmap_lock." in words
    assert "Against that" not in words


def test_what_goes_the_other_way_is_said() -> None:
    """Tasks that do not sleep for the lock wait for each other's CPUs."""
    queued = {**PLAIN, ("user", "none", "preempted"): 10.0}
    found = explained(three(PLAIN | WAITS), three(queued))
    assert found.cause == "page faults, waiting for mmap_lock"
    assert found.table.set_index("part").loc[SHARED, "made"] > 0
    assert "Against that, +" in " ".join(found.sentences)


def test_a_slow_munmap_is_the_cause_with_the_waiting_for_cpus_that_it_makes() -> None:
    """Four tasks of two CPUs: what one runs longer, another waits."""
    fast = {**PLAIN, ("munmap", "writing", "running"): 2.0, ("user", "none", "preempted"): 12.2}
    slow = {**PLAIN, ("munmap", "writing", "running"): 12.0, ("user", "none", "preempted"): 22.2}
    found = explained(three(fast), three(slow))
    assert found.cause == "munmap(), at work"
    row = found.table.set_index("part").loc[found.cause]
    assert row["head"] - row["base"] == pytest.approx(10.0)
    assert row["made"] == pytest.approx(20.0, rel=0.01) and row["share"] == pytest.approx(1, 0.01)
    assert abs(found.table.set_index("part").loc[SHARED, "made"]) < 0.2


def test_a_busy_neighbour_is_the_cause() -> None:
    busy = {**PLAIN, ("user", "none", "preempted, behind others"): 10.0}
    found = explained(three(PLAIN), three(busy))
    assert found.cause == BEHIND
    assert "the CPUs were taken by tasks that are not of the workload" in " ".join(found.sentences)


def test_fewer_cpus_are_the_cause() -> None:
    crowded = {**PLAIN, ("user", "none", "preempted"): 10.0}
    found = explained(three(PLAIN, cpus=4), three(crowded, cpus=2))
    assert found.cause == SHARED
    assert found.table.iloc[0]["part"] == SHARED
    assert "there are 4 in base and 2 in head" in " ".join(found.sentences)
    # As many CPUs as before, and more tasks: that is said as it is.
    found = explained(three(PLAIN), three(crowded))
    assert "of which there are 2 in both" in " ".join(found.sentences)
    assert QUEUED not in set(found.table["part"])  # it is in what makes it


def test_nothing_is_explained_where_nothing_changed() -> None:
    found = explained(three(PLAIN), three(PLAIN))
    assert found.cause is None and found.unexplained is None
    assert len(found.sentences) == 1 and "no change is shown" in found.sentences[0]


def test_a_change_that_is_not_accounted_for_is_unexplained() -> None:
    found = explained(three(PLAIN), three(PLAIN, left=0.8))
    assert found.cause is None and found.unexplained == pytest.approx(1.0)
    assert found.table["part"].iloc[-1] == LEFT
    assert "too much for the parts to be relied upon" in " ".join(found.sentences)


def test_a_change_that_tracing_turns_round_is_said_not_to_be_explained() -> None:
    other = three(PLAIN | WAITS)
    for each in other:
        table = each.table("tracing")
        table.loc[table["traced"] == "untraced", "kb_per_s"] *= 9
    said = " ".join(explained(three(PLAIN), other).sentences)
    assert "tracing turned the change round" in said
