# SPDX-License-Identifier: GPL-2.0-only
"""Where a figure is drawn, on the axes that are given or on its own; bars that show shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def own(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the axes to draw on: those given, else new ones of this size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height))[1]


def plot_counts(
    table: pd.DataFrame, count: str, by: str, colours: Mapping[str, str], ax: Axes
) -> None:
    """Draw one column of a table as bars, one per value of another, the number at its end."""
    from anonvma.base.drawing import sns

    sns.barplot(table, x=count, y=by, hue=by, palette=colours, saturation=1, legend=False, ax=ax)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="{:,.0f}", padding=3)  # type: ignore[arg-type]
    ax.margins(x=0.12)
    sns.despine(ax=ax)


def plot_shares(
    table: pd.DataFrame, whole: str, colours: Mapping[str, str], of: str, ax: Axes, title: str = ""
) -> None:
    """Draw each row of a table as a bar of shares, its number beside it.

    Shares, for counts differ by orders of magnitude.

    Parameters
    ----------
    table : DataFrame
        Index: what stands left of the bars. Columns: counts, and what they are shares of.
    whole : str
        The column that the others are shares of.
    colours : mapping of str to str
        By column; one of which the table has nothing is left out.
    of : str
        What the shares are of, in words.
    ax : Axes
    title : str
        With one, the legend is below.
    """
    from anonvma.base.drawing import sns

    kinds = [kind for kind in colours if kind in table and table[kind].any()]
    shares = table[kinds].div(table[whole].to_numpy(), axis=0) * 100
    shares.plot.barh(stacked=True, width=0.75, ax=ax, color=[colours[kind] for kind in kinds])
    for place, count in enumerate(table[whole]):
        ax.text(101, place, f"{count:,.0f}", va="center", fontsize="small")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel=f"share of {of}, per cent", ylabel="")
    if title:
        ax.set_title(f"{title} (their number on the right)")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(kinds), frameon=False)
    else:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    sns.despine(ax=ax)
