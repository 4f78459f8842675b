# SPDX-License-Identifier: GPL-2.0-only
"""A sysctl that is raised for a while and put back, whoever is killed meanwhile."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from anonvma.base.errors import TargetError, TargetLost
from anonvma.base.text import printable
from anonvma.target.target import Process, Raised

_SYSCTL_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class Guard(AbstractContextManager["Guard"]):
    """The process that has a sysctl raised, ``anonvma-agent raise``, here or behind a link.

    Parameters
    ----------
    process : Popen or Process
        Its standard input and output are pipes; when the former ends, it puts the old value back.
    """

    def __init__(self, process: subprocess.Popen[bytes] | Process) -> None:
        self._process = process

    def __exit__(self, *_: object) -> None:
        with suppress(TargetLost), self._process:
            self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already; its answer will say so
            self._process.stdin.close()
        self._process.wait()

    def answer(self) -> str:
        """Return its next line: what it did, or why it could not."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode(errors="replace")
        return printable(line.strip()) or "no answer"

    def dismiss(self, raised: Raised) -> str | None:
        """Let it put the old value back; a sentence if it did not."""
        try:
            self._end()
            return put_back(raised, self.answer())
        except TargetLost:  # it is told by the end of the link
            return f"{raised.name} was {raised.old}; the lost target puts it back by itself."


@contextmanager
def held(
    guard: Callable[[int], Guard],
    name: str,
    value: int,
    *,
    say: Callable[[str], None],
    notes: list[str],
    otherwise: Callable[[str], Raised],
) -> Iterator[Raised]:
    """Have a sysctl at a value while the block runs.

    Parameters
    ----------
    guard : callable
        Starts one, given the value.
    name, value
    say : callable
        Takes a sentence for whoever waits.
    notes : list of str
        Gets those that belong to the run.
    otherwise : callable
        Given what a guard said that raised nothing, tells the value to go on with, or raises.
    """
    with guard(value) as first:
        said = first.answer()
        while note := before_raising(name, said):
            if said.startswith("recovered "):
                notes.append(note)
            say(note)
            said = first.answer()
        if not said.startswith("raised "):
            yield otherwise(said)
            return
        raised = Raised(name, *map(int, said.split()[1:]))
        try:
            yield raised
        finally:
            raised.note = first.dismiss(raised)
            if raised.note:  # somebody killed it: a new one puts back what it left raised
                with suppress(TargetLost), guard(0) as second:
                    raised.note = put_back_after(raised, second.answer()) or raised.note


def before_raising(name: str, said: str) -> str | None:
    """Return a sentence on what a guard does before it raises a sysctl; None if it does no more."""
    match said.split():
        case ["waiting", who]:
            return f"waiting for process {who}, which has {name} raised, for a minute at most."
        case ["recovered", was, left]:
            return f"a run that was killed had left {name} at {left}; it was put back to {was}."
    return None


def put_back(raised: Raised, said: str) -> str | None:
    """Return a sentence on what a guard said of a sysctl; None if it is what it was before."""
    if said == f"restored {raised.old}":
        return None
    if said.startswith("changed "):
        return (
            f"{raised.name} was {raised.old}, this run raised it to {raised.new}, someone else "
            f"set it to {said.split()[1]} meanwhile, and so it was left at that."
        )
    return f"{raised.name} was {raised.old} and could not be put back: {said}."


def put_back_after(raised: Raised, said: str) -> str | None:
    """Return a sentence if a new guard did what one that was killed did not do; None else."""
    if said != f"recovered {raised.old} {raised.new}":
        return None
    return (
        f"what was to put {raised.name} back was killed; it was put back to {raised.old} all the "
        "same."
    )


def sysctl_path(name: str) -> Path:
    """Return where a sysctl of this name would be.

    Raises
    ------
    TargetError
        When that is no name.
    """
    if not _SYSCTL_NAME.fullmatch(name):
        raise TargetError(f"{name!r} is not the name of a sysctl.")
    return Path("/proc/sys", *name.split("."))
