# SPDX-License-Identifier: GPL-2.0-only
"""The picture of an address space, from one page to 128 TB and from ten VMAs to a million.

Drawn to scale an address space is empty: a heap, some mappings and a stack lie terabytes apart. So
by default the axis is *compressed*: each VMA is as wide as the logarithm of its pages, each gap
narrower and likewise, and addresses only ever grow to the right. The axis *to scale* is there too.

A million VMAs on a thousand pixels: `columns` adds up, for each pixel, how much of it each state
covers, exactly and in one pass. What a pixel holds at all is shown in it, however little it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.explore.filter import STATES, size
from anonvma.explore.selection import Selection, Vmas
from anonvma.tables.census import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS = 1000
"""Across, in the picture; the figure is wider than this, so that no column of it gets lost."""
_HEIGHT = 24  # pixels of a strip, in which shares of a column are shown
_GREY, _GAP = "#d9d9d9", "#ffffff"
_NAMES = 8  # addresses written under a strip at most
STATE_COLOURS = COLOURS | {"vm_ops": "#b8a35e"}

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Space:
    """One address space, its VMAs in the order of their addresses.

    Attributes
    ----------
    mm : int
        Its number in the census.
    tgid : int
    comm : str
    places : ndarray of int
        Of its VMAs, among all of the census.
    start, end : ndarray of float64
        Of each VMA, in pages: exact, for 128 TB are 2**35 of them.
    """

    mm: int
    tgid: int
    comm: str
    places: Places
    start: Floats
    end: Floats


def spaces(selection: Selection, most: int = 6, first: int | None = None) -> list[Space]:
    """Return the address spaces with most selected VMAs, cut to the filter's range of addresses.

    Parameters
    ----------
    selection : Selection
    most : int
        How many at most.
    first : int, optional
        The place of a VMA whose address space is to be the first of them.
    """
    mm = selection.vmas.frame["mm"].to_numpy()
    found, counts = np.unique(mm[selection.positions], return_counts=True)
    wanted = found[np.argsort(-counts, kind="stable")].tolist()
    if first is not None:
        own = int(mm[first])
        wanted = [own, *(number for number in wanted if number != own)]
    within = selection.filter.within
    if first is not None and not selection.mask[first]:
        within = None  # or its own address space might be empty
    return [_space(selection.vmas, mm, int(number), within) for number in wanted[:most]]


def _space(
    vmas: Vmas, mm: npt.NDArray[np.uint32], number: int, within: tuple[int, int] | None
) -> Space:
    here = mm == number
    if within is not None:
        low, high = np.uint64(within[0]), np.uint64(within[1])
        here &= (vmas.numbers("start") >= low) & (vmas.numbers("end") <= high)
    places = np.flatnonzero(here)
    start = vmas.numbers("start")[places]
    if np.any(start[1:] < start[:-1]):
        places = places[np.argsort(start, kind="stable")]
    page = np.uint64(vmas.page_size)
    first = vmas.frame.iloc[places[0]]
    return Space(
        number,
        int(first["tgid"]),
        str(first["comm"]),
        places,
        (vmas.numbers("start")[places] // page).astype(np.float64),
        (vmas.numbers("end")[places] // page).astype(np.float64),
    )


class Axis:
    """Where an address lies in a picture, from 0 to 1.

    Parameters
    ----------
    start, end : ndarray of float64
        Of the VMAs in pages, ascending.
    compressed : bool
        Whether VMAs and gaps are as wide as their logarithms; to scale otherwise.
    """

    def __init__(self, start: Floats, end: Floats, compressed: bool = True) -> None:
        lengths = np.empty(2 * len(start) - 1)
        lengths[0::2] = end - start
        lengths[1::2] = np.maximum(start[1:] - end[:-1], 0)
        widths = lengths.copy()
        if compressed:
            widths[0::2] = 1 + np.log2(np.maximum(lengths[0::2], 1))
            gaps = lengths[1::2]
            widths[1::2] = np.where(gaps > 0, 0.5 + 0.1 * np.log2(np.maximum(gaps, 1)), 0)
        self._pages = np.concatenate([start[:1], start[0] + np.cumsum(lengths)])
        self._at = np.concatenate([[0.0], np.cumsum(widths)]) / max(widths.sum(), 1e-9)
        # The sums may differ from the addresses by rounding; these are what is looked up.
        self._pages[0::2][: len(start)], self._pages[1::2] = start, end

    def at(self, pages: Floats) -> Floats:
        """Return where these addresses, in pages, are."""
        return np.asarray(np.interp(pages, self._pages, self._at), np.float64)

    def page(self, at: Floats) -> Floats:
        """Return what is there: `at` the other way round."""
        return np.asarray(np.interp(at, self._at, self._pages), np.float64)


def columns(space: Space, kinds: npt.NDArray[np.int8], axis: Axis, pixels: int = PIXELS) -> Floats:
    """Add up what each pixel of a picture holds.

    Parameters
    ----------
    space : Space
    kinds : ndarray of int8
        Of each of its VMAs: whose colour it gets; -1 for those not selected.
    axis : Axis
    pixels : int

    Returns
    -------
    ndarray of float64, shape (1 + number of states, pixels)
        The share of each pixel that is covered, first by VMAs that are not selected, then by each
        state; gaps make up the rest.
    """
    left, right = axis.at(space.start), axis.at(space.end)
    widths = right - left
    edges = np.linspace(0, 1, pixels + 1)
    knots = np.empty(2 * len(left))
    knots[0::2], knots[1::2] = left, right
    shares = np.zeros((1 + len(STATES), pixels))
    for row, kind in enumerate(range(-1, len(STATES))):
        mine = kinds == kind
        if not mine.any():
            continue
        # How much is covered up to each edge of a VMA, and so up to each edge of a pixel.
        covered = np.empty(len(knots))
        covered[1::2] = np.cumsum(np.where(mine, widths, 0))
        covered[0::2] = covered[1::2] - np.where(mine, widths, 0)
        found = np.diff(np.interp(edges, knots, covered)) * pixels
        # Differences of sums that should be equal are not quite.
        shares[row] = np.where(found > 1e-9, found, 0)
    return shares


def _strip(shares: Floats) -> npt.NDArray[np.float64]:
    """Paint the columns: each state as high as its share of what is mapped there.

    One pixel at least; and a column is empty only where nothing at all is mapped.
    """
    from matplotlib.colors import to_rgb

    shares = shares / np.maximum(shares.sum(axis=0), 1e-300)
    colours = np.array([to_rgb(_GREY), *(to_rgb(STATE_COLOURS[state]) for state in STATES)])
    shown = np.where(shares > 0, np.maximum(shares * _HEIGHT, 1), 0)
    total = shown.sum(axis=0)
    # What does not fit any more comes off the one that has most.
    excess = np.maximum(total - _HEIGHT, 0)
    most = shown.argmax(axis=0)
    shown[most, np.arange(shown.shape[1])] -= excess
    edges = np.round(np.cumsum(shown, axis=0))
    picture = np.ones((_HEIGHT, shares.shape[1], 3))
    for y in range(_HEIGHT):
        kind = (edges <= y).sum(axis=0)
        inside = kind < len(colours)
        picture[y, inside] = colours[kind[inside]]
    return picture


# ---- regions: what the picture says, as a table ----


def regions(space: Space, selection: Selection, gap: int = 1 << 30) -> pd.DataFrame:
    """Cut an address space where nothing is mapped for long.

    Parameters
    ----------
    space : Space
    selection : Selection
    gap : int
        Bytes that part two regions.

    Returns
    -------
    DataFrame
        One row per region, by address: from, to (hexadecimal), span (bytes, from the first VMA to
        the last), mapped (bytes of its VMAs), vmas, selected (how many of them are), and a column
        for each state that occurs (of the selected ones).
    """
    page = selection.vmas.page_size
    apart = np.flatnonzero((space.start[1:] - space.end[:-1]) * page > gap) + 1
    begin = np.concatenate([[0], apart])
    end = np.concatenate([apart, [len(space.start)]])
    kinds = _kinds(space, selection)
    rows = []
    for low, high in zip(begin.tolist(), end.tolist(), strict=True):
        counts = np.bincount(kinds[low:high] + 1, minlength=1 + len(STATES))
        rows.append(
            {
                "from": f"{int(space.start[low]) * page:x}",
                "to": f"{int(space.end[high - 1]) * page:x}",
                "span": int(space.end[high - 1] - space.start[low]) * page,
                "mapped": int((space.end[low:high] - space.start[low:high]).sum()) * page,
                "vmas": high - low,
                "selected": int(counts[1:].sum()),
                **dict(zip(STATES, counts[1:].tolist(), strict=True)),
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[state for state in STATES if not table[state].any()])


def _kinds(space: Space, selection: Selection) -> npt.NDArray[np.int8]:
    chosen = selection.mask[space.places]
    return np.where(chosen, selection.vmas.state[space.places], -1).astype(np.int8)


# ---- drawing ----


def plot(
    selection: Selection, shown: Sequence[Space], compressed: bool = True, mark: int | None = None
) -> Figure:
    """Draw address spaces, a strip each: what is selected in the colour of its state.

    Parameters
    ----------
    selection : Selection
    shown : sequence of Space
    compressed : bool
        The kind of axis.
    mark : int, optional
        The place of a VMA to point at.

    Returns
    -------
    Figure
        Of matplotlib, not of pyplot: nothing to close.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(8.5, 0.55 + 0.85 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots(max(len(shown), 1), 1, squeeze=False)[:, 0]
    drawn = np.zeros(1 + len(STATES), bool)
    for ax, space in zip(axes, shown, strict=True):
        axis = Axis(space.start, space.end, compressed)
        shares = columns(space, _kinds(space, selection), axis)
        drawn |= (shares > 0).any(axis=1)
        _draw(ax, space, axis, shares, selection.vmas.page_size)
        if mark is not None and mark in space.places:
            _point_at(ax, space, axis, mark)
    names = ["not selected", *STATES]
    colours = [_GREY, *(STATE_COLOURS[state] for state in STATES)]
    handles = [Patch(color=colours[n], label=names[n]) for n in np.flatnonzero(drawn)]
    handles.append(Patch(facecolor=_GAP, edgecolor="#999999", label="nothing mapped"))
    figure.legend(handles=handles, loc="outside lower center", ncols=8, frameon=False)
    return figure


def _draw(ax: Axes, space: Space, axis: Axis, shares: Floats, page_size: int) -> None:
    ax.imshow(
        _strip(shares),
        aspect="auto",
        interpolation="nearest",
        extent=(0, 1, 0, 1),
        origin="lower",
    )
    span = size((space.end[-1] - space.start[0]) * page_size)
    title = f"process {space.tgid}: {len(space.start):,} VMAs over {span}"
    ax.set_title(title, loc="left", fontsize="small", pad=12)
    ax.set(yticks=[], xlim=(0, 1))
    at, labels = _names(space, axis, page_size)
    ax.set_xticks(at, labels, fontsize="x-small")
    for label in ax.get_xticklabels():
        label.set_horizontalalignment("left" if label.get_position()[0] < 0.9 else "right")


def _names(space: Space, axis: Axis, page_size: int) -> tuple[list[float], list[str]]:
    """Choose the addresses to write: where regions begin, as long as there is room."""
    gaps = space.start[1:] - space.end[:-1]
    largest = np.argsort(-gaps, kind="stable")[: 4 * _NAMES]
    pages = np.append(space.start[:1], space.start[1:][largest[gaps[largest] > 0]])
    at: list[float] = []
    labels = []
    for page, x in zip(pages.tolist(), axis.at(pages).tolist(), strict=True):
        if len(at) < _NAMES and all(abs(x - other) > 0.11 for other in at):
            at.append(x)
            labels.append(f"{int(page) * page_size:x}")
    return at, labels


def _point_at(ax: Axes, space: Space, axis: Axis, mark: int) -> None:
    (here,) = np.flatnonzero(space.places == mark)
    middle = float(axis.at(np.array([space.start[here], space.end[here]])).mean())
    ax.annotate(
        "",
        (middle, 1),
        (middle, 1.28),
        arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.5},
        annotation_clip=False,
    )
