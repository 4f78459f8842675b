# SPDX-License-Identifier: GPL-2.0-only
"""Ending when asked to, in the middle of an import or of a notebook, with nothing left behind.

papermill waits for the running cell whatever exception a signal handler raises under it,
so the handler ends the process itself: it lets the notebook's kernel clear up, removes the
scratch directory, and is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from anonvma.base import scratch as scratches

_GRACE = 5.0  # seconds that the kernel has to remove what is unfinished
_IMPORT = vars(sys.modules["_frozen_importlib"])
_AGAIN = 0.02  # seconds until an interrupt that came during an import is looked at again


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C unwind the block, though no import within it: KeyboardInterrupt, but later.

    What is imported half may catch any exception and tell another (numpy makes an ImportError of
    it), and what Python itself calls, such as a finalizer, prints it and goes on. A library that
    looks for signals may tell it in an error of its own, as DuckDB does: that is an interrupt, too.
    Outside the block an interrupt does what it did before.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield
        return
    hook, raised = sys.unraisablehook, False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            raised = True
            raise KeyboardInterrupt

    def unraisable(what: sys.UnraisableHookArgs, /) -> None:
        if what.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            hook(what)

    alarm = signal.signal(signal.SIGALRM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = unraisable
    try:
        yield
    except Exception as error:
        if raised:
            raise KeyboardInterrupt from error
        raise
    finally:
        waiting, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = hook
        if waiting:
            signal.raise_signal(signal.SIGINT)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals is _IMPORT:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory that goes away with us, whether we finish or are interrupted.

    SIGINT, SIGTERM and SIGHUP end the process at once, from here on.
    """
    directory = scratches.make("report")

    def end(number: int, frame: object) -> NoReturn:
        end_children()
        scratches.remove_all()
        sys.stderr.write("\nanonvma: interrupted; nothing unfinished is kept.\n")
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def end_children() -> None:
    """Ask our children to end, wait a little until they have, and kill those that have not."""
    tasks = Path("/proc/self/task").glob("*/children")
    waiting = {int(pid) for task in tasks for pid in task.read_text().split()}
    for pid in waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while waiting and time.monotonic() < deadline:
        waiting = {pid for pid in waiting if _runs(pid)}
        time.sleep(0.02)
    for pid in waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # somebody else has waited for it
        return False


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came; like KeyboardInterrupt it passes every handler of errors."""


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block, so that nothing is left, before they end us.

    Only where they would end us at once, and in the main thread, which alone may say so. SIGKILL
    leaves to the next run what is not taken care of by others: an unfinished run's directory.
    """
    came: list[int] = []

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        came.append(number)
        raise _Terminated

    ours = [
        number
        for number in (int(signal.SIGTERM), int(signal.SIGHUP))
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in ours:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        for received in came:
            os.kill(os.getpid(), received)
