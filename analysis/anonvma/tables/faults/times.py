# SPDX-License-Identifier: GPL-2.0-only
"""When page faults happened, and how many each VMA took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.base.axes import own
from anonvma.tables.empty_figure import blank
from anonvma.tables.faults.groups import TRANSITION_COLOURS, repeats, transition

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def over_time(events: pd.DataFrame, bins: int = 60) -> pd.DataFrame:
    """Faults on their way through one repeat, the first that was traced.

    Parameters
    ----------
    events : DataFrame
        The run's ``fault_events``.
    bins : int
        How many intervals the time is cut into.

    Returns
    -------
    DataFrame
        One row per interval and change: ms (its beginning, since the workload's first fault),
        change (the three of anonymous VMAs, or ``other``), faults.
    """
    first = events[events["repeat"] == events["repeat"].min()]
    change = transition(first)
    change = change.where(change.isin(list(TRANSITION_COLOURS)), "other")
    begun = first["time_ns"] - first["time_ns"].min()
    width = max(int(begun.max()) // bins + 1, 1) if len(begun) else 1
    table = pd.crosstab(begun // width, change).reindex(range(bins), fill_value=0)
    table = table.reindex(columns=list(TRANSITION_COLOURS), fill_value=0)
    table.index = pd.Index(np.arange(bins) * width / 1e6, name="ms")
    return table.reset_index().melt("ms", var_name="change", value_name="faults")


def plot_over_time(events: pd.DataFrame, bins: int = 60, ax: Axes | None = None) -> Axes:
    """Draw `over_time` as stacked areas."""
    from matplotlib.ticker import EngFormatter

    from anonvma.base.drawing import sns

    ax = own(ax, 8, 2.8)
    if events.empty:
        return blank(ax, "Page faults over time, by what they found and left", "no page fault")
    table = over_time(events, bins).pivot(index="ms", columns="change", values="faults")
    names = [name for name in TRANSITION_COLOURS if table[name].any()]
    ax = table[names].plot.area(
        ax=ax, color=[TRANSITION_COLOURS[name] for name in names], linewidth=0
    )
    ax.yaxis.set_major_formatter(EngFormatter())
    ax.set(xlabel="ms since the first fault", ylabel="faults in an interval")
    ax.set_title("Page faults over time, by what they found and left")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    sns.despine(ax=ax)
    return ax


def per_vma(events: pd.DataFrame) -> pd.DataFrame:
    """How many faults the VMAs of each origin took, each, in the repeat that has events.

    A VMA is told by its process, its start and its origin, in each repeat.

    Returns
    -------
    DataFrame
        One row per number of faults: origin, change (of all of them, or ``mixed``), faults (in one
        VMA), vmas (mean of one repeat), most VMAs first.
    """
    events = events[(events["result"] != "error") & events["origin"].notna()]
    change = transition(events)
    found = events.assign(change=change, origin=events["origin"].astype(str))
    vmas = found.groupby(["repeat", "process", "vm_start", "origin"]).agg(
        faults=("address", "size"), change=("change", "first"), changes=("change", "nunique")
    )
    vmas.loc[vmas["changes"] > 1, "change"] = "mixed"
    sizes = vmas.groupby(["origin", "change", "faults"]).size().div(repeats(events))
    table = sizes.rename("vmas").reset_index()
    return table.sort_values("vmas", ascending=False, kind="stable", ignore_index=True)
