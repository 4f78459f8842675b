# SPDX-License-Identifier: GPL-2.0-only
"""The machine that anonvma itself runs on, as a target."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from anonvma.base import paths, scratch
from anonvma.base.errors import PrivilegeError, TargetError
from anonvma.target.facts import facts_of
from anonvma.target.sysctl import Guard, held, sysctl_path
from anonvma.target.target import Process, Raised, Stream, Target

_PATIENCE_MS = 60_000  # for another run that has a sysctl raised
_KEEPER = Path(__file__).with_name("supervisor.py")


class Local(Target):
    """The machine that we run on.

    The programs are copied into a work directory of mode 0700 and run from there, so that no path
    in a census names the user's home or checkout.

    Raises
    ------
    TargetError
        When the work directory cannot be made, or nothing can be executed in it.
    """

    name = "local"

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._work = _make_work_directory()
        self._appended: dict[str, str] = {}
        self._given: dict[str, str] = {}
        self._pushed: dict[Path, str] = {}
        self._count = 0
        self._cleanup = ExitStack()
        self._cleanup.callback(shutil.rmtree, self._work)
        try:
            self._keeper = self.push(_KEEPER)
        except TargetError:
            self._cleanup.close()
            raise

    def close(self) -> None:
        """Stop what still runs and remove the work directory."""
        self._cleanup.close()

    def start(
        self,
        argv: Sequence[str],
        *,
        privileged: bool = False,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
    ) -> Process:
        """Start a command that dies when we do.

        Raises
        ------
        TargetError
            When there is no such program, or no privilege.
        """
        program = self.which(argv[0])
        if program is None:
            raise TargetError(f"there is no program {argv[0]!r} on this machine.")
        sudo = self._sudo() if privileged else []
        fifo, stop = self._lifeline()
        # The interpreter itself, not the link in a virtual environment: root may have no access to
        # the user's home, and the keeper needs the standard library alone.
        python = str(Path(sys.executable).resolve())
        keeper = [python, "-I", "-S", self._keeper, fifo, self._environment() if sudo else ""]
        try:
            popen = subprocess.Popen(
                [*sudo, *keeper, program, *argv[1:]],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=self._variables(),
                # sudo finds its cached permission by terminal and session: leave it in ours.
                start_new_session=not sudo,
            )
        except OSError as error:
            stop()
            raise TargetError(f"cannot run {program}: {error.strerror}.") from None
        return Process(popen, Path(program).name, stop)

    def _lifeline(self) -> tuple[str, Callable[[], None]]:
        """Make a FIFO whose writing end we hold: its name, and how to cut it."""
        self._count += 1
        fifo = self._work / f"lifeline-{self._count}"
        os.mkfifo(fifo, 0o600)
        # For reading too, since a FIFO that nobody reads yet cannot be opened for writing alone.
        held = ExitStack()
        held.callback(fifo.unlink, missing_ok=True)
        held.callback(os.close, os.open(fifo, os.O_RDWR | os.O_CLOEXEC))
        self._cleanup.callback(held.close)
        return str(fifo), held.close

    def _environment(self) -> str:
        """Write our environment, which sudo clears, to a file that the keeper reads and removes."""
        path = self._work / f"environment-{self._count}"
        path.touch(0o600)
        found = ((os.fsencode(name), os.fsencode(v)) for name, v in self._variables().items())
        path.write_bytes(b"".join(b"%s=%s\0" % pair for pair in found))
        return str(path)

    def _sudo(self) -> list[str]:
        """Return the words that make a command privileged: none for root."""
        if os.geteuid() == 0:
            return []
        if shutil.which("sudo") is None:
            raise PrivilegeError(
                "observing VMAs needs privilege, and this user is not root and has no sudo: "
                "run as root, or install sudo and allow this user to use it without a password."
            )
        return ["sudo", "-n", "--"]

    def require_privilege(self) -> None:
        """Raise PrivilegeError, with what is lacking, unless privileged commands can be run."""
        if not self._sudo():
            return
        done = self.run(["true"], privileged=True)
        if done.returncode < 0:
            raise TargetError(
                f"a command was killed by {signal.Signals(-done.returncode).name} that was to show "
                "whether sudo gives privilege: try again."
            )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise PrivilegeError(
                "observing VMAs needs privilege, and sudo does not give it without a password "
                f"({said[-1]}): run as root, run 'sudo -v' in this terminal first, or allow this "
                "user to use sudo without a password."
            )

    def as_caller(self) -> list[str]:
        """Return the words that, before a command inside a privileged one, make it the user's.

        `setpriv` sets the parent-death signal last, after the change of user that clears it.
        """
        if os.geteuid() == 0:
            return []
        if self.which("setpriv") is None:
            raise TargetError(
                "setpriv is missing, which keeps a workload from running as root under sudo: "
                "install util-linux, or run as root."
            )
        user, group = str(os.getuid()), str(os.getgid())
        words = ["setpriv", "--reuid", user, "--regid", group, "--init-groups"]
        return [*words, "--pdeathsig", "KILL", "--"]

    def which(self, program: str) -> str | None:
        """Return the path that `program` would run from, or None."""
        path = shutil.which(program, path=self._variables().get("PATH"))
        return path and os.path.abspath(path)  # not resolve(), which would follow links

    def append_paths(self, name: str, places: Sequence[Path]) -> None:
        """Append directories to a variable that lists some, for all that is started from now on."""
        self._appended[name] = os.pathsep.join(map(str, places))

    def set_variable(self, name: str, value: str) -> None:
        """Give a variable to all that is started from now on."""
        self._given[name] = value

    def _variables(self) -> dict[str, str]:
        found = {**os.environ, **self._given}
        for name, places in self._appended.items():
            found[name] = os.pathsep.join(filter(None, (found.get(name), places)))
        return found

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return os.path.exists(path)

    def push(self, path: Path) -> str:
        """Copy a file into the work directory and return its path there; a second time, only that.

        Raises
        ------
        TargetError
            When the file cannot be read or copied.
        """
        if path not in self._pushed:
            there = self._work / path.name
            if there.exists():
                there = self._work / f"{len(self._pushed)}-{path.name}"
            try:
                shutil.copyfile(path, there)
                there.chmod(0o700)
            except OSError as error:
                raise TargetError(f"cannot copy {path} to {there}: {error.strerror}.") from None
            self._pushed[path] = str(there)
        return self._pushed[path]

    def pull(self, remote: str, local: Path) -> None:
        """Move a file out of the work directory.

        Raises
        ------
        TargetError
            When there is none.
        OSError
            When `local` cannot be written.
        """
        source = Path(remote)
        if not source.exists():
            raise TargetError(f"cannot bring back {remote}: there is no such file.")
        if os.access(source, os.R_OK):
            shutil.copyfile(source, local)
        else:  # made by a privileged command, which alone may read it
            self._copy_as_root(source, local)
        source.unlink()

    def _copy_as_root(self, source: Path, local: Path) -> None:
        with (
            local.open("wb") as file,
            self.start(
                ["cat", "--", str(source)], privileged=True, stdout=file, stderr=subprocess.PIPE
            ) as process,
        ):
            _, said = process.communicate()
            if process.wait():
                reason = said.decode(errors="replace").strip()
                raise TargetError(f"cannot bring back {source}: {reason}.")

    def place(self, name: str) -> str:
        """Return the path that a new file of the work directory would have."""
        return str(self._work / name)

    def read(self, path: str) -> bytes:
        """Return the contents of a file.

        Raises
        ------
        TargetError
            When it cannot be read.
        """
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise TargetError(f"cannot read {path}: {error.strerror}.") from None

    def facts(self) -> dict[str, Any]:
        """Describe this machine by what matters to a measurement; see `facts_of`."""
        return facts_of(self, "local")

    def logs(self) -> dict[str, bytes]:
        """Return nothing: this machine's own log is not about a run."""
        return {}

    @contextmanager
    def sysctl_at_least(self, name: str, value: int) -> Iterator[Raised]:
        """Have the sysctl `name` at `value` or more while the block runs, and put it back.

        A guard raises it and puts it back when its standard input ends: at the end of
        the block, or when we are killed. It leaves alone what someone else has changed meanwhile.
        Of several runs on one machine only one raises a sysctl at a time; the others wait for it,
        and say for whom. What a guard that was killed itself left raised, the next puts back.

        Yields
        ------
        Raised
            Whose `note` says, after the block, if the old value could not be put back.

        Raises
        ------
        TargetError
            When it cannot be raised.
        """
        path = sysctl_path(name)
        if not path.is_file():
            raise TargetError(f"this kernel has no sysctl {name}.")
        present = int(self.read(str(path)))
        as_it_is = Raised(name, present, present)
        if value <= 0 or (present >= value and not self._may_be_root()):
            yield as_it_is
            return

        def otherwise(said: str) -> Raised:
            if present >= value and not said.startswith("process "):  # no sudo, no /run
                return as_it_is
            raise TargetError(f"cannot raise {name} to {value}: {said}.")

        guard = functools.partial(self._guard, path)
        with held(
            guard, name, value, say=_to_stderr, notes=self.notes, otherwise=otherwise
        ) as raised:
            yield raised

    def _may_be_root(self) -> bool:
        return os.geteuid() == 0 or shutil.which("sudo") is not None

    def _guard(self, path: Path, value: int) -> Guard:
        sudo = self._sudo()
        # In a session of its own a signal to our process group does not reach it.
        session = ["setsid", "--wait"] if sudo else []
        agent = self.push(paths.program("anonvma-agent"))
        argv = [*sudo, *session, agent, "raise", str(path), str(value), str(os.getpid())]
        return Guard(
            subprocess.Popen(
                [*argv, f"{_PATIENCE_MS}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=not sudo,
            )
        )


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"anonvma: {sentence}\n")


def _make_work_directory() -> Path:
    work = scratch.make("work")
    if os.statvfs(work).f_flag & os.ST_NOEXEC:
        work.rmdir()
        raise TargetError(
            f"{work.parent} is mounted noexec, so no program can be run from there; "
            "set TMPDIR to another directory."
        )
    return work
