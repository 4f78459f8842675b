# SPDX-License-Identifier: GPL-2.0-only
"""A study carried out: what is not done yet is, by Snakemake, one job at a time on a host.

A study's directory holds

``cells/NAME/``
    the jobs that are done: a run, with the executed notebook, ``log.txt`` and ``cell.json``;
``failed/NAME.N/``
    what there is of each try that failed, and why (``failure.json``);
``superseded/NAME.N/``
    jobs that were done with another notebook, kernel or probe, and were done again;
``report/``
    the comparison and the report;
``study.yaml``, ``cells.json``, ``snakemake.log``, ``work/``
    what was asked for, what follows from it, and what is under way.

Snakemake decides what runs when and where: the order, one job at a time on each host, retries,
clusters. It does not decide what is done: only `anonvma.study.job.complete` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from anonvma.base import marker, scratch
from anonvma.base.errors import StudyError
from anonvma.run.jobs import PLAN
from anonvma.run.runs import Run
from anonvma.study.clock import Clock
from anonvma.study.directory import cells_there, status, taken
from anonvma.study.fingerprint import THIS_MACHINE
from anonvma.study.job import LIFELINE, STOP, complete, is_locked
from anonvma.study.matrix import Cell, Study

Event = dict[str, Any]
"""What happened: ``event`` and ``time`` (ISO 8601, UTC), and what data/studies/README.md says."""

_FORMAT = 1
_PR_SET_PDEATHSIG = 1
_POLL = 0.2  # seconds
_PATIENCE = 30.0  # seconds for what runs to end when asked to


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes
    ----------
    directory : Path
    runs : dict
        The run of every job that is done, by the job's name, in the order of the study.
    failures : dict
        By name, why a job is not done.
    interrupted : bool
        Whether we were asked to stop before the end.
    """

    directory: Path
    runs: dict[str, Run]
    failures: dict[str, str]
    interrupted: bool


def carry_out(
    study: Study,
    directory: Path,
    *,
    tell: Callable[[Event], None],
    keep_going: bool = False,
    jobs: int | None = None,
    profile: str | None = None,
) -> Outcome:
    """Do what is not done yet of a study.

    Parameters
    ----------
    study : Study
    directory : path
        Of the study; made if it is missing.
    tell : callable
        Told every `Event`.
    keep_going : bool
        Whether to go on after a failure that is not the target's: the next jobs may well fail
        alike. That a target went away or was late is that job's failure alone in any case.
    jobs : int, optional
        How many hosts are used at a time; all of them by default.
    profile : str, optional
        Of Snakemake, which names the executor of a cluster. The jobs outlive us then.

    Raises
    ------
    StudyError
        The directory cannot be used, another one works in it, a cluster cannot start this
        Python, or Snakemake itself failed.
    """
    if profile and shlex.quote(sys.executable) != sys.executable:
        # Snakemake 9.14, snakemake_interface_executor_plugins/executors/real.py: format_job_exec()
        raise StudyError(
            "jobs of a cluster cannot be started by a Python whose path has a space or another "
            f"character that shells read, as {sys.executable} has: Snakemake does not quote it. "
            "Use a checkout in a directory without."
        )
    directory = directory.resolve()
    with taken(directory, study):
        work = _Work(study, directory, tell, keep_going, profile)
        work.prepare()
        if work.left:
            with _asked_to_stop(work):
                work.run_snakemake(jobs)
        return work.outcome()


