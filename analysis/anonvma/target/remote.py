# SPDX-License-Identifier: GPL-2.0-only
"""A target behind a link: what a guest and a machine that ssh reaches have in common.

Everything goes through one process of ours there (`analysis/guest`), which starts commands and has
the few small tools that files need, so that nothing but it has to be on the target.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anonvma.base.errors import TargetError
from anonvma.target import wire
from anonvma.target.link import Link
from anonvma.target.remote_process import RemoteProcess
from anonvma.target.target import Stream, Target


class Remote(Target, ABC):
    """A target whose commands and files go over a link; see `anonvma.target.target.Target`.

    A subclass has a `link`, the words that start our own process's tools (`agent`), the directory
    there that is ours (`work`), and `name` and `where` for sentences.
    """

    name: str
    where: str
    notes: list[str]
    agent: str
    work: str

    @property
    @abstractmethod
    def link(self) -> Link:
        """The link, once there is one."""

    @abstractmethod
    def close(self) -> None:
        """Stop what still runs and leave nothing there."""

    def start(
        self,
        argv: Sequence[str],
        *,
        privileged: bool = False,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
    ) -> RemoteProcess:
        """Start a command, which does not outlive the link.

        Raises
        ------
        TargetError
            When there is no such program, or no privilege.
        TargetLost
            When the target goes away.
        """
        program = self.which(argv[0])
        if program is None:
            raise TargetError(f"there is no program {argv[0]!r} {self.where}.")
        if privileged:
            self.require_privilege()
        how = wire.AS_ROOT if privileged else wire.AS_USER
        return self.link.start([program, *argv[1:]], stdin, stdout, stderr, how)

    @abstractmethod
    def which(self, program: str) -> str | None:
        """Return the path that `program` would run from, or None."""

    @abstractmethod
    def require_privilege(self) -> None:
        """Raise PrivilegeError, with what is lacking, unless privileged commands can be run."""

    def _tool(
        self,
        *words: str,
        input: bytes | None = None,
        stdout: Stream = subprocess.PIPE,
        how: int = wire.AS_USER,
    ) -> tuple[int, bytes]:
        """Run one of our process's small tools: its errno, 0 if it succeeded, and its output."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        argv = [self.agent, *words]
        with self.link.start(argv, stdin, stdout, subprocess.DEVNULL, how) as process:
            said, _ = process.communicate(input)
            return process.wait(), said

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return self._tool("exists", path)[0] == 0

    def _put(self, there: str, content: bytes, mode: str) -> None:
        """Write a file, and make sure that it holds what it should.

        Raises
        ------
        TargetError
            When it cannot be written, or holds something else then.
        """
        number, _ = self._tool("put", there, mode, input=content)
        if number:
            raise TargetError(f"cannot write {there} {self.where}: {error_of(number)}.")
        found = self._hash(there)
        if found != hashlib.sha256(content).hexdigest():
            raise TargetError(
                f"{there} {self.where} does not hold what was copied there: its SHA-256 is "
                f"{console_line(found)}; is there room for it?"
            )

    def _hash(self, there: str) -> str:
        number, digest = self._tool("hash", there)
        if number:
            raise TargetError(f"cannot read {there} {self.where}: {error_of(number)}.")
        return digest.decode(errors="replace").strip()

    def pull(self, remote: str, local: Path) -> None:
        """Move a file, or an output of a privileged command, off the target.

        Raises
        ------
        TargetError
            When there is none.
        OSError
            When `local` cannot be written.
        """
        try:
            with local.open("wb") as file:
                number, _ = self._tool("get", remote, stdout=file, how=wire.AS_ROOT)
            if number:
                raise TargetError(f"cannot bring back {remote}: {error_of(number)}.")
        except TargetError:
            local.unlink()  # what there is of it
            raise
        self._tool("remove", remote, how=wire.AS_ROOT)

    def place(self, name: str) -> str:
        """Return the path that a new file of the work directory would have."""
        return f"{self.work}/{name}"

    def read(self, path: str) -> bytes:
        """Return the contents of a file.

        Raises
        ------
        TargetError
            When it cannot be read.
        """
        number, content = self._tool("get", path)
        if number:
            raise TargetError(f"cannot read {path}: {error_of(number)}.")
        return content

    def as_caller(self) -> list[str]:
        """Return no words: privileged or not, it is the same user."""
        return []

    def logs(self) -> dict[str, bytes]:
        """Return nothing."""
        return {}

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Describe the machine by what matters to a measurement."""


def error_of(number: int) -> str:
    """Return what went wrong, from the exit status of a tool."""
    return os.strerror(number) if number > 0 else f"it was killed by signal {-number}"


def console_line(text: str) -> str:
    """Return a line of a console or log, its control sequences taken out, fit for a sentence."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|^\[ *\d+\.\d+\] ", "", text)
    shown = "".join(c if c.isprintable() else " " for c in text).strip()
    return shown if len(shown) <= 160 else shown[:159] + "…"
