# SPDX-License-Identifier: GPL-2.0-only
"""The pair: the same workloads on the mail's two kernels, booted in turns.

A boot is the unit: what one boot's memory layout or timing favours, the next need not. Kernels take
turns in the order ABBA, so that a drift of the machine weighs on both alike. Boots go on until the
ratio of throughputs is known well enough or the budget is spent; as in `anonvma.study.experiment`,
which compares any other conditions, what is looked at is how wide its interval is, never where it
lies.

The guests have as many virtual CPUs as there are real ones: tasks that contend for a lock have to
run at once, and overcommitted ones spin for owners that do not run (`anonvma.run.processors`).
There are four times as many tasks. Throughput is of executions that nothing observes; the first
boots have faults and mmap_lock traced, in executions of their own, for counts are alike in each
boot.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from anonvma.base import marker, paths
from anonvma.base.errors import RunError
from anonvma.collect.collection import collect
from anonvma.collect.targets import parse
from anonvma.collect.workload import Workload
from anonvma.run import runs
from anonvma.run.runs import Run
from anonvma.run.writer import record
from anonvma.study import experiment
from anonvma.target.target import Target

Also = Literal["scaling", "bound"]

_MOST_CPUS = 16  # by default: more take longer to boot, and were not tried
_TASKS = 4  # to a CPU
_REPEATS = 3


@dataclass(frozen=True)
class Plan:
    """What is run, and when it is enough.

    Attributes
    ----------
    boots : int or None
        Of each kernel; None is as many as it takes.
    precision : float
        Half the width of the ratio's interval that is narrow enough, as a share of the ratio.
    budget_s : float
        Seconds after which no further boots are begun.
    least : int
        Boots of each kernel in any case.
    traced : int
        The boots of each kernel, from the first, in which faults and mmap_lock are traced.
    profile : bool
        Whether these are profiled, too, the reading workload as ``KERNEL-profile-BOOT``, and the
        first makes the specimens.
    cpus : int
        Virtual CPUs.
    also : collection of {"scaling", "bound"}
        What else is run in each boot: with other numbers of tasks, as
        ``scaling-KERNEL-tTASKS-BOOT``; and with a page touched first by the task and by a system
        call, as ``bound-KERNEL-user-BOOT`` and ``bound-KERNEL-kernel-BOOT``.

    Raises
    ------
    RunError
        One sentence: what is wrong.
    """

    boots: int | None = None
    precision: float = 0.10
    budget_s: float = 130.0
    least: int = 3
    traced: int = 1
    profile: bool = False
    cpus: int = min(len(os.sched_getaffinity(0)), _MOST_CPUS)
    also: tuple[Also, ...] = ()

    def __post_init__(self) -> None:
        if self.boots is not None and self.boots < 1:
            raise RunError(f"boots is {self.boots}: at least 1 is needed.")
        if self.budget_s <= 0 or not 0 < self.precision < 1:
            raise RunError("budget must be above 0 s, and precision between 0 and 1.")

    @property
    def reading(self) -> Workload:
        """What is judged: every fault finds a bare VMA and leaves it so."""
        tasks = _TASKS * self.cpus
        return Workload(workload="small-allocs-mt", threads=tasks, bytes=_whole(256 << 20, tasks))

    @property
    def writing(self) -> Workload:
        """The control: one fault of ten finds its VMA bare."""
        tasks = _TASKS * self.cpus
        return Workload(
            workload="anon-w-seq-mt", threads=tasks, bytes=_whole(16 << 20, tasks), unit="40k"
        )


class _Load(NamedTuple):
    """A workload, and how it is observed."""

    workload: Workload
    repeats: int = _REPEATS
    trace: bool = False
    profile: bool = False


def kernels() -> dict[str, Path]:
    """Return the images that ``make kernels`` built.

    Raises
    ------
    RunError
        When it has not.
    """
    images = {name: paths.kernel(name) for name in ("early", "delayed")}
    for name, image in images.items():
        if not image.exists():
            raise RunError(f"there is no kernel {name!r} ({image}): run 'make kernels' first.")
    return images


def collect_pair(
    images: Mapping[str, Path],
    into: Path,
    plan: Plan | None = None,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> list[Run]:
    """Run the workloads on each kernel, boot by boot.

    Parameters
    ----------
    images : mapping of str to path
        Name and image of each kernel; the first is the base.
    into : path
        Where the runs go, each as ``KERNEL-WORKLOAD-BOOT``, without raw files. One that is there
        already is left alone and not run again, so that an interrupted pair can be resumed.
    plan : Plan, optional
    say : callable, optional
        Told what is done next.

    Returns
    -------
    list of Run
        Those that were missing and have been collected.
    """
    plan, begun, done = plan or Plan(), time.monotonic(), []
    with marker.draft(into / "pair") as scratch:
        for boot in itertools.count(1):
            for kernel in experiment.order(list(images), boot):
                loads = {
                    name: load
                    for name, load in _loads(plan, kernel, boot)
                    if not (into / name).exists()
                }
                if not loads:
                    continue
                say(f"booting {kernel}, {boot}{f' of {plan.boots}' if plan.boots else ''}")
                with parse(f"guest:{images[kernel]},cpus={plan.cpus}") as guest:
                    for name, load in loads.items():
                        say(name)
                        done.append(record(_collected(guest, load, scratch), name, into))
            if _enough(plan, images, into, boot, time.monotonic() - begun):
                break
    return done


def width(images: Mapping[str, Path], into: Path, plan: Plan) -> float:
    """Return half the width of the ratio's interval, as a share of the ratio; NaN if unknown."""
    from anonvma.compare import changes  # which imports a lot

    sides = {name: runs.find_all(f"{into}/{name}-{plan.reading.name}-*") for name in images}
    return float(changes.primary_rows(sides)["half_width"].iloc[-1])