@contextlib.contextmanager
def _asked_to_stop(work: _Work) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP stop the work, not us."""

    def stop(number: int, frame: FrameType | None) -> None:
        work.interrupted = True

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Work:
    """A study while it is carried out."""

    def __init__(
        self,
        study: Study,
        directory: Path,
        tell: Callable[[Event], None],
        keep_going: bool,
        profile: str | None,
    ) -> None:
        self.study, self.directory, self.keep_going = study, directory, keep_going
        self.profile = profile
        self.interrupted = self.stopped = False
        self.failures: dict[str, str] = {}
        self._tell = tell
        self._offsets: Counter[str] = Counter()
        self._clock = Clock()
        hosts = dict.fromkeys(cell.host for cell in study.cells)
        self.tokens = {host: f"host_{number}" for number, host in enumerate(hosts)}
        self.left: dict[str, Cell] = {}

    # ---- before ----

    def prepare(self) -> None:
        """Write the plan, and mark what is done: Snakemake is told so, it does not find out."""
        for name in ("work", "cells"):
            (self.directory / name).mkdir(exist_ok=True)
        (self.directory / "work" / STOP).unlink(missing_ok=True)
        with marker.new_file(self.directory / "study.yaml") as draft:
            shutil.copyfile(self.study.file, draft)
        self._rename_cells()
        states = status(self.study, self.directory)
        for stale in (self.directory / "work").glob("*.jsonl"):
            stale.unlink()
        for cell in self.study.cells:
            done = self.directory / "work" / f"{cell.name}.done"
            if states[cell.name] == "done":
                done.touch()
            else:
                done.unlink(missing_ok=True)
                self.left[cell.name] = cell
        self._write_plan()
        counts = Counter(states.values())
        self.tell(
            "plan",
            study=self.study.name,
            directory=str(self.directory),
            cells=len(states),
            done=counts["done"],
            changed=counts["changed"],
        )
        self._clock.begin(self.left.values())

    def _rename_cells(self) -> None:
        """Give jobs that were done under another name the one that they have now."""
        there = cells_there(self.directory)
        for cell in self.study.cells:
            place, wanted = there.get(cell.id), self.directory / "cells" / cell.name
            if place is not None and place != wanted and not wanted.exists():
                place.rename(wanted)

    def _write_plan(self) -> None:
        plan = {
            "format": _FORMAT,
            "study": self.study.name,
            "python": sys.executable,
            "notebook": str(self.study.notebook.resolve()),
            "retries": self.study.retries,
            "timeout": self.study.timeout,
            "tmpdir": os.environ.get("TMPDIR"),
            "lifeline": self.profile is None,
            "cells": [self._planned(cell) for cell in self.study.cells],
        }
        with marker.new_file(self.directory / PLAN) as draft:
            draft.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")

    def _planned(self, cell: Cell) -> dict[str, Any]:
        here = cell.host == THIS_MACHINE  # or whichever node of a cluster runs it
        token = "node" if here and self.profile else self.tokens[cell.host]
        return {**dataclasses.asdict(cell), "token": token, "exclusive": here}

    # ---- Snakemake ----

    def run_snakemake(self, jobs: int | None) -> None:
        """Have Snakemake do what is left, and tell what happens meanwhile."""
        lifeline = self.directory / "work" / LIFELINE
        lifeline.unlink(missing_ok=True)
        os.mkfifo(lifeline, 0o600)
        held = os.open(lifeline, os.O_RDWR | os.O_CLOEXEC)
        # Killed, it leaves what it had in TMPDIR; jobs have the user's.
        with (
            scratch.directory("snakemake") as own,
            (self.directory / "snakemake.log").open("ab") as log,
        ):
            process = subprocess.Popen(
                self._command(jobs),
                cwd=self.directory,
                env={**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": str(own)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us to handle
                preexec_fn=_end_with_parent,
            )
            self._attend(process, held)
        self._listen()
        self._judge(process.returncode)

    def _attend(self, process: subprocess.Popen[bytes], held: int) -> None:
        try:
            while process.poll() is None:
                time.sleep(_POLL)
                self._listen()
                if self.interrupted or (self.stopped and not self.keep_going):
                    self._stop(process, held)
                    held = -1
        finally:
            if held >= 0:
                os.close(held)
            if process.poll() is None:
                process.kill()
            process.wait()

    def _command(self, jobs: int | None) -> list[str]:
        tokens = {**{token: 1 for token in self.tokens.values()}, "node": len(self.left)}
        words = [sys.executable, "-m", "snakemake"]
        words += ["--snakefile", str(Path(__file__).with_name("study.smk"))]
        words += ["--profile", self.profile or "none", "--workflow-profile", "none"]
        if self.profile is None:
            words += ["--cores", str(jobs or len(self.tokens))]
        elif jobs:  # else the profile says
            words += ["--jobs", str(jobs)]
        words += ["--resources", *(f"{token}={count}" for token, count in tokens.items())]
        # What a killed one left is no lock of ours, and its metadata no news.
        words += ["--keep-going", "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime"]
        return [*words, "--scheduler", "greedy", "--quiet", "all"]

    def _stop(self, process: subprocess.Popen[bytes], held: int) -> None:
        """Let nothing new begin; end what runs too if we were interrupted.

        Snakemake is not asked: its handler of SIGTERM takes a lock that what it interrupts may
        hold (9.14, scheduling/job_scheduler.py, exit_gracefully), and then it waits for ever.
        """
        (self.directory / "work" / STOP).touch()
        if self.interrupted:
            self.tell("stopping", reason="interrupted")
            if self.profile:
                process.send_signal(signal.SIGINT)  # it cancels a cluster's jobs
        deadline = math.inf
        while process.poll() is None:
            if self.interrupted and held >= 0:
                os.close(held)
                held = -1
                deadline = time.monotonic() + _PATIENCE
            # Nothing that Snakemake knows is needed again; a cluster's jobs it has yet to await.
            if not self.profile and not self._running():
                os.killpg(process.pid, signal.SIGKILL)  # with jobs that begin, only to see STOP
            elif time.monotonic() > deadline:
                process.kill()
            self._listen()
            time.sleep(_POLL)
        if held >= 0:
            os.close(held)

    def _running(self) -> list[str]:
        """Return the jobs that somebody works on; whoever begins later sees `STOP`."""
        return [name for name in self.left if is_locked(self.directory / "work" / f"{name}.lock")]

    def _judge(self, status: int) -> None:
        """Find out what Snakemake or a job did not say."""
        if self.interrupted:
            return
        silent = [name for name in self.left if name not in self.failures]
        if status and silent and not self.stopped:
            for name in silent:
                log = self.directory / "work" / name / "log.txt"
                if log.exists():
                    self._failed(name, f"it ended without a word: see {log}")
            if not self.failures:
                how = f"was killed by signal {-status}"
                if status >= 0:
                    how = f"failed with exit status {status}: {self._last_line()}"
                log = self.directory / "snakemake.log"
                raise StudyError(f"Snakemake {how}; see {log}.")

    def _last_line(self) -> str:
        said = (self.directory / "snakemake.log").read_text(errors="backslashreplace")
        full = os.statvfs(self.directory).f_bavail == 0  # and so is its log not written
        lines = said.strip().splitlines() or ["no space left there" if full else "it said nothing"]
        return lines[-1].strip()[:300].rstrip(".")

    # ---- events ----

    def _listen(self) -> None:
        """Tell what the jobs have said since we last looked."""
        heard = []
        for file in sorted((self.directory / "work").glob("*.jsonl")):
            with file.open("rb") as stream:
                stream.seek(self._offsets[file.name])
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self._offsets[file.name] += len(line)
                    heard.append(json.loads(line))
        for event in sorted(heard, key=lambda event: str(event["time"])):
            self._happened(event)

    def _happened(self, event: Event) -> None:
        name, what = event["cell"], event["event"]
        if name not in self.left and what != "kept":
            return
        if what in ("done", "kept"):
            cell = self.left.pop(name, None)
            self.failures.pop(name, None)
            if cell:
                self._clock.done(cell, event.get("seconds"))
        elif what == "failed":
            again = event["retry"] and event["attempt"] <= self.study.retries
            event["again"] = again
            if not again:
                self.failures[name] = event["reason"]
                self._clock.failed(self.left[name])
                self.stopped |= not event["alone"]
        event["left"] = len(self.left) - len(self.failures)
        event["seconds_left"] = self._clock.left()
        self._tell(event)

    def _failed(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        self.tell("failed", cell=name, reason=reason, retry=False, alone=False, again=False)

    def tell(self, what: str, **more: object) -> None:
        """Tell an event of our own."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._tell({"event": what, "time": now, **more})

    # ---- after ----

    def outcome(self) -> Outcome:
        """Look at what is there, whatever was said."""
        found: dict[str, Run] = {}
        for cell in self.study.cells:
            run = complete(self.directory / "cells" / cell.name, cell.id, cell.key)
            if run:
                found[cell.name] = run
                self.failures.pop(cell.name, None)
            else:
                self.failures.setdefault(cell.name, "it was not run")
        return Outcome(self.directory, found, self.failures, self.interrupted)


def _end_with_parent() -> None:
    """Have the kernel kill Snakemake when we end; its jobs notice that by themselves."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
