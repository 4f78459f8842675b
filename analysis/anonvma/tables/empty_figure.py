# SPDX-License-Identifier: GPL-2.0-only
"""A figure of nothing: a table without rows is a result, and says so where it would be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def blank(ax: Axes | None, title: str, words: str) -> Axes:
    """Draw an empty figure: a title, and words where there is nothing to plot.

    Parameters
    ----------
    ax : Axes, optional
        The current ones by default.
    title : str
        That the figure would have.
    words : str
        What is missing, such as ``no page fault``.
    """
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes)
    ax.set(title=title, xticks=[], yticks=[])
    ax.set_frame_on(False)
    return ax
