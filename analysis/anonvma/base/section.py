# SPDX-License-Identifier: GPL-2.0-only
"""A section: a piece of a report, and the whole that the rows of its table are parts of."""

from __future__ import annotations

import dataclasses
import enum
import re

import pandas as pd

from anonvma.base.numerals import number

_EXACT = 1e-12  # of a total: what the arithmetic of floats has left


@dataclasses.dataclass(frozen=True)
class Whole:
    """What the rows of a table are parts of: they add up to it, or it is said what is left out.

    Attributes
    ----------
    column : str
        Of the table, whose rows are the parts.
    total : float
    what : str
        What is counted, in the plural.
    rest : str
        What those are that no row has; empty where there should be none.
    summed_up : bool
        Whether the last row is the sum of the others.
    """

    column: str
    total: float
    what: str
    rest: str = ""
    summed_up: bool = False

    def left_out(self, table: pd.DataFrame) -> float:
        """Return how many no row has."""
        rows = table.iloc[:-1] if self.summed_up else table
        rest = self.total - float(rows[self.column].astype("float64").sum())
        return rest if abs(rest) > _EXACT * max(abs(self.total), 1.0) else 0.0

    def said(self, table: pd.DataFrame) -> str:
        """Say what the rows add up to."""
        rest = self.left_out(table)
        # Of one it is in the singular: the first noun that is not.
        what = re.sub(r"(\w{3,}?)s\b", r"\1", self.what, count=1) if self.total == 1 else self.what
        whole = f"{number(self.total)} {what}"
        if rest == 0:
            return f"The rows add up to {whole}."
        if rest < 0:  # what never should be is said, too
            return f"The rows are {number(-rest)} more than {whole}: some are in several."
        return f"Not in the table: {number(rest)} of {whole}{f' ({self.rest})' * bool(self.rest)}."


class Key(enum.Enum):
    """What a section is about, whatever its title: by this, and nothing else, one is found."""

    ANSWER = "answer"
    METHOD = "method"
    EVIDENCE = "evidence"
    CLASSES = "classes"
    LOCK_PATHS = "lock-paths"
    CALLERS = "callers"
    PROFILE = "profile"
    SPECIMENS = "specimens"
    EXCEPTIONS = "exceptions"
    LACKING = "lacking"
    LOCK_COST = "lock-cost"
    CHANGED = "changed"
    UNOBSERVED = "unobserved"
    REPRODUCTION = "reproduction"


@dataclasses.dataclass(frozen=True)
class Section:
    """A piece of the report.

    Attributes
    ----------
    title : str
        For a reader only.
    paragraphs : list of str
    table : DataFrame or None
        Shown without its index.
    commands : list of str
        Lines for a shell, shown as they are.
    sources : tuple of str
        Where its numbers come from, each as ``RUN/FILE``; none where it has none.
    whole : Whole or None
        What the table's rows are parts of, where its heading or a sentence gives a total.
    key : Key or None
        None where nothing is drawn beside it, and nothing moves it.
    """

    title: str
    paragraphs: list[str]
    table: pd.DataFrame | None = None
    commands: list[str] = dataclasses.field(default_factory=list)
    sources: tuple[str, ...] = ()
    whole: Whole | None = None
    key: Key | None = None

    @property
    def words(self) -> list[str]:
        """Its paragraphs, and what the rows of its table add up to."""
        if self.whole is None or self.table is None:
            return self.paragraphs
        return [*self.paragraphs, self.whole.said(self.table)]
