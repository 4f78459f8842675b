# SPDX-License-Identifier: GPL-2.0-only
"""Acquisitions of mmap_lock in one condition: by kind of fault and by caller, a column per run.

For faults that make an ``anon_vma`` under the VMA's lock mmap_lock is taken too, by trying
(``vmf_anon_prepare()``): one acquisition each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.base.axes import own
from anonvma.run.runs import Run, having, once
from anonvma.run.vocabulary import PAGE_FAULT
from anonvma.tables import locks
from anonvma.tables.faults.groups import timed_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NEEDED = ("faults", "locks")
"""The tables without which a run tells no cause."""
_KEY = ["origin", "mode", "access", "before", "after"]
STATES = {
    ("bare", "bare"): "stays bare",
    ("bare", "anon_vma"): "bare, gets an anon_vma",
    ("anon_vma", "anon_vma"): "has an anon_vma",
}


class Side:
    """One condition: acquisitions by kind of fault and by caller, one column per run."""

    def __init__(self, name: str, runs: Sequence[Run]) -> None:
        self.name, self.runs, self.n = name, runs, len(runs)
        each = [_fault_groups(run) for run in runs]
        self.faults = _wide([part["faults"] for part in each])
        self.direct = _wide([part["direct"] for part in each])
        self.repeated = _wide([part["repeated"] for part in each])
        self.time_ns = _wide([part["time_ns"] for part in each])
        self.timed = _wide([part["timed"] for part in each])
        self.unknown = float(np.mean([part["unknown"].sum() for part in each]))
        callers = [_callers(run) for run in runs]
        self.taken = _wide([part["taken"] for part in callers])
        self.waited = _wide([part["wait_ns"] for part in callers]) / 1e6
        self.vmas = _zero_page_vmas(runs)


def _wide(columns: Sequence[pd.Series[float]]) -> pd.DataFrame:
    """Return series as the columns of a table; what one of them does not list was 0 there."""
    return pd.concat(list(columns), axis=1, keys=range(len(columns))).fillna(0.0)


@once
def _fault_groups(run: Run) -> pd.DataFrame:
    """Return faults and the acquisitions they amount to, by kind, as means of one repeat."""
    table = run.table("faults")
    repeats = max(int(table["repeat"].nunique()), 1)
    found = table[table["result"] != "error"]
    origin = found["origin"].astype("object").fillna("no VMA")
    found = found.assign(origin=origin).astype(
        {"count": "float64", "time_ns": "float64", **{name: "object" for name in _KEY}}
    )
    count, path = found["count"], found["path"].astype("object")
    makes = (found["before"] == "bare") & (found["after"] == "anon_vma")
    tries = (path == "vma") & makes & (found["mode"] == "user")
    parts = found.assign(
        faults=count,
        direct=count.where((path == "mmap") | tries, 0.0),
        repeated=count.where(path == "retry", 0.0),
        unknown=count.where(path == "unknown", 0.0),
        timed=timed_count(found),
    )
    names = ["faults", "direct", "repeated", "unknown", "timed"]
    sums = parts.groupby(_KEY, observed=True)[names].sum()
    sums["time_ns"] = parts.groupby(_KEY, observed=True)["time_ns"].sum(min_count=1)
    return sums / repeats


@once
def _callers(run: Run) -> pd.DataFrame:
    """Return the acquisitions and waits of the workload by caller, as means of one repeat."""
    table = run.table("locks")
    repeats = max(int(table["repeat"].nunique()), 1)
    own = locks.of_workload(table).astype(
        {"wait_ns": "float64", "asked_by": "object", "mode": "object"}
    )
    return own.groupby(["asked_by", "mode"])[["taken", "wait_ns"]].sum() / repeats


def _zero_page_vmas(runs: Sequence[Run]) -> pd.Series[float]:
    """Return how many zero-page VMAs of each origin there were, mean of the repeats."""
    counts = [_by_origin(run) for run in having(runs, "census")]
    return _wide(counts).mean(axis=1) if counts else pd.Series(dtype="float64")


@once
def _by_origin(run: Run) -> pd.Series[float]:
    table = run.table("census")
    found = table[table["class"] == "zero-page"]
    repeats = max(int(table["repeat"].nunique()), 1)
    counts: pd.Series[float] = found["origin"].astype("object").value_counts() / repeats
    return counts


def taken(conditions: Mapping[str, Sequence[Run]], most: int = 5) -> pd.DataFrame:
    """How often the workload took mmap_lock in each condition, and what for.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        Traced ones.
    most : int
        Reasons that are told apart; the rest is ``other``.

    Returns
    -------
    DataFrame
        Index: the conditions. A column a reason, most acquisitions first: a kind of fault by what
        the VMA is, or a caller; ``other`` last. Means of one repeat.

    Examples
    --------
    >>> from anonvma.compare import conditions
    >>> sides = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    >>> taken(sides)["mmap"].round().tolist()
    [6568.0, 6568.0]
    """
    columns = {}
    for name, runs in conditions.items():
        side = Side(name, having(runs, *NEEDED))
        by_fault = (side.direct + side.repeated).mean(axis=1)
        origin, _, access, before, after = by_fault.index.to_frame().T.to_numpy()
        kinds = [
            f"{how} faults, {what}, {STATES.get((b, a), 'not anonymous')}"
            for how, what, b, a in zip(access, origin, before, after, strict=True)
        ]
        faults = by_fault.groupby(np.array(kinds)).sum()
        asked = side.taken.index.get_level_values("asked_by")
        calls = side.taken.mean(axis=1).groupby(asked).sum()
        columns[name] = pd.concat([faults, calls.drop(PAGE_FAULT, errors="ignore")])
    wide = pd.DataFrame(columns).fillna(0.0).T
    order = wide.max().sort_values(ascending=False, kind="stable").index
    found = wide[order[:most]]
    return found.assign(other=wide[order[most:]].sum(axis=1))


def plot_taken(
    conditions: Mapping[str, Sequence[Run]], most: int = 4, ax: Axes | None = None
) -> Axes:
    """Draw `taken` as a bar per condition, its length the acquisitions of mmap_lock."""
    from anonvma.base.drawing import sns

    ax = own(ax, 8, 1.8)
    table = taken(conditions, most)
    colours = [*sns.color_palette("colorblind", most), (0.75, 0.75, 0.75)]
    ax = table.plot.barh(stacked=True, width=0.6, ax=ax, color=colours)
    for place, total in enumerate(table.sum(axis=1)):
        ax.text(total, place, f" {total:,.0f}", va="center")
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set(xlabel="acquisitions of mmap_lock in one repeat", ylabel="")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.4), ncols=2)
    sns.despine(ax=ax)
    return ax
