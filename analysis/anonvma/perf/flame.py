# SPDX-License-Identifier: GPL-2.0-only
"""Flame graphs: of one run, and of the difference between two.

Width is share of the sampled time, height is depth of the stack; siblings are in the order of
their names. In a differential graph a function is as wide as the mean of its two shares, so that
what only one of the two has is seen as well, and its colour says by how many percentage points it
gained (red) or lost (blue). Functions that spin for mmap_lock have a colour of their own.

`plot` draws a figure for a report; `interactive` makes a piece of HTML that needs nothing from
anywhere, works with a keyboard alone, and without its script is still a picture. Among libraries,
d3-flame-graph and speedscope want a JavaScript bundle several times the size of all this, or the
network; those for Python draw other profilers' formats; none draws a difference that keeps what
vanished. So it is drawn here, and `anonvma.perf.export` writes what speedscope and the Firefox
profiler load.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from anonvma.base.errors import ProfileError
from anonvma.base.numerals import percent
from anonvma.base.text import printable
from anonvma.perf import profile as perf_profile
from anonvma.perf.script import Profile
from anonvma.run.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Box", "Source", "boxes", "interactive", "page", "plot"]

Source = Run | Profile | pd.Series | Sequence[Run]
"""What can be drawn: a run (its repeats' mean), runs (their mean), a profile, folded stacks."""

_Frame = tuple[str, str]  # label, kind
_COLOURS = {
    "waiting": "#d55e00",
    "kernel": "#f0b76e",
    "user": "#8cc8ee",
    "inlined": "#c9e4f6",
    "thread": "#cccccc",
}
_LEGEND = {
    "waiting": "spins for mmap_lock",
    "kernel": "kernel",
    "user": "user mode",
    "inlined": "inlined",
}
_MAP = "RdBu_r"
_UNKNOWN = "[unknown]"
_LEAST = 0.001  # of the whole width: narrower boxes are left out
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
    if perf_profile.waits(perf_profile.without_copies(label)):
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
    least: float = _LEAST,
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


# ---- a figure ----


def plot(
    source: Source,
    base: Source | None = None,
    *,
    event: str | None = None,
    below: str | None = None,
    least: float = _LEAST,
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
    scale = _scale(drawn)
    colours = [_colour(box, base is not None, scale) for box in drawn]
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
        bar = plt.cm.ScalarMappable(mpl.colors.Normalize(-100 * scale, 100 * scale), _MAP)
        assert ax.figure is not None
        shown = ax.figure.colorbar(bar, ax=ax, fraction=0.02, pad=0.01)
        ends = f"{printable(names[0])} to {printable(names[1])}"
        shown.set_label(f"percentage points, {ends}", parse_math=False)
    else:
        kinds = {box.kind for box in drawn}
        handles = [
            Rectangle((0, 0), 1, 1, color=_COLOURS[kind], label=text)
            for kind, text in _LEGEND.items()
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
                color=_ink(colour),
                va="center",
                clip_on=True,
                parse_math=False,  # a symbol may hold $
            )


def _scale(drawn: list[Box]) -> float:
    """Return the largest change, which has the fullest colour; at least a hundredth."""
    return max(0.01, *(abs(box.share - box.base) for box in drawn))


def _colour(box: Box, compared: bool, scale: float) -> str:
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    if not compared:
        return _COLOURS[box.kind]
    return to_hex(mpl.colormaps[_MAP](0.5 + (box.share - box.base) / scale / 2))


# ---- a piece of HTML ----

_ROW = 18  # pixels


def interactive(
    source: Source,
    base: Source | None = None,
    *,
    event: str | None = None,
    below: str | None = None,
    least: float = _LEAST,
    title: str = "Where the time goes",
    names: tuple[str, str] = ("base", "this"),
) -> str:
    """Return a flame graph as HTML that can be searched and zoomed.

    It refers to no address. Several may be in one page. Names are escaped, whatever they hold.

    Parameters
    ----------
    source, base, event, below, least, title, names
        See `plot`.
    """
    drawn = boxes(source, base, event=event, below=below, least=least)
    depth = max(box.depth for box in drawn) + 1
    scale = _scale(drawn)
    names = printable(names[0]), printable(names[1])
    parts = [
        _svg_box(box, number, depth, base is not None, scale, names)
        for number, box in enumerate(drawn)
    ]
    if base is None:
        kinds = {box.kind for box in drawn}
        key = [(_COLOURS[kind], text) for kind, text in _LEGEND.items() if kind in kinds]
    else:
        ends = [_colour(Box("", "", 0, 0, 0, sign * scale, 0, -1), True, scale) for sign in (1, -1)]
        key = [(ends[0], f"more in {names[1]}"), (ends[1], f"more in {names[0]}")]
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(text)}</span>'
        for colour, text in key
    )
    return _FRAGMENT % {
        "style": _STYLE,
        "title": html.escape(printable(title)),
        "legend": legend,
        "height": depth * _ROW,
        "boxes": "".join(parts),
        "script": _SCRIPT,
    }


