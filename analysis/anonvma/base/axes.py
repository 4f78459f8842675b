# SPDX-License-Identifier: GPL-2.0-only
"""Where a figure is drawn: on the axes that are given, or on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def own(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the axes to draw on: those given, else new ones of this size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height))[1]
