# SPDX-License-Identifier: GPL-2.0-only
"""What the experiment of the lock path found, in words; `anonvma.compare.cost` has the numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from anonvma.base.numerals import interval, number
from anonvma.base.section import Key, Section
from anonvma.compare import cost_bound
from anonvma.compare.cost import Cost, Verdict, of_run, row_of, sides, switches, waits
from anonvma.run.runs import Run

_ANSWER = "What mmap_lock costs here"


def _interval(row: pd.Series[Any]) -> str:
    n = f"n = {int(row['n'])}"
    return n if pd.isna(row["low"]) else f"{interval(row['low'], row['high'], apart=1)}, {n}"


def sentences(cost: Cost) -> list[str]:
    """Say what a run of the experiment found, and what it is as an estimate of the early check."""
    row = row_of(cost.table, cost.judged)
    with_threads = f"with {cost.judged} thread{'s' if cost.judged > 1 else ''}"
    if not cost.compares:
        return [
            f"Nothing was compared with nothing {with_threads}: {number(row['ratio'])} times the "
            f"throughput ({_interval(row)}); {cost.verdict.value if _claims(cost) else 'no claim'}."
        ]
    return [_answer(cost, row, with_threads), *_locks(cost), *_bound(cost)]


def _claims(cost: Cost) -> bool:
    return cost.verdict in (Verdict.SLOWER, Verdict.FASTER)


def _answer(cost: Cost, row: pd.Series[Any], with_threads: str) -> str:
    switches = (
        f"{cost.voluntary['user']:,.0f} voluntary context switches an execution become "
        f"{cost.voluntary['kernel']:,.0f}"
    )
    if cost.verdict is Verdict.TOO_FEW:
        return (
            f"What mmap_lock costs here {with_threads} is not known: {int(row['n'])} blocks are "
            "too few. Give a larger budget."
        )
    times = f"{number(row['ratio'])} times the throughput ({_interval(row)})"
    if cost.verdict is Verdict.NOT_SHOWN:
        return (
            f"A cost of sending these page faults to mmap_lock is not shown here {with_threads}, "
            f"nor that there is none: under the VMA's lock {times}; {switches}. A larger budget "
            "(--cost, --budget) narrows that."
        )
    if cost.verdict is Verdict.FASTER:
        return (
            f"Under mmap_lock these page faults are the faster here {with_threads}: under the "
            f"VMA's lock {times}; {switches}."
        )
    return (
        f"Under the VMA's lock these page faults have {times} of the same faults under mmap_lock, "
        f"here and {with_threads}; {switches}."
    )


def _locks(cost: Cost) -> list[str]:
    if cost.acquired is None:
        return ["Which lock the faults took was not traced: that needs privilege."]
    told = (
        f"Traced, page faults acquired mmap_lock {cost.acquired['user']:,} times where tasks "
        f"touched their {cost.pages:,} pages themselves, and {cost.acquired['kernel']:,} times "
        "where the kernel did."
    )
    if not cost.paths_differ:
        told += (
            " So the two ways do not differ in the lock alone: this kernel sends faults of user "
            "mode on bare VMAs to mmap_lock too, and the ratio is not the cost of that lock."
        )
    return [told]


def _bound(cost: Cost) -> list[str]:
    told = (
        "Of the early check this is a lower bound: with it a fault in user mode also takes the "
        "VMA's lock and gives it up before it falls back to mmap_lock."
    )
    if 1 in cost.table.index and cost.judged != 1:
        alone = row_of(cost.table, 1)
        told += (
            f" With one thread, where nobody contends, the ratio is {number(alone['ratio'])} "
            f"({_interval(alone)}): what a fault in kernel mode and an uncontended lock cost by "
            "themselves."
        )
    measured = cost_bound.recorded()
    return [told, *(cost_bound.sentences(measured) if measured else [])]


def title(run: Run) -> str:
    """Return what was measured, and where."""
    target, parameters = run.manifest.target, run.manifest.parameters
    nodes = target.get("numa_nodes")
    where = f"{target['cpus']} CPUs{f', {nodes} NUMA nodes' if nodes and nodes > 1 else ''}"
    kept = f", tasks on CPUs {parameters['cpus']}" if parameters.get("cpus") else ""
    return f"{run.manifest.workload.name}, Linux {target['kernel_release']}, {where}{kept}"


def brief(run: Run) -> list[Section]:
    """Return what a report on another run says of the cost: the answer, with the ratios."""
    answer, rates, *_ = sections(run)
    said = [f"Measured apart, {title(run)}.", *answer.paragraphs, *rates.paragraphs]
    held = run.manifest.tables
    names = [name for name in ("lock_cost", "lock_waits") if name in held]
    sources = tuple(f"{run.id}/{held[name].file}" for name in names)
    return [Section(_ANSWER, said, rates.table, sources=sources, key=Key.LOCK_COST)]


def sections(run: Run) -> list[Section]:
    """Return the report of a run of the experiment."""
    found = of_run(run)
    lacking = [
        f"Not observed: {each.what} ({each.reason}). Remedy: {each.remedy}."
        for each in run.manifest.unobserved
    ]
    first, other = sides(run.table("lock_cost"))
    rates = [
        f"MiB/s, {first} and {other}, and their ratio; the intervals hold together at 95 %. "
        "Executions were made in turns (ABBA)."
    ]
    means = switches(run).reset_index().drop(columns="n")
    parts = [
        Section(_ANSWER, [*sentences(found), *lacking], key=Key.LOCK_COST),
        Section("Throughput by number of threads", rates, found.table.reset_index()),
        Section("Context switches of one execution", ["Means."], means),
    ]
    if "lock_waits" in run.manifest.tables:
        lost = int(run.table("lock_waits").groupby(["threads", "way"])["lost"].first().sum())
        said = [
            f"One traced execution of each; waits in ms. Lost by the tracer: {lost or 'nothing'}."
        ]
        table = waits(run)
        for threads in table["threads"].unique():
            part = table[table["threads"] == threads].drop(columns="threads")
            heading = f"Who acquired mmap_lock, {threads} thread{'s' if threads > 1 else ''}"
            parts.append(Section(heading, said, part))
            said = []
    return parts
