# SPDX-License-Identifier: GPL-2.0-only
"""The page: an executed notebook as one HTML file, its words and outputs without its code.

It reads without scripts and without the network, on a phone and on paper, in light and in dark.
Where scripts run, tables sort by the column whose head is pressed. The only scripts that a
browser will run are those written here and in the fragments that anonvma made, each named by its
hash in the page's own policy.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Collection, Mapping, Sequence

import nbformat
from nbconvert import HTMLExporter

from anonvma.base.section import Key
from anonvma.report.markup import harmless, plain
from anonvma.report.redaction import Wall

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --faint: #5a5a5a; --paper: #fff; --line: #ccc;
  --mark: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --faint: #a8a8a8; --paper: #16181b; --line: #444; --mark: #8ab8f0; }
  @media screen { img { filter: invert(.9) hue-rotate(180deg); } }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; }
h1, h2, h3 { line-height: 1.2; }
p, ul, ol { max-width: 46rem; }
a { color: var(--mark); }
em { color: var(--faint); }
.prompt { display: none; }
img { max-width: 100%; height: auto; }
nav ol { columns: 18rem; column-gap: 3rem; padding-left: 1.5rem; }
.flame-drawn { display: none; }
pre { overflow-x: auto; padding: .5rem; border: 1px solid var(--line); }
.output_html, .scrolls { overflow-x: auto; margin: 1rem 0;
  /* A shadow at an edge behind which there is more: the paper's own colour scrolls over it. */
  background:
    linear-gradient(90deg, var(--paper) 30%, transparent) left / 2rem 100% local no-repeat,
    linear-gradient(-90deg, var(--paper) 30%, transparent) right / 2rem 100% local no-repeat,
    linear-gradient(90deg, #0003, transparent) left / .7rem 100% scroll no-repeat,
    linear-gradient(-90deg, #0003, transparent) right / .7rem 100% scroll no-repeat; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; color: var(--faint); padding-top: .3rem; }
/* As wide as the screen and not as the table, or a phone would show its beginning alone. */
caption > span { display: inline-block; max-width: calc(100vw - 2.5rem); overflow-wrap: anywhere; }
th, td { padding: .15rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: inherit; }
th button:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
footer { margin-top: 2rem; border-top: 1px solid var(--line); color: var(--faint); }
@media print {
  :root { --ink: #000; --faint: #444; --paper: #fff; --line: #bbb; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; }
  /* What is drawn stays with what is said before it and with the table after it. */
  .output_area:has(h2), .output_area:has(img), .output_area:has(h2) p { break-after: avoid; }
  img, tr, pre, thead, caption { break-inside: avoid; }
  tbody tr:nth-child(-n+3) { break-after: avoid; }
  img { max-height: 12cm; object-fit: contain; object-position: left; }
  nav { display: none; }
  .flame-drawn { display: block; }
  .output_html, .scrolls, pre { overflow: visible; background: none; }
  pre { white-space: pre-wrap; }
  table { font-size: 7.5pt; }
  th, td { white-space: normal; padding: .1rem .3rem; }
  .anonvma-flame { display: none; }
}
"""

# Sorting: numbers by their value, whatever parts their thousands; what has none goes last.
_SORTING = """
for (const table of document.querySelectorAll("table.dataframe")) {
  const body = table.tBodies[0];
  const heads = table.tHead ? [...table.tHead.rows[table.tHead.rows.length - 1].cells] : [];
  if (!body || heads.length === 0) continue;
  const key = (row, column) => {
    const text = row.cells[column] ? row.cells[column].textContent.trim() : "";
    const number = Number(text.replace(/[,%\\s]/g, ""));
    return text === "" || text === "-" ? null : Number.isNaN(number) ? text : number;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" && typeof b === "number"
          ? a - b : String(a).localeCompare(String(b));
        return down ? -order : order;
      });
      rows.forEach(([, row]) => body.append(row));
    });
  });
}
"""


def page(
    notebook: nbformat.NotebookNode,
    title: str,
    wall: Wall | None = None,
    fragments: Mapping[Key, str] | None = None,
) -> str:
    """Return one self-contained HTML page of an executed notebook.

    Parameters
    ----------
    notebook : NotebookNode
    title : str
    wall : Wall, optional
        Through which all of it goes; by default everything passes, for a page that stays here.
    fragments : mapping of Key to str
        HTML made by anonvma, such as an interactive flame graph, by the key of the section that
        it stands in (see `anonvma.report.output.words`): on a screen in place of that section's
        figure, which is for paper. They may have scripts of their own, which add their handlers
        themselves: one written into an attribute (``onclick=``) does not run here.
    """
    wall = wall or Wall.none()
    exporter = HTMLExporter(template_name="basic")  # type: ignore[no-untyped-call]
    exporter.exclude_input = True
    exporter.exclude_anchor_links = True
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    # Neither its metadata nor the tags of its cells become part of the page.
    live = {key.value: harmless(part, wall, ours=True) for key, part in (fragments or {}).items()}
    cells = [_bare(cell, live) for cell in notebook.cells]
    bare = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(bare)
    parts = [_with_contents(_with_fragments(harmless(body, wall), live))]
    if said := wall.said(*parts):
        parts.append(f"<footer><p>{html.escape(said)}</p></footer>")
    return _document(wall.scrub(title), "\n".join(parts))


