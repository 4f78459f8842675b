# SPDX-License-Identifier: GPL-2.0-only
"""The lock path as an experiment on the running kernel: the same faults under either lock.

A fault in kernel mode never takes a VMA's lock: `do_user_addr_fault()` goes to mmap_lock unless
``FAULT_FLAG_USER`` is set (6.4 on; arm64's `do_page_fault()` alike). So ``vmload --touch`` has the
same mappings, system calls and faults under the VMA's lock, where tasks touch their pages
themselves, and under mmap_lock, where a system call of theirs does so first. No second kernel is
needed, no reboot, and no privilege but for tracing the locks.

A *block* has both ways once at one number of threads, in the order ABBA from block to block. Blocks
go on, over all numbers of threads in turns, until each ratio's interval is narrow enough or the
budget is spent. It looks at how wide an interval is and never at where it lies, so stopping does
not favour a finding. `anonvma.compare.cost` says what came of it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from anonvma.base import paths
from anonvma.base.errors import (
    AnonvmaError,
    ParameterError,
    PrivilegeError,
    ProbeError,
    WorkloadError,
)
from anonvma.base.nearest import hint
from anonvma.base.text import last_line
from anonvma.base.turns import in_turns
from anonvma.collect import regime, tracing
from anonvma.collect.workload import Workload, cases
from anonvma.collect.workload_output import parse_throughput
from anonvma.compare import cost
from anonvma.probe import locks_file
from anonvma.probe.vmaprobe import Vmaprobe, require_success
from anonvma.run.manifest import Command, Unobserved
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, sweep, to_table
from anonvma.tables import locks
from anonvma.target.target import Target

Progress = Callable[[float, str], None]
"""Called with the share of the budget that is spent, and what is done now."""

_ENOUGH_S = 0.25  # of one execution: a hundred times what starting it takes
_LEAST_BYTES = 64 << 20
_MAPPINGS_OF_A_PROGRAM = 1024  # program, libraries, stacks, and room to spare
_LEAST_BLOCKS = 3  # before the budget may end it: two blocks have an interval of no use


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    workload : str
        A case of ``vmload --cases``.
    threads : tuple of int or None
        Numbers of threads; None is 1, 2, 4, ... to twice the CPUs.
    budget_s : float
        Seconds after which no round of blocks is begun.
    precision : float
        Half the width of a ratio's interval that is narrow enough, as a share of the ratio.
    least : int
        Blocks that an interval has to have to be called narrow.
    cpus : str or None
        The CPUs that tasks may run on, such as ``0-3,8``; None is all.
    against : {"kernel", "user"}
        Who touches first in what is compared with the user's touching: with "user" nothing differs
        (an A/A test), and what is found is noise.

    Raises
    ------
    ParameterError
        One sentence: what is wrong.
    """

    workload: str = "small-allocs-mt"
    threads: tuple[int, ...] | None = None
    budget_s: float = 60.0
    precision: float = 0.03
    least: int = 6
    cpus: str | None = None
    against: Literal["kernel", "user"] = "kernel"

    def __post_init__(self) -> None:
        if self.workload not in cases():
            raise ParameterError(
                f"workload {self.workload!r} is no case of vmload, the one program that can be "
                "told who touches a page first: "
                + hint(self.workload, cases(), f"there are {', '.join(cases())}.")
            )
        if self.threads is not None and (not self.threads or min(self.threads) < 1):
            raise ParameterError("threads must be whole numbers above 0, such as 1,2,4.")
        if self.budget_s <= 0 or not 0 < self.precision < 1 or self.least < 2:
            raise ParameterError(
                "budget must be above 0 s, precision between 0 and 1, least at least 2 blocks."
            )

    @property
    def ways(self) -> tuple[str, str]:
        """The two ways, by what they are called in the tables."""
        return ("user", "kernel" if self.against == "kernel" else cost.AGAIN)


