# SPDX-License-Identifier: GPL-2.0-only
"""Marks: a directory that we wrote says what is in it, and only such a one is replaced.

What is written becomes ``.NAME.XXXX.partial`` beside its place, and then takes that place at once.
In it ``.anonvma`` names its maker and, with their hashes, the files that are ours: whatever else
lies there, or has been changed, is somebody else's, and then nothing is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonvma.base import bounded, scratch, termination
from anonvma.base.errors import AnonvmaError

MARK = ".anonvma"
_LARGEST = 1 << 30  # bytes of a file that we publish


def check(place: Path) -> None:
    """Make sure that a directory may be replaced: it is not there, or all that is in it is ours.

    Raises
    ------
    AnonvmaError
        It names what is not.
    """
    if not os.path.lexists(place):
        return
    if place.is_symlink() or not place.is_dir():
        raise AnonvmaError(f"{place} is there already, and is no directory: choose another place.")
    if Path(os.path.abspath(place)) in (here := Path.cwd(), *here.parents):
        raise AnonvmaError(f"{place} holds the directory you are in: name one that is not there.")
    if not os.listdir(place):
        return
    if not os.path.lexists(place / MARK):
        raise AnonvmaError(
            f"{place} is there already and was not published by anonvma, which replaces only what "
            "it wrote: choose another place, or remove it."
        )
    told = _told(place).get("files")
    ours = told if isinstance(told, dict) else {}
    theirs = [name for name, path in _below(place) if not _is_as_told(path, ours.get(name))]
    if theirs:
        first = min(theirs)
        what = "was changed after anonvma wrote it" if first in ours else "anonvma did not write"
        raise AnonvmaError(
            f"{place} has {first!r}, which {what}: move it away, or choose another place."
        )


def _below(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield what there is below a directory but its mark, and where."""
    for path in place.rglob("*"):
        if path != place / MARK:
            yield str(path.relative_to(place)), path


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _description(path: Path) -> list[int | str]:
    """Return the size of a file that we wrote, and its hash; of a directory nothing."""
    if not _is_regular(path):
        return []
    with path.open("rb") as stream:
        return [path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _is_as_told(path: Path, told: object) -> bool:
    """Whether it is what we wrote; nothing is read that has another size, or too large a one."""
    if not _is_regular(path):
        return told == [] and path.is_dir() and not path.is_symlink()
    size = path.stat().st_size
    same_size = isinstance(told, list) and told[:1] == [size] and size <= _LARGEST
    return same_size and told == _description(path)


def _told(place: Path) -> dict[str, Any]:
    try:
        told = json.loads(bounded.regular(place / MARK, 16 << 20))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


@contextmanager
def draft(place: Path) -> Iterator[Path]:
    """Give a new directory beside a place, which goes away with the block unless it was renamed."""
    place.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = f".{place.name}.", ".partial"
    for stale in place.parent.glob(f".*{suffix}"):
        if stale.name.startswith(prefix) and _is_of_the_dead(stale):
            shutil.rmtree(stale, ignore_errors=True)
    with termination.unwound():
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=place.parent))
        try:
            maker = [os.getpid(), scratch.start_time(os.getpid())]
            (path / MARK).write_text(json.dumps({"maker": maker}), encoding="utf-8")
            path.chmod(0o755)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def is_draft(path: Path) -> bool:
    """Tell whether a directory is such a one, of somebody who may have been killed meanwhile."""
    return path.name.endswith(".partial") and "maker" in _told(path)


def _is_of_the_dead(path: Path) -> bool:
    match _told(path).get("maker"):
        case [int(pid), int(start)]:
            return path.is_dir() and not path.is_symlink() and scratch.start_time(pid) != start
    return False


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Give a new directory that takes a place when the block has ended; ours that was there goes.

    Raises
    ------
    AnonvmaError
        When something there is not ours, or it cannot be written.
    """
    try:
        check(place)
        with draft(place) as path:
            yield path
            files = {name: _description(each) for name, each in _below(path)}
            (path / MARK).write_text(json.dumps({"files": files}), encoding="utf-8")
            if not os.path.lexists(place):
                path.rename(place)
                return
            with draft(place) as aside:
                before = aside / "before"
                place.rename(before)
                try:
                    check(before)  # only now can nobody put anything into it
                    path.rename(place)
                except BaseException:
                    before.rename(place)
                    raise
    except OSError as error:
        raise AnonvmaError(f"cannot write {place}: {error.strerror}.") from None


@contextmanager
def new_file(place: Path) -> Iterator[Path]:
    """Give a file beside a place, which takes it when the block has ended.

    In a directory of ours, where nobody could have put a link to another file of that name.
    """
    with draft(place) as directory:
        path = directory / place.name
        yield path
        path.rename(place)
