# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe time`` wrote, as rows: where the time of a workload's tasks went.

At any moment a task is in one context (user mode, a page fault, mmap(), ...), has one part in
mmap_lock, and runs, sleeps or waits for a CPU. Each row is the time spent in one such state, summed
over the tasks, so that the rows add up to the time that the tasks were there. Where the workload
marks when the work that it times begins and ends, as vmload does, this is of between the marks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from anonvma.base.errors import FaultsError
from anonvma.probe.counts import processes_of
from anonvma.run.vocabulary import QUEUED

LOCKS = ("none", "waiting", "reading", "writing")


@dataclasses.dataclass(frozen=True)
class Times:
    """Where the time of one execution's tasks went.

    Attributes
    ----------
    times : DataFrame
        Columns as in the table ``time``.
    totals : dict
        Values of the table ``time_totals``, but for clock_ns.
    header : dict
        As of `anonvma.probe.faults_file.Faults`.
    losses : dict
        Counts of `anonvma.run.vocabulary.TRACING_LOSSES`.
    processes : DataFrame
        As there.
    """

    times: pd.DataFrame
    totals: dict[str, Any]
    header: dict[str, Any]
    losses: dict[str, int | None]
    processes: pd.DataFrame


_RUNNING = ("running",)


def read(text: bytes, mine: Collection[int] | None = None) -> Times:
    """Decode what ``vmaprobe time`` wrote.

    Parameters
    ----------
    text : bytes
        All of it.
    mine : collection of int, optional
        The processes that are summed up; all of them by default.

    Raises
    ------
    FaultsError
        One sentence: not such times, or damaged.
    """
    try:
        found = json.loads(text.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise FaultsError(f"the times are damaged: they are not whole JSON ({error}).") from None
    if not isinstance(found, dict) or "cells" not in found or "sums" not in found:
        raise FaultsError("the times are not what vmaprobe writes.")
    try:
        processes = processes_of(found)
        chosen = set(processes["process"]) if mine is None else set(mine)
        return Times(
            times=_times(found, chosen),
            totals=_totals(found, chosen),
            header={name: found[name] for name in _HEADER if name in found},
            losses=_losses(found),
            processes=processes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FaultsError(f"the times are damaged: {error!r}.") from None


_HEADER = (
    *("begun_ns", "ended_ns", "minor_faults", "major_faults", "faults_before"),
    *("preemption", "preemptible", "misses", "user_s", "system_s"),
)


def _losses(found: Mapping[str, Any]) -> dict[str, int | None]:
    missed = found["misses"].values()
    return {
        "times_lost": int(found["lost"]),
        "tasks_lost": int(found["tasks_lost"]),
        "processes_lost": int(found["processes_lost"]),
        "misses": None if None in missed else sum(missed),
    }


def _times(found: Mapping[str, Any], mine: set[int]) -> pd.DataFrame:
    columns = ["context", "lock", "cpu", "ns"]
    rows = [
        [cell[name] for name in columns]
        for cell in found["cells"]
        if cell["process"] in mine and bool(cell["in_window"]) == bool(found["window"])
    ]
    frame = pd.DataFrame(rows, columns=columns)
    table = frame.groupby(columns[:3], sort=False)["ns"].sum().reset_index()
    return table.sort_values("ns", ascending=False, kind="stable", ignore_index=True)


def _totals(found: Mapping[str, Any], mine: set[int]) -> dict[str, Any]:
    window = bool(found["window"])
    cells = [cell for cell in found["cells"] if cell["process"] in mine]
    every = [sums for sums in found["sums"] if sums["process"] in mine]
    within = [sums for sums in every if bool(sums["in_window"]) == window]

    def of(sums: list[dict[str, Any]], name: str) -> int:
        return sum(int(each[name]) for each in sums)

    def began(context: str) -> int:
        return sum(int(each["entries"].get(context, 0)) for each in within)

    def spent(states: Collection[str]) -> int:
        return sum(int(cell["ns"]) for cell in cells if cell["cpu"] in states)

    counted = ("tasks", "faults_begun", "faults_ended", "voluntary_ctxt", "involuntary_ctxt")
    wall = found["window_ns"] if window else found["ended_ns"] - found["begun_ns"]
    return {
        "in_window": window,
        "cpus": len(found["cpus"]),
        **{name: of(within, name) for name in counted},
        "mmaps": began("mmap"),
        "munmaps": began("munmap"),
        "faults_charged": of(within, "faults"),
        "before_ns": of(within, "before_ns"),
        "tracer_ns": of(within, "tracer_ns"),
        "window_ns": int(wall),
        "ran_ns": spent(_RUNNING) + of(every, "tracer_ns"),
        "exec_ns": of(every, "exec_ns"),
        "queued_ns": spent(QUEUED),
        # A kernel without CONFIG_SCHED_INFO has no such account.
        "run_delay_ns": of(every, "queued_ns") or None,
        "user_ns": of(within, "user_ns"),
        "system_ns": of(within, "system_ns"),
        **{
            f"cpu_{who}_ns": sum(int(cpu[f"{who}_ns"]) for cpu in found["cpus"])
            for who in ("traced", "others", "idle")
        },
    }
