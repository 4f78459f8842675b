# SPDX-License-Identifier: GPL-2.0-only
"""A run that is being made, and its copy that is kept.

It is made as ``<id>.partial`` and renamed when it is whole, its manifest written last; so what has
the name of a run is one. When the target goes away meanwhile it becomes ``<id>.failed`` instead,
the record of a failure: why (``failure.json``), the console's log, and what there is in ``raw/``.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from anonvma.base import marker, paths
from anonvma.base.errors import RunError, TargetLost
from anonvma.run import files as run_files
from anonvma.run.catalogue import MANIFEST
from anonvma.run.jobs import FAILURE
from anonvma.run.manifest import FORMAT, Manifest, RawFile, TableFile
from anonvma.run.runs import Run
from anonvma.run.version import version

if TYPE_CHECKING:
    import pandas as pd

# Columns of a fault's event that grow from row to row: half the size, and quicker to write.
_ASCENDING = {"time_ns", "address", "vm_start"}
_PATIENCE = 60.0  # seconds; a lock is held for as long as a rename takes, or a sweep
_OWNER = ".owner"  # locked while a partial run has someone who is making it


def to_table(rows: pd.DataFrame | Sequence[Mapping[str, Any]], declared: pa.Schema) -> pa.Table:
    """Return rows as a table of the declared schema.

    Raises
    ------
    KeyError, pyarrow.ArrowException
        When the rows do not fit it: a mistake of ours, not of the user.
    """
    if isinstance(rows, Sequence):
        return pa.Table.from_pylist(list(rows), schema=declared)
    columns = []
    for column in declared:
        values = pa.array(rows[column.name], from_pandas=True)
        if values.null_count == len(values):  # pandas has no type for a column of nothing
            values = pa.nulls(len(values), column.type)
        columns.append(values if values.type == column.type else values.cast(column.type))
    return pa.Table.from_arrays(columns, schema=declared)


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
            draft = self.path / FAILURE
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
        draft = self.path / f"{MANIFEST}.tmp"
        draft.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        sync(draft)
        draft.rename(self.path / MANIFEST)
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
    names = {_OWNER, MANIFEST, f"{MANIFEST}.tmp", FAILURE}
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
    """Keep other writers and sweepers out of a directory of runs for a moment.

    Whoever may read the directory may lock it, for ever.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _locks(descriptor):
            if time.monotonic() > deadline:
                raise RunError(
                    f"{directory} has been locked by process {_holder(descriptor)} for "
                    f"{_PATIENCE:g} s: end that, or keep the runs in another directory."
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Return the number of the process that has locked a file, by proc_locks(5)."""
    about = os.fstat(descriptor)
    device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        if line.split()[1:2] == ["FLOCK"] and device in (words := line.split()):
            return words[4]
    return "?"


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        (partial / MANIFEST).write_text(kept.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (partial / marker.MARK).unlink()
        partial.rename(place)
    return Run.open(place)
