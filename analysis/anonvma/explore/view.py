# SPDX-License-Identifier: GPL-2.0-only
"""A view: words, tables and figures, without widgets; and all that one depends on.

A `View` is shown twice: by `anonvma.explore.explorer` inside its controls, and as its *static
twin*, the output of a notebook's cell (`display`), so that an exported notebook loses no answer.
What is not there is said, with the reason and the remedy, in the view where one would look for it.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from typing import TYPE_CHECKING, Any

import pandas as pd

from anonvma.base.text import printable
from anonvma.explore.filter import STATES, size
from anonvma.explore.selection import Selection
from anonvma.explore.source import Source
from anonvma.report import layout, output

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST = 12  # rows of a table, unless it says otherwise


@dataclasses.dataclass(frozen=True)
class View:
    """What is to be seen.

    Attributes
    ----------
    title : str
    words : list of str
        Sentences, plain text.
    tables : list of DataFrame
    figures : list of (Figure, str)
        Each with what it says to whom cannot see it.
    """

    title: str
    words: list[str]
    tables: list[pd.DataFrame] = dataclasses.field(default_factory=list)
    figures: list[tuple[Figure, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Shown:
    """All that the views depend on.

    Attributes
    ----------
    source : Source
    selection : Selection
        Of the source's VMAs.
    chosen : int or None
        The place of the VMA that is looked at, among all of them.
    other : Source or None
        What it is compared with.
    compressed : bool
        The axis of the address space.
    key, descending : str, bool
        The order of the list of VMAs.
    """

    source: Source
    selection: Selection
    chosen: int | None = None
    other: Source | None = None
    compressed: bool = True
    key: str = "start"
    descending: bool = False

    @property
    def nothing(self) -> list[str]:
        """Say it if nothing is selected."""
        return [] if len(self.selection) else [self.source.vmas.why_nothing(self.selection.filter)]

    def chosen_row(self) -> pd.Series[Any]:
        """Return the VMA that is looked at."""
        assert self.chosen is not None
        row: pd.Series[Any] = self.source.vmas.frame.iloc[self.chosen]
        return row

    def chosen_said(self) -> str:
        """Name the VMA that is looked at."""
        row = self.chosen_row()
        state = STATES[self.source.vmas.state[self.chosen]]
        return (
            f"VMA {int(row['start']):x}-{int(row['end']):x} of process {row['tgid']} "
            f"({size(int(row['bytes']))}, {row['prot']}, {row['origin']}, {state})"
        )


def summary(shown: Shown) -> str:
    """Say in a sentence what is selected."""
    if shown.nothing:
        return shown.nothing[0]
    selection = shown.selection
    kinds = ", ".join(f"{row.vmas:,} {row.state}" for row in selection.states().itertuples())
    asked = selection.filter.said() or "all"
    return (
        f"{len(selection):,} of {len(selection.vmas):,} VMAs ({asked}): {kinds}; they span "
        f"{size(selection.total('bytes'))}."
    )


def trimmed(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the states that do not occur, and say bytes as a person does.

    A process's number is a name: no commas in it.
    """
    if "tgid" in table:
        table = table.astype({"tgid": "str"})
    found = table.drop(columns=[s for s in STATES if s in table and not table[s].any()])
    for name in ("bytes", "span", "mapped"):
        if name in found:
            found[name] = [size(int(value)) for value in found[name]]
    return found


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
    return drawn.getvalue()


def as_html(view: View) -> str:
    """Return a view as a fragment of HTML: nothing in it comes from outside."""
    parts = [f"<p>{html.escape(printable(words))}</p>" for words in view.words]
    for figure, told in view.figures:
        data = base64.b64encode(_png(figure)).decode()
        parts.append(
            f'<img alt="{html.escape(told)}" style="max-width:100%;background:#fff" '
            f'src="data:image/png;base64,{data}">'
        )
    for table in view.tables:
        parts.append(f'<div class="anonvma-table">{output.styled(table).data}</div>')
    return "\n".join(parts)


def display(view: View) -> None:
    """Show a view as the output of a notebook's cell: its static twin."""
    from IPython.display import Markdown
    from IPython.display import display as show

    said = "\n\n".join(layout.in_markdown(words) for words in view.words)
    show(Markdown(said))  # type: ignore[no-untyped-call]
    for figure, told in view.figures:
        data = {"image/png": base64.b64encode(_png(figure)).decode(), "text/plain": told}
        show(data, raw=True, metadata={"image/png": {"alt": told}})  # type: ignore[no-untyped-call]
    for table in view.tables:
        show(output.styled(table))  # type: ignore[no-untyped-call]