def numbers_of_threads(cpus: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... up to twice the CPUs, and the number of CPUs itself.

    >>> numbers_of_threads(6)
    (1, 2, 4, 6, 8, 12)
    """
    powers = {1 << i for i in range((2 * cpus).bit_length())}
    return tuple(sorted(n for n in powers | {cpus, 2 * cpus} if n <= 2 * cpus))


def measure(
    target: Target, plan: Plan, *, out: Path | None = None, progress: Progress | None = None
) -> Run:
    """Carry out the experiment and return its run, with the tables lock_cost and lock_waits.

    Raises
    ------
    ParameterError
        When the target cannot have so many threads.
    WorkloadError
        When vmload fails.
    TargetError, TargetLost, RunError
        As `anonvma.collect.collection.collect` raises them.
    """
    directory = out or paths.runs()
    sweep(directory)
    with RunWriter(directory, f"cost-{plan.workload}") as writer:
        work = _Experiment(target, plan, writer.path, progress or (lambda share, text: None))
        work.prepare()
        work.compare()
        work.trace()
        return writer.finish(work.tables(), work.manifest())


class _Experiment:
    """The experiment while it goes on."""

    def __init__(self, target: Target, plan: Plan, scratch: Path, progress: Progress) -> None:
        self.target, self.plan, self.scratch = target, plan, scratch
        self.rows: list[dict[str, Any]] = []
        self.waits: list[pd.DataFrame] = []
        self.unobserved: list[Unobserved] = []
        self.features: dict[str, Any] = {}
        self._progress = progress
        self._begun = time.monotonic()

    @property
    def _spent(self) -> float:
        return time.monotonic() - self._begun

    def _say(self, text: str) -> None:
        self._progress(min(self._spent / self.plan.budget_s, 1.0), text)

    # ---- before ----

    def prepare(self) -> None:
        """Bring the programs, and find how many bytes make an execution long enough."""
        self._say("getting ready")
        self.vmaprobe = Vmaprobe(self.target)
        self.vmload = self.target.push(paths.program("vmload", self.target.programs))
        self.facts = {**self.target.facts(), "numa_nodes": self._numa_nodes()}
        self.privileged = self._observe_regime()
        cpus = int(self.facts["cpus"])
        self.threads = tuple(sorted(set(self.plan.threads or numbers_of_threads(cpus))))
        self.bytes = self._fitting(_LEAST_BYTES)
        most = self.threads[-1]
        seconds = self._execute(most, "user")["seconds"]
        self.bytes = self._fitting(int(self.bytes * max(_ENOUGH_S / max(seconds, 1e-3), 1.0)))
        for threads in self.threads:  # warm-ups, which do not count
            for way in self.plan.ways:
                self._execute(threads, way)

    def _numa_nodes(self) -> int | None:
        try:
            online = self.target.read("/sys/devices/system/node/online").decode()
        except AnonvmaError:  # a kernel without CONFIG_NUMA
            return None
        edges = [part.split("-") for part in online.strip().split(",")]
        return sum(int(edge[-1]) - int(edge[0]) + 1 for edge in edges)

    def _observe_regime(self) -> bool:
        """See what the kernel does, where privilege allows it; whether it does."""
        try:
            self.target.require_privilege()
        except PrivilegeError as error:
            self.unobserved.append(
                Unobserved(
                    what="who acquired mmap_lock, and how long each waited",
                    reason=str(error).rstrip("."),
                    remedy="root, or sudo without a password; the throughput needs neither",
                )
            )
            return False
        with contextlib.suppress(ProbeError):
            self.features = self.vmaprobe.features()
        self.features["regime"] = regime.of(self.target)._asdict()
        return True

    def _workload(self, threads: int) -> Workload:
        unit = self._unit(threads)
        share = max(self.bytes // threads // unit, 1) * unit
        return Workload(workload=self.plan.workload, threads=threads, bytes=share * threads)

    def _unit(self, threads: int) -> int:
        """Bytes of one mapping, or a page where a task has one mapping alone."""
        page = int(self.facts["page_size"])
        probe = Workload(workload=self.plan.workload, threads=1, bytes=_LEAST_BYTES)
        unit = probe.mapping_bytes or page
        return unit if unit < _LEAST_BYTES else page

    def _fitting(self, wanted: int) -> int:
        """Return bytes over all tasks: as wanted, as far as vm.max_map_count allows it."""
        most, unit = self.threads[-1], self._unit(1)
        room = int(self.facts["max_map_count"]) - _MAPPINGS_OF_A_PROGRAM - 2 * most
        if room < most:
            raise ParameterError(
                f"{most} threads need more mappings than vm.max_map_count "
                f"({self.facts['max_map_count']:,}) allows: raise it, or name fewer threads."
            )
        return max(min(wanted, room * unit), most * unit)

    # ---- one execution ----

    def _command(self, threads: int, way: str) -> list[str]:
        touch = "kernel" if way == "kernel" else "user"
        *words, size = self._workload(threads).argv(self.vmload)
        cpus = ["--cpus", self.plan.cpus] if self.plan.cpus else []
        return [*words, "--touch", touch, *cpus, size]

    def _execute(self, threads: int, way: str) -> dict[str, Any]:
        """Run vmload once, untraced; what it says and what the kernel charged it with."""
        command = self._command(threads, way)
        done = self.target.run([self.vmaprobe.path, "usage", "--", *command])
        tasks = parse_throughput(done.stderr)  # the command's own output goes there
        if done.returncode or len(tasks) != threads:
            reason = last_line(done.stderr)
            raise WorkloadError(f"{self.plan.workload} with {threads} threads failed: {reason}")
        used = json.loads(done.stdout)
        return {
            "threads": threads,
            "way": way,
            "bytes": self._workload(threads).bytes,
            "mib_per_s": sum(task["kb_per_s"] for task in tasks) / 1024,
            **{name: used[name] for name in cost.USAGE},
        }

    # ---- in turns ----

    def compare(self) -> None:
        """Make blocks until each ratio is known well enough, or the budget is spent."""
        wanting, block = list(self.threads), 0
        while wanting:
            block += 1
            if block > _LEAST_BLOCKS and self._spent >= self.plan.budget_s:
                break
            for threads in wanting:
                self._say(f"{threads} threads, block {block}")
                for way in in_turns(self.plan.ways, block):
                    self.rows.append({"repeat": block, **self._execute(threads, way)})
            if block >= self.plan.least:
                wanting = list(self._wide())
        self.blocks = block

    def _wide(self) -> Iterator[int]:
        """Yield the numbers of threads whose ratio has no interval that is narrow enough."""
        widths = cost.ratios(pd.DataFrame(self.rows))["half_width"]
        for threads in self.threads:
            if not widths[threads] <= self.plan.precision:  # null is as wide as can be
                yield threads

    # ---- traced ----

    def trace(self) -> None:
        """Count who acquires mmap_lock, in one execution of each way and number of threads."""
        for threads in self.threads if self.privileged else ():
            for way in dict.fromkeys(self.plan.ways):
                self._say(f"{threads} threads, tracing mmap_lock")
                self._trace(threads, way)

    def _trace(self, threads: int, way: str) -> None:
        output = self.target.place(f"locks-{threads}-{way.replace(' ', '-')}")
        command = [*self.target.as_caller(), *self._command(threads, way)]
        require_success(self.vmaprobe.run("locks", "--output", output, "--", *command))
        counts = self.scratch / "counts"
        self.target.pull(output, counts)
        found = locks_file.read_locks(counts.read_bytes())
        counts.unlink()
        mine = tracing.workload_processes(found.processes, "vmload")
        own = locks.of_workload(found.locks[found.locks["process"].isin(mine)].assign(repeat=1))
        table = locks.callers(own).assign(threads=threads, way=way, repeat=1)
        table["lost"] = sum(count or 0 for count in found.losses.values())
        self.waits.append(table.rename(columns=cost.WAITS_FROM_CALLERS))

    # ---- what is kept ----

    def tables(self) -> dict[str, Any]:
        """Return the run's tables."""
        tables = {"lock_cost": to_table(self.rows, SCHEMAS["lock_cost"])}
        if self.waits:
            waits = pd.concat(self.waits, ignore_index=True)
            tables["lock_waits"] = to_table(waits, SCHEMAS["lock_waits"])
        return tables

    def manifest(self) -> dict[str, Any]:
        """Return the fields of the manifest that are not about files, time or version."""
        plan = self.plan
        named = Workload(workload=plan.workload, threads=1, bytes=_LEAST_BYTES)
        return {
            "target": self.facts,
            "workload": Command(name=plan.workload, argv=["vmload", *named.argv()[1:-1]]),
            "parameters": {
                "workload": plan.workload,
                "threads": list(self.threads),
                "bytes": self.bytes,
                "touch": list(plan.ways),
                "budget_s": plan.budget_s,
                "precision": plan.precision,
                "cpus": plan.cpus,
            },
            "repeats": max(row["repeat"] for row in self.rows),
            "features": self.features,
            "unobserved": self.unobserved,
            "losses": {},
            "notes": list(self.target.notes),
        }
