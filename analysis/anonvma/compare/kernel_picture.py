# SPDX-License-Identifier: GPL-2.0-only
"""Kernels across, what was tried on them down: an outcome a colour, each change marked."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base.axes import own
from anonvma.compare.kernel_changes import Alike, between, differing, kernels
from anonvma.compare.outcomes import NO_FAULT, NOT_MADE, PARTS
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GOOD, _BETWEEN, _BAD = "#9fd5c3", "#f0cd85", "#e8a37f"
_COLOURS = {
    **dict.fromkeys(("vma", "delayed"), _GOOD),
    **dict.fromkeys(
        ("retry", "vma, mmap", "vma, retry", "mmap, retry", "vma, mmap, retry"), _BETWEEN
    ),
    **dict.fromkeys(("mmap", "early", "none"), _BAD),
    NO_FAULT: "#f4f4f4",
    NOT_MADE: "#dadada",
}
_SHADES = ("#d3e0ee", "#a9c1dc", "#dccbe4", "#bfa8cc", "#8fabcb", "#9c86ad")
"""Of other words, in the order in which they come into a row."""
_MARKS = {True: "#000000", False: "#d00000"}
"""Of a change: explained, and not."""
_GAP = 0.6  # between two series of kernels


def plot(found: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw what differs between any two kernels.

    Subjects that are alike on every kernel share a row. A word stands where an outcome begins, and
    a line where it is another than on the kernel before: black where that is explained, else red.
    """
    alike, about = differing(found), kernels(found)
    parts = list(dict.fromkeys(each.part for each in alike))
    ax = own(ax, 4.6 + 0.62 * len(about), 0.25 * (len(alike) + len(parts)) + 1.2)
    if not alike:
        return blank(ax, "What differs between kernels", "no outcome differs between two kernels")
    known = _explained(found)
    columns = {name: place + _GAP * about["series"][name] for place, name in enumerate(about.index)}
    ticks, row = {}, 0
    for part in parts:
        ax.text(-0.12, row + 0.8, PARTS[part], ha="right", fontsize="small", weight="bold")
        for each in (each for each in alike if each.part == part):
            row += 1
            ticks[row + 0.5] = each.label
            _draw(ax, row, each, columns, about["series"], known)
        row += 1
    ax.set(xlim=(0, max(columns.values()) + 1), ylim=(row + 0.1, 0))
    ax.set_xticks([x + 0.5 for x in columns.values()], list(columns), rotation=40, ha="left")
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize="small")
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_frame_on(False)
    ax.set_title("What differs between kernels", pad=12, loc="left", x=-0.4)
    return ax


def _explained(found: pd.DataFrame) -> dict[tuple[str, str, str], bool]:
    changed = between(found)
    keys = zip(changed["part"], changed["subject"], changed["new"], strict=True)
    return dict(zip(keys, changed["why"].notna(), strict=True))


def _draw(
    ax: Axes,
    row: int,
    each: Alike,
    columns: dict[str, float],
    series: pd.Series[int],
    known: dict[tuple[str, str, str], bool],
) -> None:
    """Draw one row: a bar for each stretch of one outcome."""
    seen = [word for word in dict.fromkeys(each.outcomes.values()) if word and word not in _COLOURS]
    colours = {**_COLOURS, **dict(zip(seen, itertools.cycle(_SHADES), strict=False))}
    for (_, word), names in itertools.groupby(
        columns, key=lambda name: (series[name], each.outcomes[name])
    ):
        stretch = list(names)
        left, wide = columns[stretch[0]], len(stretch)
        if word is None:
            ax.bar(
                left,
                0.86,
                wide,
                row + 0.07,
                align="edge",
                fill=False,
                hatch="////",
                ec="#cccccc",
                lw=0,
            )
            continue
        ax.bar(left, 0.86, wide, row + 0.07, align="edge", color=colours[word], lw=0)
        ax.text(left + 0.08, row + 0.55, word, va="center", fontsize=6.5, clip_on=True)
        marks = [known[key] for s in each.subjects if (key := (each.part, s, stretch[0])) in known]
        if marks:
            ax.plot(
                [left, left], [row, row + 1], color=_MARKS[all(marks)], lw=2, solid_capstyle="butt"
            )
