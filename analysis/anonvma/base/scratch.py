# SPDX-License-Identifier: GPL-2.0-only
"""Scratch directories: each is named after who made it, so that the next run can sweep the dead's.

``TMPDIR/anonvma-KIND-NAMESPACE-PID-START-XXXX``: a process number means something only within its
pid namespace, and is used again, so the time at which the process started stands beside it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anonvma.base.errors import TargetError

_PREFIX = "anonvma"
_made: list[tuple[int, Path]] = []


def make(kind: str) -> Path:
    """Make a directory that only we can look into; whatever dead processes left is removed.

    Raises
    ------
    TargetError
        When there is no place for one.
    """
    try:
        place = Path(tempfile.gettempdir())  # which raises where there is none
        sweep(place)
        own = f"{_PREFIX}-{kind}-{_namespace()}-{os.getpid()}-{start_time(os.getpid())}-"
        path = Path(tempfile.mkdtemp(prefix=own, dir=place))
    except OSError as error:
        raise TargetError(
            f"cannot make a work directory in {_place_of(error)}: {error.strerror}; set TMPDIR to "
            "a directory that can be written to."
        ) from None
    _made.append((os.getpid(), path))
    return path


@contextmanager
def directory(kind: str) -> Iterator[Path]:
    """Give a directory of `make` that goes away with the block."""
    path = make(kind)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _place_of(error: OSError) -> str:
    return str(Path(error.filename).parent) if error.filename else "any of the usual places"


def remove_all() -> None:
    """Remove every directory that this process made: it is about to end without more ado."""
    for pid, path in _made:
        if pid == os.getpid():
            shutil.rmtree(path, ignore_errors=True)


def clear() -> None:
    """Remove our directories, and those of dead processes: of our children, or of who began us."""
    remove_all()
    for place in {path.parent for _, path in _made}:
        sweep(place)


def sweep(place: Path) -> None:
    """Remove this user's scratch directories in a place whose makers are dead."""
    pattern = re.compile(rf"{_PREFIX}-(?:[a-z0-9]+-)?{_namespace()}-(\d+)-(\d+)-\w+")
    for path in place.glob(f"{_PREFIX}-*"):
        match = pattern.fullmatch(path.name)
        try:
            ours = match and path.lstat().st_uid == os.geteuid()
        except FileNotFoundError:
            continue
        if match and ours and start_time(int(match[1])) != int(match[2]):
            # Another run may be sweeping too.
            shutil.rmtree(path, ignore_errors=True)


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if there is none.

    One that has ended and that nobody has waited for is none: in a container whose first process
    waits for nobody it stays for ever.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = stat.rpartition(b")")[2].split()  # from field 3 of proc(5) on; the name may hold ')'
    return None if words[0] in (b"Z", b"X") else int(words[19])
