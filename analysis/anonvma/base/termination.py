# SPDX-License-Identifier: GPL-2.0-only
"""Ending when asked to, in the middle of a notebook, with nothing left behind.

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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from anonvma.base import scratch as scratches

__all__ = ["end_children", "scratch"]

_GRACE = 5.0  # seconds that the kernel has to remove what is unfinished


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
