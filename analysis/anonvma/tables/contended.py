# SPDX-License-Identifier: GPL-2.0-only
"""Contended locks: which they are, who waited for them, and for how long.

The lock of a process's address space is one of many. In small-allocs as processes it is the rmap
of the file that all map, ``i_mmap_rwsem``, that is waited for; only a lock's name tells so.

Functions take a run's table ``contended`` and return a table with named columns; each ``plot_x``
draws the table of ``x``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base.axes import own
from anonvma.base.numerals import percent
from anonvma.base.section import Whole
from anonvma.run.runs import Run
from anonvma.run.schema import columns
from anonvma.run.vocabulary import MMAP_LOCK, VMA_LOCK
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLUMNS = ["lock", "of", "type", "asked_by", "waits", "wait_ms", "mean_ns", "longest_ns"]


def of_run(run: Run) -> pd.DataFrame:
    """Return the table of a run; without rows where the run has none (see `of_run_said`)."""
    if "contended" in run.manifest.tables:
        return run.table("contended")
    return pd.DataFrame(columns=["repeat", *columns("contended")]).astype({"foreign": bool})


def of_run_said(run: Run, say: Callable[[pd.DataFrame], str] | None = None) -> str:
    """Say which lock a run waited for most, or something else of its table, or why not."""
    if "contended" in run.manifest.tables:
        return (say or said)(run.table("contended"))
    return (
        "Which locks were contended is not known: this run was recorded before locks had names. "
        "Remedy: collect it anew."
    )


def known_said(header: Mapping[str, object]) -> str:
    """Say what is missing where the kernel does not show who finds a lock taken."""
    if header["contention_known"]:
        return ""
    return (
        "Which locks were contended is not known: this kernel has no tracepoint contention_begin. "
        "Linux 5.19 or later has it."
    )


def named(contended: pd.DataFrame) -> pd.DataFrame:
    """The waits, with what each lock belongs to in words.

    Returns
    -------
    DataFrame
        Rows of the table that had to wait, with one column more: of (str), the file's name, a
        VMA's origin and state, whose mmap_lock, or the function that asked for a lock that nothing
        else tells apart.
    """
    found = contended[contended["contended"] > 0]
    lock = found["lock"].astype("object")
    own = pd.Series("own", found.index, "object").where(~found["foreign"], "of another process")
    vma = found["origin"].astype("object") + ", " + found["state"].astype("object")
    of = found["file"].astype("object").where(lock != VMA_LOCK, vma)
    of = of.where(lock != MMAP_LOCK, own)
    return found.assign(of=of.fillna("in " + found["function"].astype("object")).astype("str"))


def by_name(contended: pd.DataFrame) -> pd.DataFrame:
    """Which locks were waited for, by whom, and how long.

    Returns
    -------
    DataFrame
        One row per lock, by what it belongs to, its type and its caller, most time first: lock, of
        (see `named`), type, asked_by, waits (mean of one repeat), wait_ms (summed, likewise),
        mean_ns and longest_ns.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = by_name(runs.find("early-small-allocs-mt-1").table("contended"))
    >>> found.loc[0, ["lock", "asked_by"]].tolist()
    ['mmap_lock', 'page fault']
    """
    n = max(int(contended["repeat"].nunique()), 1)
    keys = ["lock", "of", "type", "asked_by"]
    sums = named(contended).groupby(keys, observed=True)
    table = sums.agg(
        waits=("contended", "sum"), wait_ns=("wait_ns", "sum"), longest_ns=("longest_ns", "max")
    ).reset_index()
    table = table.astype({name: "str" for name in keys})
    table["mean_ns"] = table["wait_ns"] / table["waits"]
    table["wait_ms"], table["waits"] = table["wait_ns"] / 1e6 / n, table["waits"] / n
    return table.sort_values("wait_ms", ascending=False, ignore_index=True)[COLUMNS]


def whole(contended: pd.DataFrame, most: int | None = None) -> Whole:
    """What the rows of `by_name` add up to, of which the first `most` are shown."""
    table = by_name(contended)
    rest = len(table) - most if most else 0
    others = f"{rest} other lock{'s' * (rest > 1)} and callers" if rest > 0 else ""
    return Whole("wait_ms", float(table["wait_ms"].sum()), "ms of waiting", others)


def said(contended: pd.DataFrame) -> str:
    """Say which lock the workload waited for most."""
    table = by_name(contended)
    if table.empty:
        return "No lock was contended."
    total = float(table["wait_ms"].sum())
    most = table.groupby(["lock", "of"])["wait_ms"].sum().sort_values(ascending=False)
    lock, of = most.index[0]
    kind = "the VMA lock" if lock == VMA_LOCK else lock if lock != "other" else "a lock"
    return (
        f"The workload waited {total:,.1f} ms for contended locks, "
        f"{percent(most.iloc[0] / total) if total else 'none'} of it for {kind} ({of})."
    )


def plot_by_name(contended: pd.DataFrame, most: int = 8, ax: Axes | None = None) -> Axes:
    """Draw how long each lock of `by_name` was waited for, all callers together."""
    from anonvma.base.drawing import sns

    ax = own(ax, 7, 3)
    table = by_name(contended)
    if table.empty:
        return blank(ax, "Contended locks", "none")
    names = table["lock"] + ", " + table["of"]
    waited = table["wait_ms"].groupby(names).sum().nlargest(most)
    sns.barplot(x=waited, y=waited.index, color="#0072b2", ax=ax)
    ax.set(xlabel="ms waited in one repeat, all tasks together", ylabel="")
    ax.set_title("Contended locks")
    sns.despine(ax=ax)
    return ax
