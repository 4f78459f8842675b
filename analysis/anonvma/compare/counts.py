# SPDX-License-Identifier: GPL-2.0-only
"""Counts: how the faults of a workload were taken, on kernels that differ in one thing.

The mail's two kernels differ in when they ask for an ``anon_vma``. With the *early* check
``lock_vma_under_rcu()`` (6.4 to 6.9) gives a fault on a bare VMA up at once and counts a
``vma_lock_abort``; the fault is then taken under mmap_lock. With the *delayed* one (6.10 on)
``vmf_anon_prepare()`` asks only where an ``anon_vma`` is really needed. So the number of
aborts can be worked out beforehand from pages and mappings, and `expected` does.

The unit is the run, here one boot of a kernel: what its repeats say is averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from anonvma.run.runs import Run, having
from anonvma.tables import metrics

_FAULTS = ("vm-scalability.time.minor_page_faults", "vm-scalability.time.major_page_faults")
_ABORTED = ("proc-vmstat.vma_lock_abort",)
_THROUGHPUT = "throughput, MiB/s"


MEASURES: dict[str, tuple[str, ...]] = {
    "page faults": _FAULTS,
    "under the VMA's lock": ("proc-vmstat.vma_lock_success",),
    "aborted, to mmap_lock": _ABORTED,
    "retried": ("proc-vmstat.vma_lock_retry",),
    "missed": ("proc-vmstat.vma_lock_miss",),
    "context switches": (
        "vm-scalability.time.voluntary_context_switches",
        "vm-scalability.time.involuntary_context_switches",
    ),
    _THROUGHPUT: ("vm-scalability.throughput",),
}
"""What is set side by side, and the metrics that it is the sum of. Faults and switches are the
workload's own; the counts of the VMA lock are the machine's, from /proc/vmstat, and so a little
more than the workload's."""


def _measured(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the measures of some runs: one row per run and one column per measure."""
    table = metrics.matrix(runs)
    found = pd.DataFrame({name: _sum(table, of) for name, of in MEASURES.items()})
    found[_THROUGHPUT] /= 1024  # of KiB/s
    return found


def _sum(table: pd.DataFrame, names: Sequence[str]) -> pd.Series[float]:
    return table.reindex(columns=list(names)).sum(axis=1, min_count=1)


def side_by_side(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Set conditions side by side.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The runs of each condition, one a boot; the first condition is what others are
        compared with.

    Returns
    -------
    DataFrame
        Index: the measures. For each condition NAME the columns ``NAME`` (mean of the runs),
        ``NAME low`` and ``NAME high`` (smallest and largest run) and ``NAME n``; null where
        the kernel does not count it. ``ratio`` is the last mean over the first.

    Examples
    --------
    >>> from anonvma.compare import conditions
    >>> sides = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    >>> side_by_side(sides).loc["page faults", ["early", "delayed"]].round().tolist()
    [65573.0, 65573.0]
    """
    every = _measured([run for runs in conditions.values() for run in runs])
    labels = [name for name, runs in conditions.items() for _ in runs]
    columns: dict[str, pd.Series[Any]] = {}
    for name in conditions:
        values = every[[label == name for label in labels]]
        columns[name] = values.mean()
        columns[f"{name} low"], columns[f"{name} high"] = values.min(), values.max()
        columns[f"{name} n"] = values.count()
    table = pd.DataFrame(columns).rename_axis("measure")
    first, *_ = conditions
    *_, last = conditions
    table["ratio"] = table[last] / table[first].where(table[first] != 0)
    return table


def expected(runs: Sequence[Run]) -> pd.DataFrame:
    """Work out what must be counted, and set it beside what was.

    A fault on each page; under the early check, a reader's every fault aborts and a writer's
    first of each mapping; under the delayed one none does.

    Parameters
    ----------
    runs : sequence of Run
        Of vmload's sequential cases, on kernels whose regime was observed; those without a census
        are left out.

    Returns
    -------
    DataFrame
        One row per run: run, regime, mappings, pages, then faults and aborts, each expected,
        counted and the difference, which is what starting and holding the program costs.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = expected([runs.find("early-small-allocs-mt-1")])
    >>> found.loc[0, ["pages", "faults expected", "aborts expected"]].tolist()
    [65536, 65536, 65536]
    """
    looked = having(runs, "census")
    table = metrics.matrix(looked)
    counted = zip(looked, _sum(table, _FAULTS), _sum(table, _ABORTED), strict=True)
    return pd.DataFrame([_expectation(*each) for each in counted])


def _expectation(run: Run, faults: float, counted: float) -> dict[str, object]:
    census, facts = run.table("census"), run.manifest.target
    last = census[census["repeat"] == census["repeat"].max()]
    mapped = last[last["origin"] == "private /dev/zero"]
    mappings: int | None = len(mapped)
    pages = int(run.manifest.parameters["bytes"]) // int(facts["page_size"])
    regime = run.manifest.features["regime"]["name"]
    reads = bool((mapped["class"] == "zero-page").all())
    aborts = {"early": pages if reads else mappings, "delayed": 0}.get(regime)
    if not mappings:  # a kernel that keeps no file for them, so they cannot be told from others
        mappings, aborts = None, None
    return {
        "run": run.id,
        "regime": regime,
        "mappings": mappings,
        "pages": pages,
        "faults expected": pages,
        "faults counted": faults,
        "faults more": faults - pages,
        "aborts expected": aborts,
        "aborts counted": counted,
        "aborts more": None if aborts is None else counted - aborts,
    }
