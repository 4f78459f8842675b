# SPDX-License-Identifier: GPL-2.0-only
"""What a study says of itself while it runs: a line per job for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import click

from anonvma.base.paths import short
from anonvma.base.text import printable
from anonvma.study import directory, runner
from anonvma.study.matrix import Study
from anonvma.study.runner import Event, Outcome


def show_plan(study: Study, place: Path, as_json: bool) -> None:
    """Print the jobs in their order, and which of them are done already."""
    states = directory.status(study, place)
    if as_json:
        for cell in study.cells:
            told = {"cell": cell.name, "id": cell.id, "state": states[cell.name]}
            click.echo(json.dumps({**told, "axes": cell.axes, "repeat": cell.repeat}))
        return
    width = max(map(len, states))
    for cell in study.cells:
        click.echo(f"{cell.name:{width}}  {states[cell.name]}")
    counts = Counter(states.values())
    hosts = len({cell.host for cell in study.cells})
    said = [f"{counts[state]} {state}" for state in ("done", "changed", "to do") if counts[state]]
    click.echo(f"{_cells(len(states))} on {hosts} host{'s' * (hosts > 1)}: {', '.join(said)}.")


def carry_out(
    study: Study,
    place: Path,
    as_json: bool,
    keep_going: bool,
    jobs: int | None,
    profile: str | None,
) -> int:
    """Carry a study out, write its report, and return the exit code."""
    show = _print_json if as_json else _Lines(study)
    outcome = runner.carry_out(
        study, place, tell=show, keep_going=keep_going, jobs=jobs, profile=profile
    )
    written = None
    if outcome.runs and not outcome.interrupted:
        from anonvma.study import conclusion

        written = conclusion.write(study, outcome)
    code = 130 if outcome.interrupted else 1 if outcome.failures else 0
    if as_json:
        told = {"event": "end", "cells": len(study.cells), "done": len(outcome.runs)}
        told |= {"failed": outcome.failures, "report": written and str(written), "exit_code": code}
        _print_json(told)
    else:
        _say_end(study, outcome, written)
    return code


def _print_json(event: Event) -> None:
    click.echo(json.dumps(event))


def _say_end(study: Study, outcome: Outcome, written: Path | None) -> None:
    done, wanted = len(outcome.runs), len(study.cells)
    if outcome.interrupted:
        click.echo(
            f"Interrupted: {done} of {wanted} jobs are done; the same command goes on with the "
            "rest."
        )
        return
    if outcome.failures:
        click.echo(f"{done} of {wanted} jobs are done; the same command tries the rest again.")
    else:
        click.echo("The job is done." if wanted == 1 else f"All {wanted} jobs are done.")
    if written:
        click.echo(f"{'text':10} {short(written / 'report.txt')}")
        click.echo(f"{'HTML':10} {short(written / 'report.html')}")
    click.echo(f"{'runs':10} {short(outcome.directory / 'cells')}")


class _Lines:
    """One line per job, on standard error; on a terminal also what runs now."""

    def __init__(self, study: Study) -> None:
        self._total = len(study.cells)
        self._width = min(max(len(cell.name) for cell in study.cells), 48)
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._done = 0

    def __call__(self, event: Event) -> None:
        what, name = event["event"], event.get("cell", "")
        if what == "plan":
            self._done = event["done"]
            self._say_plan(event)
        elif what == "started":
            self._now(f"         {name} is running{_rest(event)}")
        elif what == "waiting":
            words = f"waits for process {event['process']}, which measures on this machine"
            self._now(f"         {name} {words}")
        elif what == "done":
            self._done += 1
            took = _duration(event["seconds"])
            self._line(f"{self._count()} {name:{self._width}} {took:>9}{_rest(event)}")
        elif what == "kept":
            self._done += 1
            self._line(f"{self._count()} {name:{self._width}} was done already")
        elif what == "failed":
            again = ", is tried again" if event["again"] else ""
            self._line(f"{'FAILED':>9} {name}{again}: {printable(event['reason'])}")
            if event.get("record"):
                self._line(f"{'':9} see {event['record']}")
        elif what == "stopping":
            self._line("Stopping: what runs is ended.")

    def _count(self) -> str:
        width = len(str(self._total))
        return f"[{self._done:{width}}/{self._total}]".rjust(9)

    def _say_plan(self, event: Event) -> None:
        left = event["cells"] - event["done"]
        changed = f", of which {event['changed']} were done otherwise" * bool(event["changed"])
        self._line(
            f"Study {event['study']}: {_cells(event['cells'])}, {event['done']} done, "
            f"{left} to do{changed}."
        )

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._live else ""
        click.echo(f"{clear}{text}", err=True)

    def _now(self, text: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K{text[:79]}", err=True, nl=False)


def _cells(count: int) -> str:
    return f"{count:,} job{'s' * (count != 1)}"


def _rest(event: Event) -> str:
    seconds = event.get("seconds_left")
    if seconds is None or not event.get("left"):
        return ""
    return f"   {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
