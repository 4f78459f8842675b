# SPDX-License-Identifier: GPL-2.0-only
"""Where things run: a machine behind one small protocol.

A target runs commands, takes files in and gives files back, and nothing else; whoever collects does
not know which kind it is. Commands are lists of words, never a line for a shell to take apart.

Two promises hold however we end, SIGKILL included: no command outlives us (see
`anonvma.target.supervisor`), and a changed sysctl gets its old value back (see
`Target.sysctl_at_least`).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from anonvma.base import scratch
from anonvma.base.errors import PrivilegeError, TargetError, TargetTimeout
from anonvma.base.nearest import hint

__all__ = ["Local", "Process", "Raised", "Target", "check", "facts_of", "parse", "sysctl_path"]

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
    """

    name: str
    notes: list[str]

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


def parse(text: str) -> Target:
    """Return the target that `text` names.

    Parameters
    ----------
    text : str
        ``local``, or ``guest:IMAGE`` with, if need be, ``,cpus=4``, ``,memory=4G``,
        ``,accel=tcg``, ``,modules=DIRECTORY`` and ``,append=WORDS`` behind it; see
        `anonvma.target.guest.Guest`. Or ``ssh:HOST`` with, if need be, ``,sudo=no``,
        ``,probe=PATH``, ``,config=FILE``, ``,patience=SECONDS`` and ``,wait=SECONDS``; see
        `anonvma.target.ssh`.

    Raises
    ------
    TargetError
        For anything else, and when there is no such target.
    """
    kind, where, options = _taken_apart(text)
    if kind == "guest":
        from anonvma.target.guest import Guest  # which needs this module

        return Guest(where, **options)
    if kind == "ssh":
        from anonvma.target.ssh import Ssh  # likewise

        return Ssh(where, **options)
    return Local()


def check(text: str) -> None:
    """Refuse a target that cannot be one, without a look at the target itself.

    Raises
    ------
    TargetError
        The sentence that `parse` would raise: no such kind, option or image, or no QEMU.
    """
    kind, where, _ = _taken_apart(text)
    if kind == "guest":
        from anonvma.target import kernel_image, qemu

        kernel_image.open_image(where)
        qemu.find()
    if kind == "ssh":
        from anonvma.target import ssh_connection

        ssh_connection.check_host(where)


# For each kind of target but the local one: what it is called, and its options.
_KINDS = {
    "guest": ("a guest", ("cpus", "memory", "accel", "modules", "append")),
    "ssh": ("an ssh target", ("sudo", "probe", "config", "patience", "wait")),
}


def _taken_apart(text: str) -> tuple[str, str, dict[str, Any]]:
    """Return the kind of a target, where it is, and its options."""
    kind, _, rest = text.partition(":")
    if text == "local":
        return text, "", {}
    if kind not in _KINDS:
        told = hint(kind, ["local", *_KINDS], "use 'local', 'guest:IMAGE' or 'ssh:HOST'.")
        raise TargetError(f"target {text!r} is not known: {told}")
    where, options = _options(text, rest, *_KINDS[kind])
    if kind == "guest" and not where:
        raise TargetError(f"target {text!r} names no image: write guest:PATH-OF-A-KERNEL-IMAGE.")
    return kind, where, options


