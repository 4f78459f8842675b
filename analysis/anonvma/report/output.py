# SPDX-License-Identifier: GPL-2.0-only
"""How a notebook shows a table or a figure: the same bytes each time, with where it comes from."""

from __future__ import annotations

import hashlib
import html
import io
import struct
from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base import tabular
from anonvma.base.section import Section
from anonvma.base.tabular import cell
from anonvma.base.text import printable
from anonvma.report import layout

if TYPE_CHECKING:
    from IPython.display import HTML, Image, Markdown
    from matplotlib.figure import Figure


def styled(table: pd.DataFrame, source: str = "") -> HTML:
    """Return a table as a notebook shows it: without index, numbers to the right.

    Parameters
    ----------
    table : DataFrame
    source : str
        Where its numbers come from, shown below it and over each of them; see
        `anonvma.report.sources`.
    """
    from IPython.display import HTML

    shown = tabular.in_columns(table).map(printable).style.hide().format(escape="html")
    sides = {True: "text-align: right", False: "text-align: left"}
    alike = [
        {"selector": f".col{place}", "props": sides[pd.api.types.is_numeric_dtype(table[name])]}
        for place, name in enumerate(table)
    ]
    shown = shown.set_table_styles(alike)  # type: ignore[arg-type]
    # Not the Styler itself: its repr has an address, and its ids are random.
    # Ids that differ from table to table and not from time to time.
    uuid = hashlib.sha256(table.to_csv().encode()).hexdigest()[:8]
    attributes = 'class="dataframe"'
    if source:
        said = html.escape(f"from {printable(source)}")
        shown = shown.set_caption(f"<span>{said}</span>")
        attributes += f' title="{said}"'
    page = shown.set_table_attributes(attributes).set_uuid(uuid).to_html()
    return HTML(page)  # type: ignore[no-untyped-call]


def words(part: Section) -> Markdown:
    """Return a section's words, without its table; its key goes along, for the page made of it."""
    from IPython.display import Markdown

    about = {"part": part.key.value} if part.key else None
    return Markdown(layout.markdown(part), metadata=about)  # type: ignore[no-untyped-call]


RESULT = "application/vnd.anonvma.result+json"


def result(**values: str) -> None:
    """Hand values to whoever executes the notebook, as JSON; a reader sees them, too."""
    from IPython.display import display

    shown = "\n".join(f"{name}: {value}" for name, value in values.items())
    display({RESULT: values, "text/plain": shown}, raw=True)  # type: ignore[no-untyped-call]


def told(table: pd.DataFrame, otherwise: str) -> HTML | Markdown:
    """Return a table as `styled`, or in place of one without rows a sentence that says why."""
    from IPython.display import Markdown

    return styled(table) if len(table) else Markdown(otherwise)  # type: ignore[no-untyped-call]


def figure(drawn: Figure, alt: str) -> Image:
    """Return a figure as a notebook shows it, with words for those who do not see it.

    Parameters
    ----------
    drawn : Figure
        It is closed.
    alt : str
        What it shows, with the numbers that matter.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image

    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=144, bbox_inches="tight", metadata={"Software": None})
    plt.close(drawn)
    data = buffer.getvalue()
    (width,) = struct.unpack(">I", data[16:20])  # of the IHDR chunk, which is always the first
    return Image(data, alt=printable(alt), width=width // 2)  # type: ignore[no-untyped-call]


def in_words(table: pd.DataFrame, label: str, *values: str) -> str:
    """Say a table's rows in words, for a figure that draws them: ``a: 1 x, 2 y; b: ...``."""
    rows = [
        f"{row[label]}: " + ", ".join(f"{cell(row[value])} {value}" for value in values)
        for row in table.to_dict("records")
    ]
    return "; ".join(rows) + "."
