# SPDX-License-Identifier: GPL-2.0-only
"""Evidence: the numbers that an answer stands on, each with n, its interval and its file.

A reader of a mail asks of every number how often it was seen, how much it varied, and where it
comes from. The unit is the run's repeat; the interval is that of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from anonvma.base import statistics
from anonvma.run.runs import Run
from anonvma.tables.faults import traced_repeats

__all__ = ["estimate", "table"]

COLUMNS = ["figure", "n", "mean", "low", "high", "from"]


def table(run: Run) -> pd.DataFrame:
    """The numbers of a run, one row each.

    Returns
    -------
    DataFrame
        Columns: figure (with its unit), n (repeats), mean, low and high (95 % confidence interval
        of the mean by Student's t; null for fewer than three repeats), from (the run's table).
    """
    held = run.manifest.tables
    rows: list[dict[str, object]] = []
    for source, measures in _SOURCES.items():
        if source in held:
            for figure, values in measures(run):
                rows.append({"figure": figure, **estimate(values), "from": source})
    return pd.DataFrame(rows, columns=COLUMNS)


def estimate(values: pd.Series[float]) -> dict[str, float]:
    """Return n, mean, and low and high of the mean's 95 % interval."""
    each = statistics.estimate(values)
    return {"n": each.n, "mean": each.mean, "low": each.low, "high": each.high}


Measures = Iterator[tuple[str, "pd.Series[float]"]]


def _by_repeat(counts: pd.Series[Any], run: Run) -> pd.Series[float]:
    """Fill repeats without any with 0: nothing found is a finding."""
    return counts.reindex(range(1, run.manifest.repeats + 1), fill_value=0)


def _of_census(run: Run) -> Measures:
    vmas = run.table("census")
    zero = vmas[vmas["class"] == "zero-page"]
    yield "VMAs of the workload", _by_repeat(vmas.groupby("repeat").size(), run)
    yield "bare VMAs", _by_repeat(vmas[vmas["bare"]].groupby("repeat").size(), run)
    yield "of these, read and never written", _by_repeat(zero.groupby("repeat").size(), run)
    pages = zero["zero"].astype("float64").groupby(zero["repeat"]).sum()
    yield "zero pages in those", _by_repeat(pages, run)


def _of_faults(run: Run) -> Measures:
    faults = run.table("faults")
    faults = faults[(faults["result"] != "error") & (faults["mode"] != "gup")]
    count = faults["count"].astype("float64")
    bare = faults["before"] == "bare"
    left = bare & (faults["after"] == "bare")
    under = bare & (faults["mode"] == "user") & faults["path"].isin(["mmap", "retry"])
    chosen = {
        "page faults traced": bare | ~bare,
        "found a bare VMA": bare,
        "of these, left it bare": left,
        "found bare, under mmap_lock": under,
    }
    for figure, rows in chosen.items():
        summed = count.where(rows, 0.0).groupby(faults["repeat"]).sum()
        # A repeat that was traced and took none is a 0; one that was not traced is none.
        yield figure, summed.reindex(traced_repeats(run), fill_value=0.0)


def _of_locks(run: Run) -> Measures:
    locks = run.table("locks")
    got = locks[locks["success"]]
    repeats = traced_repeats(run, "locks") or sorted(locks["repeat"].unique())
    count = got["count"].astype("float64")
    for mode, said in (("read", "for reading"), ("write", "for writing")):
        summed = count.where(got["mode"] == mode, 0.0).groupby(got["repeat"]).sum()
        yield f"mmap_lock taken {said}", summed.reindex(repeats, fill_value=0.0)


def _of_vmstat(run: Run) -> Measures:
    vmstat = run.table("vmstat")
    for counter in ("vma_lock_abort", "vma_lock_success"):
        rows = vmstat[vmstat["counter"] == counter]
        if len(rows):
            difference = rows.set_index("repeat")["difference"].astype("float64")
            yield f"{counter}, machine", difference


def _of_throughput(run: Run) -> Measures:
    if len(rows := run.table("throughput")):
        yield "throughput, MiB/s", rows.groupby("repeat")["kb_per_s"].sum() / 1024


# Event, what it is called, what to divide perf's number by.
_EVENTS = (
    ("page-faults", "page faults", 1.0),
    ("context-switches", "context switches", 1.0),
    ("task-clock", "task clock, ms", 1.0),
    ("user_time", "user time, ms", 1e6),
    ("system_time", "system time, ms", 1e6),
)


def _of_perf_stat(run: Run) -> Measures:
    counted = run.table("perf_stat").dropna(subset="value")
    for event, figure, scale in _EVENTS:
        rows = counted[counted["event"] == event]
        if len(rows):
            yield figure, rows["value"].astype("float64") / scale


_SOURCES: dict[str, Callable[[Run], Measures]] = {
    "census": _of_census,
    "faults": _of_faults,
    "locks": _of_locks,
    "vmstat": _of_vmstat,
    "perf_stat": _of_perf_stat,
    "throughput": _of_throughput,
}
