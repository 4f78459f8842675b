# SPDX-License-Identifier: GPL-2.0-only
"""How a notebook shows a table: as the reports do, without a word in its cells.

`install` is called by ``parameters.check()``, in the first cell of each notebook. From then on a
DataFrame that a cell ends in, or that it displays, has one format per column, numbers to the right,
and no index that says nothing. Its plain text, which is what a terminal or a diff shows of the
notebook, is the table too. A cell that ends in a plot shows the plot alone.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import pandas as pd

from anonvma.base import tabular

if TYPE_CHECKING:
    from IPython.lib.pretty import RepresentationPrinter

MOST = 60
"""Rows that are shown of a table, as pandas has it; what is left out is said below it."""


def install() -> None:
    """Have this notebook's kernel show tables so; outside of one nothing happens."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    formatters = shell.display_formatter.formatters
    formatters["text/html"].for_type(pd.DataFrame, _html)
    formatters["text/plain"].for_type(pd.DataFrame, _plain)
    # The figure is shown when its cell ends; what was drawn on has nothing to add.
    shown = shell.display_formatter.ipython_display_formatter
    shown.for_type_by_name("matplotlib.axes._axes", "Axes", lambda axes: None)


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose index, where it says something, is its first columns."""
    nameless = all(name is None for name in table.index.names)
    if nameless and pd.api.types.is_integer_dtype(table.index):
        return table.reset_index(drop=True)
    return table.reset_index()


def _html(table: pd.DataFrame) -> str:
    from anonvma.report import output

    shown = str(output.styled(plain(table).head(MOST)).data)
    return shown + "".join(f"<p>{html.escape(words)}</p>" for words in _below(table))


def _plain(table: pd.DataFrame, printer: RepresentationPrinter, cycle: Any) -> None:
    lines = tabular.lines(plain(table).head(MOST)) if len(table.columns) else []
    printer.text("\n".join([*lines, *_below(table)]))  # type: ignore[no-untyped-call]


def _below(table: pd.DataFrame) -> list[str]:
    """Say below a table what it does not show: rows beyond `MOST`, or why it has none."""
    if len(table) > MOST:
        return [f"{MOST} of {len(table):,} rows."]
    return [] if len(table) else [str(table.attrs.get(tabular.LACKING, "No rows."))]
