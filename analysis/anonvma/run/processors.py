# SPDX-License-Identifier: GPL-2.0-only
"""Processors: how many real CPUs stood behind those of a guest, which decides what contends.

Tasks contend for a lock when they run at once. Virtual CPUs that take turns on one thread of the
host never do. Overcommitted ones do, and worse than real ones: who spins for a lock
(`rwsem_optimistic_spin()`) takes its owner to be running, and an owner whose virtual CPU waits for
a real one is not. So no ratio of throughputs of guests is told without this.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anonvma.run.runs import Run


class Backing(enum.Enum):
    """What stood behind the virtual CPUs of a guest."""

    REAL = "a real CPU each"
    OVERCOMMITTED = "fewer real CPUs"
    TURNS = "one thread of the host"
    UNKNOWN = "not recorded"


class Processors(NamedTuple):
    """The CPUs of a guest.

    Attributes
    ----------
    virtual : int
    real : int or None
        How many QEMU might run on; None where that was not recorded.
    backing : Backing
    """

    virtual: int
    real: int | None
    backing: Backing

    @property
    def overcommitment(self) -> float:
        """Virtual CPUs to a real one; NaN where that is not known."""
        return self.virtual / self.real if self.real else float("nan")


def of_run(run: Run) -> Processors | None:
    """Return the CPUs of a run's guest; None where it ran in none of ours.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = of_run(runs.find("over-early-4-1"))
    >>> found.virtual, found.real
    (4, 2)
    """
    target = run.manifest.target
    if target.get("kind") != "guest":
        return None
    virtual, real = int(target["cpus"]), target.get("real_cpus")
    # A run from before this was recorded was emulated on one thread, as QEMU does before 8.1.
    threads = target.get("qemu_threads") or ("single" if target.get("accel") == "tcg" else None)
    if threads == "single":
        return Processors(virtual, real, Backing.TURNS)
    if real is None:
        return Processors(virtual, None, Backing.UNKNOWN)
    return Processors(virtual, real, Backing.OVERCOMMITTED if virtual > real else Backing.REAL)


def said(conditions: Mapping[str, Sequence[Run]]) -> list[str]:
    """Say what stood behind the virtual CPUs, once where it is the same for all conditions."""
    found: dict[Processors, list[str]] = {}
    for name, runs in conditions.items():
        for processors in dict.fromkeys(of_run(run) for run in runs):
            if processors:
                found.setdefault(processors, []).append(name)
    alike = len(found) == 1 and list(conditions) in found.values()
    return [
        _sentence(processors) if alike else f"{', '.join(names)}: {_sentence(processors)}"
        for processors, names in found.items()
    ]


def _sentence(processors: Processors) -> str:
    virtual, real, backing = processors
    match backing:
        case Backing.REAL:
            return f"{virtual} virtual CPU{'s' * (virtual > 1)} on {real} real."
        case Backing.OVERCOMMITTED:
            return (
                f"Overcommitted: {virtual} virtual CPUs on {real} real, so who spins for a lock "
                "may spin for an owner whose CPU does not run; with as many real CPUs this ratio "
                "is another."
            )
        case Backing.TURNS:
            return (
                f"{virtual} virtual CPUs that took turns on one thread of the host: their tasks "
                "hardly contend, and throughput says little of a lock."
            )
        case Backing.UNKNOWN:
            return f"How many real CPUs stood behind {virtual} virtual ones was not recorded."
