# SPDX-License-Identifier: GPL-2.0-only
"""The letter: what a report says on a mailing list, in plain text.

Shorter than the report, and in the order in which a list reads: the answer at once and without a
heading, the numbers it stands on, the method, what could not be observed, how to repeat it. Prose
keeps to 72 columns, tables to 80: one that is wider is set in two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pandas as pd

from anonvma.base import paths, tabular
from anonvma.base.section import Key, Section
from anonvma.report import layout
from anonvma.report.answer import QUESTION
from anonvma.report.sources import sources_said
from anonvma.run.version import version

COLUMNS = layout.COLUMNS
# Of a long report, what a mail leaves to the page.
_LEFT_OUT = (Key.CLASSES, Key.EXCEPTIONS, Key.LACKING)
_FIRST = (Key.EVIDENCE, Key.METHOD)
_LAST = (Key.UNOBSERVED, Key.REPRODUCTION)


_ASKED_BY = (
    'In April 2024 Matthew Wilcox asked ("Re: [PATCH] mm: Always sanity check anon_vma first for '
    'per-vma locks"):'
)


def body(parts: Sequence[Section], withheld: str = "", asked: bool = False) -> str:
    """Return the text of a mail.

    Parameters
    ----------
    parts : sequence of Section
        The report's, the answer first.
    withheld : str
        A sentence on what was withheld; it stands with what could not be observed.
    asked : bool
        Whether to quote the question, for a reader who has nothing but this mail.

    Returns
    -------
    str
        Ends in the signature. Free of control characters.
    """
    answer, *others = parts
    quoted = [f"> {line}" for line in layout.wrapped(QUESTION, layout.WIDTH - 2)]
    lines = [*layout.wrapped(_ASKED_BY), *quoted, ""] if asked else []
    lines += _paragraphs(answer)
    if origin := _origin(answer):
        lines += [*origin, ""]
    for part in _in_order(others):
        if part.key is Key.SPECIMENS:
            said = [part.paragraphs[0], "The table has these; a column says what was done to them."]
            part = dataclasses.replace(part, paragraphs=said, table=_answering(part.table))
        if part.key is Key.UNOBSERVED and withheld:
            part = dataclasses.replace(part, paragraphs=[*part.paragraphs, withheld])
        lines += [part.title, "-" * len(part.title), "", *_paragraphs(part)]
        for block in tabular.pieces(part.table, COLUMNS):
            lines += [*tabular.lines(block), ""]
        if part.table is not None:
            lines[-1:] = [*_origin(part), ""]
        if part.commands:
            lines += [*layout.command_lines(part.commands), ""]
    return "\n".join([*lines, *signature()]) + "\n"


def signature() -> list[str]:
    """Return the lines of the signature; a mail reader greys out what follows the two dashes."""
    address = paths.project_url()
    return ["-- ", f"anonvma {version()}", *([address] if address else [])]


def _in_order(parts: Sequence[Section]) -> list[Section]:
    kept = [part for part in parts if part.key not in _LEFT_OUT]

    def place(part: Section) -> int:
        if part.key in _FIRST:
            return _FIRST.index(part.key) - len(_FIRST)
        return _LAST.index(part.key) + 1 if part.key in _LAST else 0

    return sorted(kept, key=place)


def _answering(grid: pd.DataFrame | None) -> pd.DataFrame | None:
    """Of the specimens, those that answer the question."""
    if grid is None:
        return None
    rows = (grid == "zero-page").any(axis=1)
    return grid[rows]


def _paragraphs(part: Section) -> Iterator[str]:
    for paragraph in filter(None, part.words):
        yield from layout.wrapped(paragraph)
        yield ""


def _origin(part: Section) -> list[str]:
    """Where the numbers come from: short, for a mail has no room to name each file twice."""
    said = sources_said(part)
    return layout.wrapped(f"(from {said})") if said and len(said) <= 3 * COLUMNS else []
