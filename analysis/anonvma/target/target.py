# SPDX-License-Identifier: GPL-2.0-only
"""Where things run: a machine behind one small protocol.

A target runs commands, takes files in and gives files back, and nothing else; whoever collects does
not know which kind it is. Commands are lists of words, never a line for a shell to take apart.

Two promises hold however we end, SIGKILL included: no command outlives us (see
`anonvma.target.supervisor`), and a changed sysctl gets its old value back (see
`anonvma.target.sysctl`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from anonvma.base.errors import TargetTimeout

Stream = int | IO[bytes] | None
"""What `subprocess.Popen` takes for a standard stream."""


class Process(AbstractContextManager["Process"]):
    """A command that runs on a target; leaving its ``with`` block stops it and all it started.

    Attributes
    ----------
    stdin, stdout, stderr : file or None
        Our ends of the streams that were started as ``subprocess.PIPE``.
    """

    def __init__(self, popen: subprocess.Popen[bytes], name: str, stop: Callable[[], None]) -> None:
        self._popen = popen
        self._stop = stop
        self.name = name
        self.stdin = popen.stdin
        self.stdout = popen.stdout
        self.stderr = popen.stderr

    def poll(self) -> int | None:
        """Return the exit status, minus the signal if one ended it, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status, minus the signal if one ended it."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TargetTimeout(f"{self.name} did not finish within {timeout:g} s.") from None

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes, bytes]:
        """Give it `input`, wait for its end and return what it wrote to its piped streams."""
        try:
            return self._popen.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            raise TargetTimeout(f"{self.name} did not finish within {timeout:g} s.") from None

    def stop(self) -> None:
        """Kill the command with everything it started; nothing is left when this returns."""
        self._stop()
        if self._popen.wait() == -signal.SIGKILL:
            # Either the command was killed, and its keeper ended alike when nothing was left, or
            # someone killed the keeper; then its process group is still there.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # what it did not read cannot be delivered any more
                    stream.close()


class Raised:
    """A sysctl that `Target.sysctl_at_least` looked at, and what became of it.

    Attributes
    ----------
    name : str
        Its name, such as ``vm.max_map_count``.
    old, new : int
        Its value before, and while the block runs; equal when it was high enough.
    note : str or None
        After the block: a sentence, if the old value could not be put back.
    """

    def __init__(self, name: str, old: int, new: int) -> None:
        self.name, self.old, self.new = name, old, new
        self.note: str | None = None


class Target(Protocol):
    """A machine that workloads run on and that probes observe.

    Attributes
    ----------
    name : str
        What to call it in a sentence.
    notes : list of str
        Sentences that every run on it has to carry.
    programs : str
        The directory in ``build/`` of our programs for it; empty where they are this machine's.
    """

    name: str
    notes: list[str]
    programs: str = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        privileged: bool = False,
        input: bytes | None = None,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, whatever its exit status, and return what it wrote.

        Raises
        ------
        TargetError
            When there is no such program, or no privilege.
        TargetTimeout
            When it does not end within `timeout` seconds; it is stopped then.
        TargetLost
            When the target goes away.
        """
        with self.start(
            argv,
            privileged=privileged,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            stdout, stderr = process.communicate(input, timeout)
            return subprocess.CompletedProcess(list(argv), process.wait(), stdout, stderr)

    def start(
        self,
        argv: Sequence[str],
        *,
        privileged: bool = False,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
    ) -> Process:
        """Start a command that dies when we do."""
        ...

    def which(self, program: str) -> str | None:
        """Return the path that `program` would run from, or None."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        ...

    def push(self, path: Path) -> str:
        """Copy a file into the work directory and return its path there."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Move a file, or an output of a privileged command, out of the work directory."""
        ...

    def place(self, name: str) -> str:
        """Return the path that a new file of the work directory would have."""
        ...

    def read(self, path: str) -> bytes:
        """Return the contents of a file."""
        ...

    def facts(self) -> dict[str, Any]:
        """Describe the machine by what matters to a measurement, naming neither it nor its user."""
        ...

    def logs(self) -> dict[str, bytes]:
        """Return, by file name, what the target itself has to say of a run."""
        ...

    def require_privilege(self) -> None:
        """Raise PrivilegeError, with what is lacking, unless privileged commands can be run."""
        ...

    def as_caller(self) -> list[str]:
        """Return the words that, before a command inside a privileged one, make it the user's."""
        ...

    def sysctl_at_least(self, name: str, value: int) -> AbstractContextManager[Raised]:
        """Have the sysctl `name` at `value` or more while the block runs, and put it back."""
        ...

    def close(self) -> None:
        """Stop what still runs and remove the work directory."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