_HEAD = re.compile(r"(<h2)([^>]*>)(.*?)(</h2>)", re.S)
_FIGURE = re.compile(r"<img [^>]*>")
_MARK = "anonvma-part-"
"""Stands with a key at the end of a heading while a page is made, to find the section by."""


def _with_fragments(body: str, fragments: Mapping[str, str]) -> str:
    """Put each fragment into the section of its key, before the figure that it stands for."""
    heads = list(_HEAD.finditer(body))
    ends = [head.start() for head in heads[1:]] + [len(body)]
    left = dict(fragments)
    written = [body[: heads[0].start()] if heads else body]
    for head, end in zip(heads, ends, strict=True):
        section = body[head.start() : end]
        words, _, key = head[3].strip().rpartition(f" {_MARK}")
        fragment = left.pop(key, None) if words else None
        if fragment is not None:
            section = section.replace(f" {_MARK}{key}", "", 1)
            figure = _FIGURE.search(section)
            head_end = section.index("</h2>") + len("</h2>")
            place = figure.start() if figure else head_end
            drawn = section[place:]
            if figure:
                drawn = f'<span class="flame-drawn">{figure[0]}</span>' + section[figure.end() :]
            section = section[:place] + fragment + drawn
        written.append(section)
    return "".join([*written, *left.values()])


def _with_contents(body: str) -> str:
    """Give each section an address of its own, and list them below the title."""
    heads = [head[3].strip() for head in _HEAD.finditer(body)]
    if len(heads) < 3:
        return body
    numbers = iter(range(1, len(heads) + 1))
    body = _HEAD.sub(
        lambda head: f'{head[1]} id="s{next(numbers)}"{head[2]}{head[3]}{head[4]}', body
    )
    links = "".join(f'<li><a href="#s{n}">{words}</a></li>' for n, words in enumerate(heads, 1))
    contents = f'<nav aria-label="Contents"><ol>{links}</ol></nav>'
    place = body.find("</h1>")
    place = 0 if place < 0 else place + len("</h1>")
    return body[:place] + contents + body[place:]


def index(title: str, words: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a page that leads to others.

    Parameters
    ----------
    title, words : str
    heads : sequence of str
        Of the table's columns.
    rows : sequence of sequence of str
        One row per page: where it is, relative to this one, then what the columns say.
    """
    head = "".join(f"<th>{html.escape(plain(name))}</th>" for name in heads)
    body = []
    for address, first, *others in rows:
        link = f'<a href="{html.escape(address)}">{html.escape(plain(first))}</a>'
        cells = "".join(f"<td>{html.escape(plain(cell))}</td>" for cell in others)
        body.append(f"<tr><td>{link}</td>{cells}</tr>")
    return _document(
        title,
        f"<h1>{html.escape(plain(title))}</h1>\n"
        + "\n".join(f"<p>{html.escape(plain(part))}</p>" for part in words.split("\n\n"))
        + f'\n<div class="scrolls"><table class="dataframe"><thead><tr>{head}</tr></thead>\n'
        + "<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table></div>",
    )


def _bare(cell: nbformat.NotebookNode, marked: Collection[str]) -> nbformat.NotebookNode:
    """Return a cell without metadata, its outputs without any but a figure's alternative text.

    The headings of some sections are marked, by the keys of these.
    """
    if cell.cell_type != "code":
        return nbformat.v4.new_markdown_cell(cell.source)  # type: ignore[no-untyped-call, no-any-return]
    sound = (output for output in cell.outputs if output.output_type != "error")
    outputs = [_bare_output(output, marked) for output in sound]
    return nbformat.v4.new_code_cell(outputs=outputs)  # type: ignore[no-untyped-call, no-any-return]


_SHOWN = ("text/html", "text/markdown", "image/png", "text/plain")


def _bare_output(output: nbformat.NotebookNode, marked: Collection[str]) -> nbformat.NotebookNode:
    if output.output_type == "stream":
        return nbformat.v4.new_output("stream", name="stdout", text=output.text)  # type: ignore[no-untyped-call, no-any-return]
    data = {kind: output.data[kind] for kind in _SHOWN if kind in output.data}
    part = output.metadata.get("text/markdown", {}).get("part")
    if part in marked:
        first, newline, rest = data["text/markdown"].partition("\n")
        data["text/markdown"] = f"{first} {_MARK}{part}{newline}{rest}"
    kept = {}
    for kind, about in output.metadata.items():
        if kind in data and isinstance(about, dict):
            kept[kind] = {key: about[key] for key in ("alt", "width", "height") if key in about}
    return nbformat.v4.new_output("display_data", data=data, metadata=kept)  # type: ignore[no-untyped-call, no-any-return]


def _document(title: str, body: str) -> str:
    """Put the head on, and the policy that lets these scripts and no others run."""
    body += f"\n<script>{_SORTING}</script>"
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", body, re.S)
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in dict.fromkeys(scripts))
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(plain(title))}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
