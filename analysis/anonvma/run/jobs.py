# SPDX-License-Identifier: GPL-2.0-only
"""The jobs of a study, by its directory: which are planned, and why one has no run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from anonvma.base import bounded
from anonvma.base.errors import RunError

PLAN = "cells.json"
"""In the directory of a study: its jobs."""
FAILURE = "failure.json"
"""In the record of what failed: why."""
_LARGEST = 16 << 20
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def planned(directory: Path) -> list[dict[str, Any]]:
    """Return the jobs of a study, each with its name, its axes, and what else the plan says of it.

    Raises
    ------
    RunError
        When that is not the directory of one.
    """
    file = directory / PLAN
    try:
        cells: list[dict[str, Any]] = json.loads(bounded.regular(file, _LARGEST))["cells"]
        for cell in cells:
            cell["name"], cell["axes"]  # each has them, or it is no plan
    except _DAMAGED:
        raise RunError(f"{file} is not the plan of a study.") from None
    return cells


def is_survey(directory: Path) -> bool:
    """Tell whether a directory is of a study that makes the specimens on several kernels."""
    try:
        cells = planned(directory)
        made = [c["axes"] for c in cells if c["parameters"]["workload"] == "specimens"]
        return len({axes.get("kernel") for axes in made} - {None}) > 1
    except (RunError, *_DAMAGED):
        return False


def failure(directory: Path, name: str) -> dict[str, Any] | None:
    """Return what the last try at a job that failed has left, None where none has."""
    records = sorted(directory.glob(f"failed/{name}.*/{FAILURE}"), key=os.path.getmtime)
    try:
        told: dict[str, Any] = json.loads(bounded.regular(records[-1], _LARGEST))
        told["reason"]
    except (IndexError, *_DAMAGED):
        return None
    return told
