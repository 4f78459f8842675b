# SPDX-License-Identifier: GPL-2.0-only
"""Faults: which ones leave a VMA bare, which lock each took, what an early check would cost.

The census shows a state; a fault's trace shows it happen. Each fault found its VMA in one state
and left it in another: *bare* (anonymous, no ``anon_vma``), *anon_vma* (anonymous, with one),
*vm_ops* (not anonymous). Only *bare -> bare* is the mail's: a fault that an ``anon_vma`` was not
made for. Its lock path is *vma* (the VMA's own lock), *mmap* (mmap_lock) or *retry* (begun under
the first, repeated under the second).

An early check (Linux 6.4 to 6.9) sends every fault of user mode that finds a bare VMA to mmap_lock;
a delayed one (6.10 on) none of them, and takes mmap_lock, only by trying, for those that make an
``anon_vma``. So each kernel's trace says what the other would have done: `counterfactual`.

Functions take a run's tables ``faults``, ``fault_events`` or ``tracing`` and return a table with
named columns; each ``plot_x`` draws the table of ``x``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.base.axes import own, plot_shares
from anonvma.base.numerals import number
from anonvma.base.section import Whole
from anonvma.run.runs import Run
from anonvma.run.vocabulary import STATES
from anonvma.tables.census import COLOURS
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_BY_FAULT = ("faults", "events")
_PATH_COLOURS = {"vma": "#009e73", "retry": "#e69f00", "mmap": "#d55e00", "unknown": "#999999"}
TRANSITION_COLOURS = {
    "bare -> bare": COLOURS["zero-page"],
    "bare -> anon_vma": "#56b4e9",
    "anon_vma -> anon_vma": COLOURS["anon_vma"],
    "other": "#bbbbbb",
}


def transition(faults: pd.DataFrame) -> pd.Series[str]:
    """Name each fault's change of state."""
    # By codes: joining the words of a million faults would take a second.
    before, after = (faults[name].astype("category").cat for name in ("before", "after"))
    names = [f"{left} -> {right}" for left in before.categories for right in after.categories]
    codes = before.codes.astype("int32") * len(after.categories) + after.codes
    named = pd.Categorical.from_codes(codes.to_numpy(), pd.Index(names, dtype="str"))
    return pd.Series(named, index=faults.index).astype("str")


def handled(faults: pd.DataFrame) -> pd.DataFrame:
    """Return the faults that did not end in an error: those that any counter has."""
    found = faults[faults["result"] != "error"]
    # The tables' whole numbers may be null, which NumPy's functions do not know.
    return found.astype({"count": "float64"}) if "count" in found else found


def traced(run: Run) -> pd.DataFrame:
    """Return a run's table ``faults``, which knows of repeats that took none, too."""
    faults = run.table("faults")
    faults.attrs["repeats"] = len(traced_repeats(run))
    return faults


def traced_repeats(run: Run, *what: str) -> list[int]:
    """Return the repeats of a run in which page faults were traced, or what else is said."""
    tracing = run.table("tracing")
    return sorted(set(tracing.loc[tracing["traced"].isin(what or _BY_FAULT), "repeat"]))


def repeats(faults: pd.DataFrame) -> int:
    """Return how many repeats the faults are of."""
    return max(int(faults.attrs.get("repeats", faults["repeat"].nunique())), 1)


# ---- what a fault leaves ----


def transitions(faults: pd.DataFrame) -> pd.DataFrame:
    """The faults by what they found and what they left: all of them, errors too.

    Returns
    -------
    DataFrame
        One row per change that occurred, most frequent first: before, after, ended (``done``, or
        ``error``: in a signal, or refused to the kernel), then the mean number of faults in one
        repeat that read, wrote and executed, and all.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = transitions(traced(runs.find("early-small-allocs-mt-1")))
    >>> found[["before", "after", "read"]].to_numpy().tolist()[0]
    ['bare', 'bare', 65536.0]
    """
    found = faults.astype({"count": "float64"})
    found = found.assign(ended=np.where(found["result"] == "error", "error", "done"))
    table = found.pivot_table(
        index=["before", "after", "ended"],
        columns="access",
        values="count",
        aggfunc="sum",
        fill_value=0,
        observed=True,
    )
    table = table.reindex(columns=["read", "write", "exec"], fill_value=0) / repeats(faults)
    table["faults"] = table.sum(axis=1)
    table = table.sort_values("faults", ascending=False, kind="stable").reset_index()
    return table.rename_axis(columns=None).astype({"before": "str", "after": "str"})


