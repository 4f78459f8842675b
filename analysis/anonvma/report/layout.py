# SPDX-License-Identifier: GPL-2.0-only
"""Layout: a report's sections as plain text or as Markdown, in 72 columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from anonvma.base import tabular
from anonvma.base.section import Section
from anonvma.base.text import printable
from anonvma.report.sources import sources_said

WIDTH = 72
COLUMNS = 80
"""Of a mail and of a report: a table that is wider is set in several, one below the other."""


def text(
    parts: list[Section], title: str, width: int | None = None, split: int | None = None
) -> str:
    """Set the report for a mail or a terminal: prose within 72 columns, tables as wide as they are.

    Parameters
    ----------
    parts : list of Section
    title : str
    width : int, optional
        Columns of a terminal that tables are cut to.
    split : int, optional
        Columns of which a wider table is set in several.

    Returns
    -------
    str
        Plain text, ending in a newline, free of control characters.
    """
    lines = [*textwrap.wrap(printable(title), WIDTH), ""]
    for part in parts:
        lines += [part.title, "-" * len(part.title), ""]
        for paragraph in part.words:
            lines += [*wrapped(paragraph), ""]
        if part.table is not None:
            tables = [part.table] if split is None else tabular.pieces(part.table, split)
            lines += "\n\n".join("\n".join(tabular.lines(t, width)) for t in tables).split("\n")
            lines += [*_sources_lines(part), ""]
        if part.commands:
            lines += [*command_lines(part.commands), ""]
    return "\n".join(lines).rstrip() + "\n"


def _sources_lines(part: Section) -> list[str]:
    said = sources_said(part)
    return wrapped(f"(from {said})") if said else []


def wrapped(words: str, width: int = WIDTH) -> list[str]:
    """Set a paragraph within 72 columns, no word broken, and no number parted from its per cent."""
    kept = printable(words).replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(kept, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


# A word for the shell, its quotes never broken, and an option of papermill with what it sets.
_SHELL_WORD = re.compile(r"""-p \S+ (?:'[^']*'|[^\s'])+|(?:'[^']*'|"[^"]*"|[^\s'"])+""")


def command_lines(commands: list[str]) -> Iterator[str]:
    """Set commands so that a shell takes them as they stand, on as many lines as they need."""
    for command in commands:
        lines = [""]
        for word in _SHELL_WORD.findall(command):
            if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH - 6:
                lines.append("")
            lines[-1] += f" {word}" if lines[-1] else word
        for number, line in enumerate(lines):
            end = " \\" if number + 1 < len(lines) else ""
            yield ("    " if number == 0 else "        ") + line + end


def in_markdown(words: str) -> str:
    """Return words so that Markdown shows them as they are, and makes nothing of them."""
    shown = re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", printable(words))
    return shown.replace("&", "&amp;").replace("://", r":\//")


def markdown(part: Section) -> str:
    """Return a section's words, without its table, for a notebook."""
    words = [f"## {in_markdown(part.title)}", *map(in_markdown, part.words)]
    if part.commands:
        words.append("```sh\n" + "\n".join(command_lines(part.commands)) + "\n```")
    if part.table is None and part.sources:
        words.append(f"*from {in_markdown(sources_said(part))}*")
    return "\n\n".join(words)
