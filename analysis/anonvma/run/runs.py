# SPDX-License-Identifier: GPL-2.0-only
"""The run directory: one workload, one target, one condition, its repeats.

A run is a directory that holds

``manifest.json``
    what ran where, what could not be observed, and the hash of every other file;
``*.parquet``
    the tables, each with its schema of `anonvma.run.schema`;
``raw/``
    what the programs wrote themselves.

It is made as ``<id>.partial`` and renamed when it is whole, its manifest written last; so what has
the name of a run is one. Everything downstream needs this directory and nothing else. When the
target goes away meanwhile it becomes ``<id>.failed`` instead, the record of a failure: why
(``failure.json``), the console's log, and what there is in ``raw/``.
"""

from __future__ import annotations

import collections
import datetime
import fcntl
import functools
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from anonvma.base import marker, paths
from anonvma.base.errors import RunError, TargetLost
from anonvma.run import catalogue
from anonvma.run import files as run_files
from anonvma.run.schema import SCHEMAS

__all__ = [
    "FORMAT",
    "Manifest",
    "Run",
    "RunWriter",
    "find",
    "having",
    "read_manifest",
    "sweep",
    "sync",
]

FORMAT = 1
"""Of the run directory; a change that an older anonvma would misread is a new one."""

# Columns of a fault's event that grow from row to row: half the size, and quicker to write.
_ASCENDING = {"time_ns", "address", "vm_start"}

_MANIFEST = "manifest.json"
_OWNER = ".owner"  # locked while a partial run has someone who is making it
_MANIFEST_MAX = 2 << 20  # the largest of ours have some 10 kB
_FAILURE = "failure.json"


def to_table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], declared: pa.Schema) -> pa.Table:
    """Return rows as a table of the declared schema.

    Raises
    ------
    KeyError, pyarrow.ArrowException
        When the rows do not fit it: a mistake of ours, not of the user.
    """
    if not isinstance(rows, pd.DataFrame):
        return pa.Table.from_pylist(list(rows), schema=declared)
    columns = []
    for column in declared:
        values = pa.array(rows[column.name], from_pandas=True)
        if values.null_count == len(values):  # pandas has no type for a column of nothing
            values = pa.nulls(len(values), column.type)
        columns.append(values if values.type == column.type else values.cast(column.type))
    return pa.Table.from_arrays(columns, schema=declared)


# ---- the manifest ----


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} does not lie in the run directory")
    return path


