# SPDX-License-Identifier: GPL-2.0-only
"""A flame graph as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anonvma.base.text import printable
from anonvma.perf.flame.layout import (
    COLOURS,
    LEAST,
    LEGEND,
    MAP,
    Box,
    Source,
    boxes,
    colour_of,
    ink,
    scale_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(
    source: Source,
    base: Source | None = None,
    *,
    event: str | None = None,
    below: str | None = None,
    least: float = LEAST,
    title: str | None = None,
    names: tuple[str, str] = ("base", "this"),
    ax: Axes | None = None,
) -> Axes:
    """Draw a flame graph, or with `base` a differential one, for a report.

    Parameters
    ----------
    source, base, event, below, least
        See `boxes`.
    title : str, optional
    names : tuple of str
        What `base` and `source` are called.
    ax : Axes, optional
        Where to draw; by default a figure of its own, as high as the stacks are deep.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    drawn = boxes(source, base, event=event, below=below, least=least)
    depth = max(box.depth for box in drawn) + 1
    if ax is None:
        _, ax = plt.subplots(figsize=(12, 1.2 + 0.22 * depth), layout="constrained")
    scale = scale_of(drawn)
    colours = [colour_of(box, base is not None, scale) for box in drawn]
    ax.add_collection(
        PatchCollection(
            [Rectangle((box.left, box.depth), box.width, 0.94) for box in drawn],
            facecolors=colours,
            edgecolors="white",
            linewidths=0.4,
        )
    )
    ax.set(xlim=(0, 1), ylim=(0, depth), xticks=[], yticks=[])
    told = title or ("Where the time goes" if base is None else "What changed")
    ax.set_title(printable(told), loc="left", parse_math=False)
    ax.spines[:].set_visible(False)
    _label(ax, drawn, colours)
    if base is not None:
        bar = plt.cm.ScalarMappable(mpl.colors.Normalize(-100 * scale, 100 * scale), MAP)
        assert ax.figure is not None
        shown = ax.figure.colorbar(bar, ax=ax, fraction=0.02, pad=0.01)
        ends = f"{printable(names[0])} to {printable(names[1])}"
        shown.set_label(f"percentage points, {ends}", parse_math=False)
    else:
        kinds = {box.kind for box in drawn}
        handles = [
            Rectangle((0, 0), 1, 1, color=COLOURS[kind], label=text)
            for kind, text in LEGEND.items()
            if kind in kinds
        ]
        ax.legend(handles=handles, frameon=False, ncols=4, loc="upper right", fontsize=8)
    return ax


def _label(ax: Axes, drawn: list[Box], colours: list[str]) -> None:
    """Write into each box as much of its name as has room, and nothing into those with none."""
    assert ax.figure is not None
    figure = ax.get_figure(root=True)
    assert figure is not None
    inches = ax.get_position().width * figure.get_figwidth()
    room = inches * 72 / 4.4  # characters of 7 points over the whole width
    for box, colour in zip(drawn, colours, strict=True):
        fit = int(box.width * room)
        if fit >= 3:
            text = box.label if len(box.label) <= fit else box.label[: fit - 1] + "…"
            ax.text(
                box.left + 0.001,
                box.depth + 0.45,
                text,
                fontsize=7,
                color=ink(colour),
                va="center",
                clip_on=True,
                parse_math=False,  # a symbol may hold $
            )
