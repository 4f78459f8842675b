# SPDX-License-Identifier: GPL-2.0-only
r"""A machine that OpenSSH reaches, as a target.

``ssh:HOST`` runs the user's own ``ssh`` with the user's own configuration, so that whatever ``ssh
HOST`` does without asking works here: names of ``~/.ssh/config``, jump hosts, agents, certificates.
One connection is made and kept. Over it goes a static program of ours, ``anonvma-agent``, which
speaks the protocol that a guest's init speaks (`anonvma.target.link`); the machine needs Linux, a
``sh`` and a few tools of coreutils or busybox (``head``, ``id``, ``mktemp``, ``sha256sum``), and
gets neither Python nor a compiler.

**What it promises.** What is copied there is copied once and checked by its SHA-256, and so is what
comes back. The machine is ours alone as long as we are connected: others wait, and are told for
whom (`Ssh`, ``wait``); but who has privilege there waits only for others who have it. When the
connection ends, in whatever way, or nothing has been heard from us for ``patience`` seconds, the
agent there kills what it started, puts settings back, removes its directory and ends. A machine
that does not answer for as long is lost (`TargetLost`), which is apart from a command that fails
there (`TargetError`).

**Privilege**, in one of three ways:

*root*
    ``ssh:root@HOST``. Nothing else to do.
*sudo*, without a terminal and without a password
    The agent runs under ``sudo -n``; the workload still runs as the user. Either a user who may do
    anything, ``USER ALL=(root) NOPASSWD: ALL``, or one who may run this agent, wherever it lies,
    known by its SHA-256 (sudo 1.9 or later)::

        USER ALL=(root) NOPASSWD: sha256:HASH ALL

    with HASH from ``sha256sum build/anonvma-agent``. **Either is full root**: the agent starts and
    writes whatever it is asked to, so the second rule is no fence around the first. It only keeps
    the password from being asked for this one program. ``,sudo=no`` never asks sudo.
*capabilities* of a probe that is installed there
    ::

        ssh root@HOST '
            umask 077 && cat >/usr/local/bin/.vmaprobe.new &&
            chown root:lab /usr/local/bin/.vmaprobe.new && chmod 750 /usr/local/bin/.vmaprobe.new &&
            setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_dac_read_search+ep \
                /usr/local/bin/.vmaprobe.new &&
            mv /usr/local/bin/.vmaprobe.new /usr/local/bin/vmaprobe' <build/vmaprobe

    and ``ssh:HOST,probe=/usr/local/bin/vmaprobe``. Everything runs as the user, perf too, which
    then sees what ``kernel.perf_event_paranoid`` lets it see; no sysctl can be raised. The probe
    has to be the one that was built here, by its SHA-256. It goes through the connection and never
    through /tmp: whoever has a file of that name there first has his own program installed.

No host name, user name or address gets into a run: its manifest says ``ssh`` and how privilege was
had.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anonvma.base.errors import PrivilegeError, TargetError
from anonvma.target import wire
from anonvma.target.facts import facts_of
from anonvma.target.link import Link
from anonvma.target.remote import Remote, console_line
from anonvma.target.ssh_connection import AGENT, Connection
from anonvma.target.ssh_host import check_host
from anonvma.target.sysctl import Guard, held, sysctl_path
from anonvma.target.target import Raised

_PROBE = "vmaprobe"

LINK_NOTE = (
    "The target was reached over ssh: the wall time of a workload that holds its mappings includes "
    "one round trip of the connection, {milliseconds:.1f} ms when it began."
)
CAPABILITIES_NOTE = (
    "On the target only the probe was privileged, by its file capabilities: perf ran as the user, "
    "and sees no more than kernel.perf_event_paranoid lets it."
)

Say = Callable[[str], None]


class Ssh(Remote):
    """A machine that ``ssh HOST`` reaches without asking anything.

    Parameters
    ----------
    host : str
        What the command ``ssh`` calls it: a name of ``~/.ssh/config``, ``user@host``, an address,
        or ``ssh://user@host:port``.
    sudo : str
        ``yes``, to use ``sudo -n`` where the user is not root, or ``no``.
    probe : str, optional
        Path, on the target, of a probe that has been given capabilities; then sudo is not asked.
    config : path, optional
        Configuration for ssh instead of the user's own.
    patience : int or str
        Seconds without a sign of life after which either side gives the other up.
    wait : int or str
        Seconds to wait, at most, while somebody else uses the target.
    say : callable, optional
        Told in a sentence what is waited for; by default standard error is.

    Raises
    ------
    TargetError
        The host cannot be used: its name is none, its key or ours is refused, something is missing
        there, or somebody else has used it all the time.
    TargetLost
        It did not answer, or ceased to.
    """

    name = "ssh"
    where = "on the target"

    def __init__(
        self,
        host: str,
        *,
        sudo: str = "yes",
        probe: str | None = None,
        config: str | Path | None = None,
        patience: int | str = 30,
        wait: int | str = 3600,
        say: Say | None = None,
    ) -> None:
        self._host = check_host(host)
        if sudo not in ("yes", "no"):
            raise TargetError(f"sudo {sudo!r} is not known: use yes or no.")
        if probe is not None and not probe.startswith("/"):
            raise TargetError(f"probe {probe!r} is not a path on the target that begins with '/'.")
        self._probe = probe
        self._patience, longest = _seconds("patience", patience, 2), _seconds("wait", wait, 0)
        self._say = say or _to_stderr
        self.notes: list[str] = []
        self._found: dict[str, str] = {}
        self._pushed: dict[Path, str] = {}
        self._connection = Connection(
            self._host, config, self._patience, "yes" if sudo == "yes" and not probe else "no"
        )
        try:
            self.work, self.agent = self._connection.work, f"{self._connection.work}/{AGENT}"
            self._claim(longest)
            self._round_trip_s = self._measure_round_trip()
        except BaseException:
            self.close()
            raise
        self.notes.append(LINK_NOTE.format(milliseconds=self._round_trip_s * 1e3))
        if self._probe:
            self.notes.append(CAPABILITIES_NOTE)

    @property
    def link(self) -> Link:
        """The link to the agent."""
        return self._connection.link

    def close(self) -> None:
        """Have the agent stop what still runs, clear up and end."""
        if not self._connection.close():
            self._say(
                "the target has not confirmed that it is cleared up; its agent does so by itself "
                f"{self._patience} s after the last it heard of us."
            )

    def _claim(self, wait: int) -> None:
        """Have the target for ourselves, once those who have it now are done."""
        begun, told = time.monotonic(), ("", "")
        self.link.claim()
        while (busy := self.link.wait_for_claim(0.5)) is not None:
            waited = time.monotonic() - begun
            holder, minutes, running = _holder(busy)
            if busy and (holder, running) != told:
                told = (holder, running)
                self._say(
                    f"waiting for the target: {holder} has used it for {minutes} min"
                    f"{f' ({running} runs now)' if running else ''}."
                )
            if busy and waited > wait:
                raise TargetError(
                    f"somebody else used the target all the {wait} s that we waited: try again "
                    "later, or wait longer by wait=SECONDS."
                )

    def _measure_round_trip(self) -> float:
        times = []
        for _ in range(3):
            begun = time.monotonic()
            self._tool("true")
            times.append(time.monotonic() - begun)
        return min(times)

    # ---- as any target ----

    def which(self, program: str) -> str | None:
        """Return the path that `program` would run from, or None."""
        if program not in self._found:
            if "/" in program:
                number, path = self._tool("executable", program)[0], program
            else:
                number, said = self._tool("which", program)
                path = os.fsdecode(said.rstrip(b"\n"))
            if number:
                return None
            self._found[program] = path
        return self._found[program]

    def push(self, path: Path) -> str:
        """Copy a file into the work directory and return its path there; a second time, only that.

        The probe is not copied where one that has capabilities is to be used.

        Raises
        ------
        TargetError
            When the file cannot be read or copied, or when the installed probe is another one.
        """
        if path in self._pushed:
            return self._pushed[path]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TargetError(f"cannot copy {path}: {error.strerror}.") from None
        if self._probe and path.name == _PROBE:
            there = self._probe
            if self._hash(there) != hashlib.sha256(content).hexdigest():
                raise TargetError(
                    f"the {there} of the target is not the {_PROBE} that was built here: install "
                    "this one there, and give it its capabilities again."
                )
        else:
            there = self.place(path.name)
            if there in (self.agent, *self._pushed.values()):
                there = self.place(f"{len(self._pushed)}-{path.name}")
            self._put(there, content, "700")
        self._pushed[path] = there
        return there

    def facts(self) -> dict[str, Any]:
        """Describe the target by what matters to a measurement; see `facts_of`.

        Beside those: ``privilege`` (root, sudo, capabilities, none), ``link_round_trip_s``.
        """
        return facts_of(self, "ssh") | {
            "privilege": self._privilege,
            "link_round_trip_s": self._round_trip_s,
        }

    @property
    def _privilege(self) -> str:
        if self._probe:
            return "capabilities"
        return {"user": "none"}.get(self._connection.privilege, self._connection.privilege)

    def require_privilege(self) -> None:
        """Raise PrivilegeError, with what is lacking, unless privileged commands can be run."""
        if self._privilege != "none":
            return
        said = self._connection.sudo_said
        why = f"sudo does not give it ({said})" if said else "sudo is not to be asked"
        raise PrivilegeError(
            f"observing VMAs needs privilege, and the user on the target is not root and {why}: "
            "log in as root, let the user run sudo without a password or a terminal, or name a "
            "probe that has capabilities (probe=PATH); 'pydoc anonvma.target.ssh' tells how."
        )

    def as_caller(self) -> list[str]:
        """Return the words that, before a command inside a privileged one, make it the user's."""
        if self._privilege != "sudo":
            return []
        return [self.agent, "as", self._connection.user]

    @contextmanager
    def sysctl_at_least(self, name: str, value: int) -> Iterator[Raised]:
        """Have the sysctl `name` at `value` or more while the block runs, and put it back.

        A guard on the target does both; it puts it back when the connection ends, too, and leaves
        alone what someone else has changed meanwhile. Of several runs there only one raises it at a
        time; what a guard that was killed has left raised, the next puts back.

        Raises
        ------
        TargetError
            When it cannot be raised.
        """
        path = str(sysctl_path(name))
        present = int(self.read(path))
        if value <= 0:
            yield Raised(name, present, present)
            return

        def otherwise(said: str) -> Raised:
            hint = "; raise it there before, as root" if self._privilege != "root" else ""
            raise TargetError(
                f"cannot raise {name} from {present} to {value} on the target: {said}{hint}."
            )

        guard = functools.partial(self._guard, path)
        with held(
            guard, name, value, say=self._say, notes=self.notes, otherwise=otherwise
        ) as raised:
            yield raised

    def _guard(self, path: str, value: int) -> Guard:
        streams = (subprocess.PIPE, subprocess.PIPE, subprocess.DEVNULL)
        return Guard(self.link.start([path, str(value)], *streams, wire.AS_GUARD))


# ---- words ----


def _seconds(what: str, value: int | str, least: int) -> int:
    if not re.fullmatch(r"\d{1,6}", str(value)) or int(value) < least:
        raise TargetError(f"{what} {value!r} is not a whole number of seconds, {least} or more.")
    return int(value)


def _holder(busy: bytes) -> tuple[str, int, str]:
    """Return who has the target, for how many minutes, and what runs there.

    The name is told on a terminal alone: what a notebook shows is kept, and may be published.
    """
    match = re.fullmatch(r"([\w@.-]{1,64}) (\d{1,9}) (.*)", busy.decode(errors="replace"))
    if not match:
        return "somebody", 0, ""
    name = match[1] if sys.stderr.isatty() else "somebody"
    return name, int(match[2]) // 60, console_line(match[3])


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"anonvma: {sentence}\n")
    sys.stderr.flush()
