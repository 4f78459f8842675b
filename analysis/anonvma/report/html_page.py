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
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from anonvma.base.section import Key
from anonvma.report.markup import harmless, plain
from anonvma.report.redaction import Wall

_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")

# Sorting: numbers by their value, whatever parts their thousands; what has none goes last.
_SORTING = Path(__file__).with_name("sorting.js").read_text(encoding="utf-8")


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
