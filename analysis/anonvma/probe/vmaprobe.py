# SPDX-License-Identifier: GPL-2.0-only
"""vmaprobe on a target: its command line, exit codes and errors, which are known here alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from anonvma.base import paths
from anonvma.base.errors import PrivilegeError, ProbeError
from anonvma.base.text import last_line
from anonvma.target.target import Target

# enum exit_code in analysis/probe/vmaprobe.h
_PRIVILEGE, _KERNEL, _VANISHED = 3, 4, 5


class Unsupported(ProbeError):
    """The target's kernel lacks what is needed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, _KERNEL)


class Vanished(ProbeError):
    """A process that was named is gone."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, _VANISHED)


class Vmaprobe:
    """The probe, brought to a target.

    Attributes
    ----------
    path : str
        Where it lies there, for command lines that it is a part of.
    """

    def __init__(self, target: Target, path: str | None = None, privileged: bool = True) -> None:
        self._target, self._privileged = target, privileged
        self.path = path or target.push(paths.program("vmaprobe", target.programs))

    def run(self, *words: str, timeout: float | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end, whatever that is."""
        argv = [self.path, *words]
        return self._target.run(argv, privileged=self._privileged, timeout=timeout)

    def features(self) -> dict[str, Any]:
        """Return what the target's kernel allows.

        Raises
        ------
        ProbeError
            When it cannot tell.
        """
        done = self.run("features", "--json")
        require_success(done)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def census(self, output: str, pids: Sequence[int] = ()) -> None:
        """Take a census of all processes, or of some, into a file on the target.

        Raises
        ------
        Vanished
            A process named is gone.
        PrivilegeError, ProbeError
            It could not be taken.
        """
        require_success(self.run("census", *named(pids), "--output", output))

    def consequences(self, outcomes: str, census: str, *, start_ksmd: bool = False) -> None:
        """Do to bare VMAs and to others what asks for an anon_vma; into files on the target.

        Parameters
        ----------
        outcomes, census : str
            The files.
        start_ksmd : bool
            Whether KSM may be started meanwhile, which merges pages of other processes, too.

        Raises
        ------
        PrivilegeError, ProbeError
            It could not be done.
        """
        options = ["--start-ksmd"] if start_ksmd else []
        files = ["--census", census, "--output", outcomes]
        require_success(self.run("consequences", *files, *options))

    def census_at_exit(self, output: str, *options: str) -> list[str]:
        """Return the words that, before a command, take a census of each of its processes' ends."""
        return [self.path, "census", "--at-exit", "--output", output, *options, "--"]

    def usage(self, pids: Sequence[int]) -> dict[str, Any]:
        """Return what processes that are there have used so far: columns of ``repeats``.

        It needs no privilege. Raises as `census` does.
        """
        done = self._target.run([self.path, "usage", *named(pids)])
        require_success(done)
        used: dict[str, Any] = json.loads(done.stdout)
        return used


def named(pids: Sequence[int]) -> list[str]:
    """Return the words that name processes."""
    return [word for pid in pids for word in ("--pid", str(pid))]


def require_success(done: subprocess.CompletedProcess[bytes]) -> None:
    """Raise what vmaprobe's exit status stands for, with the sentence that it gave.

    Raises
    ------
    Vanished, Unsupported, PrivilegeError, ProbeError
    """
    if not done.returncode:
        return
    sentence = failure(done.returncode, done.stderr)
    if done.returncode == _PRIVILEGE:
        raise PrivilegeError(sentence)
    if done.returncode == _VANISHED:
        raise Vanished(sentence)
    if done.returncode == _KERNEL:
        raise Unsupported(sentence)
    raise ProbeError(sentence, done.returncode if 0 < done.returncode < 128 else 1)


def own_sentence(stderr: bytes) -> str | None:
    """Return what vmaprobe itself said went wrong, among what a command of its may have said."""
    own = [line for line in stderr.splitlines() if line.startswith(b"vmaprobe: ")]
    return last_line(own[-1]).removeprefix("vmaprobe: ") if own else None


def failure(status: int, stderr: bytes) -> str:
    """Return vmaprobe's own sentence, or how it ended without one."""
    if sentence := own_sentence(stderr):
        return sentence
    how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    return f"vmaprobe {how}: {last_line(stderr)}"
