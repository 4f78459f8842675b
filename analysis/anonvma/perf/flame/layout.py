# SPDX-License-Identifier: GPL-2.0-only
"""Flame graphs: of one run, and of the difference between two.

Width is share of the sampled time, height is depth of the stack; siblings are in the order of
their names. In a differential graph a function is as wide as the mean of its two shares, so that
what only one of the two has is seen as well, and its colour says by how many percentage points it
gained (red) or lost (blue). Functions that spin for mmap_lock have a colour of their own.

`flame_figure` draws one for a report; `flame_page` makes a piece of HTML that needs nothing from
anywhere, works with a keyboard alone, and without its script is still a picture. Among libraries,
d3-flame-graph and speedscope want a JavaScript bundle several times the size of all this, or the
network; those for Python draw other profilers' formats; none draws a difference that keeps what
vanished. So it is drawn here, and `anonvma.perf.export` writes what speedscope and the Firefox
profiler load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable
from anonvma.perf import profile as perf_profile
from anonvma.perf.profile import purpose, shares
from anonvma.perf.stacks import Profile
from anonvma.run.runs import Run

Source = Run | Profile | pd.Series | Sequence[Run]
"""What can be drawn: a run (its repeats' mean), runs (their mean), a profile, folded stacks."""

_Frame = tuple[str, str]  # label, kind
COLOURS = {
    "waiting": "#d55e00",
    "kernel": "#f0b76e",
    "user": "#8cc8ee",
    "inlined": "#c9e4f6",
    "thread": "#cccccc",
}
LEGEND = {
    "waiting": "spins for mmap_lock",
    "kernel": "kernel",
    "user": "user mode",
    "inlined": "inlined",
}
MAP = "RdBu_r"
_UNKNOWN = "[unknown]"
LEAST = 0.001  # of the whole width: narrower boxes are left out
_DEEPEST = 256


class Box(NamedTuple):
    """A function in its place.

    Attributes
    ----------
    label, kind : str
    depth : int
        0 for the root.
    left, width : float
        Of the whole, from 0 to 1.
    share, base : float
        Of the sampled time, from 0 to 1; `base` of what it is compared with.
    parent : int
        The box below it; -1 for the root.
    """

    label: str
    kind: str
    depth: int
    left: float
    width: float
    share: float
    base: float
    parent: int


# ---- the tree ----


class _Node:
    __slots__ = ("base", "children", "share")

    def __init__(self) -> None:
        self.share = self.base = 0.0
        self.children: dict[_Frame, _Node] = {}


def _stacks(source: Source, event: str | None) -> dict[tuple[_Frame, ...], float]:
    """Return stacks, outermost first, each with its share; they sum up to 1."""
    if isinstance(source, Run):
        return _mean(list(perf_profile.of_run(source).values()), event)
    if isinstance(source, Sequence):
        return _mean(source, event)
    if isinstance(source, Profile):
        return _of_profile(source, event)
    total = float(source.sum())
    if not total > 0:
        raise ProfileError("there is nothing to draw: the folded stacks sum up to 0.")
    return {
        tuple((label, _kind(label, "user", bool(place))) for place, label in enumerate(labels)): (
            float(weight) / total
        )
        for labels, weight in ((str(name).split(";"), w) for name, w in source.items())
    }


def _mean(sources: Sequence[Source], event: str | None) -> dict[tuple[_Frame, ...], float]:
    mean: dict[tuple[_Frame, ...], float] = {}
    for source in sources:
        for stack, share in _stacks(source, event).items():
            mean[stack] = mean.get(stack, 0.0) + share / len(sources)
    return mean


def _of_profile(profile: Profile, event: str | None) -> dict[tuple[_Frame, ...], float]:
    chosen = perf_profile.select(profile, event)
    frames = [
        (symbol, _kind(symbol, "kernel" if kernel else "inlined" if inlined else "user", True))
        for symbol, kernel, inlined in zip(
            profile.frames["symbol"],
            profile.frames["kernel"],
            profile.frames["inlined"],
            strict=True,
        )
    ]
    keys = ["comm", "stack"]
    groups = chosen.samples.groupby(keys, observed=True, dropna=False)["period"].sum().reset_index()
    total = float(groups["period"].sum())
    if not total > 0:
        raise ProfileError("there is nothing to draw: every sample has a period of 0.")
    found: dict[tuple[_Frame, ...], float] = {}
    for comm, stack, weight in groups.astype({"comm": object}).to_numpy(object):
        ids = profile.frame_ids[profile.offsets[int(stack)] : profile.offsets[int(stack) + 1]]
        who = perf_profile.shown(comm) if isinstance(comm, str) else "[unknown]"
        key = ((who, "thread"), *(frames[each] for each in ids[::-1]))
        found[key] = found.get(key, 0.0) + float(weight) / total
    return found


def _kind(label: str, kind: str, inner: bool) -> str:
    if purpose.waits(shares.without_copies(label)):
        return "waiting"
    return kind if inner else "thread"


def _drawn(
    source: Source, event: str | None, below: str | None
) -> Iterator[tuple[tuple[_Frame, ...], float]]:
    """Yield stacks as they are drawn, and shares.

    Where callers were looked for by frame pointers in a program that has none, a stack may be a
    hundred addresses of nothing: those that follow one another are one box.
    """
    for stack, share in _stacks(source, event).items():
        labels = [label for label, _ in stack]
        if below is not None:
            if below not in labels:
                continue
            stack = stack[labels.index(below) :]
        yield (
            tuple(
                frame
                for place, frame in enumerate(stack)
                if frame[0] != _UNKNOWN or place == 0 or stack[place - 1] != frame
            ),
            share,
        )


def boxes(
    source: Source,
    base: Source | None = None,
    *,
    event: str | None = None,
    below: str | None = None,
    least: float = LEAST,
) -> list[Box]:
    """Return the boxes of a flame graph, each behind the one below it.

    Parameters
    ----------
    source : Run, Profile or folded stacks
    base : the same, optional
        What it is compared with.
    event : str, optional
        Which of the events sampled; by default the one about time.
    below : str, optional
        Only what this function calls, whoever called it; shares stay those of the whole time.
    least : float
        Boxes narrower than this share of the whole are left out.

    Raises
    ------
    ProfileError, RunError
        When there are no samples.
    """
    root = _Node()
    for stack, share in _drawn(source, event, below):
        _add(root, stack, share, 0.0)
    if base is not None:
        for stack, share in _drawn(base, event, below):
            _add(root, stack, 0.0, share)
    if not root.children:
        raise ProfileError(f"there is nothing to draw: no stack has {below or 'anything'} in it.")
    return list(_laid_out(root, base is not None, least))


def _add(root: _Node, stack: tuple[_Frame, ...], share: float, base: float) -> None:
    node = root
    node.share += share
    node.base += base
    for frame in stack[:_DEEPEST]:
        node = node.children.setdefault(frame, _Node())
        node.share += share
        node.base += base


def _laid_out(root: _Node, compared: bool, least: float) -> Iterator[Box]:
    whole = (root.share + root.base) if compared else root.share

    def width(node: _Node) -> float:
        return ((node.share + node.base) if compared else node.share) / whole

    count = 0
    waiting: list[tuple[_Frame, _Node, int, float, int]] = [(("all", "thread"), root, 0, 0.0, -1)]
    while waiting:
        (label, kind), node, depth, left, parent = waiting.pop()
        yield Box(printable(label), kind, depth, left, width(node), node.share, node.base, parent)
        mine, count = count, count + 1
        for frame, child in sorted(node.children.items(), key=lambda item: item[0]):
            if width(child) >= least:
                waiting.append((frame, child, depth + 1, left, mine))
            left += width(child)


def scale_of(drawn: list[Box]) -> float:
    """Return the largest change, which has the fullest colour; at least a hundredth."""
    return max(0.01, *(abs(box.share - box.base) for box in drawn))


def colour_of(box: Box, compared: bool, scale: float) -> str:
    """Return a box's colour: by what it is, or by how much it changed."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    if not compared:
        return COLOURS[box.kind]
    return to_hex(mpl.colormaps[MAP](0.5 + (box.share - box.base) / scale / 2))


def ink(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (WCAG's luminance)."""
    import matplotlib as mpl

    red, green, blue = mpl.colors.to_rgb(colour)

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

    light = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    return "#000" if math.sqrt(1.05 * 0.05) < light + 0.05 else "#fff"