def _options(text: str, rest: str, kind: str, known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Take apart what follows the kind; a comma belongs to the path unless a name follows it."""
    first, *words = re.split(r",(?=[a-z]+=)", rest)
    options: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known or name in options:
            every = f"{kind} takes {', '.join(known)}."
            why = f"is given twice; {every}"
            if name not in known:
                why = f"is not known: {hint(name, known, every)}"
            raise TargetError(f"target {text!r}: {name} {why}")
        options[name] = value
    return first, options


# ---- this machine ----

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
        path.write_bytes(b"".join(b"%s=%s\0" % pair for pair in os.environb.items()))
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
        path = shutil.which(program)
        return path and os.path.abspath(path)  # not resolve(), which would follow links

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
        else:  # a privileged command made it for its own eyes
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

        A guardian process raises it and puts it back when its standard input ends: at the end of
        the block, or when we are killed. It leaves alone what someone else has changed meanwhile.
        Of several runs on one machine only one raises a sysctl at a time; the others wait for it,
        and say for whom. What a guardian that was killed itself left raised, the next puts back.

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
        with self._guarded(path, name, value, present) as raised:
            yield raised

    @contextmanager
    def _guarded(self, path: Path, name: str, value: int, present: int) -> Iterator[Raised]:
        if value <= 0 or (present >= value and not self._may_be_root()):
            yield Raised(name, present, present)
            return
        guardian = self._guardian(path, value)
        with guardian:
            said = guardian.answer()
            while note := before_raising(name, said):
                if said.startswith("recovered "):
                    self.notes.append(note)
                sys.stderr.write(f"anonvma: {note}\n")
                said = guardian.answer()
            if not said.startswith("raised "):
                if present >= value and not said.startswith("process "):  # no sudo, no /run
                    yield Raised(name, present, present)
                    return
                raise TargetError(f"cannot raise {name} to {value}: {said}.")
            old, new = map(int, said.split()[1:])
            raised = Raised(name, old, new)
            try:
                yield raised
            finally:
                raised.note = guardian.dismiss(raised)
                if raised.note:
                    self._put_back_after(path, raised)

    def _may_be_root(self) -> bool:
        return os.geteuid() == 0 or shutil.which("sudo") is not None

    def _put_back_after(self, path: Path, raised: Raised) -> None:
        """Have a new guardian put back what ours, which somebody killed, has left raised."""
        with self._guardian(path, 0) as guardian:
            said = guardian.answer()
            raised.note = put_back_after(raised, said) or raised.note

    def _guardian(self, path: Path, value: int) -> _Guardian:
        sudo = self._sudo()
        # In a session of its own a signal to our process group does not reach it.
        session = ["setsid", "--wait"] if sudo else []
        argv = [*sudo, *session, "sh", "-c", _GUARDIAN, "sh", str(path), str(value)]
        argv += [_LOCKS, str(os.getpid()), f"{_PATIENCE:g}"]
        return _Guardian(
            subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=not sudo,
            )
        )


# ---- sysctls ----

_LOCKS = "/run/anonvma"
"""Where root keeps what it has raised, and the locks on that. Nobody else can open these: on a file
that can be read, such as the sysctl's own, anybody can hold a lock."""

# The only place that puts a sysctl back. It writes down what it will have raised before it does, so
# that whoever comes next can put it back if this shell is killed; the lock goes with it. Read
# through cat, and again if cat was killed: a shell's own read asks for a byte at a time, and a
# sysctl gives only its first read anything.
_GUARDIAN = r"""
trap '' INT TERM HUP PIPE
umask 077
look() { value=; until [ -n "$value" ]; do value=$(cat "$1"); done; }
mkdir -p "$3" || exit 1
if [ -L "$3" ] || [ ! -O "$3" ]; then echo "$3 is not root's"; exit 1; fi
chmod 700 "$3" && exec 9>>"$3/${1##*/}" || exit 1
noted="$3/${1##*/}"
if ! flock -n 9; then
	was=; who=; read -r was left who <"$noted"
	if [ "${was:-0}" -ge "$2" ]; then  # enough whether or not it is put back meanwhile
		look "$1"
		echo "raised $value $value"
		while read -r line; do :; done
		echo "restored $value"
		exit 0
	fi
	echo "waiting ${who:-?}"
	flock -w "$5" 9 || { echo "process ${who:-?} still has it raised"; exit 1; }
fi
was=; read -r was left who <"$noted"
if [ -n "$was" ]; then
	look "$1"
	if [ "$value" = "$left" ] && printf '%s\n' "$was" >"$1"; then echo "recovered $was $left"; fi
	: >"$noted"
fi
look "$1"; old=$value
if [ "$old" -ge "$2" ]; then
	flock -u 9
	echo "raised $old $old"
	while read -r line; do :; done
	echo "restored $old"
	exit 0
fi
echo "$old $2 $4" >"$noted"
printf '%s\n' "$2" >"$1" || { : >"$noted"; exit 1; }
echo "raised $old $2"
while read -r line; do :; done
look "$1"
if [ "$value" != "$2" ]; then : >"$noted"; echo "changed $value"; exit 0; fi
printf '%s\n' "$old" >"$1" && : >"$noted" && echo "restored $old"
"""

_PATIENCE = 60.0  # seconds that a run waits for another that has a sysctl raised
_SYSCTL_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class _Guardian:
    """The process that runs `_GUARDIAN`."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pipes = popen  # a context manager that closes them and waits

    def __enter__(self) -> _Guardian:
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


# ---- the work directory ----


def _make_work_directory() -> Path:
    work = scratch.make("work")
    if os.statvfs(work).f_flag & os.ST_NOEXEC:
        work.rmdir()
        raise TargetError(
            f"{work.parent} is mounted noexec, so no program can be run from there; "
            "set TMPDIR to another directory."
        )
    return work


# ---- facts ----


def facts_of(target: Target, kind: str) -> dict[str, Any]:
    """Describe a target by what matters to a measurement.

    Neither a host name nor a user, path, address or boot id is among it: a run is to be shared.

    Parameters
    ----------
    target : Target
        Where to look, through nothing but its `read`: a guest has no programs to ask.
    kind : str
        What kind of target it is.

    Returns
    -------
    dict
        ``kind``, ``kernel_release``, ``architecture``, ``cpus`` (online), ``cpu_model``,
        ``memory_bytes``, ``page_size`` (bytes), ``thp`` (the chosen word of transparent huge
        pages), ``overcommit_memory``, ``max_map_count``, ``config_sha256`` (of the kernel's
        configuration, the text of /proc/config.gz), ``config`` (those of its options that matter
        here, such as ``PER_VMA_LOCK``, "n" where unset); None where the target does not tell.
    """
    cpuinfo = _fields(target.read("/proc/cpuinfo"))
    memory = _fields(target.read("/proc/meminfo"))
    mapping = _fields(target.read("/proc/self/smaps"))  # the first one, of the reader's program
    return {
        "kind": kind,
        "kernel_release": target.read("/proc/sys/kernel/osrelease").decode().strip(),
        "architecture": _text(target, "/proc/sys/kernel/arch"),
        "cpus": _count(target.read("/sys/devices/system/cpu/online")),
        "cpu_model": cpuinfo.get("model name") or cpuinfo.get("cpu") or cpuinfo.get("uarch"),
        "memory_bytes": int(memory["MemTotal"].split()[0]) * 1024,
        "page_size": int(mapping["KernelPageSize"].split()[0]) * 1024,
        "thp": _chosen(target, "/sys/kernel/mm/transparent_hugepage/enabled"),
        "overcommit_memory": int(target.read("/proc/sys/vm/overcommit_memory")),
        "max_map_count": int(target.read("/proc/sys/vm/max_map_count")),
        **_configuration(target),
    }


# What changes the ways of a page fault, or what each costs.
_OPTIONS = (
    "PER_VMA_LOCK",
    "PER_VMA_LOCK_STATS",
    "TRANSPARENT_HUGEPAGE",
    "ANON_VMA_NAME",
    "USERFAULTFD",
    "KSM",
    "MEMCG",
    "NUMA",
    "PREEMPT",
    "PREEMPT_DYNAMIC",  # then it is chosen at boot, and PREEMPT tells little
    "PREEMPT_LAZY",
    "PREEMPT_NONE",
    "PREEMPT_RT",
    "PREEMPT_VOLUNTARY",
    "DEBUG_VM",
    "PROVE_LOCKING",
    "KASAN",
)


def _configuration(target: Target) -> dict[str, Any]:
    """Describe the configuration that the target's kernel was built with, where it tells."""
    try:
        text = gzip.decompress(target.read("/proc/config.gz"))
    except (TargetError, OSError, EOFError):  # built without CONFIG_IKCONFIG_PROC
        return {"config_sha256": None, "config": None}
    found = dict(re.findall(rb"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))
    chosen = {name: found.get(name.encode(), b"n").decode() for name in _OPTIONS}
    return {"config_sha256": hashlib.sha256(text).hexdigest(), "config": chosen}


def _fields(text: bytes) -> Mapping[str, str]:
    """Return the first value of each ``name : value`` line."""
    found: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _text(target: Target, path: str) -> str | None:
    try:
        return target.read(path).decode(errors="replace").strip()
    except TargetError:  # a kernel without it
        return None


def _count(ranges: bytes) -> int:
    """Return how many numbers a list such as ``0-3,8`` has."""
    edges = [part.split(b"-") for part in ranges.strip().split(b",")]
    return sum(int(edge[-1]) - int(edge[0]) + 1 for edge in edges)


def _chosen(target: Target, path: str) -> str | None:
    """Return the bracketed word of a file such as ``always [madvise] never``."""
    match = re.search(r"\[(\w+)\]", _text(target, path) or "")
    return match and match[1]
