# SPDX-License-Identifier: GPL-2.0-only
"""What has come of a study, or is recorded of one: a run of each workload, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anonvma.base.errors import RunError
from anonvma.run import jobs, runs
from anonvma.run.runs import Run


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
    directory = Path(name)
    if not (directory / jobs.PLAN).is_file():
        prefix = directory.name.partition("*")[0]
        found = {run.id.removeprefix(prefix): run for run in runs.find_all(name)}
        return _with(found, {}, needs)
    cells = jobs.planned(directory)
    named = {str(cell["axes"].get("workload")): str(cell["name"]) for cell in cells}
    if len(named) < len(cells):
        raise RunError(f"{name} has several runs of a workload, and one of each is wanted here.")
    done = {label: directory / "cells" / cell for label, cell in named.items()}
    found = {label: Run.open(place) for label, place in done.items() if place.is_dir()}
    missing = {label: _why_not(directory, named[label]) for label in named.keys() - found.keys()}
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
    last = jobs.failure(directory, cell)
    return str(last["reason"]) if last else "It has not been run yet."
