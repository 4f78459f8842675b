# SPDX-License-Identifier: GPL-2.0-only
"""Locks: who takes mmap_lock, for reading or writing, how often, and how long each waits.

The mail: "I still don't understand why we have to take the mmap_sem less often." Set side by
side, two kernels' callers say which of them takes it less often.

Functions take a run's table ``locks`` and return a table with named columns; each ``plot_x``
draws the table of ``x``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base.axes import own
from anonvma.base.section import Whole
from anonvma.run.runs import Run, having
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def of_workload(locks: pd.DataFrame) -> pd.DataFrame:
    """The workload's own asking for mmap_lock, without what is only a downgrade.

    ``mmap_write_downgrade()`` fires the same tracepoint, and alone asks for nothing before.

    Returns
    -------
    DataFrame
        Rows of the table, with one column more: taken (float64), how often it was got.
    """
    own = locks[(locks["process"] != 0) & locks["waited_for"]]
    return own.assign(taken=own["count"].astype("float64").where(own["success"], 0.0))


def callers(locks: pd.DataFrame) -> pd.DataFrame:
    """Who took mmap_lock, for what, and how long each waited.

    Returns
    -------
    DataFrame
        One row per caller and mode, most acquisitions first: asked_by, mode, taken (mean of one
        repeat), contended (how many of these found it taken), wait_ms (summed, mean of one repeat),
        mean_ns and longest_ns. Acquisitions of another process's lock say so in asked_by.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> taken = runs.find("small-allocs-mt").table("locks")
    >>> callers(taken)[["asked_by", "mode", "taken"]].iloc[0].to_dict()
    {'asked_by': 'mmap', 'mode': 'write', 'taken': 20482.0}
    """
    n = max(int(locks["repeat"].nunique()), 1)
    found = locks[locks["success"]]
    asked = found["asked_by"].astype(str)
    other = found["foreign"] & (found["process"] == 0)
    found = found.assign(asked_by=asked.where(~other, asked + " (another process)"))
    rows = []
    for (asked_by, mode), part in found.groupby(["asked_by", "mode"], observed=True):
        count = int(part["count"].sum())
        rows.append(
            {
                "asked_by": asked_by,
                "mode": str(mode),
                "taken": count / n,
                "contended": part["contended"].sum() / n,
                "wait_ms": part["wait_ns"].sum() / 1e6 / n,
                "mean_ns": part["wait_ns"].sum() / count,
                "longest_ns": int(part["longest_ns"].max()),
            }
        )
    columns = ["asked_by", "mode", "taken", "contended", "wait_ms", "mean_ns", "longest_ns"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("taken", ascending=False, kind="stable", ignore_index=True)


def whole(locks: pd.DataFrame, most: int | None = None) -> Whole:
    """What the rows of `callers` add up to, of which the first `most` are shown."""
    n = max(int(locks["repeat"].nunique()), 1)
    taken = float(locks.loc[locks["success"], "count"].sum()) / n
    rest = len(callers(locks)) - most if most else 0
    others = f"{rest} other caller{'s' * (rest > 1)}" if rest > 0 else ""
    return Whole("taken", taken, "acquisitions", others)


def callers_side_by_side(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """How often each caller took mmap_lock, on several kernels: where the difference lies.

    Parameters
    ----------
    runs : mapping of str to sequence of Run
        By the name of a kernel, its runs of one workload; those without the table count for none.

    Returns
    -------
    DataFrame
        One row per caller and mode, the largest difference first: asked_by, mode, then a column per
        kernel (mean of its repeats and runs) and difference, the last less the first. No rows
        where one of them has no run that was traced.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> names = ("early", "delayed")
    >>> found = callers_side_by_side({n: runs.find_all(f"{n}-small-allocs-mt-1") for n in names})
    >>> found.loc[0, ["asked_by", "mode"]].tolist()
    ['page fault', 'read']
    """
    traced = {name: having(each, "locks") for name, each in runs.items()}
    if not all(traced.values()):
        return pd.DataFrame(columns=["asked_by", "mode", *runs, "difference"])
    taken = {
        name: pd.concat([callers(run.table("locks")) for run in each])
        .groupby(["asked_by", "mode"])["taken"]
        .sum()
        .div(len(each))
        for name, each in traced.items()
    }
    table = pd.DataFrame(taken).fillna(0)
    first, *_, last = runs
    table["difference"] = table[last] - table[first]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index()


def plot_callers(locks: pd.DataFrame, most: int = 8, ax: Axes | None = None) -> Axes:
    """Draw how often each of `callers` took mmap_lock; as points, for a logarithm has no 0."""
    from anonvma.base.drawing import sns

    ax = own(ax, 7, 3)
    table = callers(locks).head(most)
    if table.empty:
        return blank(ax, "Who took mmap_lock", "nobody")
    ax = sns.scatterplot(
        table,
        x="taken",
        y="asked_by",
        hue="mode",
        style="mode",
        hue_order=["read", "write"],
        style_order=["read", "write"],
        markers={"read": "o", "write": "s"},
        palette={"read": "#56b4e9", "write": "#0072b2"},
        s=60,
        zorder=3,
        ax=ax,
    )
    for row in table.itertuples():
        ax.annotate(
            f"{row.taken:,.0f}",
            (row.taken, row.asked_by),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.set_xscale("log")
    ax.grid(axis="y", color="#dddddd", zorder=0)
    ax.margins(x=0.15, y=0.12)
    ax.set(
        xlabel="taken in one repeat, on a logarithmic scale", ylabel="", title="Who took mmap_lock"
    )
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(ax=ax)
    return ax