def _svg_box(
    box: Box, number: int, depth: int, compared: bool, scale: float, names: tuple[str, str]
) -> str:
    name = html.escape(box.label)
    told = f"{name}: {percent(box.share)}"
    if compared:
        told = (
            f"{name}: {html.escape(names[0])} {percent(box.base)}, {html.escape(names[1])} "
            f"{percent(box.share)} ({100 * (box.share - box.base):+.2f} points)"
        )
    colour = _colour(box, compared, scale)
    return (
        f'<svg class="b" role="button" tabindex="{-1 if number else 0}" aria-label="{told}" '
        f'data-p="{box.parent}" data-x="{box.left:.6f}" data-w="{box.width:.6f}" '
        f'x="{100 * box.left:.4f}%" width="{100 * box.width:.4f}%" '
        f'y="{(depth - 1 - box.depth) * _ROW}" height="{_ROW}"><title>{told}</title>'
        f'<rect width="100%" height="{_ROW - 1}" fill="{colour}"/>'
        f'<text x="3" y="{_ROW - 5}" fill="{_ink(colour)}">{name}</text></svg>'
    )


def _ink(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (WCAG's luminance)."""
    import matplotlib as mpl

    red, green, blue = mpl.colors.to_rgb(colour)

    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

    light = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    return "#000" if math.sqrt(1.05 * 0.05) < light + 0.05 else "#fff"


def page(fragment: str, title: str) -> str:
    """Return a whole page around what `interactive` returned; it may load nothing."""
    return _PAGE % {"title": html.escape(printable(title)), "fragment": fragment}


_STYLE = """
.anonvma-flame{font:13px sans-serif;color:#000;background:#fff;padding:.5em}
.anonvma-flame .t{display:flex;flex-wrap:wrap;gap:.4em 1em;align-items:center}
.anonvma-flame .t b{flex:1 1 auto}
.anonvma-flame .k span{margin-right:1em}
.anonvma-flame .k i{display:inline-block;width:1em;height:.8em;margin-right:.3em}
.anonvma-flame svg.g{width:100%;display:block;margin-top:.4em}
.anonvma-flame svg.b{cursor:pointer}
.anonvma-flame svg.b text{font:11px monospace;pointer-events:none}
.anonvma-flame svg.b:focus{outline:none}
.anonvma-flame svg.b:focus rect{stroke:#000;stroke-width:3}
.anonvma-flame svg.f rect{fill:#e0f;}
.anonvma-flame svg.f text{fill:#000;font-weight:bold}
.anonvma-flame svg.o{opacity:.55}
.anonvma-flame p{min-height:1.3em;margin:.3em 0;font-family:monospace;overflow-wrap:anywhere}
.anonvma-flame small{color:#444}
"""

# One listener for each kind of event; a zoom changes x and width of boxes, nothing else.
_SCRIPT = r"""
(() => {
for (const root of document.querySelectorAll('.anonvma-flame:not([data-ready])')) {
  root.dataset.ready = '1';
  const graph = root.querySelector('svg.g');
  const boxes = [...graph.querySelectorAll('svg.b')];
  const of = boxes.map(b => ({x: +b.dataset.x, w: +b.dataset.w, p: +b.dataset.p}));
  const index = new Map(boxes.map((b, i) => [b, i]));
  const said = root.querySelector('p'), field = root.querySelector('input');
  const shares = boxes.map(b => b.getAttribute('aria-label'));
  const names = boxes.map(b => b.querySelector('text').textContent.toLowerCase());
  let zoomed = 0;
  const visible = i => boxes[i].style.display !== 'none';
  const tell = i => { said.textContent = shares[i]; };
  const focus = i => {
    if (i === undefined) return;
    for (const b of boxes) if (b.getAttribute('tabindex') === '0') b.setAttribute('tabindex', -1);
    boxes[i].setAttribute('tabindex', 0);
    boxes[i].focus();
    tell(i);
  };
  const zoom = to => {
    zoomed = to;
    const below = new Set();
    for (let i = to; i >= 0; i = of[i].p) below.add(i);
    const {x, w} = of[to];
    of.forEach((o, i) => {
      const left = (o.x - x) / w, width = o.w / w, b = boxes[i];
      const inside = left > -1e-6 && left + width < 1 + 1e-6;
      const shown = below.has(i) || inside && within(i, to);
      b.style.display = shown ? '' : 'none';
      b.classList.toggle('o', below.has(i) && i !== to);
      b.setAttribute('x', below.has(i) ? '0%' : 100 * left + '%');
      b.setAttribute('width', below.has(i) ? '100%' : 100 * width + '%');
    });
    focus(to);
  };
  const within = (i, to) => { while (i >= 0 && i !== to) i = of[i].p; return i === to; };
  const search = () => {
    const text = field.value.toLowerCase();
    const hits = new Set();
    boxes.forEach((b, i) => {
      const hit = text !== '' && names[i].includes(text);
      b.classList.toggle('f', hit);
      if (hit) hits.add(i);
    });
    let sum = 0;
    for (const i of hits) {  // what is on top of another hit is part of it
      let p = of[i].p;
      while (p >= 0 && !hits.has(p)) p = of[p].p;
      if (p < 0) sum += of[i].w;
    }
    said.textContent = text === '' ? '' :
      `${hits.size} boxes have it: ${(100 * sum).toFixed(1)} % of the width`;
  };
  const sideways = (i, step) => {
    const y = boxes[i].getAttribute('y');
    const row = boxes.map((b, j) => j).filter(j => boxes[j].getAttribute('y') === y && visible(j));
    row.sort((a, b) => of[a].x - of[b].x);
    return row[row.indexOf(i) + step];
  };
  const widest = i => boxes.map((b, j) => j).filter(j => of[j].p === i && visible(j))
    .sort((a, b) => of[b].w - of[a].w)[0];
  const box = event => index.get(event.target.closest && event.target.closest('svg.b'));
  graph.addEventListener('click', e => { const i = box(e); if (i !== undefined) zoom(i); });
  graph.addEventListener('mouseover', e => { const i = box(e); if (i !== undefined) tell(i); });
  graph.addEventListener('focusin', e => { const i = box(e); if (i !== undefined) tell(i); });
  graph.addEventListener('keydown', e => {
    const i = box(e);
    if (i === undefined) return;
    const go = {
      ArrowUp: () => focus(widest(i)),
      ArrowDown: () => { if (of[i].p >= 0) focus(of[i].p); },
      ArrowLeft: () => focus(sideways(i, -1)),
      ArrowRight: () => focus(sideways(i, 1)),
      Enter: () => zoom(i), ' ': () => zoom(i),
      Escape: () => zoom(0), Home: () => focus(zoomed),
      '/': () => field.focus(),
    }[e.key];
    if (go && !e.ctrlKey && !e.metaKey && !e.altKey) {
      e.preventDefault(); e.stopPropagation(); go();
    }
  });
  field.addEventListener('input', search);
  field.addEventListener('keydown', e => {
    e.stopPropagation();
    if (e.key === 'Escape') { field.value = ''; search(); focus(zoomed); }
  });
  root.querySelector('button').addEventListener('click', () => zoom(0));
}
})();
"""

_FRAGMENT = """<div class="anonvma-flame"><style>%(style)s</style>
<div class="t"><b>%(title)s</b><span class="k">%(legend)s</span>
<label>Search <input type="search" spellcheck="false"></label>
<button type="button">Zoom out</button></div>
<svg class="g" height="%(height)d" role="group" aria-label="flame graph">%(boxes)s</svg>
<p aria-live="polite"></p>
<small>Click or Enter zooms, Escape zooms out, arrows move, / searches.</small></div>
<script>%(script)s</script>"""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title></head><body>
%(fragment)s
</body></html>
"""
