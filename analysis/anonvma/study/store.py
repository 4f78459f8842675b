# SPDX-License-Identifier: GPL-2.0-only
"""All runs at once: their Parquet tables as views that DuckDB queries in SQL.

A view for each table of the data dictionary, of the same name, with the column ``run`` before the
table's own; and

``runs``
    one row per run, from its manifest: what ran where, on what;
``headlines``
    run, metric, value: a few numbers of each run, by the names that kernel people read.

`views` says it in full. Tables are read as the query goes, so they may be larger than memory;
what DuckDB cannot hold of its own work it puts into a scratch directory.

What manifests and tables say is kept beside the runs, so that those that did not change are not
opened again to be listed, or for their headlines; see `anonvma.study.inventory`.

DuckDB itself opens no file here: it is handed the tables, its own access to files, the network and
extensions is switched off, and its configuration locked. A query can read the runs and nothing
else, whatever it says, and what a directory or a file of a run is called is never part of a query.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from anonvma.base import paths, scratch
from anonvma.base.errors import RunError, StoreError
from anonvma.run import runs
from anonvma.run.manifest import read_manifest
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.study.dataset import Part, dataset, headlines_of
from anonvma.study.inventory import Entry, Inventory
from anonvma.study.job import CELL
from anonvma.study.seals import Seals
from anonvma.study.store_views import HEADLINES, HEADLINES_SCHEMA, OF_HEADLINES, RUNS, row_of

_SKIPPED = ("superseded", "failed", "work", "raw", "report")
_SKIPPED_ENDS = (".partial", ".failed")
_MEMORY = "1GB"
_OF_ROW = ("manifest.json", CELL)


def directories(root: Path) -> Iterator[Path]:
    """Yield the directory of every run below one, in order; links are not followed.

    What is unfinished, failed or superseded is no run.
    """
    for parent, names, files in os.walk(root):
        if "manifest.json" in (*files, *names):
            names.clear()
            yield Path(parent)
        else:
            kept = (n for n in names if n not in _SKIPPED and not n.endswith(_SKIPPED_ENDS))
            names[:] = sorted(n for n in kept if not n.startswith("."))


class Store(AbstractContextManager["Store"]):
    """The runs below some directories, open to queries.

    Parameters
    ----------
    roots : sequence of path, optional
        ``data/runs`` by default.
    memory : str
        How much DuckDB may use before it goes to disk, such as ``1GB``.
    check : bool
        Whether to hash every table, as `anonvma.run.runs.Run.open` does, and leave out what is
        damaged; else only what has no manifest that can be read is, and from a query those tables
        that it asks for and that are not what their manifest says.

    Attributes
    ----------
    damaged : list of str
        A sentence on each run, or table of one, that had to be left out.

    Raises
    ------
    StoreError
        When there is no such directory.
    """

    def __init__(
        self, roots: Sequence[Path] = (), *, memory: str = _MEMORY, check: bool = False
    ) -> None:
        self.roots = [Path(root) for root in roots] or [paths.runs()]
        self.damaged: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._files: dict[str, list[Part]] = {}
        self._seals = {root: Seals(root) for root in self.roots}
        self._inventories = {root: Inventory(root, f"{RUNS}{HEADLINES}") for root in self.roots}
        for root in self.roots:
            if not root.is_dir():
                raise StoreError(f"there is no directory of runs {root}: collect a run first.")
            for directory in directories(root):
                self._add(root, directory, check)
            self._inventories[root].save()
        self._checked: set[str] = set()
        self._filled = False
        self._scratch = scratch.make("store")
        try:
            self._connection = self._connect(memory)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    # ---- what there is ----

    def _add(self, root: Path, directory: Path, check: bool) -> None:
        entry = None if check else self._inventories[root].entry(directory, _OF_ROW)
        try:
            entry = entry or self._read(root, directory, check)
        except RunError as error:
            self.damaged.append(str(error))
            return
        name = directory.name if directory == root else str(directory.relative_to(root))
        if len(self.roots) > 1:
            name = f"{root.name}/{name}"
        self._rows.append({"run": name, **entry.row})
        for table, told in entry.tables.items():
            self._files.setdefault(table, []).append(Part(name, directory, table, told))

    def _read(self, root: Path, directory: Path, check: bool) -> Entry:
        """Read a run's manifest, and keep what it says; with `check` look at all of the run."""
        manifest = Run.open(directory).manifest if check else read_manifest(directory)
        try:
            str(directory).encode()
        except UnicodeEncodeError:
            shown = os.fsencode(directory).decode(errors="backslashreplace")
            raise RunError(f"the name of {shown} is not UTF-8: rename it.") from None
        row = row_of(directory, manifest)
        try:
            pa.Table.from_pylist([{"run": directory.name, **row}], schema=RUNS)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise RunError(
                f"{directory}: its manifest cannot be a row of a table: {error}."
            ) from None
        entry = Entry(row, {name: told.model_dump() for name, told in manifest.tables.items()})
        self._inventories[root].put_entry(directory, _OF_ROW, entry)
        return entry

    def runs(self) -> pd.DataFrame:
        """Return the view ``runs``, oldest first."""
        return self.query("select * from runs order by created, run")

    # ---- queries ----

    def _connect(self, memory: str) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(":memory:")
        except duckdb.OutOfMemoryException:
            raise MemoryError from None
        connection.register("runs", pa.Table.from_pylist(self._rows, schema=RUNS))
        for name, declared in SCHEMAS.items():
            connection.register(name, dataset(declared, []))
        connection.execute(f"create view headlines as {HEADLINES}")
        for option, value in (
            ("memory_limit", memory),
            ("temp_directory", str(self._scratch)),
            ("preserve_insertion_order", "false"),
            ("TimeZone", "UTC"),
            ("python_enable_replacements", "false"),
            ("autoinstall_known_extensions", "false"),
            ("autoload_known_extensions", "false"),
            ("enable_external_access", "false"),
            ("lock_configuration", "true"),
        ):
            if option == "memory_limit":
                _check_memory(value)
            quoted = value.replace("'", "''")
            try:
                connection.execute(f"set {option} = '{quoted}'")
            except duckdb.Error:
                raise StoreError(f"{memory!r} is no amount of memory: write such as 1GB.") from None
        return connection

    def query(self, sql: str) -> pd.DataFrame:
        """Answer one query in DuckDB's SQL.

        Raises
        ------
        StoreError
            The query is wrong, is not one query, would change something, or needs a run's table
            that is damaged.
        """
        try:
            sql.encode()  # DuckDB itself has a page to say of what is not UTF-8
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1:
                raise StoreError(f"one query is wanted, and these are {len(statements)}.")
            self._refuse_changes(sql, statements[0].type)
            asked = self._asked(sql)
            if "headlines" in asked and self._fill_headlines():
                asked.remove("headlines")
            asked = self._tables(asked)
            for name in asked:
                self._check(name)
            try:
                found: pd.DataFrame = self._connection.execute(statements[0]).df()
            except _OF_THE_QUERY:
                raise
            except (duckdb.Error, pa.ArrowException):
                if not self._leave_out_unreadable(asked):
                    raise
                found = self._connection.execute(sql).df()
            return found
        except (duckdb.OutOfMemoryException, MemoryError):
            raise StoreError(
                "the query needs more memory than it may have: give it more with --memory, or ask "
                "for less at once."
            ) from None
        except UnicodeError:
            raise StoreError("the query is not UTF-8.") from None
        except (duckdb.Error, pa.ArrowException) as error:
            raise StoreError(_sentence(error)) from None

    def _refuse_changes(self, sql: str, kind: duckdb.StatementType) -> None:
        if kind == duckdb.StatementType.EXPLAIN:
            # EXPLAIN ANALYZE carries out what it explains.
            explained = re.sub(r"(?is)^\s*explain\s+(?:analyze\s+|\([^)]*\)\s*)?", "", sql)
            kinds = [one.type for one in self._connection.extract_statements(explained)]
            kind = kinds[0] if len(kinds) == 1 else kind
        if kind == duckdb.StatementType.MULTI:
            raise StoreError(
                "DuckDB turns PIVOT into several statements, and one is wanted: name its columns, "
                "as in: from t pivot (sum(x) for y in ('a', 'b'))."
            )
        if kind != duckdb.StatementType.SELECT:
            raise StoreError(f"runs are only read here, and {kind.name} is more than a SELECT.")

    def _asked(self, sql: str) -> list[str]:
        """Return the tables that a query reads."""
        # Of a connection that knows of no table; ours would name what its views are made of.
        apart = duckdb.connect(":memory:", config={"enable_external_access": "false"})
        with apart:
            try:
                names = {name.lower() for name in apart.get_table_names(sql)}
            except duckdb.Error:  # it cannot be told without the columns
                names = {"headlines", *self._files}
        return sorted(names & {"headlines", *self._files})

    def _tables(self, names: Sequence[str]) -> list[str]:
        """Return the tables that some views need."""
        needed = {*names, *(OF_HEADLINES if "headlines" in names else ())}
        return sorted(needed & set(self._files))

    def _fill_headlines(self) -> bool:
        """Put the headlines of all runs in the place of the view; False where that cannot be done.

        Only those runs are read whose tables have changed since, or have not been read before.
        """
        if self._filled:
            return True
        parts: dict[tuple[str, Path], list[Part]] = {}
        for table in OF_HEADLINES:
            for part in self._files.get(table, ()):
                parts.setdefault((part.run, part.directory), []).append(part)
        known: dict[str, dict[str, float] | None] = {}
        rows: list[dict[str, Any]] = []
        for (run, directory), own in parts.items():
            files = [part.told["file"] for part in own]
            known[run] = self._inventory(directory).headlines(directory, files)
        unread = [part for own in parts.values() for part in own if known[part.run] is None]
        if unread:
            sound = [part for part in unread if self._is_sound(part)]
            try:
                found = headlines_of(sound)
            except (duckdb.Error, pa.ArrowException):
                return False  # a table that cannot be read, as will be told
            for (run, directory), own in parts.items():
                if known[run] is None:
                    read = known[run] = found.get(run, {})
                    if set(own) <= set(sound):
                        files = [part.told["file"] for part in own]
                        self._inventory(directory).put_headlines(directory, files, read)
            for root in self.roots:
                self._seals[root].save()
                self._inventories[root].save()
        for run, values in known.items():
            rows += [{"run": run, "metric": m, "value": v} for m, v in (values or {}).items()]
        self._connection.execute("drop view headlines")
        table = pa.Table.from_pylist(rows, schema=HEADLINES_SCHEMA)
        self._connection.register("headlines", table)
        self._filled = True
        return True

    def _inventory(self, directory: Path) -> Inventory:
        return next(c for root, c in self._inventories.items() if directory.is_relative_to(root))

    def _check(self, name: str) -> None:
        """Register a table of those runs in which it is what their manifest says."""
        if name not in self._checked:
            self._checked.add(name)
            sound = [part for part in self._files[name] if self._is_sound(part)]
            for seals in self._seals.values():
                seals.save()
            self._register(name, sound)

    def _is_sound(self, part: Part) -> bool:
        seals = next(s for root, s in self._seals.items() if part.directory.is_relative_to(root))
        try:
            if not seals.holds(part.file, part.entry.sha256):
                runs.check_table(part.directory, part.table, part.entry)
                seals.put(part.file, part.entry.sha256)
        except RunError as error:
            if str(error) not in self.damaged:  # a table may be asked for twice
                self.damaged.append(str(error))
            return False
        return True

    def _leave_out_unreadable(self, names: Sequence[str]) -> bool:
        """Take out tables whose pages cannot be read though they are what their manifest says."""
        before = len(self.damaged)
        for name in names:
            readable = []
            for part in self._files[name]:
                try:
                    for _ in dataset(SCHEMAS[name], [part]).to_batches():
                        pass
                    readable.append(part)
                except (pa.ArrowException, OSError) as error:
                    said = str(error).splitlines()[0].rstrip(".")
                    self.damaged.append(f"{part.file} is damaged: {said}.")
            if len(readable) < len(self._files[name]):
                self._register(name, readable)
        return len(self.damaged) > before

    def _register(self, name: str, parts: Sequence[Part]) -> None:
        self._files[name] = list(parts)
        self._connection.register(name, dataset(SCHEMAS[name], parts))


_OF_THE_QUERY = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.PermissionException,
)
"""Errors that no run's pages are to blame for: to read all of them takes seconds."""


def _check_memory(text: str) -> None:
    """Refuse what DuckDB takes for an amount of memory and this machine has not."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if text.strip().startswith("-") or (match and match[1].count(".") > 1):
        raise StoreError(f"{text!r} is no amount of memory: write such as 1GB.")
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    power = " kmgt".index(match[2] or " ") if match else 0
    if match and float(match[1]) * (1024 if match[3] else 1000) ** power > has:
        raise StoreError(
            f"{text!r} is more memory than the {has / 1e9:.1f} GB of this machine: a query that "
            "needs more than it may have goes to disk."
        )


def _sentence(error: Exception) -> str:
    """Return the first line of DuckDB's message, without the kind of error before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        "no reason given"
    ]
    first = lines[0].partition("Error: ")[2] or lines[0]
    hint = next(
        (line for line in lines if line.startswith(("Did you mean", "Candidate bindings"))), ""
    )
    said = "; ".join(part.rstrip(".!") for part in (first, hint) if part)
    return f"the query cannot be answered: {said}{'' if said.endswith('?') else '.'}"
