# SPDX-License-Identifier: GPL-2.0-only
"""A program: a workload with set-up, load and tear-down.

A server does nothing by itself, and a compiler nothing without a source. So what is observed, the
workload, may have commands around it: some that prepare each of its executions, some that put it
to work while it runs, and some that tell it to end. None of them is observed, none is privileged,
and each execution has a new directory, ``{scratch}``, for its files and sockets.

Whatever becomes of us, nothing stays: each command has a keeper (`anonvma.target.supervisor`), and
the directory is within the target's work directory.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from anonvma.base import paths
from anonvma.base.errors import MissingProgram, WorkloadError
from anonvma.base.text import last_line
from anonvma.target.local import Local
from anonvma.target.target import Process, Target

_STEPS = ("setup", "ready", "load", "teardown")
_PAUSE = 0.05  # seconds before a server is asked again whether it is ready
_FIXED = {"{root}": paths.root, "{programs}": paths.programs}


class Steps(BaseModel):
    """What is done around each execution of a workload: commands, one a line.

    They are taken apart as a shell would, and never given to one. A line that begins with ``#`` is
    none. In each word ``{scratch}`` stands for a directory that is new in each execution,
    ``{root}`` for the checkout, ``{programs}`` for where ``make programs`` unpacks packages.

    Attributes
    ----------
    setup : str or None
        Before the workload is started.
    ready : str or None
        While it runs: tried again and again until it succeeds.
    load : str or None
        After that, what puts it to work.
    teardown : str or None
        After the load: what tells it to end, if it does not by itself.
    packages : str or None
        The distribution's packages that have the programs, to be named where one is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup: str | None = None
    ready: str | None = None
    load: str | None = None
    teardown: str | None = None
    packages: str | None = None

    @field_validator(*_STEPS, "packages", mode="before")
    @classmethod
    def _check_lines(cls, text: object, info: ValidationInfo) -> str | None:
        name = info.field_name
        if text is None:
            return None
        if not isinstance(text, str) or "\0" in text:
            raise WorkloadError(f"{name} is {text!r}: a text is needed, one command a line.")
        for line in text.splitlines():
            try:
                shlex.split(line)
            except ValueError as error:
                raise WorkloadError(f"{name}: {line!r} is not a command line: {error}.") from None
        return text.strip() or None

    def commands(self, *names: str) -> list[list[str]]:
        """Return the commands of some of the steps, in order, each as its words."""
        lines = [line.strip() for name in names for line in (getattr(self, name) or "").split("\n")]
        return [shlex.split(line) for line in lines if line and not line.startswith("#")]

    @property
    def steps(self) -> dict[str, str]:
        """Those that there are, by name, with the packages."""
        return {name: text for name in Steps.model_fields if (text := getattr(self, name))}

    def check_programs(self, target: Target, own: str) -> None:
        """Make sure that the target has the workload's own program, and those of all its steps.

        Raises
        ------
        MissingProgram
        """
        words = [own, *(command[0] for command in self.commands(*_STEPS))]
        missing = [word for word in dict.fromkeys(words) if target.which(word) is None]
        if missing:
            told = f"there is no program {' and '.join(map(repr, missing))} on target {target.name}"
            remedy = "'vmload --cases' lists the cases that come with anonvma."
            if self.packages:
                remedy = (
                    f"what it needs is in the packages {', '.join(self.packages.split())}; 'make "
                    "programs' unpacks them into build/programs and installs nothing."
                )
            raise MissingProgram(f"{told}; {remedy}")


def offer(steps: Steps, target: Target) -> None:
    """Let a program that names its packages find what ``make programs`` has unpacked of them.

    Only behind the machine's own programs, and only for such: any other workload is run as ever.
    They speak no language of the user's: Redis and initdb end where LANG names a locale that the
    machine lacks, as it may be where somebody came from by ssh.
    """
    if not steps.packages or not isinstance(target, Local):
        return
    target.set_variable("LC_ALL", "C.UTF-8")
    listed = paths.programs() / "environment"
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").splitlines():
            name, _, places = line.partition("=")
            target.append_paths(name, [paths.programs() / place for place in places.split(":")])


class Surroundings:
    """Runs a workload on a target with everything that is done around it."""

    def __init__(self, steps: Steps, target: Target) -> None:
        self._steps, self._target = steps, target
        self._scratch = target.place("scratch")
        self._said = b""

    def run(
        self,
        argv: Sequence[str],
        stdout: IO[bytes] | int = subprocess.PIPE,
        stderr: IO[bytes] | int = subprocess.PIPE,
        log: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a privileged command that starts the workload, to its end.

        Parameters
        ----------
        argv : sequence of str
        stdout, stderr : file, optional
            Where its output goes; without it is returned.
        log : path, optional
            The file that is to have what the steps said.

        Raises
        ------
        WorkloadError
            When a step failed.
        """
        words = [self._filled(word) for word in argv]
        with self._directory():
            self._said = b""
            self._do("setup")
            with self._target.start(
                words, privileged=True, stdout=stdout, stderr=stderr
            ) as process:
                self._attend(process, stdout, stderr)
                written = process.communicate()
                done = subprocess.CompletedProcess(words, process.wait(), *written)
            if log and self._said:
                log.write_bytes(self._said)
            return done

    @contextlib.contextmanager
    def _directory(self) -> Iterator[None]:
        if self._steps.steps:
            self._target.run(["mkdir", "-m", "700", "--", self._scratch])
        try:
            yield
        finally:
            if self._steps.steps:
                self._target.run(["rm", "-rf", "--", self._scratch])

    def _attend(self, process: Process, stdout: IO[bytes] | int, stderr: IO[bytes] | int) -> None:
        """Wait until the workload is ready, put it to work, and tell it to end."""
        for command in self._steps.commands("ready"):
            while (done := self._step(command)).returncode:
                if process.poll() is not None:
                    written = zip(process.communicate(), (stdout, stderr), strict=True)
                    out, err = (
                        text if isinstance(file, int) else Path(file.name).read_bytes()
                        for text, file in written
                    )
                    raise WorkloadError(
                        f"the workload ended before it was ready, by which {command[0]} would have "
                        f"ended with exit status 0, not {done.returncode}: "
                        f"{last_line(err if err.strip() else out)}"
                    )
                time.sleep(_PAUSE)
        self._do("load")
        self._do("teardown")

    def _do(self, name: str) -> None:
        for command in self._steps.commands(name):
            done = self._step(command)
            self._said += done.stdout + done.stderr
            if done.returncode:
                raise WorkloadError(
                    f"{name} of the workload: {command[0]} failed with exit status "
                    f"{done.returncode}: {_last_line(done)}"
                )

    def _step(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        return self._target.run([self._filled(word) for word in command])

    def _filled(self, word: str) -> str:
        for name, place in _FIXED.items():
            if name in word:
                word = word.replace(name, str(place().resolve()))
        return word.replace("{scratch}", self._scratch)


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    return last_line(done.stderr if done.stderr.strip() else done.stdout)
