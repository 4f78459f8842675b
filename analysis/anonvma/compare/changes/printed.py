# SPDX-License-Identifier: GPL-2.0-only
"""Rows of changes as text within 100 columns, as a short table, and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anonvma.base import numerals
from anonvma.base.axes import own
from anonvma.base.text import printable
from anonvma.compare.changes.rows import CHANGED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


WIDTH = 100
_NUMBERS = 62  # columns of a row's numbers and verdict


def text(found: pd.DataFrame, width: int | None = None) -> str:
    """Set rows of `table` as text of at most 100 columns: n, interval and verdict with each.

    A name that is too long for its line stands on one of its own, its numbers below it.
    """
    several = found["condition"].nunique() > 1
    lines = []
    width = min(width or WIDTH, WIDTH)
    names = max(width - _NUMBERS, 2)
    head = f"{'':{names}}{'base':>9}{'head':>9}{'change':>9}{'95 % interval':>16}{'n':>5}"
    lines.append(f"{head} verdict"[:width])
    for row in found.to_dict(orient="records"):
        name = printable(str(row["metric"]))
        if several:
            name = f"{name} ({printable(str(row['condition']))})"
        if len(name) > names - 1:
            lines.append(name if len(name) <= width else name[: width - 1] + "…")
            name = ""
        lines.append(f"{name:{names}}{_cells(row)}".rstrip()[:width])
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[Any, Any]) -> str:
    ns = f"{row['n_base']}/{row['n']}" if row["n_base"] != row["n"] else f"{row['n']}"
    return (
        f"{short(row['base']):>9}{short(row['mean']):>9}{_change(row):>9}{_interval(row):>16}"
        f"{ns:>5} {row['verdict']}"
    )


def short(value: float) -> str:
    """Return a number in at most nine columns."""
    if not np.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 99_999_995:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e6 else f"{value:.0f}"
    return f"{value:.4g}" if size >= 0.001 or value == 0 else f"{value:.1e}"


def _change(row: Mapping[Any, Any]) -> str:
    if row["absolute"]:
        return f"{row['difference']:+.1f}"
    if np.isfinite(row["ratio"]) and row["ratio"] >= 10:
        return _times(row["ratio"])
    return numerals.percent(row["change"] / 100, signed=True)


def _times(ratio: float) -> str:
    """Return a large ratio in at most seven columns."""
    if ratio >= 99_999.5:
        return f"x{ratio:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"x{ratio:.0f}" if ratio >= 100 else f"x{ratio:.1f}"


def _interval(row: Mapping[Any, Any]) -> str:
    if row["absolute"]:
        low, high = row["difference_low"], row["difference_high"]
        return f"{_signed(low)} {_signed(high)}" if np.isfinite(low) else "-"
    low, high = row["low"], row["high"]
    if not np.isfinite(low):
        return "-"
    if high >= 10:
        return f"{_times(low)} {_times(high)}"
    return f"{_signed(100 * (low - 1))} {_signed(100 * (high - 1))} %"


def _signed(bound: float) -> str:
    """Return a bound with one decimal, or as many as it takes not to read as no change."""
    for decimals in range(1, 4):
        shown = f"{bound:+.{decimals}f}"
        if float(shown) or not bound:
            break
    return shown


def plot_shown(found: pd.DataFrame, most: int = 12, ax: Axes | None = None) -> Axes:
    """Draw the ratios of rows of `table` with their intervals, as far as they have these."""
    from anonvma.base.drawing import sns

    ax = own(ax, 7, 4)
    rows = found[found["low"].notna() & (found["ratio"] > 0) & ~found["absolute"]].head(most)
    several = rows["condition"].nunique() > 1
    for place, row in enumerate(rows.to_dict(orient="records")):
        sure = row["verdict"] in CHANGED
        low = max(row["low"], row["ratio"] / 10)  # a bound of 0 has no place on a log scale
        ax.plot([low, row["high"]], [place, place], color="#555555", linewidth=1.5)
        ax.plot(row["ratio"], place, "o", color="#d55e00" if sure else "#999999")
    names = [
        f"{row['metric']} ({row['condition']})" if several else str(row["metric"])
        for row in rows.to_dict(orient="records")
    ]
    ax.set_yticks(range(len(names)), [printable(name) for name in names])
    ax.invert_yaxis()
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set(xlabel="ratio to the base, with its 95 % interval")
    sns.despine(ax=ax)
    return ax


def brief(found: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `table` with the columns that a reader needs; n is of both sides, or 3/4."""
    ns = found["n"].astype("str")
    both = found["n_base"].astype("str") + "/" + ns
    columns = ["metric", "condition", "base", "mean", "ratio", "low", "high", "n", "verdict"]
    brief = found.assign(n=ns.where(found["n_base"] == found["n"], both))[columns]
    return brief if found["condition"].nunique() > 1 else brief.drop(columns="condition")
