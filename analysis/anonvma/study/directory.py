# SPDX-License-Identifier: GPL-2.0-only
"""A study's directory: which jobs in it are done, and who works in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from anonvma.base import marker
from anonvma.base.errors import StudyError
from anonvma.run.jobs import PLAN
from anonvma.study.job import CELL, complete
from anonvma.study.matrix import Study

_OURS = ("study.yaml", PLAN, "snakemake.log", "cells", "failed", "superseded", "report", "work")


def status(study: Study, directory: Path) -> dict[str, str]:
    """Return, by the name of each job, ``done``, ``changed`` (since it was done) or ``to do``.

    A job is known by its id: its name depends on what else is in the study.
    """
    found = {}
    there = cells_there(directory)
    for cell in study.cells:
        place = there.get(cell.id)
        if place is None:
            found[cell.name] = "to do"
        else:
            done = complete(place, cell.id, cell.key)
            found[cell.name] = "done" if done else "changed"
    return found


def cells_there(directory: Path) -> dict[str, Path]:
    """Return where each cell lies that has ever been done, by its id."""
    found: dict[str, Path] = {}
    for file in sorted(directory.glob(f"cells/*/{CELL}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found[json.loads(file.read_bytes())["id"]] = file.parent
    return found


@contextlib.contextmanager
def taken(directory: Path, study: Study) -> Iterator[None]:
    """Have a study's directory for ourselves."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StudyError(
            f"cannot make the study's directory {directory}: {error.strerror}."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(
                f"another anonvma batch works in {directory}: wait until it is done, or give "
                "another --output."
            ) from None
        _check_whose(directory, study)
        yield
    finally:
        os.close(descriptor)


def _check_whose(directory: Path, study: Study) -> None:
    try:
        name = json.loads((directory / PLAN).read_bytes())["study"]
    except FileNotFoundError:
        others = sorted(set(os.listdir(directory)) - {*_OURS, ".snakemake"})
        others = [name for name in others if not marker.is_draft(directory / name)]
        if others:
            raise StudyError(
                f"{directory} holds other things ({others[0]!r}): give an empty or a new --output."
            ) from None
        return
    except (OSError, ValueError, KeyError, TypeError):
        return  # cut short: it is written anew
    if name != study.name:
        raise StudyError(
            f"{directory} is of study {name!r}, and this is {study.name!r}: give another --output."
        )
