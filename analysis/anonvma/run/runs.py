# SPDX-License-Identifier: GPL-2.0-only
"""A run: opened once it is known to be whole, and found by its name.

A run is a directory that holds

``manifest.json``
    what ran where, what could not be observed, and the hash of every other file;
``*.parquet``
    the tables, each with its schema of `anonvma.run.schema`;
``raw/``
    what the programs wrote themselves.

Everything downstream needs this directory and nothing else.
"""

from __future__ import annotations

import collections
import functools
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from anonvma.base.errors import RunError
from anonvma.run import catalogue, soundness
from anonvma.run import files as run_files
from anonvma.run.jobs import FAILURE
from anonvma.run.manifest import Manifest, TableFile, read_manifest
from anonvma.run.schema import SCHEMAS

if TYPE_CHECKING:
    import pandas as pd

_MANY = 100_000  # rows
_KEPT = 1 << 20
"""Bytes of the largest table that an open run keeps."""
_T = TypeVar("_T")


class Run:
    """A run that has been found whole.

    Attributes
    ----------
    path : Path
        Its directory.
    id : str
        Its name.
    manifest : Manifest
        What it is.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.id = path.name
        self.manifest = manifest
        self._frames: dict[str, pd.DataFrame] = {}

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run, and make sure that it is whole and unchanged.

        The tables are hashed now and the raw files, which may be large, when `raw` is asked for
        them.

        Raises
        ------
        RunError
            One sentence: what is missing, damaged, or of another version.
        """
        path = Path(path)
        if path.name.endswith(".partial"):
            raise RunError(f"{path} is an unfinished run, left by one that was interrupted.")
        if path.name.endswith(".failed"):
            raise RunError(f"{path} is the record of a run that failed; see {FAILURE} in it.")
        run = cls(path.resolve(), read_manifest(path))
        for name, entry in run.manifest.tables.items():
            check_table(path, name, entry)
        for raw in run.manifest.raw:
            _check_size(path / raw.file, raw.bytes)
        return run

    def table(self, name: str) -> pd.DataFrame:
        """Return a table as a frame, its columns as `anonvma.run.schema` describes them.

        A run that is open does not change, and a comparison asks for the same tables again and
        again: small ones are read once. The frame is the caller's own (pandas copies on writing).

        Raises
        ------
        RunError
            When the run has no such table.
        """
        if name in self._frames:
            return self._frames[name].copy(deep=False)
        table = self.arrow(name)
        frame = self._frame(name, table)
        if table.nbytes <= _KEPT:
            self._frames[name] = frame.copy(deep=False)
        return frame

    def _frame(self, name: str, table: pa.Table) -> pd.DataFrame:
        import pandas as pd  # half a second, for whoever needs a frame

        # A column of counts stays one of whole numbers where some are null.
        whole = {pa.uint64(): pd.UInt64Dtype(), pa.int64(): pd.Int64Dtype()}
        with self._read(self.path / self.manifest.tables[name].file):
            frame: pd.DataFrame = table.to_pandas(types_mapper=whole.get)
        return frame

    def arrow(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table, or some of its columns, as Arrow has it.

        Raises
        ------
        RunError
            When the run has no such table, or what is in it cannot be.
        """
        if name not in self.manifest.tables:
            raise RunError(f"run {self.id} has no table {name!r}: {self._why_not(name)}")
        file = self.path / self.manifest.tables[name].file
        # Not read_table(): for one file it opens a whole dataset.
        with (
            self._read(file),
            run_files.opened(file) as stream,
            pq.ParquetFile(stream) as parquet,
        ):
            run_files.check_unpacked(file, parquet)
            held = parquet.schema_arrow.names
            wanted = [column for column in columns or held if column in held]
            # Threads cost more than they save where a table is small, and nearly all are.
            table = parquet.read(wanted, use_threads=parquet.metadata.num_rows > _MANY)
            if wrong := soundness.fault(name, table):
                raise RunError(f"{file} is damaged: {wrong}.")
        for column in SCHEMAS[name]:  # one that came later, or it would not be open
            if column.name not in held and (columns is None or column.name in columns):
                table = table.append_column(column, pa.nulls(len(table), column.type))
        return table

    @contextmanager
    def _read(self, file: Path) -> Iterator[None]:
        """Turn what may be wrong with a table's pages into a sentence."""
        try:
            yield
        except MemoryError:  # Arrow's, too
            raise RunError(f"there is not enough memory to open {file}.") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RunError(f"{file} is damaged: {_first_line(error)}.") from None

    def columns(self, name: str) -> list[str]:
        """Return the names of a table's columns, without reading it."""
        return list(SCHEMAS[name].names)

    def _why_not(self, name: str) -> str:
        return f"it has {', '.join(sorted(self.manifest.tables)) or 'none'}."

    def raw(self, file: str) -> Path:
        """Return the path of a raw file, for instance ``raw/repeat-1/perf.data``, found unchanged.

        Raises
        ------
        RunError
            When the run has no such file, or it was changed.
        """
        for entry in self.manifest.raw:
            if entry.file == file:
                _check_hash(self.path / file, entry.sha256)
                return self.path / file
        raise RunError(f"run {self.id} has no raw file {file!r}.")


def once(work: Callable[[Run], _T]) -> Callable[[Run], _T]:
    """Have what a function works out of a run kept while it is open, for no run changes."""
    known: weakref.WeakKeyDictionary[Run, _T] = weakref.WeakKeyDictionary()

    @functools.wraps(work)
    def kept(run: Run) -> _T:
        if run not in known:
            known[run] = work(run)
        return known[run]

    return kept


def _check_size(file: Path, size: int) -> None:
    if (found := run_files.size_of(file)) != size:
        raise RunError(f"{file} was changed: it has {found} bytes, its manifest says {size}.")


def check_table(directory: Path, name: str, entry: TableFile) -> None:
    """Make sure that a table is the one that the manifest tells of.

    Raises
    ------
    RunError
        When it is missing, was changed, or has other columns or rows.
    """
    if (declared := SCHEMAS.get(name)) is None:
        raise RunError(f"{directory}: its manifest names a table {name!r} that is not known.")
    _check_hash(directory / entry.file, entry.sha256)
    _check_table(directory / entry.file, entry.rows, declared)


def _check_hash(file: Path, sha256: str) -> None:
    if run_files.hash_of(file) != sha256:
        raise RunError(f"{file} was changed: its hash is not the one in the manifest.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _check_table(file: Path, rows: int, declared: pa.Schema) -> None:
    try:
        with run_files.opened(file) as stream, pq.ParquetFile(stream) as parquet:
            found, count = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        raise RunError(f"{file} is not a Parquet file.") from None
    declared = pa.schema(
        [column for column in declared if column.name in found.names or not _came_later(column)]
    )
    # The words that describe a column may be improved, so they do not count.
    if not found.equals(declared, check_metadata=False):
        raise RunError(f"{file} has other columns than declared: {_difference(found, declared)}.")
    if count != rows:
        raise RunError(f"{file} has {count} rows, its manifest says {rows}.")


def _came_later(column: pa.Field) -> bool:
    return b"later" in (column.metadata or {})


def _difference(found: pa.Schema, declared: pa.Schema) -> str:
    """Tell the first difference between two schemas that differ."""
    for name, count in collections.Counter(found.names).items():
        if count > 1:
            return f"{name} is there {count} times"
    for name in declared.names:
        if name not in found.names:
            return f"{name} is missing"
        if found.field(name).type != declared.field(name).type:
            return f"{name} is {found.field(name).type}, not {declared.field(name).type}"
    extra = [name for name in found.names if name not in declared.names]
    return f"{extra[0]} is not declared" if extra else "they are in another order"


def find(name: str | Path, needs: Sequence[str] = ()) -> Run:
    """Open a run by its path, or by its name among the recorded runs or the user's own.

    Parameters
    ----------
    name : str or path
        A directory; or the name of one in ``data/recorded`` or ``data/runs``; or ``latest``, the
        user's newest that has what is needed, of the specimens only where there is no other.
    needs : sequence of str
        The tables without which it is of no use.

    Raises
    ------
    RunError
        When there is none, it cannot be opened, or it lacks what is needed.

    Examples
    --------
    >>> run = find("small-allocs-mt", ["census"])
    >>> run.manifest.workload.name, run.manifest.repeats
    ('small-allocs-mt', 5)
    """
    return Run.open(catalogue.place(name, needs))


def find_all(pattern: str) -> list[Run]:
    """Open every run whose name matches, among the recorded ones, or else the user's own.

    Parameters
    ----------
    pattern : str
        A name with wildcards as a shell has them, such as ``early-small-allocs-mt-*``; or a path
        whose last part is one.

    Raises
    ------
    RunError
        When none matches, or one cannot be opened.

    Examples
    --------
    >>> [run.id for run in find_all("early-anon-w-seq-mt-*")]
    ['early-anon-w-seq-mt-1', 'early-anon-w-seq-mt-2']
    """
    return _whole(catalogue.all_places(pattern))


def having(opened: Sequence[Run], *tables: str) -> list[Run]:
    """Return those of some runs that have all of these tables: not each boot need be traced.

    Examples
    --------
    >>> every = find_all("early-small-allocs-mt-*")
    >>> having(every, "locks")[0].id
    'early-small-allocs-mt-1'
    """
    return [run for run in opened if set(tables) <= set(run.manifest.tables)]


def _whole(directories: Sequence[Path]) -> list[Run]:
    """Open runs; those that cannot be are named on standard error, unless none can."""
    opened, damaged = [], []
    for path in directories:
        try:
            opened.append(Run.open(path))
        except RunError as error:
            damaged.append(error)
    if not opened:
        raise damaged[0]
    for why in damaged:
        sys.stderr.write(f"anonvma: left out: {why}\n")
    return opened
