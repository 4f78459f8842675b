# SPDX-License-Identifier: GPL-2.0-only
"""A supervisor: kills a command, and all that it started, when the process that asked for it ends.

Run as a script, by its path, with nothing but the standard library::

    python3 -I -S supervisor.py LIFELINE ENVIRONMENT COMMAND [ARGUMENT...]

LIFELINE is a FIFO whose writing end the asker holds. When that end closes, because the asker wants
the command stopped or because the asker was killed in whatever way, everything the command started
is killed. The same is done with what the command leaves behind when it ends by itself. ENVIRONMENT
is a file of NUL-separated ``NAME=value``, removed once it is read: sudo clears the environment, and
a workload has to see its user's; empty, it is inherited. The keeper ends the way the command ended.

A keeper and not only PR_SET_PDEATHSIG, because that signal is forgotten at a change of privilege
(setpriv, sudo), and reaches the child alone: perf's child, and that child's children, would stay. A
process group would not do either, since a workload may make its own. As a *subreaper*
(PR_SET_CHILD_SUBREAPER) the keeper inherits every orphan below it, so "no child left" means that
nothing is left.

``anonvma-agent`` does the same behind ssh and in guests. Here it would have to be compiled before
a perf.data can be imported or `doctor` can say what is lacking; and it would stand between us and
the descriptors that are handed to a command, on which QEMU and ssh themselves run.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# Seconds for killed processes to go. One in uninterruptible sleep dies when it wakes, without us.
PATIENCE = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _environment(path: str) -> dict[bytes, bytes]:
    if not path:
        return dict(os.environb)
    with open(path, "rb") as file:
        pairs = (item.split(b"=", 1) for item in file.read().split(b"\0") if item)
        found = {name: value for name, value in pairs}
    os.unlink(path)
    return found


def _become(argv: list[str], environment: dict[bytes, bytes], keeper: int) -> None:
    """Turn the forked child into the command; return only by ending."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:  # it died before the line above could take effect
        os._exit(127)
    # Python ignores these, and an ignored signal stays ignored across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        os.write(2, f"cannot run {argv[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
    os._exit(127)


def _descendants() -> set[int]:
    """Return the process ids of everything below this process, zombies included."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The name in brackets may hold anything, brackets too; the parent is two after it.
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        parents.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo += children
    return found


def _reap(child: int) -> tuple[int | None, bool]:
    """Reap what has ended: the child's wait status if it is there, and whether anything is left."""
    status = None
    while True:
        try:
            pid, value = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, False
        if pid == 0:
            return status, True
        if pid == child:
            status = value


def _clear(child: int) -> int | None:
    """Kill everything below us, again and again, since some may fork while we look."""
    deadline = time.monotonic() + PATIENCE
    status, left = _reap(child)
    while left and time.monotonic() < deadline:
        for pid in _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # gone, or not ours to kill: wait
                continue
        time.sleep(0.002)
        ended, left = _reap(child)
        status = ended if ended is not None else status
    return status


def _cut(lifeline: int) -> bool:
    """Tell whether the lifeline's other end is closed."""
    try:
        return os.read(lifeline, 1) == b""
    except BlockingIOError:
        return False


def _watch(child: int, lifeline: int, alarm: int) -> int | None:
    """Wait until the command ends (its wait status) or the lifeline is cut (None)."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(alarm, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if alarm in ready:
            os.read(alarm, 4096)
        status, _ = _reap(child)
        if status is not None:
            return status
        if lifeline in ready and _cut(lifeline):
            return None


def _end_like(status: int) -> None:
    """End with the exit status, or by the signal, that the command ended with."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, 0)
        )  # the command has dumped its core if it was to
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def main(arguments: list[str]) -> None:
    """Keep one command; see the module's text."""
    fifo, environment, *argv = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.getsid(0) != os.getpid():
        os.setsid()  # Ctrl-C in the terminal reaches the asker alone, who then cuts the lifeline
    # Without O_NONBLOCK the open would wait for ever if the asker is dead already.
    lifeline = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if _cut(lifeline):
        os._exit(127)
    variables = _environment(environment)
    alarm, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _become(argv, variables, keeper)
    for fd in (0, 1):  # the command's alone: the other side of a pipe must see it closed
        os.close(fd)
    status = _watch(child, lifeline, alarm)
    cleared = _clear(child)
    _end_like(status if status is not None else cleared if cleared is not None else signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