def plot_transitions(faults: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the `transitions` of faults that were handled as a matrix, the counts in its cells."""
    from anonvma.base.drawing import sns

    ax = own(ax, 5.5, 4.5)
    table = transitions(handled(faults))
    if table.empty:
        return blank(ax, "Page faults by what they found and left", "no page fault")
    matrix = table.pivot(index="before", columns="after", values="faults").fillna(0)
    names = [name for name in STATES if name in matrix.index or name in matrix.columns]
    matrix = matrix.reindex(index=names, columns=names, fill_value=0).astype("float64")
    shares = np.log10(matrix.where(matrix > 0))
    ax = sns.heatmap(
        shares,
        annot=matrix.map(lambda count: f"{count:,.0f}" if count else ""),
        fmt="",
        cmap="flare",
        cbar=False,
        linewidths=1,
        square=True,
        ax=ax,
    )
    ax.set(xlabel="left as", ylabel="found as", title="Page faults by what they found and left")
    ax.tick_params(axis="x", rotation=30)
    ax.tick_params(axis="y", rotation=0)
    return ax


_TAKEN_BY = {
    "user": "the process, in user mode",
    "kernel": "the kernel, on its behalf",
    "gup": "get_user_pages(), no exception",
}


def by_mode(faults: pd.DataFrame, unseen_gup: float = 0.0) -> pd.DataFrame:
    """Faults by who took them: what perf and getrusage() count, and what only getrusage() does.

    mm_account_fault() (mm/memory.c) charges a fault of get_user_pages() to the task, and makes no
    event of it.

    Parameters
    ----------
    faults : DataFrame
    unseen_gup : float
        Faults of get_user_pages() in one repeat that the source does not show; see
        `anonvma.tables.losses.unseen_gup`.

    Returns
    -------
    DataFrame
        One row each, those without any left out: taken by, faults (mean of one repeat, errors too).
    """
    counts = faults["count"].astype("float64").groupby(faults["mode"].astype("object")).sum()
    counts = counts.reindex(list(_TAKEN_BY), fill_value=0.0) / repeats(faults)
    counts["gup"] += unseen_gup
    table = counts[counts > 0].rename(index=_TAKEN_BY).rename("faults")
    return table.rename_axis("taken by").reset_index()


def by_origin(faults: pd.DataFrame) -> pd.DataFrame:
    """Faults on anonymous VMAs by origin of the VMA, and what they left.

    Returns
    -------
    DataFrame
        One row per origin, most faults first: origin, faults (mean of one repeat), found bare,
        left bare, and mean_ns (mean time of one fault that has a time; null where the source has
        none).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = by_origin(traced(runs.find("early-small-allocs-mt-1")))
    >>> found[["origin", "found bare", "left bare"]].to_numpy().tolist()[0]
    ['private /dev/zero', 65536.0, 65536.0]
    """
    found = handled(faults)
    found = found[found["before"].isin(["bare", "anon_vma"])]
    rows = []
    for origin, part in found.groupby("origin", observed=True):
        counts, n = part["count"], repeats(faults)
        was_bare = part["before"] == "bare"
        timed = part["time_ns"].astype("float64").sum(min_count=1)
        rows.append(
            {
                "origin": str(origin),
                "faults": counts.sum() / n,
                "found bare": counts[was_bare].sum() / n,
                "left bare": counts[was_bare & (part["after"] == "bare")].sum() / n,
                "mean_ns": timed / (timed_count(part).sum() or np.nan),
            }
        )
    columns = ["origin", "faults", "found bare", "left bare", "mean_ns"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("faults", ascending=False, kind="stable", ignore_index=True)


def timed_count(faults: pd.DataFrame) -> pd.Series[float]:
    """How many faults of each group have a time: those whose end was missed have none."""
    lists = faults["log2_ns"]
    return lists.map(lambda counts: sum(counts) if isinstance(counts, list | np.ndarray) else 0)


# ---- which lock ----


def lock_paths(faults: pd.DataFrame) -> pd.DataFrame:
    """The lock path of faults in user mode, by what they found and left.

    The kernel's own faults on user memory never try the VMA's lock (``FAULT_FLAG_USER``), so they
    are left out.

    Returns
    -------
    DataFrame
        One row per change of state, most faults first: change, then a column per path (mean of one
        repeat; ``unknown`` only where there is any) and faults.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> traced = runs.find("small-allocs-mt").table("faults")
    >>> lock_paths(traced).iloc[0].to_dict()
    {'change': 'bare -> bare', 'vma': 204800.0, 'retry': 0.0, 'mmap': 0.0, 'faults': 204800.0}
    """
    found = handled(faults)
    found = found[found["mode"] == "user"]
    found = found.assign(change=transition(found))
    table = found.pivot_table(
        index="change", columns="path", values="count", aggfunc="sum", fill_value=0, observed=True
    )
    wanted = ["vma", "retry", "mmap"]
    if "unknown" in table and table["unknown"].any():
        wanted.append("unknown")
    table = table.reindex(columns=wanted, fill_value=0) / repeats(faults)
    table["faults"] = table.sum(axis=1)
    table = table.sort_values("faults", ascending=False, kind="stable").reset_index()
    return table.rename_axis(columns=None)


def plot_lock_paths(faults: pd.DataFrame, most: int = 6, ax: Axes | None = None) -> Axes:
    """Draw `lock_paths` as shares; the number of faults stands beside each bar."""
    ax = own(ax, 7, 3)
    table = lock_paths(faults).head(most).set_index("change")
    title = "The lock each fault was taken under"
    if table.empty:
        return blank(ax, title, "no page fault in user mode")
    plot_shares(table, "faults", _PATH_COLOURS, "faults in user mode", ax, title)
    return ax


# ---- the other kernel ----


def counterfactual(faults: pd.DataFrame) -> pd.DataFrame:
    """What an early check and a delayed one make of the faults that found a bare VMA.

    From one kernel's trace: which check it has itself does not matter. Exact where nothing was
    lost, else each number is a lower bound, and `anonvma.tables.losses.unknown` is how far it may
    be off.

    Returns
    -------
    DataFrame
        One row per origin, then one ``all``: origin; found bare (faults of user mode, mean of one
        repeat), which an early check sends to mmap_lock; of these, make anon_vma, for which a
        delayed one takes mmap_lock by trying; and spared, those it leaves to the VMA's lock alone.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> traced = runs.find("small-allocs-mt").table("faults")
    >>> counterfactual(traced).iloc[-1].to_dict()
    {'origin': 'all', 'found bare': 204804.0, 'make anon_vma': 4.0, 'spared': 204800.0}
    """
    found = handled(faults)
    found = found[(found["before"] == "bare") & (found["mode"] == "user")]
    spared = found["count"].where(found["after"] == "bare", 0.0)
    made = found["count"].where(found["after"] != "bare", 0.0)
    table = (
        pd.DataFrame({"found bare": found["count"], "make anon_vma": made, "spared": spared})
        .groupby(found["origin"].astype("object"))
        .sum()
        .div(repeats(faults))
        .sort_values("found bare", ascending=False, kind="stable")
    )
    table.loc["all"] = table.sum()
    return table.rename_axis("origin").reset_index()


def wholes(faults: pd.DataFrame, unseen_gup: float = 0.0) -> dict[str, Whole]:
    """What the rows of `transitions` and of the tables like it add up to, by their names."""
    n = repeats(faults)
    count = faults["count"].astype("float64")
    bare, anon = faults["before"] == "bare", faults["before"] == "anon_vma"
    failed, kernel = "ended in an error", "taken by the kernel itself or in get_user_pages()"

    def whole(rows: pd.Series[bool], column: str, what: str, rest: str) -> Whole:
        return Whole(column, float(count[rows].sum()) / n, what, rest)

    every = bare | ~bare
    return {
        "transitions": whole(every, "faults", f"page faults{_with_gup(faults)}", ""),
        "by_mode": Whole("faults", float(count.sum()) / n + unseen_gup, "faults"),
        "by_origin": whole(bare | anon, "faults", "page faults on anonymous VMAs", failed),
        "lock_paths": whole(every, "faults", "page faults", f"{kernel}, or {failed}"),
        "counterfactual": dataclasses.replace(
            whole(
                bare, "found bare", "page faults that found a bare VMA", f"{kernel}, or {failed}"
            ),
            summed_up=True,
        ),
    }


def _with_gup(faults: pd.DataFrame) -> str:
    """Name those of get_user_pages() among faults, where the source shows them."""
    shown = float(faults["count"].astype("float64")[faults["mode"] == "gup"].sum())
    return f", {number(shown / repeats(faults))} of them of get_user_pages()" if shown else ""
