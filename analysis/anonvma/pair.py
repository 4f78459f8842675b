# SPDX-License-Identifier: GPL-2.0-only
"""The pair: the same workloads on two kernels, several boots each, interleaved.

A boot is the unit: what one boot's memory layout or timing favours, the next need not.
Kernels take turns in the order ABBA, so that a drift of the machine weighs on both alike. For any
other conditions there is `anonvma.experiment`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from anonvma import experiment, mark, places, runs
from anonvma.collect import collect
from anonvma.errors import RunError
from anonvma.runs import Run
from anonvma.target import parse
from anonvma.workload import Workload

__all__ = ["PROFILED", "WORKLOADS", "collect_pair", "kernels"]

WORKLOADS = (
    Workload(workload="small-allocs-mt", threads=2, bytes="16m"),
    # As many mappings as the reader's, of ten pages too: one of ten faults finds it bare.
    Workload(workload="anon-w-seq-mt", threads=2, bytes="16m", unit="40k"),
)
PROFILED = Workload(workload="small-allocs-mt", threads=8, bytes="128m")
"""What is profiled: more threads than processors, so that they meet at mmap_lock, for longer."""
_SPECIMENS = Workload(workload="specimens")


def kernels() -> dict[str, Path]:
    """Return the images that ``make kernels`` built.

    Raises
    ------
    RunError
        When it has not.
    """
    images = {name: places.build() / "kernels" / name / "bzImage" for name in ("early", "delayed")}
    for name, image in images.items():
        if not image.exists():
            raise RunError(f"there is no kernel {name!r} ({image}): run 'make kernels' first.")
    return images


def _order(names: Sequence[str], boots: int) -> Iterator[tuple[str, int]]:
    """Yield ABBA, ABBA, ...: each name with the number of its boot, from 1."""
    for boot in range(1, boots + 1):
        for name in experiment.order(names, boot):
            yield name, boot


def collect_pair(
    images: Mapping[str, Path],
    into: Path,
    *,
    boots: int = 3,
    options: str = "",
    profile: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Run]:
    """Run `WORKLOADS` on each kernel, and the specimens in its first boot.

    Parameters
    ----------
    images : mapping of str to path
        Name and image of each kernel.
    into : path
        Where the runs go, each as ``KERNEL-WORKLOAD-BOOT``, without raw files. One that is there
        already is left alone and not run again, so that an interrupted pair can be resumed.
    boots : int
        How often each kernel is booted.
    options : str
        More words for the target, such as ``,cpus=4``.
    profile : bool
        Whether to run and profile `PROFILED`, too, as ``KERNEL-profile-BOOT``.
    say : callable, optional
        Told what is done next.

    Returns
    -------
    list of Run
        Those that were missing and have been collected.
    """
    if boots < 1:
        raise RunError(f"boots is {boots}: at least 1 is needed.")
    done = []
    with mark.draft(into / "pair") as scratch:
        for kernel, boot in _order(list(images), boots):
            workloads = [*WORKLOADS, *([_SPECIMENS] if boot == 1 else [])]
            todo = {f"{kernel}-{load.name}-{boot}": load for load in workloads}
            if profile:
                todo[f"{kernel}-profile-{boot}"] = PROFILED
            todo = {name: load for name, load in todo.items() if not (into / name).exists()}
            if not todo:
                continue
            say(f"booting {kernel}, {boot} of {boots}")
            with parse(f"guest:{images[kernel]}{options}") as guest:
                for name, load in todo.items():
                    say(name)
                    profiled = load is PROFILED
                    run = collect(guest, load, repeats=2, out=scratch, perf_record=profiled)
                    done.append(runs.record(run, name, into))
    return done
