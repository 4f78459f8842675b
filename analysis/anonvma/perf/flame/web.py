# SPDX-License-Identifier: GPL-2.0-only
"""A flame graph as a part of a page, and as a page, that one can click through."""

from __future__ import annotations

import html
from pathlib import Path

from anonvma.base.numerals import percent
from anonvma.base.text import printable
from anonvma.perf.flame.layout import (
    COLOURS,
    LEAST,
    LEGEND,
    Box,
    Source,
    boxes,
    colour_of,
    ink,
    scale_of,
)

_ROW = 18  # pixels


def interactive(
    source: Source,
    base: Source | None = None,
    *,
    event: str | None = None,
    below: str | None = None,
    least: float = LEAST,
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
    scale = scale_of(drawn)
    names = printable(names[0]), printable(names[1])
    parts = [
        _svg_box(box, number, depth, base is not None, scale, names)
        for number, box in enumerate(drawn)
    ]
    if base is None:
        kinds = {box.kind for box in drawn}
        key = [(COLOURS[kind], text) for kind, text in LEGEND.items() if kind in kinds]
    else:
        ends = [
            colour_of(Box("", "", 0, 0, 0, sign * scale, 0, -1), True, scale) for sign in (1, -1)
        ]
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
    colour = colour_of(box, compared, scale)
    return (
        f'<svg class="b" role="button" tabindex="{-1 if number else 0}" aria-label="{told}" '
        f'data-p="{box.parent}" data-x="{box.left:.6f}" data-w="{box.width:.6f}" '
        f'x="{100 * box.left:.4f}%" width="{100 * box.width:.4f}%" '
        f'y="{(depth - 1 - box.depth) * _ROW}" height="{_ROW}"><title>{told}</title>'
        f'<rect width="100%" height="{_ROW - 1}" fill="{colour}"/>'
        f'<text x="3" y="{_ROW - 5}" fill="{ink(colour)}">{name}</text></svg>'
    )


def page(fragment: str, title: str) -> str:
    """Return a whole page around what `interactive` returned; it may load nothing."""
    return _PAGE % {"title": html.escape(printable(title)), "fragment": fragment}


_STYLE = Path(__file__).with_name("flame.css").read_text(encoding="utf-8")

# One listener for each kind of event; a zoom changes x and width of boxes, nothing else.
_SCRIPT = Path(__file__).with_name("flame.js").read_text(encoding="utf-8")

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
