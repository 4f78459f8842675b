# SPDX-License-Identifier: GPL-2.0-only
"""One execution of the workload, observed: counted by ``perf stat``, with a census at its end.

The census is taken when the workload has made its last access and its mappings are still alive:

- our own programs stop there by themselves (``--hold``) and are told to go on afterwards;
- any other command is stopped by vmaprobe in the exit of each of its processes;
- a process that is running already is watched for some seconds, then read as it runs.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anonvma.base.errors import ProbeError, WorkloadError
from anonvma.base.text import last_line
from anonvma.collect import environment, tracing, vmstat
from anonvma.collect.context import Context
from anonvma.collect.profiling import Profiler
from anonvma.collect.tracing import Tracer
from anonvma.collect.workload_output import (
    held_pids,
    parse_specimens,
    parse_throughput,
    parse_used,
)
from anonvma.perf import tool as perf
from anonvma.probe import census_file
from anonvma.probe.vmaprobe import Vanished, Vmaprobe, failure
from anonvma.target.target import Process


class Observer:
    """Observes executions of a workload on a target.

    Parameters
    ----------
    tracer : Tracer or None
        What traces the faults of the very execution that is observed; None if they are not.
    """

    def __init__(
        self,
        context: Context,
        program: str | None,
        vmaprobe: Vmaprobe,
        profiler: Profiler,
        tracer: Tracer | None,
    ) -> None:
        self.target, self.workload, self.writer = context.target, context.workload, context.writer
        self.results, self._place, self._raw = context.results, context.place, context.raw
        self.surroundings = context.surroundings
        self.program, self.vmaprobe = program, vmaprobe
        self.profiler, self.tracer = profiler, tracer

    def observe(self, repeat: int) -> None:
        """Run the workload once, observed."""
        found = environment.snapshot(self.target, constant=repeat == 1)
        started = datetime.datetime.now(datetime.UTC)
        if self.workload.holds:
            row = self._observe_held(repeat)
        elif self.workload.kind == "command":
            row = self._observe_command(repeat)
        else:
            row = self._observe_process(repeat)
        self.results.rows["environment"] += environment.rows(
            repeat, found, environment.snapshot(self.target)
        )
        if self.profiler.tool:
            times = self._counts(repeat)
            if times:
                row |= {"user_s": times.get("user_time"), "system_s": times.get("system_time")}
            if self.workload.kind == "command" and times:
                row["seconds"] = times["duration_time"]  # without the time vmaprobe takes to start
            if self.workload.kind == "command":
                row |= self._counted_faults(repeat)
        self.results.add("repeats", repeat, [{"started": started, **row}])

    def _observe_held(self, repeat: int) -> dict[str, Any]:
        argv = [*self._counting(repeat), *self.workload.argv(self.program, hold=True)]
        if self.tracer:
            traced = self.tracer.output(repeat, tracing.FAULTS)
            caller = [] if self.profiler.tool else self.target.as_caller()
            argv = [*self.tracer.words(repeat, tracing.FAULTS, traced), "--", *caller, *argv]
        before = vmstat.counters(self.target)
        begin = time.monotonic()
        with (
            self._raw(repeat, "stderr").open("wb") as stderr,
            self.target.start(
                argv,
                privileged=self.profiler.tool is not None or self.tracer is not None,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            ) as process,
        ):
            said, pids = _read_until_held(process)
            row: dict[str, Any] = {"seconds": time.monotonic() - begin}
            if pids:
                self._note_vmstat(repeat, before)
                row |= self._usage(pids) | parse_used(said)
                self._take_census(repeat, pids)
                said += _release(process)
            status = process.wait()
        self._raw(repeat, "stdout").write_bytes(said)
        self._require_success(status, self._raw(repeat, "stderr"), argv)
        if not pids:
            raise WorkloadError(f"{self.workload.name} ended without saying which processes hold.")
        self._keep_output(repeat, said)
        if self.tracer:
            self.tracer.keep(repeat, tracing.FAULTS, traced)
        return row | {"exit_status": status}

    def _observe_command(self, repeat: int) -> dict[str, Any]:
        output = self._place(f"census-{repeat}")
        usage = self._place(f"usage-{repeat}")
        if self.profiler.tool:  # which is the command that vmaprobe starts then
            command = self._counting(repeat)
            argv = self.vmaprobe.census_at_exit(output, "--skip-root")
        else:
            command = self.target.as_caller()
            argv = self.vmaprobe.census_at_exit(output, "--usage", usage)
        argv += [*command, *self.workload.argv(self.program)]
        before = vmstat.counters(self.target)
        begin = time.monotonic()
        with (
            self._raw(repeat, "stdout").open("wb") as stdout,
            self._raw(repeat, "stderr").open("wb") as stderr,
        ):
            log = self._raw(repeat, "steps")
            status = self.surroundings.run(argv, stdout, stderr, log).returncode
        seconds = time.monotonic() - begin
        self._note_vmstat(repeat, before)
        if not self.target.exists(output):
            # A census that has its name is whole; without one the status is vmaprobe's own.
            raise ProbeError(failure(status, self._raw(repeat, "stderr").read_bytes()))
        self._require_success(status, self._raw(repeat, "stderr"), argv)
        self._keep_census(repeat, output)
        self._keep_output(repeat, self._raw(repeat, "stdout").read_bytes())
        used = {} if self.profiler.tool else self._usage_of_command(usage)
        return {"seconds": seconds, "exit_status": status, **used}

    def _observe_process(self, repeat: int) -> dict[str, Any]:
        watch = ["sleep", f"{self.workload.seconds:g}"]
        pids = [self.workload.pid]
        before, used_before = vmstat.counters(self.target), self._usage(pids)
        begin = time.monotonic()
        done = self.target.run(
            [*self._counting(repeat), *watch], privileged=self.profiler.tool is not None
        )
        seconds = time.monotonic() - begin
        self._note_vmstat(repeat, before)
        self._raw(repeat, "stderr").write_bytes(done.stderr)
        self.workload.check(self.target)  # is it still there?
        if done.returncode:
            raise ProbeError(f"perf stat failed: {last_line(done.stderr)}")
        used = self._usage(pids)
        self._take_census(repeat, pids)
        return {"seconds": seconds, **{name: used[name] - used_before[name] for name in used}}

    def _counting(self, repeat: int) -> list[str]:
        """Return the words that, before a command, count its events, or those of a process."""
        if self.profiler.tool is None:
            return []
        counting = self.profiler.tool.stat(
            self._place(f"perf-stat-{repeat}.json"), self.profiler.events
        )
        if self.workload.kind == "pid":
            return [*counting, "-p", str(self.workload.pid), "--"]
        return [*counting, "--", *self.target.as_caller()]

    def _counts(self, repeat: int) -> dict[str, float]:
        """Keep what perf stat counted; return the times among it, in seconds."""
        file = self._raw(repeat, "perf-stat.json")
        self.target.pull(self._place(file.name.replace(".json", f"-{repeat}.json")), file)
        counts = perf.parse_stat(file.read_bytes())
        self.results.add("perf_stat", repeat, counts)
        return perf.times(counts)

    def _note_vmstat(self, repeat: int, before: dict[str, int]) -> None:
        changed = vmstat.changes(before, vmstat.counters(self.target))
        self.results.add("vmstat", repeat, changed)

    def _usage(self, pids: Sequence[int]) -> dict[str, Any]:
        """What processes, which are all still there, have used so far: columns of ``repeats``."""
        with self._while_there():
            return self.vmaprobe.usage(pids)

    @contextlib.contextmanager
    def _while_there(self) -> Iterator[None]:
        try:
            yield
        except Vanished as error:
            raise WorkloadError(
                f"{self.workload.name} was gone before its census: {error}"
            ) from None

    def _usage_of_command(self, file: str) -> dict[str, Any]:
        """What a command that has ended, and all that it waited for, have used."""
        local = self.writer.path / "usage"
        self.target.pull(file, local)
        used: dict[str, Any] = json.loads(local.read_bytes())
        local.unlink()
        return used

    def _counted_faults(self, repeat: int) -> dict[str, int]:
        """What perf counted of a command's faults: without perf's own."""
        counts = {
            row["event"]: row["value"]
            for row in self.results.rows["perf_stat"]
            if row["repeat"] == repeat and row["value"] is not None
        }
        events = {"minor_faults": "minor-faults", "major_faults": "major-faults"}
        return {name: int(counts[e]) for name, e in events.items() if e in counts}

    def _take_census(self, repeat: int, pids: Sequence[int]) -> None:
        output = self._place(f"census-{repeat}")
        with self._while_there():
            self.vmaprobe.census(output, pids)
        self._keep_census(repeat, output)

    def _keep_census(self, repeat: int, output: str) -> None:
        """Decode a census; the binary file is not kept, for it names the boot of its machine."""
        local = self.writer.path / "census"
        self.target.pull(output, local)
        found = census_file.read(local)
        local.unlink()
        self.results.add_frame("census", repeat, found.vmas)
        self.results.add_frame("anon_vma_chains", repeat, found.chains)
        self.results.add_frame("slabs", repeat, found.slabs)
        self.results.losses.update(found.losses)
        self.results.pages_how = found.header["pages_how"]

    def _keep_output(self, repeat: int, stdout: bytes) -> None:
        """Take the rows that the workload's own output holds."""
        throughput = parse_throughput(stdout)
        self.results.add("throughput", repeat, throughput)
        if self.workload.kind == "specimens":
            made = parse_specimens(stdout)
            self.results.add("specimens", repeat, made)

    def _require_success(self, status: int, stderr: Path, argv: Sequence[str]) -> None:
        """Raise WorkloadError if the workload, or what observed it, failed or was killed."""
        said = stderr.read_bytes()
        name = self.workload.name
        observed = argv[0] != self.workload.argv(self.program)[0]
        if status < 0 and observed:  # it would end otherwise if the workload had been killed
            killed = f"{Path(argv[0]).name} was killed by {signal.Signals(-status).name}"
            raise WorkloadError(f"{killed} while it observed {name}.")
        # perf stat ends with 0 when its command was killed, and says so the way psignal(3) does,
        # under the first word of what it started.
        first = [*self.target.as_caller(), *self.workload.argv(self.program)][0]
        for number in signal.Signals:
            told = f"{first}: {signal.strsignal(number)}".encode(errors="surrogateescape")
            if status == -number or (self.profiler.tool and told in said.splitlines()):
                raise WorkloadError(f"{name} was killed by {number.name}.")
        if observed and status - 128 in list(signal.Signals):
            # vmaprobe ends as a shell does.
            number = signal.Signals(status - 128)
            raise WorkloadError(f"{name} was killed by {number.name}, or ended with {status}.")
        if status:
            raise WorkloadError(f"{name} failed with exit status {status}: {last_line(said)}")


def _read_until_held(process: Process) -> tuple[bytes, list[int] | None]:
    """Read what the workload says until it holds: all of it, and who holds; None if it ended."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        pids = held_pids(line)
        if pids is not None:
            return b"".join(said), pids
    return b"".join(said), None


def _release(process: Process) -> bytes:
    """Tell the workload to go, and return what it says after that."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it is gone; its exit status will tell
        process.stdin.close()
    return process.stdout.read()
