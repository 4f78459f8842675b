# SPDX-License-Identifier: GPL-2.0-only
"""The workload once more under each tracer, and once more without, in turns.

A tracer changes what it looks at. So each repeat runs the workload four times more, apart from
the run that is counted and censused: not traced at all, with its page faults traced, with
mmap_lock traced, and to see where its time goes; odd repeats in this order, even ones in the
other, so that a drift of the machine weighs on all alike. What tracing costs is then a result
like any other (`anonvma.tables.faults`).

Faults are counted in the kernel, by groups of like ones. In the first repeat each is kept as an
event, too, which shows when and where it was, and costs more. After the first repeat the workload
runs once more for the call paths of its faults alone: walking stacks costs yet more, and that run
is in no comparison.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anonvma.base.errors import ProbeError, WorkloadError
from anonvma.base.text import last_line
from anonvma.base.turns import in_turns
from anonvma.collect.context import Context
from anonvma.collect.workload_output import parse_throughput
from anonvma.probe import fault_events, faults_file, locks_file, time_file
from anonvma.probe.vmaprobe import Unsupported, require_success
from anonvma.run.manifest import Unobserved
from anonvma.run.schema import columns

UNTRACED, FAULTS, LOCKS, TIME = "untraced", "faults", "locks", "time"
CALL_PATHS = "call paths"
EVENTS = "events"  # what a run with faults traced is called that has each as an event
_WITH_EVENTS = 1  # the repeat


def order(repeat: int) -> list[str]:
    """Return what is traced in each run of a repeat, in order."""
    names = [UNTRACED, FAULTS, LOCKS, TIME]
    return in_turns(names, repeat)


def refusal(features: Mapping[str, Any]) -> str | None:
    """Return why page faults cannot be traced on a target, or None if they can.

    Parameters
    ----------
    features : mapping
        What ``vmaprobe features --json`` told of the target.
    """
    found = features["features"]
    sources = (
        ("fentry", "fexit"),
        ("kprobe_multi", "kretprobe_multi"),
        ("kprobes", "kretprobes"),
        ("page_fault_tracepoint",),
    )
    if any(all(found[name]["available"] for name in names) for names in sources):
        return None
    lacking = [name for names in sources for name in names if not found[name]["available"]]
    return "; ".join(f"{name}: {found[name]['reason']}" for name in lacking)


def workload_processes(processes: pd.DataFrame, program: str) -> set[int]:
    """Return the numbers of the processes that are the workload's, not of what started it.

    Parameters
    ----------
    processes : DataFrame
        As in `anonvma.probe.faults_file.Faults`.
    program : str
        The name of the workload's program.

    Returns
    -------
    set of int
        From its exec on, and all that came of that; all of them where no exec was seen, as
        when a process that ran already was named.
    """
    comm = program.encode()[:15].decode(errors="backslashreplace")  # TASK_COMM_LEN
    begun = processes[(processes["how"] == "execed") & (processes["comm"] == comm)]
    if begun.empty:
        return set(processes["process"])
    known = {int(begun["process"].min())}
    # A child's number is above its parent's.
    for process, parent in zip(processes["process"], processes["parent"], strict=True):
        if parent in known:
            known.add(int(process))
    return known


def unobserved(what: str, reason: str) -> Unobserved:
    """Return what a run says of something that could not be traced."""
    lacking = {
        FAULTS: "what each page fault found and left, and its lock path",
        LOCKS: "who took mmap_lock, and how long each waited",
        TIME: "where the time of the workload's tasks goes",
        UNTRACED: "what tracing costs",
        CALL_PATHS: "the call paths of page faults",
    }
    remedy = "another kernel; 'anonvma doctor' says what this one lacks"
    tables = _TABLES.get(what, [])
    return Unobserved(what=lacking[what], reason=reason, remedy=remedy, tables=tables)


_TABLES = {
    FAULTS: ["faults", "fault_events"],
    LOCKS: ["locks", "contended", "forks"],
    TIME: ["time", "time_totals"],
    CALL_PATHS: ["call_paths"],
}


class Output(NamedTuple):
    """Where a tracer writes to, on the target."""

    counts: str
    events: str


class Tracer:
    """Runs a workload traced, and keeps what was seen as rows of the run's tables.

    Parameters
    ----------
    times : bool
        Whether also to see where its time goes, and the call paths of its faults.

    Attributes
    ----------
    lacking : list of Unobserved
        What could not be traced, each said once.
    """

    def __init__(
        self, context: Context, vmaprobe: str, program: str | None, times: bool = True
    ) -> None:
        self._target, self._workload = context.target, context.workload
        self._left_out = () if times else (TIME, CALL_PATHS)
        self._place, self._scratch = context.place, context.writer.path
        self._surroundings = context.surroundings
        self._add_frame = context.results.add_frame
        self._vmaprobe, self._program = vmaprobe, program
        self._source = ""  # by which faults were traced, once they were
        self.lacking: dict[str, Unobserved] = {}

    # ---- one run ----

    def run(self, repeat: int, say: Callable[[str], None] = lambda what: None) -> None:
        """Run the workload untraced and under each tracer, and tell which begins."""
        extra = [CALL_PATHS] if repeat == _WITH_EVENTS and FAULTS not in self.lacking else []
        for what in [*order(repeat), *extra]:
            if what not in self.lacking and what not in self._left_out:
                say("untraced" if what == UNTRACED else f"tracing {what}")
                self._run(repeat, what)

    def _run(self, repeat: int, what: str) -> None:
        output = self.output(repeat, what)
        if self._workload.kind == "pid":
            if what == UNTRACED:
                return
            words = self.words(repeat, what, output, ["--pid", str(self._workload.pid)])
            done = self._target.run(
                [*words, "--seconds", f"{self._workload.seconds:g}"], privileged=True
            )
        else:
            command = [*self._target.as_caller(), *self._workload.argv(self._program)]
            words = [*self.words(repeat, what, output), "--", *command]
            done = self._surroundings.run(words)
        if not self._target.exists(output.counts):
            self._note_failure(what, done)
            return
        if done.returncode and self._workload.kind != "pid":
            said = last_line(done.stderr) if done.stderr.strip() else ""
            raise WorkloadError(
                f"{self._workload.name} failed with exit status {done.returncode} when it ran "
                f"{'without a tracer' if what == UNTRACED else f'with its {what} traced'}"
                f"{': ' + said if said else ''}."
            )
        self.keep(repeat, what, output, done.stdout)

    def output(self, repeat: int, what: str) -> Output:
        """Return where a tracer is to write."""
        place, name = self._place, what.replace(" ", "-")
        return Output(place(f"{name}-{repeat}.json"), place(f"{name}-{repeat}.events"))

    def words(self, repeat: int, what: str, output: Output, pids: Sequence[str] = ()) -> list[str]:
        """Return the tracer's command, up to ``--`` and what it traces."""
        name = {UNTRACED: "usage", CALL_PATHS: "faults"}.get(what, what)
        words = [self._vmaprobe, name, *pids, "--output", output.counts]
        # The specimens are made once: their faults, events and call paths come from one run.
        if what == CALL_PATHS or (what == FAULTS and self._workload.kind == "specimens"):
            words.append("--stacks")
        if what == FAULTS and repeat == _WITH_EVENTS:
            words += ["--events", output.events]
        if what == CALL_PATHS and self._source:  # trying the others again would take a second
            words += ["--source", self._source]
        return words

    def _note_failure(self, what: str, done: subprocess.CompletedProcess[bytes]) -> None:
        try:
            require_success(done)
        except Unsupported as error:
            self.lacking[what] = unobserved(what, str(error).rstrip("."))
        else:
            raise ProbeError(f"vmaprobe {what} ended without writing what it saw.")

    # ---- what it wrote ----

    def keep(self, repeat: int, what: str, output: Output, stdout: bytes = b"") -> None:
        """Take what a tracer wrote off the target, into rows."""
        if what == CALL_PATHS:
            self._keep_call_paths(repeat, self._pulled(output.counts))
            return
        speed = sum(row["kb_per_s"] for row in parse_throughput(stdout)) or None
        row: dict[str, Any] = {"traced": what, "kb_per_s": speed}
        if what == FAULTS:
            row |= self._keep_faults(repeat, output)
        elif what == LOCKS:
            row |= self._keep_locks(repeat, output)
        elif what == TIME:
            row |= self._keep_time(repeat, output, stdout)
        else:
            used = json.loads(self._pulled(output.counts))
            row |= {
                "seconds": used["seconds"],
                "used": used["minor_faults"] + used["major_faults"],
            }
        self._add_frame("tracing", repeat, pd.DataFrame([row]).reindex(columns=columns("tracing")))

    def _keep_faults(self, repeat: int, output: Output) -> dict[str, Any]:
        counts = self._pulled(output.counts)
        if self._workload.kind == "specimens":
            self._keep_call_paths(repeat, counts)
        found = faults_file.read_faults(counts)
        self._source = found.header["source"]
        mine = workload_processes(found.processes, self._program_name)
        self._add_frame("faults", repeat, found.faults[found.faults["process"].isin(mine)])
        if repeat == _WITH_EVENTS:
            events_file = self._scratch / "events"
            self._target.pull(output.events, events_file)
            events = fault_events.read_events(events_file, found)
            self._add_frame("fault_events", repeat, events[events["process"].isin(mine)])
            events_file.unlink()
        ended = found.faults[found.faults["result"] != "error"]
        names = ["source", "why_not_fentry", "why_not_kprobe", "timed", "lock_paths", "unseen_gup"]
        names += ["refused", "preemption", "why_no_lock_paths", "why_no_reasons"]
        return {
            **{name: found.header[name] for name in names},
            **_used(found.header),
            **found.losses,
            "traced": EVENTS if repeat == _WITH_EVENTS else FAULTS,
            "counted": int(ended["count"].sum()),
        }

    def _keep_call_paths(self, repeat: int, counts: bytes) -> None:
        processes = faults_file.read_faults(counts).processes
        mine = workload_processes(processes, self._program_name)
        found = faults_file.read_call_paths(counts)
        self._add_frame("call_paths", repeat, found[found["process"].isin(mine)])

    def _keep_locks(self, repeat: int, output: Output) -> dict[str, Any]:
        found = locks_file.read_locks(self._pulled(output.counts))
        mine = workload_processes(found.processes, self._program_name) | {0}
        self._add_frame("locks", repeat, found.locks[found.locks["process"].isin(mine)])
        contended = found.contended[found.contended["process"].isin(mine)]
        self._add_frame("contended", repeat, contended)
        self._add_frame("forks", repeat, found.forks[found.forks["process"].isin(mine)])
        taken = found.locks[found.locks["success"]]
        return {
            **_used(found.header),
            **found.losses,
            "why_no_witness": found.header["why_no_witness"],
            "counted": int(taken["count"].sum()),
        }

    def _keep_time(self, repeat: int, output: Output, stdout: bytes) -> dict[str, Any]:
        text = self._pulled(output.counts)
        processes = time_file.read(text).processes
        found = time_file.read(text, workload_processes(processes, self._program_name))
        clock = 1000 * sum(row["usecs"] for row in parse_throughput(stdout)) or None
        self._add_frame("time", repeat, found.times)
        self._add_frame("time_totals", repeat, pd.DataFrame([{**found.totals, "clock_ns": clock}]))
        return {
            **_used(found.header),
            **found.losses,
            "preemption": found.header["preemption"],
            "counted": found.totals["faults_ended"],
        }

    @property
    def _program_name(self) -> str:
        words = self._workload.argv(self._program)
        return Path(words[0]).name if words else ""

    def _pulled(self, remote: str) -> bytes:
        local = self._scratch / "counts"
        self._target.pull(remote, local)
        content = local.read_bytes()
        local.unlink()
        return content


def _used(header: dict[str, Any]) -> dict[str, Any]:
    used = None
    if "minor_faults" in header:
        used = header["minor_faults"] + header["major_faults"] - header["faults_before"]
    return {"used": used, "seconds": (header["ended_ns"] - header["begun_ns"]) / 1e9}
