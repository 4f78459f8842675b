# SPDX-License-Identifier: GPL-2.0-only
"""One run on one target: run the workload, take its census, keep what was seen.

Each repeat runs the workload under ``perf stat`` and takes the census of it when it has made its
last access and its mappings are still alive:

- our own programs stop there by themselves (``--hold``) and are told to go on afterwards;
- any other command is stopped by vmaprobe in the exit of each of its processes;
- a process that is running already is watched for some seconds, then read as it runs.

After that it runs again under the tracers (`anonvma.collect.tracing`), and again to be profiled:
once with ``perf stat`` looking at its counters every so often, once under ``perf record``.

What cannot be observed is written down, with the reason and the remedy. Without vmaprobe there is
no run.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pyarrow as pa

from anonvma.base import paths
from anonvma.base.errors import ProbeError, ProfileError, RunError, TargetLost, WorkloadError
from anonvma.collect import environment, preflight, regime, tracing, vmstat
from anonvma.collect.tracing import Tracer
from anonvma.collect.workload import Workload
from anonvma.collect.workload_output import held_pids, parse_throughput, parse_used
from anonvma.perf import recording as perf_data
from anonvma.perf import samples as perf_record
from anonvma.perf import script
from anonvma.perf import tool as perf
from anonvma.perf.events import SOFTWARE_EVENTS, TIME_EVENTS
from anonvma.perf.inlined import Inlines
from anonvma.perf.tool import Perf, Settings
from anonvma.probe import census_file
from anonvma.run.manifest import Command, Unobserved
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, sweep, to_table
from anonvma.target.target import Process, Target

__all__ = ["Progress", "collect", "parse_specimens"]

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what is being done now."""

_VANISHED = 5  # vmaprobe's exit code for a process that is gone


def collect(
    target: Target,
    workload: Workload,
    *,
    repeats: int = 3,
    out: str | Path | None = None,
    perf_record: bool = True,
    trace: bool = True,
    traced: int | None = None,
    events: str | None = None,
    frequency: int = Settings.frequency,
    call_graph: str = Settings.call_graph,
    progress: Progress | None = None,
) -> Run:
    """Run a workload on a target and return the run.

    Parameters
    ----------
    target : Target
        Where to run it.
    workload : Workload
        What to run.
    repeats : int
        How often. The specimens are made once whatever it says: nothing of them is timed.
    out : path, optional
        The directory that the run's own directory is made in; ``data/runs`` by default.
    perf_record : bool
        Whether to run the workload twice more in each repeat to profile it: counted in intervals,
        and under ``perf record``. A guest is brought this machine's perf for that.
    trace : bool
        Whether to run it four times more in each repeat: untraced, with its page faults traced,
        with mmap_lock traced, and to see where its time goes. The specimens' faults are traced as
        they are made.
    traced : int, optional
        In how many of the repeats, from the first; by default in all of them.
    events, frequency, call_graph
        What perf counts and how it samples; see `anonvma.perf.tool.Settings`.
    progress : callable, optional
        Told what is being done.

    Returns
    -------
    Run

    Raises
    ------
    PrivilegeError, SetupError, ParameterError
        Before anything runs: no privilege, something that is not built, impossible settings.
    TargetError
        The target cannot do what is needed, such as raise a sysctl.
    TargetLost
        The target went away meanwhile; what there is of the run is kept as a failure's record.
    WorkloadError
        The workload cannot be run, failed, or was killed.
    ProbeError, CensusError
        The census could not be taken or read.
    RunError
        The run directory cannot be written.
    """
    settings = preflight.settings(repeats, trace, events, frequency, call_graph)
    if workload.kind == "specimens":
        repeats, perf_record = 1, False
    target.require_privilege()
    workload.check(target)
    directory = Path(out) if out is not None else paths.runs()
    with _terminable():
        swept = sweep(directory)
        with RunWriter(directory, workload.name) as writer:
            most = repeats if traced is None else min(traced, repeats)
            work = _Collection(target, workload, writer, repeats, most if trace else 0, progress)
            work.profile_by(settings if perf_record else None)
            if swept:
                work.notes.append(
                    f"Removed {len(swept)} unfinished runs of killed processes first."
                )
            try:
                return _collect(work)
            except TargetLost as error:
                place = writer.fail(error, work.about)
                sentence = f"{str(error).rstrip('.')}; its record is in {place}."
                raise TargetLost(sentence, error.console, error.cause) from None
            except OSError as error:  # of the run's own files: a target raises TargetError
                reason = error.strerror or error
                raise RunError(f"cannot write run {writer.id}: {reason}.") from None


