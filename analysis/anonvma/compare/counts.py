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

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from anonvma.run.runs import Run, having

__all__ = ["expected", "side_by_side"]


def _of_repeats(*columns: str) -> Callable[[Run], pd.Series[float]]:
    def measure(run: Run) -> pd.Series[float]:
        return run.table("repeats").set_index("repeat")[list(columns)].sum(axis=1, min_count=1)

    return measure


def _of_vmstat(counter: str) -> Callable[[Run], pd.Series[float]]:
    def measure(run: Run) -> pd.Series[float]:
        table = run.table("vmstat")
        found: pd.Series[float] = table[table["counter"] == counter]["difference"]
        return found

    return measure


_faults = _of_repeats("minor_faults", "major_faults")
_aborted = _of_vmstat("vma_lock_abort")


def _throughput(run: Run) -> pd.Series[float]:
    return run.table("throughput").groupby("repeat")["kb_per_s"].sum() / 1024


MEASURES: dict[str, Callable[[Run], pd.Series[float]]] = {
    "page faults": _faults,
    "under the VMA's lock": _of_vmstat("vma_lock_success"),
    "aborted, to mmap_lock": _aborted,
    "retried": _of_vmstat("vma_lock_retry"),
    "missed": _of_vmstat("vma_lock_miss"),
    "context switches": _of_repeats("voluntary_ctxt", "involuntary_ctxt"),
    "throughput, MiB/s": _throughput,
}
"""What is set side by side. Faults and switches are the workload's own; the counts of the VMA
lock are the machine's, from /proc/vmstat, and so a little more than the workload's."""


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
    """
    columns: dict[str, list[float] | list[int]] = {}
    for name, runs in conditions.items():
        per_run = [[_mean(measure, run) for run in runs] for measure in MEASURES.values()]
        values = np.array(per_run, dtype=float)
        counted = ~np.isnan(values)
        # A measure that no run has is null, without NumPy's warning.
        shown = np.where(counted.any(axis=1, keepdims=True), values, 0.0)
        lacking = np.where(counted.any(axis=1), 1.0, np.nan)
        columns[name] = list(np.nanmean(shown, axis=1) * lacking)
        columns[f"{name} low"] = list(np.nanmin(shown, axis=1) * lacking)
        columns[f"{name} high"] = list(np.nanmax(shown, axis=1) * lacking)
        columns[f"{name} n"] = counted.sum(axis=1).tolist()
    table = pd.DataFrame(columns, index=pd.Index(MEASURES, name="measure"))
    first, *_ = conditions
    *_, last = conditions
    table["ratio"] = table[last] / table[first].where(table[first] != 0)
    return table


def _mean(measure: Callable[[Run], pd.Series[float]], run: Run) -> float:
    values = measure(run).dropna()
    return float(values.mean()) if len(values) else float("nan")


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
        One row a run: run, regime, mappings, pages, then faults and aborts, each expected,
        counted and the difference, which is what starting and holding the program costs.
    """
    return pd.DataFrame([_expectation(run) for run in having(runs, "census")])


def _expectation(run: Run) -> dict[str, object]:
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
    faults = _mean(_faults, run)
    counted = _mean(_aborted, run)
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
