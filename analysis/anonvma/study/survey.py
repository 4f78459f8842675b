# SPDX-License-Identifier: GPL-2.0-only
"""What has come of a study, or is recorded of one: a run of each workload, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anonvma.base.errors import RunError
from anonvma.run import runs
from anonvma.run.runs import Run
from anonvma.study.job import FAILURE, PLAN


class Survey(NamedTuple):
    """By the name of a workload, its run; and why the others have none."""

    runs: dict[str, Run]
    missing: dict[str, str]


def find(name: str, needs: Sequence[str] = ()) -> Survey:
    """Open what has come of a study.

    Parameters
    ----------
    name : str
        The directory of a study, of which each workload was run once; or, with wildcards, the names
        of recorded runs, such as ``programs-*``, which are called by what the star stands for.
    needs : sequence of str
        Tables without which a run is of no use here.

    Raises
    ------
    RunError
        There is no such study, or no such run.
    """
    plan = Path(name) / PLAN
    if not plan.is_file():
        prefix = Path(name).name.partition("*")[0]
        found = {run.id.removeprefix(prefix): run for run in runs.find_all(name)}
        return _with(found, {}, needs)
    try:
        cells: list[dict[str, Any]] = json.loads(plan.read_bytes())["cells"]
        named = {str(cell["axes"]["workload"]): str(cell["name"]) for cell in cells}
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{plan} is not the plan of a study.") from None
    if len(named) < len(cells):
        raise RunError(f"{name} has several runs of a workload, and one of each is wanted here.")
    done = {label: plan.parent / "cells" / cell for label, cell in named.items()}
    found = {label: Run.open(place) for label, place in done.items() if place.is_dir()}
    missing = {label: _why_not(plan.parent, named[label]) for label in named.keys() - found.keys()}
    return _with(found, missing, needs)


def _with(found: dict[str, Run], missing: dict[str, str], needs: Sequence[str]) -> Survey:
    """Take out the runs that lack a table that is needed."""
    for name, run in found.items():
        if lacking := [table for table in needs if table not in run.manifest.tables]:
            reasons = {
                entry.reason for entry in run.manifest.unobserved if lacking[0] in entry.tables
            }
            missing[name] = (
                f"Its run has no table {lacking[0]}{': ' if reasons else ''}{''.join(reasons)}."
            )
    return Survey({name: run for name, run in found.items() if name not in missing}, missing)


def _why_not(directory: Path, cell: str) -> str:
    """Why a job was not done, by the last try at it."""
    records = sorted(
        directory.glob(f"failed/{cell}.*/{FAILURE}"), key=lambda file: file.stat().st_mtime
    )
    try:
        return str(json.loads(records[-1].read_bytes())["reason"])
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return "It has not been run yet."