def _plain(value: Any, depth: int = 20) -> Any:
    """Refuse what JSON may hold and no table can: half characters, endless and huge numbers."""
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{value!r} is not Unicode")
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number has more than 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    elif isinstance(value, dict):
        for key, item in value.items():
            _plain(key, depth - 1)
            _plain(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _plain(item, depth - 1)
    return value


# What is asked of a target and of a kernel's features, by its kind; null where it is not known.
_TARGET: dict[str, type] = {
    **dict.fromkeys(
        ("kind", "kernel_release", "architecture", "cpu_model", "thp", "image_sha256", "accel"), str
    ),
    **dict.fromkeys(("config_sha256", "append", "accel_reason", "link"), str),
    **dict.fromkeys(("perf_version", "qemu_version", "qemu_threads"), str),
    **dict.fromkeys(("cpus", "memory_bytes", "memory_given_bytes", "page_size"), int),
    **dict.fromkeys(("max_map_count", "overcommit_memory", "real_cpus"), int),
    "config": dict,
}
_ALWAYS = (
    "kind",
    "kernel_release",
    "architecture",
    "cpus",
    "cpu_model",
    "memory_bytes",
    "page_size",
)
_LARGEST = {"cpus": 1 << 31, "real_cpus": 1 << 31, "page_size": 1 << 31, "memory_bytes": 1 << 63}
_LONGEST = 8192  # characters: a kernel's command line may have 4096
_KIND_WORDS = {str: "words", int: "a whole number", dict: "an object"}


def _target(facts: dict[str, Any]) -> dict[str, Any]:
    for name, kind in _TARGET.items():
        value = facts.get(name)
        if value is None:
            continue
        if type(value) is not kind:
            raise ValueError(f"{name} is not {_KIND_WORDS[kind]}")
        if isinstance(value, int) and name in _LARGEST and not 1 <= value < _LARGEST[name]:
            raise ValueError(f"there is no machine whose {name} is {value}")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError(f"{name} has {len(value)} characters")
        if name.endswith("_sha256") and not re.fullmatch(r"[0-9a-f]{64}", str(value)):
            raise ValueError(f"{name} is no SHA-256")
    return {**dict.fromkeys(_ALWAYS), **facts}


def _features(told: dict[str, Any]) -> dict[str, Any]:
    regime = told.get("regime", {})
    if not isinstance(regime, dict):
        raise ValueError("regime is not an object")
    if any(not isinstance(word, str | None) for word in regime.values()):
        raise ValueError("regime has something other than words")
    if not isinstance(told.get("features", {}), dict):
        raise ValueError("features is not an object")
    return told


class TableFile(_Strict):
    """A table of a run."""

    file: str
    rows: int = Field(ge=0)
    sha256: str
    _lies_inside = field_validator("file")(_inside)


class RawFile(_Strict):
    """What a program wrote, as it wrote it."""

    file: str
    bytes: int = Field(ge=0)
    sha256: str
    _lies_inside = field_validator("file")(_inside)


class Unobserved(_Strict):
    """Something that this run could not observe."""

    what: str
    reason: str
    remedy: str


class Command(_Strict):
    """The workload as it was run."""

    name: str
    argv: list[str]
    maps: str | None = None
    mappings: int | None = None


class Manifest(_Strict):
    """What a run is; names neither the host nor its user.

    Attributes
    ----------
    format : int
        Of the run directory; see `FORMAT`.
    anonvma : str
        Version that made it.
    created, finished : datetime
        When it was begun and when it was whole, UTC.
    target : dict
        Facts about the target; see `anonvma.target.facts.facts_of`.
    workload : Command
        The workload's name and its words.
    parameters : dict
        Of the workload; see `anonvma.collect.workload.Workload`.
    repeats : int
        How often it was observed.
    features : dict
        What the target's kernel allows, from ``vmaprobe features``.
    tables : dict
        The tables, by name.
    raw : list
        The raw files.
    unobserved : list
        What could not be observed, why, and what would enable it.
    losses : dict
        What the censuses lost, summed over the repeats; all zero in perfect ones.
    pages_how : str or None
        How the pages in bare VMAs were looked at.
    notes : list of str
        Whatever else a reader has to know.
    """

    format: int = FORMAT
    anonvma: str
    created: datetime.datetime
    finished: datetime.datetime
    target: dict[str, Any]
    workload: Command
    parameters: dict[str, Any]
    repeats: int = Field(ge=0, lt=1 << 31)
    features: dict[str, Any]
    tables: dict[str, TableFile]
    raw: list[RawFile]
    unobserved: list[Unobserved]
    losses: dict[str, int]
    pages_how: str | None = None
    notes: list[str]
    _is_plain = model_validator(mode="before")(_plain)
    _target_is_one = field_validator("target")(_target)
    _features_are_some = field_validator("features")(_features)


# ---- reading ----


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
            raise RunError(f"{path} is the record of a run that failed; see {_FAILURE} in it.")
        run = cls(path.resolve(), read_manifest(path))
        for name, entry in run.manifest.tables.items():
            check_table(path, name, entry)
        for raw in run.manifest.raw:
            _check_size(path / raw.file, raw.bytes)
        return run

    def table(self, name: str) -> pd.DataFrame:
        """Return a table as a frame, its columns as `anonvma.run.schema` describes them.

        Raises
        ------
        RunError
            When the run has no such table.
        """
        # A column of counts stays one of whole numbers where some are null.
        whole = {pa.uint64(): pd.UInt64Dtype(), pa.int64(): pd.Int64Dtype()}
        table = self.arrow(name)
        with self._read(self.path / self.manifest.tables[name].file):
            frame: pd.DataFrame = table.to_pandas(types_mapper=whole.get)
        return frame

    def arrow(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table, or some of its columns, as Arrow has it.

        Raises
        ------
        RunError
            When the run has no such table.
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
            table = parquet.read([column for column in columns or held if column in held])
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


def read_manifest(path: Path) -> Manifest:
    """Return what a run says it is; `Run.open` makes sure that the rest of it is so, too.

    Raises
    ------
    RunError
        When there is none, or it is damaged or of another version.
    """
    file = path / _MANIFEST
    if not path.is_dir():
        raise RunError(f"{path} is not a run: there is no such directory.")
    if not os.path.lexists(file):
        raise RunError(f"{path} is not a run: it has no {_MANIFEST}.")
    try:
        content = json.loads(run_files.contents(file, _MANIFEST_MAX))
    except (ValueError, RecursionError):
        raise RunError(f"{file} is damaged: it is not whole JSON.") from None
    _check_format(file, content)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(f"{file} is not a valid manifest: {where}: {first['msg']}.") from None


def _check_format(file: Path, content: Any) -> None:
    if not isinstance(content, dict) or "anonvma" not in content:
        raise RunError(f"{file} is not a manifest of anonvma.")
    found = content.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise RunError(f"{file} is not a valid manifest: its format is {found!r}.")
    if found > FORMAT:
        raise RunError(
            f"{file}: the run has format {found}, newer than the {FORMAT} that this anonvma reads: "
            f"it was made by anonvma {content['anonvma']}; use that one or a later one."
        )
    if found < FORMAT:
        raise RunError(
            f"{file}: the run has format {found}, older than the {FORMAT} that this anonvma reads: "
            f"it was made by anonvma {content['anonvma']}; open it with that, or repeat the run."
        )


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


# ---- writing ----


class RunWriter:
    """A run that is being made; leaving its ``with`` block without `finish` removes it.

    Parameters
    ----------
    directory : Path
        Where runs are kept; it is made if it is missing.
    name : str
        Of the workload; becomes part of the run's id.

    Attributes
    ----------
    path : Path
        The directory as long as it is partial.
    id : str
        The run's name once it is whole.
    created : datetime
        When it was begun, UTC.

    Raises
    ------
    RunError
        When nothing can be written there.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory.resolve()
        self.created = datetime.datetime.now(datetime.UTC)
        self._cleanup = ExitStack()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _locked(self.directory):
                self.id = self._free_id(name)
                self.path = self.directory / f"{self.id}.partial"
                self.path.mkdir()
                self._cleanup.callback(shutil.rmtree, self.path, ignore_errors=True)
                owner = self._cleanup.enter_context((self.path / _OWNER).open("wb"))
                fcntl.flock(owner, fcntl.LOCK_EX)
            (self.path / "raw").mkdir()
        except OSError as error:
            self._cleanup.close()
            raise RunError(f"cannot make a run in {directory}: {error.strerror}.") from None

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _free_id(self, name: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
        wanted = f"{self.created:%Y%m%dT%H%M%SZ}-{slug}"
        number = 1
        while True:
            suffix = "" if number == 1 else f"-{number}"
            ends = ("", ".partial", ".failed")
            taken = (self.directory / f"{wanted}{suffix}{end}" for end in ends)
            if not any(path.exists() for path in taken):
                return wanted + suffix
            number += 1

    def raw(self, *names: str) -> Path:
        """Return the path for a raw file, its directory made."""
        path = self.path.joinpath("raw", *names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, tables: Mapping[str, pa.Table], manifest: Mapping[str, Any]) -> Run:
        """Write the tables, then the manifest, then give the run its name.

        Parameters
        ----------
        tables : mapping
            By name, each with its declared schema.
        manifest : mapping
            The fields of `Manifest` that are not about files, time or version.

        Returns
        -------
        Run
        """
        try:
            written = {name: self._write_table(name, table) for name, table in tables.items()}
            whole = Manifest(
                anonvma=version(),
                created=self.created,
                finished=datetime.datetime.now(datetime.UTC),
                tables=written,
                raw=self._raw_files(),
                **manifest,
            )
            self._write_manifest(whole)
            final = self.directory / self.id
            with _locked(self.directory):  # a sweeper takes a partial run without owner for stale
                (self.path / _OWNER).unlink()
                self.path.rename(final)
            sync(self.directory)
        except OSError as error:
            raise RunError(f"cannot write run {self.id}: {error.strerror or error}.") from None
        return Run(final, whole)

    def fail(self, error: TargetLost, about: Mapping[str, Any]) -> Path:
        """Keep what there is as the record of a failure, not of a run, and return its directory.

        Parameters
        ----------
        error : TargetLost
            What went wrong; its console becomes ``console.log``.
        about : mapping
            What was being done, and on what.
        """
        failure = {
            "format": FORMAT,
            "anonvma": version(),
            "created": self.created.isoformat(),
            "failed": datetime.datetime.now(datetime.UTC).isoformat(),
            "error": type(error).__name__,
            "reason": str(error),
            **about,
        }
        failed = self.directory / f"{self.id}.failed"
        try:
            (self.path / "console.log").write_bytes(error.console)
            draft = self.path / _FAILURE
            draft.write_text(json.dumps(failure, indent=1) + "\n", encoding="utf-8")
            sync(draft)
            with _locked(self.directory):
                (self.path / _OWNER).unlink()
                self.path.rename(failed)
            sync(self.directory)
        except OSError as trouble:
            raise RunError(
                f"{error} And its record cannot be written: {trouble.strerror or trouble}."
            ) from None
        return failed

    def _write_table(self, name: str, table: pa.Table) -> TableFile:
        file = self.path / f"{name}.parquet"
        delta = {name: "DELTA_BINARY_PACKED" for name in table.schema.names if name in _ASCENDING}
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=[name for name in table.schema.names if name not in delta],
            column_encoding=delta or None,
        )
        sync(file)
        return TableFile(file=file.name, rows=table.num_rows, sha256=run_files.hash_of(file))

    def _raw_files(self) -> list[RawFile]:
        files = sorted(file for file in (self.path / "raw").rglob("*") if file.is_file())
        for file in files:
            sync(file)
        return [
            RawFile(
                file=file.relative_to(self.path).as_posix(),
                bytes=file.stat().st_size,
                sha256=run_files.hash_of(file),
            )
            for file in files
        ]

    def _write_manifest(self, manifest: Manifest) -> None:
        draft = self.path / f"{_MANIFEST}.tmp"
        draft.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        sync(draft)
        draft.rename(self.path / _MANIFEST)
        sync(self.path)


def sweep(directory: Path) -> list[Path]:
    """Remove the partial runs that nobody is making any more, and return what they were called.

    Raises
    ------
    RunError
        When one cannot be removed.
    """
    removed: list[Path] = []
    if not directory.is_dir():
        return removed
    try:
        with _locked(directory):
            for path in sorted(directory.glob("*.partial")):
                if _is_ours(path) and not _has_owner(path):
                    shutil.rmtree(path)
                    removed.append(path)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}"
        raise RunError(f"cannot remove an unfinished run, {what}.") from None
    return removed


def _is_ours(partial: Path) -> bool:
    """Tell whether a partial run is one, and not what somebody else calls so."""
    if partial.is_symlink() or not re.fullmatch(r"\d{8}T\d{6}Z-[\w-]+\.partial", partial.name):
        return False
    # Killed before the owner's file was there, or after it had served.
    names = {_OWNER, _MANIFEST, f"{_MANIFEST}.tmp", _FAILURE}
    return partial.is_dir() and (
        not any(partial.iterdir()) or any((partial / name).exists() for name in names)
    )


def _has_owner(partial: Path) -> bool:
    """Tell whether a living process holds the lock on a partial run."""
    try:
        with (partial / _OWNER).open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # killed before the file, or after it had served
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other writers and sweepers out of a directory of runs for a moment."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def version() -> str:
    """Return the version of the installed anonvma, and the commit where it is a checkout.

    Such as ``0.1.0+g1234567890ab``, with ``.dirty`` behind it where files differ from the commit.
    """
    try:
        installed = importlib.metadata.version("anonvma")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return installed
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{installed}+g{commit}{'.dirty' if changed else ''}"


def _git(*words: str) -> str | None:
    """Return what git says of the checkout, None where there is no git or no checkout."""
    if not (paths.root() / ".git").exists():
        return None
    argv = ["git", "--no-optional-locks", "-C", str(paths.root()), *words]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


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
    """
    return Run.open(catalogue.place(name, needs))


def record(run: Run, name: str, directory: Path | None = None, without: Sequence[str] = ()) -> Run:
    """Copy a run, without its raw files, to where it can be kept and shared.

    The tables hold the workload's own processes only; raw files may tell more of the machine.

    Parameters
    ----------
    run : Run
    name : str
        What the copy is called.
    directory : path, optional
        Where it goes; ``data/recorded`` by default.
    without : sequence of str
        Tables that are left out, such as ``fault_events``, which is large.

    Raises
    ------
    RunError
        When there is one of that name already, or the name is none.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise RunError(f"{name!r} is not a name for a run: use letters, digits, - and _.")
    place = (directory or paths.recorded()) / name
    if place.exists():
        raise RunError(f"there is a run {place} already: choose another name, or remove it.")
    tables = {key: table for key, table in run.manifest.tables.items() if key not in without}
    kept = run.manifest.model_copy(update={"raw": [], "tables": tables})
    with marker.draft(place) as partial:
        for table in tables.values():
            shutil.copyfile(run.path / table.file, partial / table.file)
        (partial / _MANIFEST).write_text(kept.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (partial / marker.MARK).unlink()
        partial.rename(place)
    return Run.open(place)


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
    """
    return _whole(catalogue.all_places(pattern))


def having(opened: Sequence[Run], *tables: str) -> list[Run]:
    """Return those of some runs that have all of these tables: not each boot need be traced."""
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
