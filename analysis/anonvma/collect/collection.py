# SPDX-License-Identifier: GPL-2.0-only
"""One run on one target: run the workload, take its census, keep what was seen.

Each repeat runs the workload observed (`anonvma.collect.observation`), then again under the tracers
(`anonvma.collect.tracing`), and again to be profiled (`anonvma.collect.profiling`).

What cannot be observed is written down, with the reason and the remedy. Without vmaprobe there is
no run.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anonvma.base import paths, termination
from anonvma.base.errors import RunError, TargetLost
from anonvma.collect import consequences, preflight, program, regime, tracing
from anonvma.collect.context import Context
from anonvma.collect.observation import Observer
from anonvma.collect.profiling import Profiler
from anonvma.collect.tracing import Tracer
from anonvma.collect.workload import Workload
from anonvma.perf.tool import Settings
from anonvma.probe import census_file
from anonvma.probe.vmaprobe import Vmaprobe
from anonvma.run.manifest import Command
from anonvma.run.runs import Run
from anonvma.run.writer import RunWriter, sweep
from anonvma.target.target import Target

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what is being done now."""


def collect(
    target: Target,
    workload: Workload,
    *,
    repeats: int = 3,
    out: str | Path | None = None,
    perf_record: bool = True,
    trace: bool = True,
    traced: int | None = None,
    times: bool = True,
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
    times : bool
        Whether to trace where its time goes, too, and the call paths of its faults.
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
    program.offer(workload, target)
    workload.check(target)
    directory = Path(out) if out is not None else paths.runs()
    with termination.unwound():
        swept = sweep(directory)
        with RunWriter(directory, workload.name) as writer:
            most = repeats if traced is None else min(traced, repeats)
            profiled = settings if perf_record else None
            work = _Collection(
                target, workload, writer, repeats, most if trace else 0, times, profiled, progress
            )
            if swept:
                work.results.notes.append(
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
            work.run(repeat)
    if raised.note:
        work.results.notes.append(raised.note)
    return work.finish()


class _Collection:
    """A run while it is collected: its steps, in order."""

    def __init__(
        self,
        target: Target,
        workload: Workload,
        writer: RunWriter,
        repeats: int,
        traced: int,
        times: bool,
        settings: Settings | None,
        progress: Progress | None,
    ) -> None:
        self.target, self.workload, self.writer, self.repeats = target, workload, writer, repeats
        self.traced = traced if workload.kind != "specimens" else 0
        self.traces_within = traced > 0 and workload.kind == "specimens"
        # Preparing and writing too; a repeat is traced in four ways, and the first in one more.
        ways = 4 * self.traced + 1 if times else 3 * self.traced
        self.steps = 2 + repeats + ways * (self.traced > 0)
        self.steps += repeats * (settings is not None)
        self.times = times
        self._done = 0
        self._progress = progress
        self.facts: dict[str, Any] = {}
        self.context = Context(target, workload, writer)
        self.results = self.context.results
        self.settings = settings

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

    def prepare(self) -> None:
        """Bring the programs to the target and see what it allows."""
        self.say("looking at the target")
        vmaprobe = Vmaprobe(self.target)
        self.features = vmaprobe.features()
        reason = tracing.refusal(self.features)
        if self.traces_within and reason:  # the specimens are made all the same
            self.traces_within = False
            self.results.unobserved.append(tracing.unobserved(tracing.FAULTS, reason))
        self.features["regime"] = regime.of(self.target)._asdict()
        self.facts = self.target.facts()
        self.workload = self.workload.where_pages_are(self.facts["page_size"])
        self.results.notes += self.target.notes
        context, program = self.context, self._program()
        self.tracer = Tracer(context, vmaprobe.path, program, self.times)
        self.profiler = Profiler(context, program, self.settings)
        self.profiler.prepare(self.facts)
        self.facts["perf_version"] = self.profiler.tool and self.profiler.tool.version
        self.observer = Observer(
            context, program, vmaprobe, self.profiler, self.tracer if self.traces_within else None
        )

    def _program(self) -> str | None:
        """Return where the workload's program is on the target; None for a running process."""
        if self.workload.program:
            return self.target.push(paths.program(self.workload.program, self.target.programs))
        if self.workload.kind == "command":
            return self.target.which(self.workload.argv()[0])
        return None

    def run(self, repeat: int) -> None:
        """Run the workload once, observed, and again for each other thing that is asked for."""
        self.say_of(repeat, "observing")
        self.observer.observe(repeat)
        if self.workload.kind == "specimens":
            consequences.observe(self.context, repeat)
        if repeat <= self.traced:
            self.tracer.run(repeat, lambda what: self.say_of(repeat, what))
        if self.settings is not None:
            self.say_of(repeat, "profiling")
            self.profiler.profile(repeat)

    def finish(self) -> Run:
        """Write the run."""
        self.say("writing the run")
        self.profiler.note_missing_counts()
        self._note_losses()
        self.results.unobserved += self.tracer.lacking.values()
        for name, content in self.target.logs().items():
            self.writer.raw(name).write_bytes(content)
        first, *rest = self.workload.argv() or [""]
        argv = [*filter(None, [Path(first).name]), *_without_home(rest)]
        parameters = self.workload.parameters
        if self.workload.kind == "command":
            steps = {name: _without_home([text])[0] for name, text in self.workload.steps.items()}
            parameters |= {"workload": shlex.join(argv), **steps}
        run = self.writer.finish(
            self.results.tables(),
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
                "unobserved": self.results.unobserved,
                "losses": dict(self.results.losses),
                "pages_how": self.results.pages_how,
                "notes": self.results.notes,
            },
        )
        self.say("done")
        return run

    def _note_losses(self) -> None:
        for name, count in self.results.losses.items():
            if count and name != "went_on":  # told with the answer
                self.results.notes.append(f"The census lost: {count} {census_file.LOSSES[name]}.")


def _without_home(argv: Sequence[str]) -> list[str]:
    """Return words without the paths that tell whose they are."""
    home = str(Path.home())
    return [word.replace(home, "~") if home != "/" else word for word in argv]
