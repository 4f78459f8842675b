# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of one mapping goes, in words.

`anonvma.tables.mapping_time` and `anonvma.compare.time_attribution` have the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base.numerals import number, percent
from anonvma.base.section import Section
from anonvma.run.runs import Run
from anonvma.tables import mapping_time
from anonvma.tables.mapping_time import (
    EXECUTION,
    LEFT,
    MAPPING,
    TRACER,
    Unit,
    held,
    of_run,
    pages,
    slowed,
    sums,
    told,
    unit_of,
)

if TYPE_CHECKING:
    from anonvma.compare.time_attribution import TimeCause

HOW = (
    "Time of the workload's tasks, summed: that of untraced executions, divided as in executions "
    "traced for this alone. Waiting for mmap_lock is all from asking for it to the answer; waiting "
    "for a CPU, to be runnable and not to run, while not waiting for mmap_lock. User mode is by "
    "the kernel's own account, often by ticks, and the way into the kernel and out of it is what "
    "the tracer does not tell from it."
)

HOW_CAUSED = (
    "base and head are µs of the tasks' time; made is what the part adds to the change of the "
    "whole, with its 95 % interval: the difference, and where a part runs on CPUs that tasks wait "
    "for, the waiting that it causes. CPUs to share: tasks wait for CPUs more or less than that."
)


def said(conditions: Mapping[str, Sequence[Run]], unit: Unit | None = None) -> list[str]:
    """Say what the table is of: how large a mapping is, what was lost, what tracing cost."""
    unit = unit or unit_of(conditions)
    return [
        f"{name}: {sentence}"
        for name, runs in conditions.items()
        for sentence in (_of_said(runs, unit), _held_said(runs, unit), _slowed_said(runs))
        if sentence
    ]


def said_of_one(run: Run) -> list[str]:
    """Say what the table of a single run is of."""
    unit = unit_of({"": [run]})
    parts = [_of_said([run], unit), _held_said([run], unit), _slowed_said([run])]
    said = " ".join(f"{part[:1].upper()}{part[1:]}" for part in parts if part)
    return [f"For one {unit.name}. {HOW}", said]


def _of_said(runs: Sequence[Run], unit: Unit) -> str:
    totals = sums(runs)
    unended = int((totals["faults_begun"] - totals["faults_ended"]).sum())
    unseen = float((totals["faults_charged"] - totals["faults_ended"]).sum()) / len(totals)
    doubts = []
    if unended > 0:
        doubts.append(f"{unended:,} faults began and were not handled")
    if unseen > 0:
        doubts.append(
            f"in each execution traced {number(unseen)} faults were charged to the tasks and not "
            "seen, such as those of get_user_pages(), which count as the call that made them"
        )
    doubt = "; ".join(doubts)
    told = f" {doubt[:1].upper()}{doubt[1:]}." if doubts else ""
    if unit is MAPPING:
        count = number(float(totals["mmaps"].mean()))
        return f"{count} mappings of {number(pages(runs), 3)} page faults each.{told}"
    return told.strip()


def _held_said(runs: Sequence[Run], unit: Unit) -> str:
    whole, without = held(runs, unit)
    if not whole:
        return ""
    return (
        f"mmap_lock was held for writing for {number(whole, 3)} µs of each {unit.name} traced, "
        f"{percent(without / whole)} of that by a task that had no CPU."
    )


def _slowed_said(runs: Sequence[Run]) -> str:
    """Say how far the traced executions' time adds up, and how slow they were."""
    parts = pd.concat([of_run(run, EXECUTION)["us"] for run in told(runs)], axis=1).mean(axis=1)
    whole = float(parts.sum())
    tracer = f"{percent(float(parts[TRACER]) / whole)} of it the tracer's own, which is left out"
    if pd.isna(parts[LEFT]):
        return f"the time of the traced executions' tasks adds up by itself, {tracer}."
    known = percent(1 - float(parts[LEFT]) / whole)
    traced, untraced = slowed(runs)
    slow = (
        f" Throughput was {percent(traced / untraced)} of what it was untraced."
        if traced > 0 and untraced > 0
        else ""
    )
    return f"in the traced executions {known} of tasks x elapsed is accounted for, {tracer}.{slow}"


def sections(
    conditions: Mapping[str, Sequence[Run]], causes: Mapping[str, TimeCause | None]
) -> list[Section]:
    """Show where the time goes in each condition, and what each of them is explained by.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
    causes : mapping of str to TimeCause or None
        By condition, what `explain` found of it.
    """
    why = mapping_time.lacking(conditions)
    if why:
        remedy = "collect with tracing, on a kernel that allows it ('anonvma doctor')"
        return [Section(mapping_time.title(), [f"It is not told: {why}. Remedy: {remedy}."])]
    unit = mapping_time.unit_of(conditions)
    words = [
        f"In µs for one {unit.name}. {HOW}",
        *said(conditions, unit),
    ]
    parts = [Section(mapping_time.title(unit), words, mapping_time.table(conditions, unit))]
    base = next(iter(conditions))
    for head, found in causes.items():
        if found is not None and found.unexplained is not None:
            title = f"Which part of the time changed: {base} to {head}"
            parts.append(Section(title, [HOW_CAUSED], printed(found)))
    return parts


def printed(found: TimeCause) -> pd.DataFrame:
    """Return the table as it is printed: part, base, head, made, low, high, share (per cent)."""
    table = found.table
    large = (table["made"].abs() >= 0.005 * table["made"].abs().sum()) | (table["part"] == LEFT)
    return table[large].assign(share=100 * table["share"]).reset_index(drop=True)
