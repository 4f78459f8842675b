# SPDX-License-Identifier: GPL-2.0-only
"""Cause: which VMAs, and which calls, a change in the acquisitions of mmap_lock comes from.

Two conditions took mmap_lock a different number of times. Each acquisition has a reason, and the
reasons are counted twice, independently: by who asked for the lock (table ``locks``), and by the
lock path of each fault (table ``faults``). `explain` takes the difference apart.

Faults on one kind of VMA can take the lock less often in two ways, which add up exactly:

- **lock path**: there are as many faults, and another share of them takes mmap_lock. This alone is
  what a check for an ``anon_vma`` does, and only where the VMAs were found *bare*;
- **number**: the share is the same, and there are more faults or fewer: another page size, more
  memory, another program.

A fault that first tried the VMA's lock and then was *repeated* under mmap_lock is a third thing,
contention most often, and counted apart. Calls (mmap, munmap, ...) count as they are. Whatever of
the change the faults do not account for is *unexplained*, with its size.

So bare VMAs are blamed only for faults that found a VMA bare and had their lock path changed. A
busy neighbour, a slower munmap or larger pages do not look like that, and are not.

For faults that make an ``anon_vma`` under the VMA's lock mmap_lock is taken too, by trying
(``vmf_anon_prepare()``): one acquisition each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from anonvma.compare import changes
from anonvma.compare.attribution import waits
from anonvma.compare.attribution.acquisitions import NEEDED, Side
from anonvma.compare.attribution.blame import Verdict, judge
from anonvma.compare.attribution.decomposition import COLUMNS, taken_apart
from anonvma.compare.attribution.words import sentences
from anonvma.run.runs import Run, having

HOW = (
    "Acquisitions of mmap_lock by the workload in one repeat. lock path: as many faults, another "
    "share of them under mmap_lock; number: the same share of more faults, or fewer; repeated: "
    "begun under the VMA's lock; calls: not a fault. share is of the whole change, in per cent. "
    "Waits of faults are divided among them by acquisitions."
)


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why one condition takes mmap_lock more or less often than another.

    Attributes
    ----------
    table : DataFrame
        One row per reason, the largest first: cause (`PATH`, `REPEATED`, `NUMBER`, `CALLS`,
        `UNEXPLAINED`), origin, access, mode and state of the VMAs or the caller's name; vmas_base,
        vmas_head (zero-page VMAs of that origin in the census; null where it is not about bare
        ones); faults_base, faults_head; taken_base, taken_head; wait_ms_base, wait_ms_head; change
        (acquisitions, head - base), low, high (95 %), share (of the whole change). Means of one
        repeat.
    change, low, high : float
        Of all acquisitions, head - base, with its 95 % interval; NaN where it cannot be told.
    bare_share : float or None
        The part of the change that is the lock path of faults on bare VMAs; None where nothing
        changed or nothing can be told.
    unexplained_share : float or None
        The part that nothing accounts for.
    verdict : Verdict
    sentences : list of str
        The same in words.
    waits : DataFrame
        One row per contended lock, see `anonvma.compare.attribution.waits`.
    """

    table: pd.DataFrame
    change: float
    low: float
    high: float
    bare_share: float | None
    unexplained_share: float | None
    verdict: Verdict
    sentences: list[str]
    waits: pd.DataFrame


def explain(
    conditions: Mapping[str, Sequence[Run]], head: str | None = None, metric: str | None = None
) -> Cause:
    """Explain why a condition takes mmap_lock more or less often than the first one.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The first is the base. Counts are of those that were traced, the primary metric is of all.
    head : str, optional
        Which other one; the last by default.
    metric : str, optional
        The primary metric, see `anonvma.compare.changes.primary_rows`.

    Returns
    -------
    Cause

    Examples
    --------
    >>> from anonvma.compare import conditions
    >>> sides = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    >>> str(explain(sides).verdict)
    'bare VMAs'
    """
    base = next(iter(conditions))
    head = head or list(conditions)[-1]
    sides = {name: conditions[name] for name in (base, head)}
    traced = {name: having(runs, *NEEDED) for name, runs in sides.items()}
    for name, runs in sides.items():
        if not traced[name]:
            lacks = next(table for table in NEEDED if table not in runs[0].manifest.tables)
            return _unknown(f"run {runs[0].id} of {name} has no table {lacks!r}")
    first = changes.primary_rows(sides, metric).iloc[0]
    one, other = (Side(name, runs) for name, runs in traced.items())
    table, total = taken_apart(one, other)
    found = judge(one, other, table, total)
    waited, whole = waits.taken_apart(one.runs, other.runs)
    of_waits = waits.said(base, head, waited, whole)
    return Cause(
        table,
        total.change,
        total.low,
        total.high,
        found.bare_share,
        found.unexplained_share,
        found.verdict,
        sentences(one, other, table, found, first) + ([of_waits] if of_waits else []),
        waits.printed(waited),
    )


def _unknown(lacking: str) -> Cause:
    nan = float("nan")
    said = (
        f"What caused it cannot be told: {lacking}. Remedy: collect with tracing, on a kernel that "
        "allows it ('anonvma doctor')."
    )
    table = pd.DataFrame(columns=COLUMNS)
    none = pd.DataFrame(columns=waits.COLUMNS)
    return Cause(table, nan, nan, nan, None, None, Verdict.UNKNOWN, [said], none)
