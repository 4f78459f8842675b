# SPDX-License-Identifier: GPL-2.0-only
"""Forks: what each one locked, copied and kept waiting, and what its child faults again.

``dup_mmap()`` holds mmap_lock, locks every VMA for writing and copies its page tables, but those of
a bare one, whose pages the child faults again (``vma_needs_copy()``).

Functions take a run's table ``forks``; `plot_by_program` draws the table of `by_program`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base.axes import own
from anonvma.base.numerals import percent
from anonvma.base.section import Whole
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLUMNS = ["comm", "forks", "vmas", "locked", "skipped", "held_ms", "longest_held_ms"]
COLUMNS += ["shut_out", "shut_out_ms", "longest_ms", "child_faults"]


def by_program(forks: pd.DataFrame) -> pd.DataFrame:
    """What the forks of each program cost, most time under mmap_lock first.

    Returns
    -------
    DataFrame
        One row per program: comm, forks (mean of one repeat); of one fork vmas, locked and skipped;
        held_ms (of all forks, mean of one repeat) and longest_held_ms (of one); shut_out (tasks
        that waited to read meanwhile), shut_out_ms and longest_ms (their waits); child_faults (of
        one child). What cannot be seen on this kernel is null.
    """
    n = max(int(forks["repeat"].nunique()), 1)
    found = forks.assign(comm=forks["comm"].astype("str"))
    each = found.groupby("comm")
    # Sums of what is nowhere known are null, not 0.
    sums = each[["held_ns", "shut_out", "shut_out_ns"]].sum(min_count=1).astype("Float64")
    means = each[["vmas", "locked", "skipped", "child_faults"]].mean().astype("Float64")
    most = each[["held_ns", "longest_ns"]].max().astype("Float64")
    table = pd.DataFrame(
        {
            "forks": each.size() / n,
            **{name: means[name] for name in ("vmas", "locked", "skipped")},
            "held_ms": sums["held_ns"] / 1e6 / n,
            "longest_held_ms": most["held_ns"] / 1e6,
            "shut_out": sums["shut_out"] / n,
            "shut_out_ms": sums["shut_out_ns"] / 1e6 / n,
            "longest_ms": most["longest_ns"] / 1e6,
            "child_faults": means["child_faults"],
        }
    )
    return table.sort_values("held_ms", ascending=False).reset_index()[COLUMNS]


def whole(forks: pd.DataFrame) -> Whole:
    """What the rows of `by_program` add up to."""
    n = max(int(forks["repeat"].nunique()), 1)
    count = len(forks) / n
    return Whole("forks", count, "forks")


def said(forks: pd.DataFrame) -> str:
    """Say what the forks cost, in one sentence."""
    if forks.empty:
        return "The workload did not fork."
    table = by_program(forks)
    n = max(int(forks["repeat"].nunique()), 1)
    count = len(forks) / n
    held, longest = table["held_ms"].sum(), table["longest_held_ms"].max()
    text = (
        f"{count:,.0f} fork{'s' * (count != 1)} held mmap_lock for {held:,.2f} ms, the longest for "
        f"{longest:,.2f}"
    )
    vmas, skipped = float(forks["vmas"].sum()), float(forks["skipped"].sum())
    if vmas:
        text += (
            f", and copied {vmas / len(forks):,.0f} VMAs each, of which "
            f"{percent(skipped / vmas)} were bare and their page tables left out; "
            f"{forks['shut_out'].sum() / n:,.0f} times a task waited to read meanwhile, "
            f"{forks['shut_out_ns'].sum() / 1e6 / n:,.2f} ms in all"
        )
    faults = forks["child_faults"].mean()
    return f"{text}; a child took {faults:,.0f} faults until its exec or its end."


def plot_by_program(forks: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how long each fork held mmap_lock, a point per fork, by program."""
    from anonvma.base.drawing import sns

    ax = own(ax, 7, 3)
    if forks.empty:
        return blank(ax, "Forks", "none")
    held = forks.assign(
        ms=forks["held_ns"].astype("float64") / 1e6, comm=forks["comm"].astype("str")
    )
    sns.stripplot(held, x="ms", y="comm", color="#0072b2", alpha=0.6, ax=ax)
    ax.set_xscale("log")
    ax.set(xlabel="ms that a fork held mmap_lock, on a logarithmic scale", ylabel="")
    ax.set_title("How long each fork held mmap_lock")
    sns.despine(ax=ax)
    return ax