def _collect(work: _Collection) -> Run:
    work.prepare()
    needed = work.workload.needed_map_count
    with work.target.sysctl_at_least("vm.max_map_count", needed) as raised:
        for repeat in range(1, work.repeats + 1):
            work.observe(repeat)
            if repeat <= work.traced:
                work.trace(repeat)
            work.profile(repeat)
    if raised.note:
        work.notes.append(raised.note)
    return work.finish()


_numbers = itertools.count(1)


class _Collection:
    """A run while it is collected: where things are on the target, and what has come in so far."""

    def __init__(
        self,
        target: Target,
        workload: Workload,
        writer: RunWriter,
        repeats: int,
        traced: int,
        progress: Progress | None,
    ) -> None:
        self.target, self.workload, self.writer, self.repeats = target, workload, writer, repeats
        self.traced = traced
        self._number = next(_numbers)
        self.traces_apart = traced > 0 and workload.kind != "specimens"
        self.traces_within = traced > 0 and workload.kind == "specimens"
        # Preparing and writing too; a repeat is traced in four ways, and the first in one more.
        self.steps = 2 + repeats + self.traces_apart * (4 * traced + 1)
        self._done = 0
        self._progress = progress
        self.perf: Perf | None = None
        self.events: Sequence[str] = ()
        self.settings: Settings | None = None
        self.profiles: list[dict[str, pa.Table]] = []
        self.notes: list[str] = []
        self.unobserved: list[Unobserved] = []
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {
            name: [] for name in SCHEMAS if name != "census"
        }
        self.censuses: list[pa.Table] = []
        self.losses: Counter[str] = Counter()
        self.pages_how: str | None = None

    def profile_by(self, settings: Settings | None) -> None:
        """Have the workload profiled as well."""
        self.settings = settings
        self.steps += self.repeats * (settings is not None)

    def say(self, text: str) -> None:
        """Tell what begins now."""
        if self._progress:
            self._progress(self._done, self.steps, text)
        self._done += 1

    def say_of(self, repeat: int, what: str) -> None:
        """Tell what of a repeat begins now."""
        self.say(f"repeat {repeat} of {self.repeats}, {what}")

    @property
    def about(self) -> dict[str, Any]:
        """What is run where, as far as it is known yet."""
        parameters = self.workload.parameters
        return {"target": self.facts, "parameters": parameters, "repeats": self.repeats}

    def _place(self, name: str) -> str:
        """Return where a file is to be on the target: not where another collection left one."""
        return self.target.place(f"{self._number}-{name}")

    # ---- before ----

    def prepare(self) -> None:
        """Bring the programs to the target and see what it allows."""
        self.say("looking at the target")
        self.vmaprobe = self.target.push(paths.program("vmaprobe"))
        self.features = self._features()
        reason = tracing.refusal(self.features)
        if self.traces_within and reason:  # the specimens are made all the same
            self.traces_within = False
            self.unobserved.append(tracing.unobserved(tracing.FAULTS, reason))
        self.features["regime"] = regime.of(self.target)._asdict()
        self.facts = self.target.facts()
        self.notes += self.target.notes
        if self.workload.program:
            path: str | None = self.target.push(paths.program(self.workload.program))
        elif self.workload.kind == "command":
            path = self.target.which(self.workload.argv()[0])
        else:
            path = None
        self.program = path
        self.tracer = Tracer(self.target, self.vmaprobe, self.workload, path, self.writer.path)
        self._prepare_perf()
        self.facts["perf_version"] = self.perf and self.perf.version

    def _features(self) -> dict[str, Any]:
        done = self.target.run([self.vmaprobe, "features", "--json"], privileged=True)
        if done.returncode:
            raise ProbeError(_probe_failure(done.returncode, done.stderr))
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _prepare_perf(self) -> None:
        """Find a perf, and the most events that it accepts."""
        found = perf.find(self.target)
        guest = self.facts["kind"] == "guest"
        slow = self.facts.get("link") == "serial"  # of which perf would take five minutes
        if found is None and guest and self.settings and not slow:
            found = perf.bring(self.target)
        if found is None:
            remedy = "install linux-perf (Debian) or linux-tools-generic (Ubuntu)"
            if guest:
                remedy = (
                    "profile it (perf_record=True) where perf is installed: it is brought along; "
                    "faults, times and context switches are in the tables repeats and vmstat all "
                    "the same"
                )
            if slow:
                remedy = (
                    "a kernel with its virtio_console module beside it, which perf gets through"
                )
            self._lacks(
                "everything that perf counts and samples", "no perf that runs was found", remedy
            )
            return
        # A watched process is not perf's child: its times cannot come from wait4().
        times = () if self.workload.kind == "pid" else TIME_EVENTS
        software, hardware = SOFTWARE_EVENTS, (self.settings or Settings()).counted
        reasons = []
        for events in ((*software, *times, *hardware), (*software, *hardware), software):
            reason = perf.refusal(self.target, found, events)
            if reason is None:
                self.perf, self.events = found, events
                break
            reasons.append(reason)
        dropped = [e for e in (*software, *times, *hardware) if e not in self.events]
        if reasons:
            self._lacks(
                "everything that perf counts and samples" if not self.perf else ", ".join(dropped),
                f"perf {found.version} refuses: {reasons[0]}",
                "a kernel with CONFIG_PERF_EVENTS=y, outside a container that forbids "
                "perf_event_open()"
                if not self.perf
                else "a later perf",
            )

    def _lacks(self, what: str, reason: str, remedy: str) -> None:
        self.unobserved.append(Unobserved(what=what, reason=reason, remedy=remedy))

    # ---- one repeat ----

    def observe(self, repeat: int) -> None:
        """Run the workload once, observed."""
        self.say_of(repeat, "observing")
        found = environment.snapshot(self.target, constant=repeat == 1)
        started = datetime.datetime.now(datetime.UTC)
        if self.workload.holds:
            row = self._observe_held(repeat)
        elif self.workload.kind == "command":
            row = self._observe_command(repeat)
        else:
            row = self._observe_process(repeat)
        self.rows["environment"] += environment.rows(
            repeat, found, environment.snapshot(self.target)
        )
        if self.perf:
            times = self._counts(repeat)
            if times:
                row |= {"user_s": times.get("user_time"), "system_s": times.get("system_time")}
            if self.workload.kind == "command" and times:
                row["seconds"] = times["duration_time"]  # without the time vmaprobe takes to start
            if self.workload.kind == "command":
                row |= self._counted_faults(repeat)
        self.rows["repeats"].append({"repeat": repeat, "started": started, **row})

    def trace(self, repeat: int) -> None:
        """Run the workload again, traced and untraced."""
        if self.traces_apart:
            self.tracer.run(repeat, lambda what: self.say_of(repeat, what))

    def _observe_held(self, repeat: int) -> dict[str, Any]:
        argv = [*self._counting(repeat), *self.workload.argv(self.program, hold=True)]
        traced = self.tracer.output(repeat, tracing.FAULTS)
        if self.traces_within:
            caller = [] if self.perf else self.target.as_caller()
            argv = [*self.tracer.words(repeat, tracing.FAULTS, traced), "--", *caller, *argv]
        before = vmstat.counters(self.target)
        begin = time.monotonic()
        with (
            self._raw(repeat, "stderr").open("wb") as stderr,
            self.target.start(
                argv,
                privileged=self.perf is not None or self.traces_within,
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
        if self.traces_within:
            self.tracer.keep(repeat, tracing.FAULTS, traced)
        return row | {"exit_status": status}

    def _observe_command(self, repeat: int) -> dict[str, Any]:
        output = self._place(f"census-{repeat}")
        usage = self._place(f"usage-{repeat}")
        argv = [self.vmaprobe, "census", "--at-exit", "--output", output]
        if self.perf:  # which is the command that vmaprobe starts then
            argv += ["--skip-root", "--", *self._counting(repeat)]
        else:
            argv += ["--usage", usage, "--", *self.target.as_caller()]
        argv += self.workload.argv(self.program)
        before = vmstat.counters(self.target)
        begin = time.monotonic()
        with (
            self._raw(repeat, "stdout").open("wb") as stdout,
            self._raw(repeat, "stderr").open("wb") as stderr,
            self.target.start(argv, privileged=True, stdout=stdout, stderr=stderr) as process,
        ):
            status = process.wait()
        seconds = time.monotonic() - begin
        self._note_vmstat(repeat, before)
        if not self.target.exists(output):
            # A census that has its name is whole; without one the status is vmaprobe's own.
            raise ProbeError(_probe_failure(status, self._raw(repeat, "stderr").read_bytes()))
        self._require_success(status, self._raw(repeat, "stderr"), argv)
        self._keep_census(repeat, output)
        self._keep_output(repeat, self._raw(repeat, "stdout").read_bytes())
        used = {} if self.perf else self._usage_of_command(usage)
        return {"seconds": seconds, "exit_status": status, **used}

    def _observe_process(self, repeat: int) -> dict[str, Any]:
        watch = ["sleep", f"{self.workload.seconds:g}"]
        pids = [self.workload.pid]
        before, used_before = vmstat.counters(self.target), self._usage(pids)
        begin = time.monotonic()
        done = self.target.run([*self._counting(repeat), *watch], privileged=self.perf is not None)
        seconds = time.monotonic() - begin
        self._note_vmstat(repeat, before)
        self._raw(repeat, "stderr").write_bytes(done.stderr)
        self.workload.check(self.target)  # is it still there?
        if done.returncode:
            raise ProbeError(f"perf stat failed: {_last_line(done.stderr)}")
        used = self._usage(pids)
        self._take_census(repeat, pids)
        return {"seconds": seconds, **{name: used[name] - used_before[name] for name in used}}

    def _raw(self, repeat: int, name: str) -> Path:
        return self.writer.raw(f"repeat-{repeat}", name)

    def _counting(self, repeat: int) -> list[str]:
        """Return the words that, before a command, count its events, or those of a process."""
        if self.perf is None:
            return []
        counting = self.perf.stat(self._place(f"perf-stat-{repeat}.json"), self.events)
        if self.workload.kind == "pid":
            return [*counting, "-p", str(self.workload.pid), "--"]
        return [*counting, "--", *self.target.as_caller()]

    def _counts(self, repeat: int) -> dict[str, float]:
        """Keep what perf stat counted; return the times among it, in seconds."""
        file = self._raw(repeat, "perf-stat.json")
        self.target.pull(self._place(file.name.replace(".json", f"-{repeat}.json")), file)
        counts = perf.parse_stat(file.read_bytes())
        self.rows["perf_stat"] += [{"repeat": repeat, **row} for row in counts]
        return perf.times(counts)

    def _note_vmstat(self, repeat: int, before: dict[str, int]) -> None:
        changed = vmstat.changes(before, vmstat.counters(self.target))
        self.rows["vmstat"] += [{"repeat": repeat, **row} for row in changed]

    def _usage(self, pids: Sequence[int]) -> dict[str, Any]:
        """What processes, which are all still there, have used so far: columns of ``repeats``."""
        which = [word for pid in pids for word in ("--pid", str(pid))]
        done = self.target.run([self.vmaprobe, "usage", *which])
        if done.returncode == _VANISHED:
            raise WorkloadError(
                f"{self.workload.name} was gone before its census: {_last_line(done.stderr)}"
            )
        if done.returncode:
            raise ProbeError(_probe_failure(done.returncode, done.stderr))
        used: dict[str, Any] = json.loads(done.stdout)
        return used

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
            for row in self.rows["perf_stat"]
            if row["repeat"] == repeat and row["value"] is not None
        }
        events = {"minor_faults": "minor-faults", "major_faults": "major-faults"}
        return {name: int(counts[e]) for name, e in events.items() if e in counts}

    def _take_census(self, repeat: int, pids: Sequence[int]) -> None:
        output = self._place(f"census-{repeat}")
        which = [word for pid in pids for word in ("--pid", str(pid))]
        done = self.target.run(
            [self.vmaprobe, "census", *which, "--output", output], privileged=True
        )
        if done.returncode == _VANISHED:
            raise WorkloadError(
                f"{self.workload.name} was gone before its census: {_last_line(done.stderr)}"
            )
        if done.returncode:
            raise ProbeError(_probe_failure(done.returncode, done.stderr))
        self._keep_census(repeat, output)

    def _keep_census(self, repeat: int, output: str) -> None:
        """Decode a census; the binary file is not kept, for it names the boot of its machine."""
        local = self.writer.path / "census"
        self.target.pull(output, local)
        found = census_file.read(local)
        local.unlink()
        vmas = found.vmas.assign(repeat=repeat)
        self.censuses.append(to_table(vmas, SCHEMAS["census"]))
        self.losses.update(found.losses)
        self.pages_how = found.header["pages_how"]

    def _keep_output(self, repeat: int, stdout: bytes) -> None:
        """Take the rows that the workload's own output holds."""
        throughput = parse_throughput(stdout)
        self.rows["throughput"] += [{"repeat": repeat, **row} for row in throughput]
        if self.workload.kind == "specimens":
            made = parse_specimens(stdout)
            self.rows["specimens"] += [{"repeat": repeat, **row} for row in made]

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
            if status == -number or (self.perf and told in said.splitlines()):
                raise WorkloadError(f"{name} was killed by {number.name}.")
        if observed and status - 128 in list(signal.Signals):
            # vmaprobe ends as a shell does.
            number = signal.Signals(status - 128)
            raise WorkloadError(f"{name} was killed by {number.name}, or ended with {status}.")
        if status:
            raise WorkloadError(f"{name} failed with exit status {status}: {_last_line(said)}")

    # ---- profiling ----

    def profile(self, repeat: int) -> None:
        """Run the workload again, its counters looked at in intervals, and again, sampled."""
        if self.settings is None:
            return
        self.say_of(repeat, "profiling")
        if self.perf is None:
            return  # noted already
        self._count_in_intervals(repeat, self.perf, self.settings)
        self._record(repeat, self.perf, self.settings)

    def _count_in_intervals(self, repeat: int, tool: Perf, settings: Settings) -> None:
        output = self._place(f"perf-intervals-{repeat}.json")
        # What only the end tells is not to be had.
        events = [event for event in self.events if event not in TIME_EVENTS]
        words = tool.stat(output, events, settings.interval_ms)
        if self._run_profiled(repeat, "intervals", words, "the counters over time (perf stat -I)"):
            file = self._raw(repeat, "perf-intervals.json")
            self.target.pull(output, file)
            rows = perf.parse_intervals(file.read_bytes())
            self.rows["perf_intervals"] += [{"repeat": repeat, **row} for row in rows]

    def _record(self, repeat: int, tool: Perf, settings: Settings) -> None:
        output = self._place("perf.data")
        counted = {row["event"] for row in self.rows["perf_stat"] if row["value"] is not None}
        event = "cycles" if "cycles" in counted else "cpu-clock"
        what = "where the time goes (perf record)"
        if not self._run_profiled(repeat, "record", tool.record(output, event, settings), what):
            return
        file = self._raw(repeat, "perf.data")
        try:
            self.target.pull(output, file)
            perf_data.blank_host_name(file)
            inlines = Inlines(self.target)
            recording, found = perf_record.read(
                self.target,
                file,
                lambda path, fields: tool.script(self.target.push(path), *fields),
                self._raw(repeat, "script"),
                privileged=True,
                inlines=None if inlines.reason else inlines,
            )
        except ProfileError as error:
            reason = str(error).rstrip(".").replace(str(file), "what it recorded")
            self._lacks_once(what, reason, "a longer look, or one while the workload is at work")
            return
        self._keep_profile(repeat, found)
        if recording.lost:
            self.notes.append(f"perf record lost {recording.lost:,} samples in repeat {repeat}.")
        if inlines.reason:
            self._lacks_once("inlined functions in stacks", inlines.reason, "install binutils")

    def _keep_profile(self, repeat: int, found: script.Profile) -> None:
        self.profiles.append(
            {
                name: to_table(frame.assign(repeat=repeat), SCHEMAS[name])
                for name, frame in found.tables().items()
            }
        )

    def _run_profiled(self, repeat: int, name: str, words: list[str], what: str) -> bool:
        """Run the workload, or watch the process, under perf; tell whether that worked."""
        if self.workload.kind == "pid":
            words = [*words, "-p", str(self.workload.pid)]
            words += ["--", "sleep", f"{self.workload.seconds:g}"]
        else:
            words = [*words, "--", *self.target.as_caller(), *self.workload.argv(self.program)]
        with (
            self._raw(repeat, f"{name}-stdout").open("wb") as stdout,
            self._raw(repeat, f"{name}-stderr").open("wb") as stderr,
            self.target.start(words, privileged=True, stdout=stdout, stderr=stderr) as process,
        ):
            status = process.wait()
        if status:
            said = _last_line(self._raw(repeat, f"{name}-stderr").read_bytes())
            reason = f"it failed with exit status {status}: {said.rstrip('.')}"
            self._lacks_once(what, reason, f"see raw/repeat-{repeat}/{name}-stderr")
        return not status

    def _lacks_once(self, what: str, reason: str, remedy: str) -> None:
        if what not in {entry.what for entry in self.unobserved}:
            self._lacks(what, reason, remedy)

    # ---- after ----

    def finish(self) -> Run:
        """Write the run."""
        self.say("writing the run")
        self._note_missing_counts()
        self._note_losses()
        self.unobserved += self.tracer.lacking.values()
        for name, content in self.target.logs().items():
            self.writer.raw(name).write_bytes(content)
        tables = {name: to_table(rows, SCHEMAS[name]) for name, rows in self.rows.items() if rows}
        tables["census"] = pa.concat_tables(self.censuses).unify_dictionaries()
        tables |= self.tracer.tables()
        for name in self.profiles[0] if self.profiles else ():
            tables[name] = pa.concat_tables([each[name] for each in self.profiles])
            tables[name] = tables[name].unify_dictionaries()
        argv = _without_home(self.workload.argv())
        parameters = self.workload.parameters
        if self.workload.kind == "command":
            parameters["workload"] = shlex.join(argv)
        run = self.writer.finish(
            tables,
            {
                "target": self.facts,
                "workload": Command(
                    name=self.workload.name,
                    argv=argv,
                    maps=self.workload.maps,
                    mappings=self.workload.expected_vmas,
                ),
                "parameters": parameters,
                "repeats": self.repeats,
                "features": self.features,
                "unobserved": self.unobserved,
                "losses": dict(self.losses),
                "pages_how": self.pages_how,
                "notes": self.notes,
            },
        )
        self.say("done")
        return run

    def _note_missing_counts(self) -> None:
        """Turn the events without a count into sentences: none of them is a 0."""
        rows = self.rows["perf_stat"]
        lacking = perf.unsupported(rows)
        if lacking:
            self._lacks(
                ", ".join(lacking),
                "perf stat says <not supported>: this machine does not offer these counters",
                "a machine, or a virtual machine, that exposes its performance counters",
            )
        # perf calls a time of nothing "not counted".
        idle = {row["event"] for row in rows if row["supported"] and row["value"] is None}
        idle -= set(TIME_EVENTS)
        if idle:
            self._lacks(
                ", ".join(sorted(idle)),
                "perf stat says <not counted> in at least one repeat: it never came to count them",
                "a longer workload, or fewer events at once",
            )

    def _note_losses(self) -> None:
        for name, count in self.losses.items():
            if count and name != "went_on":  # told with the answer
                self.notes.append(f"The census lost: {count} {census_file.LOSSES[name]}.")


# ---- the workload's side of --hold ----


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


def parse_specimens(text: bytes) -> list[dict[str, Any]]:
    """Return the rows of the table ``specimens`` from what the program ``specimens`` says.

    Raises
    ------
    WorkloadError
        When a line is not what it should be.
    """
    wanted = [name for name in SCHEMAS["specimens"].names if name != "repeat"]
    rows = []
    for line in text.splitlines():
        try:
            found: dict[str, Any] = dict(json.loads(line))
            if "hold" in found:
                continue
            row: dict[str, Any] = {name: found.get(name) for name in wanted}
            for edge in ("start", "end"):
                row[edge] = None if row[edge] is None else int(row[edge], 16)
        except (ValueError, TypeError):
            shown = _last_line(line)
            raise WorkloadError(f"specimens said something unexpected: {shown}") from None
        rows.append(row)
    return rows


# ---- words ----


def _without_home(argv: Sequence[str]) -> list[str]:
    """Return a command line without the paths that tell whose it is."""
    if not argv:
        return []
    home = str(Path.home())
    rest = [word.replace(home, "~") if home != "/" else word for word in argv[1:]]
    return [Path(argv[0]).name, *rest]


def _last_line(text: bytes) -> str:
    """Return the last line of what a program said, fit to be shown."""
    lines = text.decode(errors="backslashreplace").strip().splitlines() or ["it said nothing."]
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in lines[-1])
    return shown if len(shown) <= 300 else shown[:299] + "…"


def _probe_failure(status: int, stderr: bytes) -> str:
    """Return vmaprobe's own sentence."""
    lines = [line for line in stderr.splitlines() if line.startswith(b"vmaprobe: ")]
    if lines:
        return _last_line(lines[-1]).removeprefix("vmaprobe: ")
    how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    return f"vmaprobe {how}: {_last_line(stderr)}"


# ---- ending ----


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came; like KeyboardInterrupt it passes every handler of errors."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block, so that nothing is left, before they end us.

    Only where they would end us at once, and in the main thread, which alone may say so. SIGKILL
    leaves to the next run what is not taken care of by others: an unfinished run's directory.
    """
    came: list[int] = []

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        came.append(number)
        raise _Terminated

    ours = [
        number
        for number in (int(signal.SIGTERM), int(signal.SIGHUP))
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in ours:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        for received in came:
            os.kill(os.getpid(), received)
