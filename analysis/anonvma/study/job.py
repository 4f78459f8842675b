# SPDX-License-Identifier: GPL-2.0-only
"""One job of a study: the process that executes its notebook and decides whether it is done.

Snakemake runs, in the study's directory, here or on a node of a cluster::

    python -m anonvma.study.job NAME ATTEMPT

A job is done when ``cells/NAME`` is a run that validates and its ``cell.json`` has the key that
the plan wants; nothing else counts, no exit status and no marker of Snakemake's. Until then all of
it, run, executed notebook and log, lies in ``work/NAME``, and becomes ``cells/NAME`` by one rename.
So a job is there whole or not at all, whichever process is killed. A lock is held while it runs, so
that it never runs twice; what a killed process left in ``work`` is deleted by the next.

What Snakemake is not trusted with, and why: it tells what is out of date by the times of files,
where a job is out of date when its kernel, notebook or probe is another (so it is given markers).
Killed, it leaves its jobs running and its lock behind (so a job watches a lifeline, and holds a
lock of its own, and one of the machine for all studies of a user). Its log says that a job failed,
not why, nor how long the rest will take (so each job has a file of events).
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import select
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from anonvma.base import bounded, scratch, termination
from anonvma.base.errors import (
    AnonvmaError,
    CellError,
    MissingProgram,
    RunError,
    TargetLost,
    TargetTimeout,
)
from anonvma.collect import preflight
from anonvma.collect.workload import Workload
from anonvma.run.jobs import FAILURE, PLAN, failure
from anonvma.run.runs import Run
from anonvma.run.writer import sweep, sync

FORMAT = 1
CELL = "cell.json"
LIFELINE = "lifeline"
STOP = "stop"
"""A file in ``work``: while it is there, no job begins."""


def complete(directory: Path, identity: str, key: str) -> Run | None:
    """Return the run of a job that is done, and unchanged since; None for any other.

    Parameters
    ----------
    directory : path
        Of the job, ``cells/NAME``.
    identity, key : str
        The `anonvma.study.matrix.Cell`'s id and key.
    """
    try:
        told = json.loads(bounded.regular(directory / CELL, 1 << 20))
        if (told["format"], told["id"], told["key"]) != (FORMAT, identity, key):
            return None
        return Run.open(directory)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, RunError):
        return None


class _Attempt:
    """One try at a job, in the current directory, which is the study's."""

    def __init__(self, plan: dict[str, Any], name: str, number: int) -> None:
        self.plan, self.name, self.number = plan, name, number
        self.cell = next(cell for cell in plan["cells"] if cell["name"] == name)
        # Not relative: papermill changes the directory while a signal may come.
        self.base = Path.cwd()
        self.work = self.base / "work" / name
        self.started = datetime.datetime.now(datetime.UTC)
        self._owned = False  # whether work/NAME is ours
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._events = os.open(self.base / "work" / f"{name}.jsonl", flags, 0o644)

    def event(self, what: str, **more: object) -> None:
        """Tell whoever started the study."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        told = {"event": what, "time": now, "cell": self.name, "attempt": self.number, **more}
        os.write(self._events, json.dumps(told).encode() + b"\n")  # whole, in a handler too

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return (datetime.datetime.now(datetime.UTC) - self.started).total_seconds()

    def waits(self, who: str) -> None:
        """Tell that another job of this user measures on this machine."""
        self.event("waiting", process=who)

    # ---- the try ----

    def run(self) -> None:
        """Execute the notebook and put what came of it in its place; see `_fail` for failures."""
        self._owned = True
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self._redirect()
        self.started = datetime.datetime.now(datetime.UTC)
        self.event("started")
        self._say(f"cell {self.name}, try {self.number}: id {self.cell['id'][:12]}")
        signal.signal(signal.SIGALRM, self._late)
        signal.setitimer(signal.ITIMER_REAL, self.plan["timeout"])
        try:
            self._execute()
            run = self._one_run()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except AnonvmaError as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._fail(error)
        self._settle(run)

    def _execute(self) -> None:
        from anonvma.report import notebooks  # papermill and pandas: seconds, for this case alone

        out = self.work / "run"
        # A guest that does not boot leaves its record with the runs: here.
        os.environ |= {"ANONVMA_RUNS": str(out), "TQDM_DISABLE": "1"}
        parameters = {**self.cell["parameters"], "out": str(out)}
        # A study crosses its parameters with all of its workloads, whether or not each has them.
        for name in preflight.ignored(Workload(workload=parameters["workload"])):
            parameters.pop(name, None)
        notebooks.execute(self.plan["notebook"], self.work / "notebook.ipynb", parameters)

    def _one_run(self) -> Run:
        found = [file.parent for file in (self.work / "run").glob("*/manifest.json")]
        if len(found) != 1:
            raise CellError(
                f"the notebook ended without failure and left {len(found)} runs, not one: it has "
                "to collect into the directory that its parameter 'out' names."
            )
        return Run.open(found[0])

    def _settle(self, run: Run) -> None:
        """Put notebook, log and record into the run's directory, and that where it belongs."""
        record = {
            "format": FORMAT,
            "study": self.plan["study"],
            **{name: self.cell[name] for name in ("name", "id", "key", "axes", "repeat")},
            "attempt": self.number,
            "run": run.id,
            "started": self.started.isoformat(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        self._say(f"done in {self.seconds:.1f} s: run {run.id}")
        (self.work / "notebook.ipynb").rename(run.path / "notebook.ipynb")
        os.link(self.work / "log.txt", run.path / "log.txt")
        (run.path / CELL).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        place = self.base / "cells" / self.name
        place.parent.mkdir(exist_ok=True)
        if place.exists():  # done with another notebook, kernel or probe; or damaged
            place.rename(_free(self.base / "superseded" / self.name))
        sync(run.path)
        run.path.rename(place)
        sync(place.parent)
        shutil.rmtree(self.work, ignore_errors=True)
        self.event("done", seconds=round(self.seconds, 3))

    def _fail(self, error: AnonvmaError) -> NoReturn:
        """Keep what there is, say why, and end."""
        again = isinstance(error, TargetLost | TargetTimeout)
        self._say(f"failed: {error}")
        told = {
            "format": FORMAT,
            "cell": self.name,
            "attempt": self.number,
            "failed": datetime.datetime.now(datetime.UTC).isoformat(),
            "error": type(error).__name__,
            "reason": _without(str(error), self.work),
            "retry": again,
            "alone": again or isinstance(error, MissingProgram),
        }
        (self.work / FAILURE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        with contextlib.suppress(RunError):
            sweep(self.work / "run")  # a kernel that was killed leaves its run unfinished
        place = _free(self.base / "failed" / self.name)
        self.work.rename(place)
        scratch.clear()
        self.event(
            "failed",
            seconds=round(self.seconds, 3),
            error=told["error"],
            reason=told["reason"],
            retry=again,
            alone=told["alone"],
            record=str(place.relative_to(self.base)),
        )
        os._exit(1)

    # ---- ending early ----

    def _late(self, number: int, frame: object) -> NoReturn:
        """The time is over. The notebook cannot be told while a cell of it runs, so it is ended."""
        termination.end_children()
        limit = self.plan["timeout"]
        self._fail(TargetTimeout(f"it took longer than {limit:g} s, the study's time-out."))

    def interrupt(self, number: int, frame: object) -> NoReturn:
        """Leave nothing unfinished behind, at once."""
        signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._owned:
            termination.end_children()
            shutil.rmtree(self.work, ignore_errors=True)
            scratch.clear()
        self.event("interrupted")
        os._exit(128 + number)

    # ---- words ----

    def _redirect(self) -> None:
        """Let everything that is said from here on go to the log, children's words too."""
        log = os.open(self.work / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    def _say(self, text: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        os.write(1, f"{now:%Y-%m-%d %H:%M:%S}Z  {text}\n".encode(errors="backslashreplace"))


def _free(wanted: Path) -> Path:
    """Return a path like the one wanted, with the first number behind it that is free."""
    wanted.parent.mkdir(exist_ok=True)
    number = 1
    while (path := wanted.with_name(f"{wanted.name}.{number}")).exists():
        number += 1
    return path


def _without(text: str, work: Path) -> str:
    """Return a sentence without the path of a directory that is about to be moved."""
    return text.replace(f"{work}{os.sep}", "")


# ---- one at a time ----


@contextlib.contextmanager
def _locked(path: Path, waits: Callable[[str], None] = lambda who: None) -> Iterator[None]:
    """Hold a lock, which goes with this process, after waiting for it as long as it takes.

    Whoever has to wait is told, by `waits`, which process for.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits(os.pread(descriptor, 99, 0).decode(errors="replace").strip() or "?")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock of a file, which need not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _machine_lock() -> Path:
    """Return the file whose lock gives this machine to one of this user's jobs at a time.

    It lies where nobody else can open it, for whoever can may hold its lock for ever.
    """
    user = os.getuid()
    root = ("/run/anonvma",) if user == 0 else ()
    known = (os.environ.get("XDG_RUNTIME_DIR", ""), *root, f"/run/user/{user}")
    for place in map(Path, filter(None, known)):
        with contextlib.suppress(OSError):
            if str(place) in root:
                place.mkdir(0o700, exist_ok=True)
            about = place.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == user and not about.st_mode & 0o077:
                return place / "measuring"
    # Of a home that several machines may share each has its own.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    place = Path.home() / ".cache" / "anonvma"
    place.mkdir(0o700, parents=True, exist_ok=True)
    return place / f"measuring-{boot}"


def _watch_lifeline() -> None:
    """End as on SIGTERM as soon as nobody holds the other end of the lifeline any more.

    Snakemake's children outlive it when it is killed; and it, whoever started it.
    """
    descriptor = os.open(Path("work", LIFELINE), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def watch() -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # POLLHUP needs no asking
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    # Before the thread is there: one opened when nobody holds it any more says nothing of that.
    if _is_cut(descriptor):
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=watch, daemon=True).start()


def _is_cut(descriptor: int) -> bool:
    try:
        return os.read(descriptor, 1) == b""
    except BlockingIOError:
        return False


def _may_try(name: str, number: int) -> bool:
    """Tell whether another try may turn out otherwise; the first may always."""
    if number == 1:
        return True
    last = failure(Path(), name)
    return last is None or bool(last["retry"])


def main(words: list[str]) -> int:
    """Try one job; 0 when it is done, in whatever way that came about."""
    name, number = words[0], int(words[1])
    plan = json.loads(Path(PLAN).read_bytes())
    attempt = _Attempt(plan, name, number)
    done = Path("work", f"{name}.done")
    for ended in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended, attempt.interrupt)
    if plan["lifeline"]:
        _watch_lifeline()
    stop = Path("work", STOP)
    with _locked(Path("work", f"{name}.lock")):  # first: whoever waits for us looks at the lock
        if stop.exists():
            return 1
        attempt.event("queued")
        if complete(Path("cells", name), attempt.cell["id"], attempt.cell["key"]):
            attempt.event("kept")
        elif not _may_try(name, number):
            return 1
        elif attempt.cell["exclusive"]:
            with _locked(_machine_lock(), attempt.waits):
                if stop.exists():
                    return 1
                attempt.run()
        else:
            attempt.run()
        done.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