def _enough(plan: Plan, images: Mapping[str, Path], into: Path, boots: int, spent: float) -> bool:
    if plan.boots is not None:
        return boots >= plan.boots
    if boots < plan.least:
        return False
    return spent >= plan.budget_s or width(images, into, plan) <= plan.precision


def _loads(plan: Plan, kernel: str, boot: int) -> Iterator[tuple[str, _Load]]:
    """Yield what is run in a boot, by the name of its run."""
    traced = boot <= plan.traced
    yield f"{kernel}-{plan.reading.name}-{boot}", _Load(plan.reading, trace=traced)
    if traced:
        yield f"{kernel}-{plan.writing.name}-{boot}", _Load(plan.writing, repeats=1, trace=True)
    if boot == 1 and plan.profile:
        yield f"{kernel}-specimens-{boot}", _Load(Workload(workload="specimens"), trace=True)
    if traced and plan.profile:
        yield f"{kernel}-profile-{boot}", _Load(plan.reading, 2, trace=True, profile=True)
    if "scaling" in plan.also:
        for tasks in _numbers_of_tasks(plan):
            load = _sized(plan.reading, tasks)
            yield f"scaling-{kernel}-t{tasks}-{boot}", _Load(load, trace=traced)
    if "bound" in plan.also:
        for touch in ("user", "kernel"):
            load = plan.reading.model_copy(update={"touch": touch})
            yield f"bound-{kernel}-{touch}-{boot}", _Load(load)


def _numbers_of_tasks(plan: Plan) -> Iterator[int]:
    """Yield 1, 2, 4, ... up to twice what is run anyway."""
    tasks = 1
    while tasks <= 2 * plan.reading.threads:
        yield tasks
        tasks *= 2


def _sized(load: Workload, tasks: int) -> Workload:
    """Return the same bytes for another number of tasks."""
    return load.model_copy(update={"threads": tasks, "bytes": _whole(load.bytes, tasks)})


def _whole(size: int, tasks: int) -> int:
    """Return the bytes nearest below `size` that divide into tasks of whole pages."""
    share = tasks * os.sysconf("SC_PAGE_SIZE")
    return max(size // share, 1) * share


def _collected(guest: Target, load: _Load, scratch: Path) -> Run:
    return collect(
        guest,
        load.workload,
        repeats=load.repeats,
        out=scratch,
        perf_record=load.profile,
        trace=load.trace,
        traced=1,
    )
