# SPDX-License-Identifier: GPL-2.0-only
"""Anyone's files become a run: perf.data, the text of ``perf script``, the output of ``perf stat``.

A recording may be malicious. So the kind of a file is told by its content, `anonvma.perf.recording`
checks its sizes before perf sees it, and perf runs with no configuration, cache or search path,
without more privilege than the caller's, and with limits on memory, time and the files it writes:
it starts and fetches nothing. Symbols are those
that the programs named in it have on this machine, and the kernel's if it is the running one; names
of processes, events and functions are text to everything after.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import platform
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from anonvma.base import paths
from anonvma.base.errors import ProfileError, RunError, SetupError, TargetError
from anonvma.perf import piped, samples, script, script_lines, stat_file
from anonvma.perf import recording as perf_data
from anonvma.perf import tool as perf
from anonvma.perf.recording import Recording
from anonvma.perf.stacks import Profile
from anonvma.perf.stat_file import Counts
from anonvma.run.manifest import Command, Unobserved
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, sweep, to_table
from anonvma.target.local import Local

LIMIT = 4 << 30
"""Bytes that a file may have, and the text of perf script, unless the caller says otherwise."""

_NOWHERE = "/nonexistent"
_MEMORY = 8 << 30  # bytes of address space for perf
_SECONDS = 1800  # of processor time for perf
_LOOK = 64 << 10  # bytes from which the kind of a file is told
_STAT_LIMIT = 64 << 20
_PIECE = 8 << 20
_ROOM = 64 << 20  # bytes of a file that perf writes: of a vDSO, or of its warnings
_OF_A_PIPE = (16).to_bytes(8, "little")  # the size of the header when perf wrote to a pipe
_OF_32_BITS = {"x86_64": ("i386", "i486", "i586", "i686"), "aarch64": ("armv7l", "armv8l")}
"""By the machine, those whose recordings its perf reads as its own."""
_LOST = "perf record lost {:,} samples."
_NAMES_OF_TEXT = (
    "Imported from text, in which a name of a process may pass for something else: blanks at the "
    "ends of names are lost."
)


def import_files(
    files: Sequence[str | Path], into: str | Path | None = None, limit: int = LIMIT
) -> Run:
    """Make a run of files that were gathered without anonvma.

    Parameters
    ----------
    files : sequence of path
        One recording, as perf.data or as text, or one output of perf stat, or one of each.
    into : path, optional
        The directory that the run's own directory is made in; ``data/runs`` by default.
    limit : int
        Bytes that a file, and the text of a recording, may have.

    Raises
    ------
    ProfileError
        One sentence on what is wrong with a file.
    SetupError
        There is no perf here to read a recording.
    RunError
        The run cannot be written.
    """
    directory = Path(into) if into is not None else paths.runs()
    sweep(directory)
    with RunWriter(directory, "imported") as writer:
        try:
            work = _Import(writer, limit)
            for file in files:
                work.take(Path(file))
            return work.finish()
        except OSError as error:  # of the run's own files
            reason = error.strerror or error
            raise RunError(f"cannot write run {writer.id}: {reason}.") from None


class _Import:
    """What has come in so far."""

    def __init__(self, writer: RunWriter, limit: int) -> None:
        self._writer, self._limit = writer, limit
        self.tables: dict[str, pa.Table] = {}
        self.facts: dict[str, Any] = {
            "kind": "imported",
            "kernel_release": None,
            "architecture": None,
            "cpus": None,
            "cpu_model": None,
            "perf_version": None,
        }
        self.repeats = 1
        self.notes: list[str] = []
        self.unobserved: list[Unobserved] = []

    def take(self, path: Path) -> None:
        """Take a file, whatever it is."""
        if path.is_dir():
            self._keep(path, "samples", self._directory(path))
            return
        start = _start_of(path)
        if start.startswith(b"PERFILE2") and len(start) >= 16 and start[8:16] == _OF_A_PIPE:
            piped.check_whole(path)
            self._keep(path, "samples", self._named(path))
        elif start.startswith((b"PERFILE2", b"2ELIFREP")):
            self._keep(path, "samples", self._recording(path))
        elif stat_file.is_stat(start):
            self._counts(path)
        elif script_lines.is_script(start):
            self._keep(path, "samples", self._text(path))
        else:
            raise ProfileError(
                f"{path} is neither a perf.data, nor text of 'perf script' that has the thread, "
                "the time and the event of each sample, nor output of 'perf stat'."
            )

    def _keep(self, path: Path, name: str, found: Profile) -> None:
        self._once(path, name)
        self._put({name: frame for name, frame in found.tables().items()})
        unknown = (found.frames["symbol"] == "[unknown]").to_numpy()
        kernel = found.frames["kernel"].to_numpy(bool)
        if (unknown & kernel).any():
            self.unobserved.append(
                Unobserved(
                    what="names of some functions of the kernel",
                    reason="the recording is of another kernel than the one that runs here, or "
                    "this user may not see its symbols",
                    remedy="import the text of 'perf script' from the machine that recorded it",
                )
            )

    def _once(self, path: Path, name: str) -> None:
        if name in self.tables:
            raise ProfileError(f"{path} is the second of its kind: a run takes one.")

    def _put(self, frames: dict[str, Any]) -> None:
        for name, frame in frames.items():
            if isinstance(frame, list):
                rows: Any = [{"repeat": 1, **row} for row in frame]
            else:
                rows = frame.assign(repeat=1)
            self.tables[name] = to_table(rows, SCHEMAS[name])

    # ---- the kinds ----

    def _recording(self, path: Path) -> Profile:
        recording = perf_data.read(path, self._limit)
        self._check_architecture(path, recording)
        # What names threads is compressed, too, so perf has to say it.
        found = self._samples(path) if recording.samples >= 0 else self._named(path)
        self.facts |= {
            "kernel_release": recording.release,
            "architecture": recording.arch,
            "cpus": recording.cpus,
            "cpu_model": recording.cpu,
        }
        if recording.lost:
            self.notes.append(_LOST.format(recording.lost))
        if not recording.call_graph:
            self._without_stacks()
        return found

    def _check_architecture(self, path: Path, recording: Recording) -> None:
        here = platform.machine()
        if recording.arch is None or recording.arch in (here, *_OF_32_BITS.get(here, ())):
            return
        raise ProfileError(
            f"{path} was recorded on {recording.arch}, and this machine is {here}: run "
            "'perf script' on a machine of that kind, and import its text."
        )

    def _directory(self, path: Path) -> Profile:
        """Take what ``perf record --threads`` writes: a file a thread, and one for them all."""
        try:
            start = _start_of(path / "data")
        except ProfileError:
            start = b""
        if not start.startswith(b"PERFILE2"):
            raise ProfileError(
                f"{path} is a directory, and none that 'perf record --threads' made: name a file."
            )
        size = sum(each.stat().st_size for each in path.iterdir() if each.is_file())
        if size > self._limit:
            raise ProfileError(
                f"{path} has {size >> 20} MiB, more than the {self._limit >> 20} MiB that are "
                "taken: give --limit."
            )
        return self._named(path)

    def _samples(self, path: Path) -> Profile:
        """Have perf print a recording whose names of threads are read from it."""
        with self._perf(path) as (here, words):
            return samples.read(
                here,
                path,
                lambda recording, fields: [*words, str(recording.absolute()), *fields],
                self._writer.path / "script",
                privileged=False,
                limit=self._limit,
            )[1]

    def _named(self, path: Path) -> Profile:
        """Have perf print a recording of another form, with the names in its text."""
        with self._perf(path) as (here, words):
            found = samples.read_named(
                here,
                [*words, str(path.absolute()), "--ns", "-F", "+pid"],
                self._writer.path / "script",
                limit=self._limit,
            )
        self.notes.append(_NAMES_OF_TEXT)
        return found

    @contextlib.contextmanager
    def _perf(self, path: Path) -> Iterator[tuple[Local, list[str]]]:
        """Give the words that have perf print a recording, to read it and nothing else.

        perf copies the running kernel's vDSO to a file that it removes at its end (to /tmp,
        whatever TMPDIR says: tools/perf/util/vdso.c), and warns on stderr. So it may write, but no
        more than `_ROOM` to a file; what it leaves when it is killed is removed here.
        """
        with Local() as here:
            tool = perf.find(here)
            if tool is None:
                raise SetupError(
                    "reading a perf.data needs perf, which is not here: install linux-perf "
                    "(Debian) or linux-tools-generic (Ubuntu), or import the text of 'perf script'."
                )
            self.facts["perf_version"] = tool.version
            private = self._writer.path / "perf-tmp"
            private.mkdir(mode=0o700, exist_ok=True)
            alone = ["env", "-i", "PERF_CONFIG=/dev/null", "LANGUAGE=C", f"HOME={_NOWHERE}"]
            words = [*_limits(here), *alone, f"PATH={_NOWHERE}", f"TMPDIR={private.absolute()}"]
            words += [tool.path, "--buildid-dir", _NOWHERE]
            words += ["script", "--force", "--no-inline", "-i"]
            before, ended = _vdsos(), False
            try:
                yield here, words
                ended = True
            except (ProfileError, TargetError) as error:
                raise ProfileError(f"{path} cannot be read: {error}") from None
            finally:
                shutil.rmtree(private, ignore_errors=True)
                for left in set() if ended else _vdsos() - before:
                    left.unlink(missing_ok=True)

    def _text(self, path: Path) -> Profile:
        try:
            found = script.read(_pieces(path), theirs=True, limit=self._limit)
        except ProfileError as error:
            raise ProfileError(f"{path} cannot be read: {error}") from None
        if found.lost:
            self.notes.append(_LOST.format(found.lost))
        if not found.offsets[-1]:
            self._without_stacks()
        self.notes.append(_NAMES_OF_TEXT)
        return found

    def _counts(self, path: Path) -> None:
        self._once(path, "perf_stat")
        if path.stat().st_size > _STAT_LIMIT:
            raise ProfileError(f"{path} is too large to be output of 'perf stat'.")
        try:
            found = stat_file.read(path.read_bytes())
        except ProfileError as error:
            raise ProfileError(f"{path} cannot be read: {error}") from None
        self._put(
            {"perf_stat": [dict(row, repeat=n) for n, one in _each(found) for row in one.totals]}
        )
        intervals = [dict(row, repeat=n) for n, one in _each(found) for row in one.intervals]
        if intervals:
            self._put({"perf_intervals": intervals})
        names = SCHEMAS["repeats"].names
        seconds = {n: one.seconds for n, one in _each(found) if one.seconds is not None}
        if seconds:
            unknown = dict.fromkeys(names)
            rows = [unknown | {"seconds": seconds.get(n), "repeat": n} for n, _ in _each(found)]
            self._put({"repeats": rows})
        self.repeats = max(self.repeats, len(found))
        several = sorted({one.runs for one in found if one.runs > 1})
        if several:
            counts = " and ".join(map(str, several))
            self.notes.append(
                f"Counts and times are the means of {counts} executions, which perf stat -r made."
            )
        lacking = perf.unsupported(row for one in found for row in one.totals)
        if lacking:
            self.unobserved.append(
                Unobserved(
                    what=", ".join(lacking),
                    reason="perf stat says <not supported>: its machine does not offer these",
                    remedy="a machine that exposes its performance counters",
                )
            )

    def _without_stacks(self) -> None:
        self.unobserved.append(
            Unobserved(
                what="callers of the functions sampled",
                reason="it was recorded without call graphs",
                remedy="record with 'perf record -g'",
            )
        )

    def finish(self) -> Run:
        """Write the run."""
        if not self.tables:
            raise ProfileError("no file was named: there is nothing to import.")
        return self._writer.finish(
            self.tables,
            {
                "target": self.facts,
                "workload": Command(name="imported", argv=[]),
                "parameters": {"workload": "imported"},
                "repeats": self.repeats,
                "features": {},
                "unobserved": self.unobserved,
                "losses": {},
                "notes": self.notes,
            },
        )


def _each(found: Sequence[Counts]) -> list[tuple[int, Counts]]:
    """Number executions as repeats are, from 1."""
    return list(enumerate(found, 1))


def _limits(here: Local) -> list[str]:
    """Return the words that limit a command's memory, its time and the files that it writes."""
    if here.which("prlimit") is None:
        return []
    wanted = {"AS": _MEMORY, "CPU": _SECONDS, "FSIZE": _ROOM, "CORE": 0}
    words = []
    for name, most in wanted.items():
        ours, _ = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        limit = most if ours == resource.RLIM_INFINITY else min(most, ours)  # it cannot be raised
        words.append(f"--{name.lower()}={limit}")
    return ["prlimit", *words, "--"]


def _vdsos() -> set[Path]:
    """Return the copies of a vDSO that perfs of this user have at the moment."""
    found = set()
    for path in Path("/tmp").glob("perf-vdso*.so-*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.geteuid():
                found.add(path)
    return found


def _start_of(path: Path) -> bytes:
    try:
        if not path.is_file():  # a device or a pipe might never end
            what = "is not a regular file" if path.exists() else "does not exist"
            raise ProfileError(f"{path} {what}.")
        with path.open("rb") as file:
            start = file.read(_LOOK)
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}.") from None
    if not start:
        raise ProfileError(f"{path} is empty.")
    return start.removeprefix(codecs.BOM_UTF8)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:  # an editor's, no part of a name
            file.seek(0)
        while piece := file.read(_PIECE):
            yield piece
