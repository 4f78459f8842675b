# SPDX-License-Identifier: GPL-2.0-only
"""The inventory: what manifests and tables say of every run of a store, without opening them again.

Beside the runs a file keeps, of each run, its row of the view ``runs``, which tables it has, and
its headlines, each with the state of the files that this was read from; see
`anonvma.study.sidecar`. A run whose files are in any other state is read anew.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from anonvma.study.sidecar import Beside, state

_TIMES = ("created", "finished")


class Entry(NamedTuple):
    """What is known of a run: its row but for its name, and its tables as in its manifest."""

    row: dict[str, Any]
    tables: dict[str, Any]


class Inventory:
    """The inventory of the runs below a directory.

    Parameters
    ----------
    root : path
    of : str
        What a row and the headlines are made by: with another of it nothing is known.
    """

    def __init__(self, root: Path, of: str) -> None:
        self._runs = Beside(root, ".inventory", of)
        self._headlines = Beside(root, ".headlines", of)

    def entry(self, run: Path, files: Iterable[str]) -> Entry | None:
        """Return what is known of a run, None if nothing is or one of these files has changed."""
        kept = self._runs.get(run)
        if kept is None or kept["states"] != [state(run / name) for name in files]:
            return None
        row = dict(kept["row"])
        row.update((name, datetime.datetime.fromisoformat(row[name])) for name in _TIMES)
        return Entry(row, kept["tables"])

    def put_entry(self, run: Path, files: Iterable[str], entry: Entry) -> None:
        """Keep what was read of a run from these files of it."""
        row = entry.row | {name: entry.row[name].isoformat() for name in _TIMES}
        states = [state(run / name) for name in files]
        self._runs.put(run, {"states": states, "row": row, "tables": entry.tables})

    def headlines(self, run: Path, files: Iterable[str]) -> dict[str, float] | None:
        """Return the headlines of a run, None if not known or one of these tables has changed."""
        kept = self._headlines.get(run)
        if kept is None or kept["states"] != [state(run / name) for name in files]:
            return None
        values: dict[str, float] = kept["values"]
        return values

    def put_headlines(self, run: Path, files: Iterable[str], values: dict[str, float]) -> None:
        """Keep the headlines that were read from these tables of a run."""
        states = [state(run / name) for name in files]
        self._headlines.put(run, {"states": states, "values": values})

    def save(self) -> None:
        """Write what was put."""
        self._runs.save()
        self._headlines.save()
