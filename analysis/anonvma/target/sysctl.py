# SPDX-License-Identifier: GPL-2.0-only
"""A sysctl that is raised for a while and put back, whoever is killed meanwhile."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path

from anonvma.base.errors import TargetError
from anonvma.target.target import Raised

_SYSCTL_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class Guardian:
    """The process that has a sysctl raised, ``anonvma-agent raise``."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pipes = popen  # a context manager that closes them and waits

    def __enter__(self) -> Guardian:
        return self

    def __exit__(self, *_: object) -> None:
        with self.pipes:
            assert self._popen.stdin is not None
            with suppress(BrokenPipeError):
                self._popen.stdin.close()

    def answer(self) -> str:
        """Return its next line: what it did, or why it could not."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().decode(errors="replace").strip() or "no answer"

    def dismiss(self, raised: Raised) -> str | None:
        """Let it put the old value back; a sentence if it did not."""
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already; its answer will say so
            self._popen.stdin.close()
        said = self.answer()
        self._popen.wait()
        return put_back(raised, said)


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
