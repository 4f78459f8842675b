# SPDX-License-Identifier: GPL-2.0-only
"""Tables as text: each column in one format, and no wider than a terminal where that is asked for.

Numbers are rounded by `anonvma.base.numerals`. A column holds like things and so has one format,
but in a table whose first column names a figure each row is another thing, with digits of its own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base import numerals
from anonvma.base.text import printable

_NAMES = frozenset({"pid", "tgid", "tid"})
"""Numbers that are names: written as ps and top write them, so that they can be pasted."""

_UNLIKE = frozenset({"figure", "metric", "counter"})
"""What the first column of a table is called whose rows are of different things."""

OPTIONAL = ("wait ms",)
"""Columns that are left out where a terminal has no room for them."""

LACKING = "lacking"
"""Of a table's ``attrs``: why it has no rows, where it has none."""

_DIGITS = 5  # of the largest number of a column: beside 4,096 a difference of 0.004 is none
_NARROWEST = 11  # that a column of text is shortened to


def cell(value: object) -> str:
    """Return one value as text: thousands apart, ``-`` for nothing."""
    if value is None or value is pd.NA:
        return "-"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    return numerals.number(value) if isinstance(value, float | np.floating) else str(value)


def in_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with each value as text, a column in one format."""
    unlike = len(table.columns) > 0 and table.columns[0] in _UNLIKE
    found = {}
    for name in table.columns:
        values = table[name]
        if unlike or not pd.api.types.is_float_dtype(values):
            found[name] = [cell(value) for value in values.astype(object)]
        else:
            found[name] = numerals.column(values, at_most=_DIGITS)
        if name in _NAMES:
            found[name] = [text.replace(",", "") for text in found[name]]
    return pd.DataFrame(found, index=table.index, columns=table.columns, dtype=object)


def lines(
    table: pd.DataFrame, width: int | None = None, optional: Collection[str] = OPTIONAL
) -> list[str]:
    """Set a table without its index, numbers to the right; free of control characters.

    Parameters
    ----------
    table : DataFrame
    width : int, optional
        Columns of the terminal that it has to fit.
    optional : collection of str
        Names of columns that are left out, in this order, where it would not fit.
    """
    text = in_columns(table).map(printable)
    if width is not None:
        text = fitted(text, width, optional)
    columns = []
    for name in text.columns:
        column = [str(name), *text[name]]
        longest = max(map(len, column))
        right = _is_numeric(table[name])
        columns.append([each.rjust(longest) if right else each.ljust(longest) for each in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def fitted(text: pd.DataFrame, width: int, optional: Collection[str] = ()) -> pd.DataFrame:
    """Return a table of text that is as wide as a terminal: columns left out, then texts cut.

    What cannot be cut, such as a table of many numbers, stays too wide.
    """
    for name in optional:
        if _width(text) > width and name in text:
            text = text.drop(columns=name)
    for name in sorted(text.columns, key=lambda name: -_longest(text, name)):
        if (over := _width(text) - width) <= 0:
            break
        room = max(_longest(text, name) - over, len(str(name)), _NARROWEST)
        cut = [each if len(each) <= room else each[: room - 1] + "…" for each in text[name]]
        text = text.assign(**{str(name): cut})
    return text


def pieces(table: pd.DataFrame | None, width: int) -> Iterator[pd.DataFrame]:
    """Give a table in pieces of at most so many columns of text, each with its first column."""
    if table is None:
        return
    text = in_columns(table).map(printable)
    if len(table.columns) < 3 or _width(text) <= width:
        yield table
        return
    first, *names = table.columns
    fit = len(names)
    while fit > 1 and _width(text[[first, *names[:fit]]]) > width:
        fit -= 1
    yield table[[first, *names[:fit]]]
    yield from pieces(table[[first, *names[fit:]]] if names[fit:] else None, width)


def terminal_width() -> int | None:
    """Return the width of the terminal that is written to, None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _is_numeric(values: pd.Series[Any]) -> bool:
    kind = pd.api.types
    return bool(kind.is_numeric_dtype(values) and not kind.is_bool_dtype(values))


def _longest(text: pd.DataFrame, name: object) -> int:
    return max([len(str(name)), *map(len, text[name])])


def _width(text: pd.DataFrame) -> int:
    return sum(_longest(text, name) for name in text.columns) + 2 * (len(text.columns) - 1)
