# SPDX-License-Identifier: GPL-2.0-only
"""What `anonvma cost` says of the early check, measured on the pair: a lower bound, and how low.

The experiment sends faults to mmap_lock by having the kernel touch first, on one kernel. The early
check sends them there too, but only after it has looked the VMA up, taken its lock, and given that
up again. On the two kernels of the pair both can be had: what the lock path costs is *delayed*,
user over kernel; what the check costs is *delayed* over *early*, user both. The second over the
first is throughput of delayed where the kernel touches, over that of early where tasks do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anonvma.base import paths, statistics
from anonvma.base.errors import RunError
from anonvma.base.numerals import interval, number
from anonvma.run import processors, runs
from anonvma.run.runs import Run

_SIDES = ("delayed-user", "delayed-kernel", "early-user")


class Ratio(NamedTuple):
    """A ratio of throughputs with its 95 % interval, and the number of boots of each side."""

    ratio: float
    low: float
    high: float
    n: int


class Bound(NamedTuple):
    """What the lock path and the early check cost on the same kernels, in throughput.

    Attributes
    ----------
    lock_path : Ratio
        Faults under the VMA's lock over the same faults under mmap_lock, on the delayed kernel.
    early_check : Ratio
        The delayed kernel over the early one.
    between : Ratio
        The second over the first: how much more the check costs than the experiment says.
    tasks : int
    cpus : Processors or None
    """

    lock_path: Ratio
    early_check: Ratio
    between: Ratio
    tasks: int
    cpus: processors.Processors | None


def of_directory(directory: Path) -> Bound:
    """Return the bound from the runs of ``anonvma pair --also bound``.

    Raises
    ------
    RunError
        When there are none.
    """
    sides = {name: runs.find_all(f"{directory}/bound-{name}-*") for name in _SIDES}
    return _of_sides(sides)


@functools.cache
def recorded() -> Bound | None:
    """Return that of the recorded pair; None where anonvma comes without its data."""
    try:
        return of_directory(paths.recorded())
    except RunError:
        return None


def _of_sides(sides: Mapping[str, Sequence[Run]]) -> Bound:
    speeds = {name: np.array([[_speed(run)] for run in each]) for name, each in sides.items()}

    def ratio(head: str, base: str) -> Ratio:
        row = statistics.between(speeds[base], speeds[head]).iloc[0]
        return Ratio(row["ratio"], row["low"], row["high"], int(min(row["n_base"], row["n"])))

    user, kernel, early = _SIDES
    first = sides[user][0]
    return Bound(
        ratio(user, kernel),
        ratio(user, early),
        ratio(kernel, early),
        int(first.manifest.parameters["threads"]),
        processors.of_run(first),
    )


def _speed(run: Run) -> float:
    return float(run.table("throughput").groupby("repeat")["kb_per_s"].sum().mean())


def sentences(bound: Bound) -> list[str]:
    """Say how far below the early check's cost the experiment's estimate lies."""
    cpus = bound.cpus
    where = (
        f"{cpus.virtual} virtual CPUs on {cpus.real or 'an unknown number of'} real, "
        if cpus
        else ""
    )
    return [
        f"Measured on the pair of 6.12 as guests ({where}{bound.tasks} tasks, n = "
        f"{bound.between.n} boots of each), the early check costs {_said(bound.early_check)} and "
        f"the lock path alone {_said(bound.lock_path)} in throughput: the check "
        f"{_said(bound.between)} what this experiment says there."
    ]


def _said(ratio: Ratio) -> str:
    return f"{number(ratio.ratio)} times ({interval(ratio.low, ratio.high, apart=1)})"
