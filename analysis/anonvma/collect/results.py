# SPDX-License-Identifier: GPL-2.0-only
"""What has come in of a run so far: the rows of its tables, and what its manifest says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from anonvma.run.manifest import Unobserved
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import to_table


class Results:
    """Rows by table, notes, what could not be observed, and what the censuses lost.

    Attributes
    ----------
    rows : dict
        By table, those that come as objects.
    notes : list of str
    unobserved : list of Unobserved
    losses : Counter
    pages_how : str or None
        As in `anonvma.run.manifest.Manifest`.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
        self._pieces: dict[str, list[pa.Table]] = {}
        self.notes: list[str] = []
        self.unobserved: list[Unobserved] = []
        self.losses: Counter[str] = Counter()
        self.pages_how: str | None = None

    def add(self, table: str, repeat: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take rows of a repeat."""
        self.rows[table] += [{"repeat": repeat, **row} for row in rows]

    def add_frame(self, table: str, repeat: int, frame: pd.DataFrame) -> None:
        """Take rows of a repeat that are many: kept as Arrow has them, which is smaller."""
        piece = to_table(frame.assign(repeat=repeat), SCHEMAS[table])
        self._pieces.setdefault(table, []).append(piece)

    def lacks(self, what: str, reason: str, remedy: str, tables: Iterable[str] = ()) -> None:
        """Note, once, something that cannot be observed, and the tables that lack for it."""
        if what not in {entry.what for entry in self.unobserved}:
            self.unobserved.append(
                Unobserved(what=what, reason=reason, remedy=remedy, tables=list(tables))
            )

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables that have rows."""
        tables = {name: to_table(rows, SCHEMAS[name]) for name, rows in self.rows.items() if rows}
        for name, pieces in self._pieces.items():
            tables[name] = pa.concat_tables(pieces).unify_dictionaries()
        return tables
