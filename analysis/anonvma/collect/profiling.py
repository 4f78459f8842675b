# SPDX-License-Identifier: GPL-2.0-only
"""The perf of a target, and the workload profiled by it.

Once with ``perf stat`` looking at its counters every so often, once under ``perf record``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anonvma.base.errors import ProfileError
from anonvma.base.text import last_line
from anonvma.collect.context import Context
from anonvma.perf import features
from anonvma.perf import samples as perf_record
from anonvma.perf import tool as perf
from anonvma.perf.events import SOFTWARE_EVENTS, TIME_EVENTS
from anonvma.perf.inlined import Inlines
from anonvma.perf.tool import Perf, Settings

_COUNTED = ("perf_stat", "perf_intervals")
_SAMPLED = ("samples", "stacks", "frames")


class Profiler:
    """Finds the perf of a target, and profiles a workload with it.

    Attributes
    ----------
    tool : Perf or None
        The perf that was found.
    events : sequence of str
        Those that it counts there.
    settings : Settings or None
        How to profile; None if that was not asked for, and perf only counts.
    """

    def __init__(self, context: Context, program: str | None, settings: Settings | None) -> None:
        self.target, self.workload = context.target, context.workload
        self.results, self._place, self._raw = context.results, context.place, context.raw
        self.surroundings = context.surroundings
        self.program, self.settings = program, settings
        self.tool: Perf | None = None
        self.events: Sequence[str] = ()

    def prepare(self, facts: Mapping[str, Any]) -> None:
        """Find a perf, and the most events that it accepts."""
        found = perf.find(self.target)
        guest = facts["kind"] == "guest"
        slow = facts.get("link") == "serial"  # of which perf would take five minutes
        if found is None and guest and self.settings and not slow:
            found = perf.bring(self.target)
        if found is None:
            why = "no perf that runs was found"
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
            if self.target.programs:
                why = "this machine's perf is for another architecture than the guest"
                remedy = (
                    f"a machine of {facts['architecture']}, whose own is brought along; faults, "
                    "times and context switches are in the tables repeats and vmstat all the same"
                )
            self.results.lacks(
                *("everything that perf counts and samples", why, remedy),
                tables=(*_COUNTED, *_SAMPLED),
            )
            return
        # A watched process is not perf's child: its times cannot come from wait4().
        times = () if self.workload.kind == "pid" else TIME_EVENTS
        software, hardware = SOFTWARE_EVENTS, (self.settings or Settings()).counted
        reasons = []
        for events in ((*software, *times, *hardware), (*software, *hardware), software):
            reason = perf.refusal(self.target, found, events)
            if reason is None:
                self.tool, self.events = found, events
                break
            reasons.append(reason)
        dropped = [e for e in (*software, *times, *hardware) if e not in self.events]
        if reasons:
            self.results.lacks(
                "everything that perf counts and samples" if not self.tool else ", ".join(dropped),
                f"perf {found.version} refuses: {reasons[0]}",
                "a kernel with CONFIG_PERF_EVENTS=y, outside a container that forbids "
                "perf_event_open()"
                if not self.tool
                else "a later perf",
                () if self.tool else (*_COUNTED, *_SAMPLED),
            )

    def profile(self, repeat: int) -> None:
        """Run the workload again, its counters looked at in intervals, and again, sampled."""
        if self.settings is None or self.tool is None:
            return  # noted already
        self._count_in_intervals(repeat, self.tool, self.settings)
        self._record(repeat, self.tool, self.settings)

    def _count_in_intervals(self, repeat: int, tool: Perf, settings: Settings) -> None:
        output = self._place(f"perf-intervals-{repeat}.json")
        # Times of the whole execution do not exist per interval.
        events = [event for event in self.events if event not in TIME_EVENTS]
        words = tool.stat(output, events, settings.interval_ms)
        if self._run_profiled(repeat, "intervals", words, "the counters over time (perf stat -I)"):
            file = self._raw(repeat, "perf-intervals.json")
            self.target.pull(output, file)
            rows = perf.parse_intervals(file.read_bytes())
            self.results.add("perf_intervals", repeat, rows)

    def _record(self, repeat: int, tool: Perf, settings: Settings) -> None:
        output = self._place("perf.data")
        counted = {
            row["event"] for row in self.results.rows["perf_stat"] if row["value"] is not None
        }
        event = "cycles" if "cycles" in counted else "cpu-clock"
        what = "where the time goes (perf record)"
        if not self._run_profiled(repeat, "record", tool.record(output, event, settings), what):
            return
        file = self._raw(repeat, "perf.data")
        try:
            self.target.pull(output, file)
            features.blank_host_name(file)
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
            remedy = "a longer look, or one while the workload is at work"
            self.results.lacks(what, reason, remedy, _SAMPLED)
            return
        for name, frame in found.tables().items():
            self.results.add_frame(name, repeat, frame)
        if recording.lost:
            self.results.notes.append(
                f"perf record lost {recording.lost:,} samples in repeat {repeat}."
            )
        if inlines.reason:
            self.results.lacks("inlined functions in stacks", inlines.reason, "install binutils")

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
        ):
            status = self.surroundings.run(words, stdout, stderr).returncode
        if status:
            said = last_line(self._raw(repeat, f"{name}-stderr").read_bytes())
            reason = f"it failed with exit status {status}: {said.rstrip('.')}"
            tables = _SAMPLED if name == "record" else ("perf_intervals",)
            self.results.lacks(what, reason, f"see raw/repeat-{repeat}/{name}-stderr", tables)
        return not status

    def note_missing_counts(self) -> None:
        """Turn the events without a count into sentences: none of them is a 0."""
        rows = self.results.rows["perf_stat"]
        lacking = perf.unsupported(rows)
        if lacking:
            self.results.lacks(
                ", ".join(lacking),
                "perf stat says <not supported>: this machine does not offer these counters",
                "a machine, or a virtual machine, that exposes its performance counters",
            )
        # perf calls a time of nothing "not counted".
        idle = {row["event"] for row in rows if row["supported"] and row["value"] is None}
        idle -= set(TIME_EVENTS)
        if idle:
            self.results.lacks(
                ", ".join(sorted(idle)),
                "perf stat says <not counted> in at least one repeat: it never came to count them",
                "a longer workload, or fewer events at once",
            )
