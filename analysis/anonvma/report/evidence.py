# SPDX-License-Identifier: GPL-2.0-only
"""Evidence: the numbers that an answer stands on, each with n, its interval and its file.

A reader of a mail asks of every number how often it was seen, how much it varied, and where it
comes from. The unit is the run's repeat; the interval is that of the mean.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from anonvma.base import statistics
from anonvma.run.runs import Run, once
from anonvma.tables.faults.groups import traced_repeats

COLUMNS = ["figure", "n", "mean", "low", "high", "from"]


class Figure(enum.Enum):
    """A number of a run; the value is what a report calls it, with its unit."""

    VMAS = "VMAs of the workload"
    BARE = "bare VMAs"
    READ = "of these, read and never written"
    ZERO_PAGES = "zero pages in those"
    FAULTS_TRACED = "page faults traced"
    FOUND_BARE = "found a bare VMA"
    LEFT_BARE = "of these, left it bare"
    UNDER_MMAP_LOCK = "found bare, under mmap_lock"
    BY_GUP = "faults of get_user_pages()"
    LOCK_READ = "mmap_lock taken for reading"
    LOCK_WRITE = "mmap_lock taken for writing"
    VMA_LOCK_ABORT = "vma_lock_abort, machine"
    VMA_LOCK_SUCCESS = "vma_lock_success, machine"
    THROUGHPUT = "throughput, MiB/s"
    PAGE_FAULTS = "page faults"
    CONTEXT_SWITCHES = "context switches"
    TASK_CLOCK = "task clock, ms"
    USER_TIME = "user time, ms"
    SYSTEM_TIME = "system time, ms"


def table(run: Run) -> pd.DataFrame:
    """The numbers of a run, one row each.

    Returns
    -------
    DataFrame
        Columns: figure (with its unit), n (repeats), mean, low and high (95 % confidence interval
        of the mean by Student's t; null for fewer than three repeats), from (the run's table).
    """
    rows = [
        {"figure": figure.value, **_bounds(values), "from": source}
        for source, figure, values in _measured(run)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@once
def numbers(run: Run) -> dict[Figure, statistics.Estimate]:
    """Return the same numbers by what they are."""
    return {figure: statistics.estimate(values) for _, figure, values in _measured(run)}


def _measured(run: Run) -> Iterator[tuple[str, Figure, pd.Series[float]]]:
    for source, measures in _SOURCES.items():
        if source in run.manifest.tables:
            for figure, values in measures(run):
                yield source, figure, values


def _bounds(values: pd.Series[float]) -> dict[str, float]:
    each = statistics.estimate(values)
    return {"n": each.n, "mean": each.mean, "low": each.low, "high": each.high}


Measures = Iterator[tuple[Figure, "pd.Series[float]"]]


def _by_repeat(counts: pd.Series[Any], run: Run) -> pd.Series[float]:
    """Fill repeats without any with 0: nothing found is a finding."""
    return counts.reindex(range(1, run.manifest.repeats + 1), fill_value=0)


def _of_census(run: Run) -> Measures:
    vmas = run.table("census")
    zero = vmas[vmas["class"] == "zero-page"]
    yield Figure.VMAS, _by_repeat(vmas.groupby("repeat").size(), run)
    yield Figure.BARE, _by_repeat(vmas[vmas["bare"]].groupby("repeat").size(), run)
    yield Figure.READ, _by_repeat(zero.groupby("repeat").size(), run)
    pages = zero["zero"].astype("float64").groupby(zero["repeat"]).sum()
    yield Figure.ZERO_PAGES, _by_repeat(pages, run)


def _of_faults(run: Run) -> Measures:
    faults = run.table("faults")
    faults = faults[(faults["result"] != "error") & (faults["mode"] != "gup")]
    count = faults["count"].astype("float64")
    bare = faults["before"] == "bare"
    left = bare & (faults["after"] == "bare")
    under = bare & (faults["mode"] == "user") & faults["path"].isin(["mmap", "retry"])
    chosen = {
        Figure.FAULTS_TRACED: bare | ~bare,
        Figure.FOUND_BARE: bare,
        Figure.LEFT_BARE: left,
        Figure.UNDER_MMAP_LOCK: under,
    }
    for figure, rows in chosen.items():
        summed = count.where(rows, 0.0).groupby(faults["repeat"]).sum()
        # A repeat that was traced and took none is a 0; one that was not traced is none.
        yield figure, summed.reindex(traced_repeats(run), fill_value=0.0)


def _of_tracing(run: Run) -> Measures:
    """Faults of get_user_pages(), shown or only counted: the kernel charges them to the task."""
    if "faults" not in run.manifest.tables:
        return
    faults, tracing = run.table("faults"), run.table("tracing")
    unseen = tracing[tracing["traced"].isin(["faults", "events"])].groupby("repeat")["unseen_gup"]
    shown = faults[(faults["mode"] == "gup") & (faults["result"] != "error")]
    counts = shown.groupby("repeat")["count"].sum().astype("float64")
    counts = counts.add(unseen.sum().astype("float64"), fill_value=0.0)
    if counts.any():
        yield Figure.BY_GUP, counts.reindex(traced_repeats(run), fill_value=0.0)


def _of_locks(run: Run) -> Measures:
    locks = run.table("locks")
    got = locks[locks["success"]]
    repeats = traced_repeats(run, "locks") or sorted(locks["repeat"].unique())
    count = got["count"].astype("float64")
    for mode, figure in (("read", Figure.LOCK_READ), ("write", Figure.LOCK_WRITE)):
        summed = count.where(got["mode"] == mode, 0.0).groupby(got["repeat"]).sum()
        yield figure, summed.reindex(repeats, fill_value=0.0)


def _of_vmstat(run: Run) -> Measures:
    vmstat = run.table("vmstat")
    for figure in (Figure.VMA_LOCK_ABORT, Figure.VMA_LOCK_SUCCESS):
        rows = vmstat[vmstat["counter"] == figure.name.lower()]
        if len(rows):
            difference = rows.set_index("repeat")["difference"].astype("float64")
            yield figure, difference


def _of_throughput(run: Run) -> Measures:
    if len(rows := run.table("throughput")):
        yield Figure.THROUGHPUT, rows.groupby("repeat")["kb_per_s"].sum() / 1024


# Event, figure, what to divide perf's number by.
_EVENTS = (
    ("page-faults", Figure.PAGE_FAULTS, 1.0),
    ("context-switches", Figure.CONTEXT_SWITCHES, 1.0),
    ("task-clock", Figure.TASK_CLOCK, 1.0),
    ("user_time", Figure.USER_TIME, 1e6),
    ("system_time", Figure.SYSTEM_TIME, 1e6),
)


def _of_perf_stat(run: Run) -> Measures:
    counted = run.table("perf_stat").dropna(subset="value")
    # Divided by ticks (cputime_adjust()): where none found the one, the other has the whole of
    # getrusage()'s time, and more than the task clock, which begins at execve().
    by_ticks = counted["event"].isin(["user_time", "system_time"])
    times = counted[by_ticks].groupby("repeat")["event"].nunique()
    if not (times == 2).all():
        counted = counted[~by_ticks]
    for event, figure, scale in _EVENTS:
        rows = counted[counted["event"] == event]
        if len(rows):
            yield figure, rows["value"].astype("float64") / scale


_SOURCES: dict[str, Callable[[Run], Measures]] = {
    "census": _of_census,
    "faults": _of_faults,
    "tracing": _of_tracing,
    "locks": _of_locks,
    "vmstat": _of_vmstat,
    "perf_stat": _of_perf_stat,
    "throughput": _of_throughput,
}
