# SPDX-License-Identifier: GPL-2.0-only
"""The connection to a machine: an ssh that runs, and our agent at its other end.

Nothing here is a line for a shell but the one that the login shell there is given, which is fixed;
its words are of letters and digits.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import re
import select
import shlex
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from anonvma.base import paths
from anonvma.base.errors import TargetError, TargetLost, TargetTimeout
from anonvma.target.link import CLOSED, ENDED, Link
from anonvma.target.local import Local
from anonvma.target.remote import console_line
from anonvma.target.target import Process

AGENT = "anonvma-agent"
"""Our program there; ``analysis/guest/agent.c``."""

_BEAT = 2.0  # seconds of our silence after which the agent is told that we are there
_AHEAD = 1 << 20  # bytes of an output stream on their way: a network has round trips
_CLEARING = 25.0  # seconds that the agent has to clear up at an orderly end
_LOST_CLEARING = 2.0  # and when it is lost, which may not mean that it does not hear us
_MOST_NOISE = 1 << 16  # bytes that a login shell may say before our own first word

# Run by the login shell there, whichever that is: within single quotes neither sh, csh nor fish
# takes anything apart, as long as there is no quote, backslash, exclamation mark or newline. Its
# words ($1 ...) are digits and letters. It makes a directory in which programs can be run, reads
# the agent from its input, and becomes it.
_BOOTSTRAP = (
    # A client that is gone must not end it before it has removed its directory.
    'trap : PIPE; trap "" HUP; m=$(umask); umask 077; '
    "for d in /tmp /var/tmp /dev/shm; do "
    "w=$(mktemp -d $d/anonvma-agent.XXXXXXXXXX 2>/dev/null) || continue; "
    "a=$w/anonvma-agent; "
    "echo exit 0 >$a && chmod 700 $a && $a </dev/null 2>/dev/null && break; "
    "rm -rf $w; w=; "
    "done; "
    '[ "$w" ] || { echo anonvma-no-directory; exit 1; }; '
    'u=$(id -u):$(id -g):$(id -G | tr " " ,); '
    "echo anonvma-ready $w $(uname -s) $(uname -m) $u; "
    # A connection that dies just now is seen by sshd after hours.
    't=; command -v timeout >/dev/null && t="timeout 900"; '
    "$t head -c $1 >$a; "
    "h=$(sha256sum <$a); "
    '[ "${h%% *}" = $2 ] || { rm -rf $w; echo anonvma-damaged; exit 1; }; '
    "s=; "
    "if [ $(id -u) = 0 ]; then echo anonvma-serve root; umask $m; exec $a serve $w - $4 $5; fi; "
    "if [ $3 = yes ]; then "
    "$a environment >$w/environment; "
    "if s=$(sudo -n -- $a true 2>&1 </dev/null); "
    "then echo anonvma-serve sudo; umask $m; exec sudo -n -- $a serve $w $u $4 $5; fi; "
    "rm -f $w/environment; "
    "fi; "
    'echo anonvma-serve user $(echo "$s" | tail -n 1); umask $m; exec $a serve $w - $4 $5'
)


class Connection:
    """An ssh that runs, kept as any command of `Local` is, and the link to the agent behind it.

    Attributes
    ----------
    work : str
        The agent's directory.
    user : str
        UID:GID:GROUP,... of who has logged in.
    privilege : str
        ``root``, ``sudo`` or ``user``.
    sudo_said : str
        Why sudo gave nothing, if it was asked.
    link : Link
        To the agent.
    """

    def __init__(self, host: str, config: str | Path | None, patience: int, sudo: str) -> None:
        self._host, self._patience = host, patience
        self._ending = ExitStack()
        self._local = self._ending.enter_context(Local())
        self._closed = False
        self._said = Path(self._local.place("ssh.log"))
        try:
            content = paths.program(AGENT).read_bytes()
            command = _remote_command(content, sudo, patience)
            self._ssh = self._start([*_client(self._local, config, patience), "--", host, command])
            self.work, self.user = self._prepare()
            self._send(content)
            self.privilege, self.sudo_said = self._begin()
            self.link = self._connect()
        except BaseException:
            self._ending.close()
            raise

    def _start(self, argv: list[str]) -> Process:
        with self._said.open("wb") as said:
            started = self._local.start(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        self._ending.enter_context(started)
        assert started.stdin is not None and started.stdout is not None
        self._in, self._out = started.stdout.fileno(), started.stdin.fileno()
        os.set_blocking(self._out, False)
        return started

    # ---- until the agent runs ----

    def _prepare(self) -> tuple[str, str]:
        """Have a directory made there; its path, and who we are there."""
        _, *words = self._word("anonvma-ready", "anonvma-no-directory")
        if not words:
            raise TargetError(
                f"{self._host} has no directory to put a program in and run it: /tmp, /var/tmp and "
                "/dev/shm are full, not writable or mounted noexec; remount one of them."
            )
        match = re.fullmatch(
            r"(/[a-z/]+/anonvma-agent\.\w+) (\S+) (\S+) (\d+:\d+:[\d,]+)", " ".join(words)
        )
        if not match:
            raise TargetError(
                f"the shell on {self._host} said something unexpected: "
                f"{console_line(' '.join(words))}."
            )
        system, machine = match[2], match[3]
        if system != "Linux" or machine != platform.machine():
            raise TargetError(
                f"{self._host} runs {console_line(system)} on {console_line(machine)}; the "
                f"programs here were built for Linux on {platform.machine()}: use a machine like "
                "that."
            )
        return match[1], match[4]

    def _send(self, content: bytes) -> None:
        """Send the agent, as fast as the connection takes it."""
        while content:
            _, writable, _ = select.select([], [self._out], [], self._patience)
            if not writable:
                raise self._no_answer(f"it took nothing for {self._patience} s")
            try:
                content = content[os.write(self._out, content[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._refused() from None

    def _begin(self) -> tuple[str, str]:
        """Have the agent started: what privilege it has, and what sudo said."""
        word, *words = self._word("anonvma-serve", "anonvma-damaged")
        if word == "anonvma-damaged":
            raise TargetError(
                f"the agent did not arrive on {self._host} as it was sent: make sure that "
                "its /tmp has room and that it has sha256sum."
            )
        privilege = words[0] if words else ""
        if privilege not in ("root", "sudo", "user"):
            raise TargetError(f"the shell on {self._host} said something unexpected.")
        return privilege, console_line(" ".join(words[1:]))

    def _connect(self) -> Link:
        ends = [(self._in, self._out)]
        link = Link(ends, self._patience, self._explain, "on the target", _BEAT, _AHEAD)
        try:
            if link.wait_for_hello(self._patience) is None:
                raise self._no_answer(f"its agent said nothing for {self._patience} s")
        except BaseException:
            link.close()
            raise
        return link

    def _word(self, *wanted: str) -> list[str]:
        """Return the words of the line that begins with one of those, whatever comes before it.

        Read a byte at a time: what follows is not ours.
        """
        deadline = time.monotonic() + 2 * self._patience
        line, noise = bytearray(), 0
        while noise < _MOST_NOISE:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise self._no_answer(f"it said nothing for {2 * self._patience} s")
            byte = os.read(self._in, 1)
            if not byte:
                raise self._refused()
            noise += 1
            if byte != b"\n":
                line += byte
                continue
            words = line.decode(errors="replace").split()
            if words and words[0] in wanted:
                return words
            line.clear()
        raise TargetError(
            f"the login shell on {self._host} says too much before it runs a command: have its "
            "start-up files say nothing when there is no terminal."
        )

    # ---- what goes wrong ----

    def _no_answer(self, cause: str) -> TargetLost:
        return TargetLost(f"{self._host} does not answer: {cause}.", cause=cause)

    def _log(self) -> list[str]:
        """Return what ssh and what runs there have said to standard error."""
        text = self._said.read_text(errors="replace")
        return [line for line in map(console_line, text.splitlines()) if line]

    def _refused(self) -> TargetError:
        """Return the error for an ssh that ended before the agent ran."""
        with suppress(TargetTimeout):
            self._ssh.wait(10)
        return _explained(self._host, self._log(), self._ssh.poll())

    def _explain(self, how: str) -> TargetLost:
        """Return the error that says why the target is lost; it names no host, for it is kept."""
        if how == ENDED:
            cause = self._how_it_ended()
        else:
            cause = "the connection was closed here" if how == CLOSED else f"it {how}"
        return TargetLost(
            f"the ssh target is lost: {cause}. What ran there ends by itself within "
            f"{self._patience} s.",
            cause=cause,
        )

    def _how_it_ended(self) -> str:
        with suppress(TargetTimeout):
            self._ssh.wait(5)
        log = self._log()
        ours = [line for line in log if line.startswith(f"{AGENT}: ")]
        if ours:
            return ours[-1].removeprefix(f"{AGENT}: ")
        if any("not responding" in line for line in log):
            return "the connection went dead"
        if self._ssh.poll() in (None, 255) or any("closed by" in line for line in log):
            return "the connection was cut (a reboot, a panic, the network, or sshd)"
        return f"its agent ended (status {self._ssh.poll()})"

    # ---- the end ----

    def close(self) -> bool:
        """End the session; False if the agent did not say that it has cleared up."""
        if self._closed:
            return True
        self._closed = True
        patience = _LOST_CLEARING if self.link.lost else _CLEARING
        self.link.close()
        assert self._ssh.stdin is not None
        self._ssh.stdin.close()
        try:
            clean = self._ssh.wait(patience) == 0
        except TargetTimeout:
            clean = False
        finally:
            self._ending.close()
        return clean


def _client(local: Local, config: str | Path | None, patience: int) -> list[str]:
    """Return the command ``ssh`` with what a session without a person needs, and nothing more.

    -o takes precedence over the user's configuration, so only what would break us is said: it must
    not ask, run another command or forward, and should see a dead link about when we do.
    An existing master connection is used; none is made, for it would outlive us.
    """
    program = local.which("ssh")
    if program is None:
        raise TargetError(
            "reaching a host needs ssh, which is not here: install the package openssh-client."
        )
    if config is not None and not Path(config).is_file():
        raise TargetError(f"there is no ssh configuration {config}.")
    options = {
        "BatchMode": "yes",
        "RequestTTY": "no",
        "RemoteCommand": "none",
        "PermitLocalCommand": "no",
        "ClearAllForwardings": "yes",
        "ControlMaster": "no",
        "LogLevel": "ERROR",
        "ConnectTimeout": str(patience),
        "ServerAliveInterval": str(max(1, patience // 3)),
        "ServerAliveCountMax": "3",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [program, *(["-F", str(config)] if config is not None else []), "-a", "-x", *words]


def _remote_command(agent: bytes, sudo: str, patience: int) -> str:
    """Return the line for the login shell there: fixed, but for words of letters and digits."""
    digest = hashlib.sha256(agent).hexdigest()
    words = [str(len(agent)), digest, sudo, str(patience), _label()]
    assert all(shlex.quote(word) == word for word in words)
    return f"exec sh -c '{_BOOTSTRAP}' anonvma {' '.join(words)}"


def _explained(host: str, log: list[str], status: int | None) -> TargetError:
    """Return the error for a connection that was not to be had, from what ssh said of it."""
    said = log[-1] if log else f"it ended with status {status} and said nothing"
    for pattern, kind, sentence in _REASONS:
        found = [line for line in log if re.search(pattern, line)]
        if found:
            return kind(
                sentence.format(host=host, said=found[-1].removeprefix("ssh: ").rstrip("."))
            )
    return TargetError(f"no connection to {host}: {said.rstrip('.')}.")


_REASONS: tuple[tuple[str, type[TargetError], str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        TargetError,
        "the key of {host} is not the one that is known here: if it was installed anew, forget the "
        "old one by 'ssh-keygen -R {host}'; if not, somebody may be in between.",
    ),
    (
        "Host key verification failed|No .*host key is known",
        TargetError,
        "the key of {host} is not known here: connect once by 'ssh {host}', compare it, and accept "
        "it.",
    ),
    (
        "Permission denied|Too many authentication failures|no more authentication methods",
        TargetError,
        "{host} does not let this user in without asking ({said}): make 'ssh {host} true' work "
        "first, by ssh-copy-id or ssh-add.",
    ),
    (
        "Could not resolve|Name or service not known|nodename nor servname",
        TargetError,
        "there is no host {host} ({said}): spell it as ~/.ssh/config or DNS does.",
    ),
    (
        "Connection refused",
        TargetLost,
        "{host} does not answer ssh ({said}): make sure that sshd runs there, on that port.",
    ),
    (
        "timed out|No route to host|unreachable|Connection (reset|closed)|banner exchange"
        "|not responding|Broken pipe",
        TargetLost,
        "{host} does not answer ({said}): make sure that it is up, and the network.",
    ),
    (
        "anonvma-agent: ",
        TargetError,
        "the agent on {host} did not start ({said}).",
    ),
)


def _label() -> str:
    """Return for whom we work, for those who wait: letters and digits, whatever the names are."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    label = f"{user}@{socket.gethostname().partition('.')[0]}"
    return re.sub(r"[^A-Za-z0-9@._-]", "_", label)[:64]
