# SPDX-License-Identifier: GPL-2.0-only
"""A flame graph as a part of a page, and as a page, that one can click through."""

from __future__ import annotations

import html

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
