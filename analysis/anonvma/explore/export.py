# SPDX-License-Identifier: GPL-2.0-only
"""Taking a selection along: as a paragraph for a mail, as Parquet and as CSV."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from anonvma.base import marker
from anonvma.base.errors import SelectionError
from anonvma.base.text import printable
from anonvma.explore.filter import size
from anonvma.explore.selection import Selection
from anonvma.report.layout import WIDTH
from anonvma.tables.census import CLASSES


def paragraph(selection: Selection, where: str) -> str:
    """Return a paragraph for a mail: counts, no name of a process, file, user or machine.

    Parameters
    ----------
    selection : Selection
    where : str
        What the census was of, such as ``small-allocs-mt on Linux 6.18 (x86_64, 2 CPUs)``.

    Returns
    -------
    str
        Lines of at most 72 columns, ending in a newline.
    """
    asked = selection.filter.said()
    which = f", those {asked}" if asked else ""
    if not selection.count:
        said = f"Of {len(selection.vmas):,} VMAs ({where}){which}: none."
        return _wrapped(said)
    kinds = selection.states()
    named = ", ".join(f"{row.vmas:,} {row.state}" for row in kinds.itertuples())
    bare = int(kinds.loc[kinds["state"].isin(CLASSES), "vmas"].sum())
    said = (
        f"{selection.count:,} of {len(selection.vmas):,} VMAs ({where}){which}: {named}. "
        f"{bare:,} of them are bare (vm_ops and anon_vma both NULL). They span "
        f"{size(selection.total('bytes'))}."
    )
    if bare and selection.vmas.frame["present"].iloc[selection.positions].notna().any():
        present, zero = selection.total("present"), selection.total("zero")
        said += f" In the bare ones {present:,} pages are present, {zero:,} of these the zero page."
    return _wrapped(said)


def _wrapped(words: str) -> str:
    lines = textwrap.wrap(printable(words), WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


_KINDS = ("parquet", "csv", "txt")


def write(selection: Selection, where: str, name: str, directory: Path) -> Iterator[Path]:
    """Write a selection as Parquet, as CSV and as a paragraph, and yield each path.

    Parameters
    ----------
    selection : Selection
    where : str
        As for `paragraph`.
    name : str
        What the files are called, without an ending.
    directory : path
        Where they go; made if it is missing.

    Raises
    ------
    SelectionError
        When the name is none, or a file cannot be written.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise SelectionError(
            f"{name!r} cannot be the name of a file here: use letters, digits, '-', '_' and '.'."
        )
    frame = selection.frame()
    for kind in _KINDS:
        path = directory / f"{name}.{kind}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with marker.new_file(path) as draft:
                if kind == "parquet":
                    frame.to_parquet(draft, compression="zstd", index=False)
                elif kind == "csv":
                    frame.to_csv(draft, index=False)
                else:
                    draft.write_text(paragraph(selection, where), encoding="utf-8")
        except OSError as error:
            raise SelectionError(f"cannot write {path}: {error.strerror or error}.") from None
        yield path
