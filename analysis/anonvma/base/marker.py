# SPDX-License-Identifier: GPL-2.0-only
"""Marks: a directory that we wrote says what is in it, and only such a one is replaced.

What is written becomes ``.NAME.XXXX.partial`` beside its place, and then takes that place at once.
In it ``.anonvma`` names its maker and the files that are ours: whatever else lies there is somebody
else's, and then nothing is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonvma.base import bounded, scratch
from anonvma.base.errors import AnonvmaError

MARK = ".anonvma"


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
    found = {str(file.relative_to(place)) for file in place.rglob("*") if not _is_folder(file)}
    files = _told(place).get("files", [])
    ours = {MARK, *files} if isinstance(files, list) else set()
    if not found:
        return
    if MARK not in found:
        raise AnonvmaError(
            f"{place} is there already and was not published by anonvma, which replaces only what "
            "it wrote: choose another place, or remove it."
        )
    if others := sorted(found - ours):
        raise AnonvmaError(
            f"{place} has {others[0]!r}, which anonvma did not write: move it away, or choose "
            "another place."
        )


def _is_folder(file: Path) -> bool:
    return file.is_dir() and not file.is_symlink()


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
    path = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=place.parent))
    try:
        maker = [os.getpid(), scratch.start_time(os.getpid())]
        (path / MARK).write_text(json.dumps({"maker": maker}), encoding="utf-8")
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


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
    check(place)
    try:
        with draft(place) as path:
            yield path
            files = [str(f.relative_to(path)) for f in path.rglob("*") if not _is_folder(f)]
            (path / MARK).write_text(json.dumps({"files": sorted(files)}), encoding="utf-8")
            check(place)
            if place.exists():
                with draft(place) as before:
                    place.rename(before / "before")
                    path.rename(place)
            else:
                path.rename(place)
    except OSError as error:
        raise AnonvmaError(f"cannot write {place}: {error.strerror}.") from None
