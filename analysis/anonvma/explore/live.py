# SPDX-License-Identifier: GPL-2.0-only
"""Watching a live machine: a census every few seconds, what changed, and what that costs.

Only the probe is privileged. It is so by being root's, by ``sudo -n``, or by file capabilities
(`has_capabilities`), in which case whoever may execute it may take a census without further ado.

No widget in here: `anonvma.explore.explorer` shows what a `Watch` tells.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from anonvma.base import paths, scratch
from anonvma.base.errors import AnonvmaError, PrivilegeError, ProbeError
from anonvma.collect import targets
from anonvma.explore.filter import STATES
from anonvma.explore.selection import Vmas
from anonvma.probe import census_file, fault_events, faults_file
from anonvma.probe.census_file import Census
from anonvma.probe.vmaprobe import Vanished, Vmaprobe, named, require_success

CAPABILITIES = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog=ep"
"""What the probe needs: BPF and its events; other processes' pages, whose file is its owner's
alone; the kernel's symbols."""
_HINT = f"Or let root give them to the probe once: setcap {CAPABILITIES} build/vmaprobe"


def has_capabilities(program: Path) -> bool:
    """Tell whether a program has file capabilities, so that it is privileged without sudo."""
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:  # it has none, or the filesystem knows of no such thing
        return False


@dataclasses.dataclass(frozen=True)
class Taken:
    """A census, and what taking it cost.

    Attributes
    ----------
    census : Census
    seconds : float
        From asking until it was decoded.
    cpu : float
        Seconds of a processor that this took, the probe's, the decoding's and all between.
    """

    census: Census
    seconds: float
    cpu: float


class Observer:
    """Takes censuses of a target, and traces processes on it.

    Parameters
    ----------
    where : str
        A target; see `anonvma.collect.targets.parse`.

    Raises
    ------
    AnonvmaError
        There is no such target, the probe is not built, or there is no privilege.
    """

    def __init__(self, where: str = "local") -> None:
        program = paths.program("vmaprobe")
        self._there = targets.parse(where)
        try:
            # A copy would lose the capabilities, so such a probe runs where it lies.
            self._as_user = where == "local" and os.geteuid() != 0 and has_capabilities(program)
            path = str(program) if self._as_user else None
            self._probe = Vmaprobe(self._there, path, not self._as_user)
            if not self._as_user:
                self._there.require_privilege()
        except PrivilegeError as error:
            self._there.close()
            raise PrivilegeError(f"{error} {_HINT}" if where == "local" else str(error)) from None
        except BaseException:
            self._there.close()
            raise
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the target."""
        self._there.close()

    def census(self, pids: Sequence[int] = ()) -> Taken:
        """Take a census of all processes, or of some.

        Raises
        ------
        Vanished
            A process named is gone.
        PrivilegeError
            There is no privilege, or none any more.
        ProbeError, CensusError, TargetError
            It could not be taken, or not be read.
        """
        begin, cpu = time.monotonic(), _cpu_seconds()
        with scratch.directory("live") as directory:
            local = self._run(["census", *named(pids)], "--output", directory)
            found = census_file.read(local)
        return Taken(found, time.monotonic() - begin, _cpu_seconds() - cpu)

    def trace(self, pid: int, seconds: float) -> dict[str, pd.DataFrame]:
        """Trace a process's page faults for a while.

        Returns
        -------
        dict
            The tables ``faults``, ``fault_events`` and ``call_paths``, as a run has them.

        Raises
        ------
        AnonvmaError
            As for `census`.
        """
        with scratch.directory("live") as directory:
            events = self._there.place(f"events-{self._count}")
            words = ["faults", "--pid", str(pid), "--seconds", f"{seconds:g}", "--stacks"]
            local = self._run([*words, "--events", events], "--output", directory)
            text = local.read_bytes()
            counted = faults_file.read_faults(text)
            self._there.pull(events, directory / "events")
            each = fault_events.read_events(directory / "events", counted)
        tables = {
            "faults": counted.faults,
            "fault_events": each,
            "call_paths": faults_file.read_call_paths(text),
        }
        return {name: table.assign(repeat=1) for name, table in tables.items()}

    def _run(self, words: list[str], option: str, directory: Path) -> Path:
        """Run the probe and bring back what it wrote."""
        self._count += 1
        output = self._there.place(f"observed-{self._count}")
        try:
            require_success(self._probe.run(*words, option, output))
        except ProbeError:
            if not self._as_user:
                self._there.require_privilege()  # sudo, rather than the probe, may have refused
            raise
        local = directory / "observed"
        self._there.pull(output, local)
        return local


def _cpu_seconds() -> float:
    """Return what this thread and all children that have ended used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_THREAD, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


# ---- what changed ----


def changes(before: Vmas, after: Vmas) -> pd.DataFrame:
    """Say what is different in the later one of two censuses.

    A VMA is told by its process and its start: one that was moved has gone and appeared.

    Returns
    -------
    DataFrame
        One row per change of the VMAs of a process and origin, most VMAs first: change
        (``appeared``, ``gone``, ``resized``, ``more pages`` or ``fewer pages`` in bare ones, or
        two states with an arrow), tgid, comm, origin, vmas (how many), bytes (that appeared, went
        or were added), zero (pages, likewise).
    """
    old, new = _keyed(before), _keyed(after)
    both = old.merge(new, on=["tgid", "start"], how="outer", suffixes=("", "_new"), indicator=True)
    appeared, gone = (both["_merge"] == side for side in ("right_only", "left_only"))
    stayed = ~(appeared | gone)
    both["change"] = ""
    grown = both["zero_new"].fillna(0) - both["zero"].fillna(0)
    both.loc[stayed & (grown > 0), "change"] = "more pages"
    both.loc[stayed & (grown < 0), "change"] = "fewer pages"
    both.loc[stayed & (both["bytes"] != both["bytes_new"]), "change"] = "resized"
    other = stayed & (both["state"] != both["state_new"])
    names = np.array([*STATES, ""], object)
    old_state, new_state = (
        names[both.loc[other, name].astype("int64")] for name in ("state", "state_new")
    )
    both.loc[other, "change"] = old_state + " -> " + new_state
    both.loc[appeared, "change"], both.loc[gone, "change"] = "appeared", "gone"
    for name in ("comm", "origin"):
        both[name] = both[f"{name}_new"].where(appeared, both[name])
    both["by"] = both["bytes_new"].fillna(0) - both["bytes"].fillna(0)
    both["zero_by"] = grown
    found = both[both["change"] != ""]
    table = found.groupby(["change", "tgid", "comm", "origin"], dropna=False, sort=False).agg(
        vmas=("start", "size"), bytes=("by", "sum"), zero=("zero_by", "sum")
    )
    table = table.reset_index().astype({"bytes": "int64", "zero": "int64"})
    return table.sort_values("vmas", ascending=False, kind="stable", ignore_index=True)


def _keyed(vmas: Vmas) -> pd.DataFrame:
    frame = vmas.frame
    return pd.DataFrame(
        {
            "tgid": vmas.numbers("tgid"),
            "start": vmas.numbers("start"),
            "comm": frame["comm"].astype("object").to_numpy(),
            "origin": frame["origin"].astype("object").to_numpy(),
            "bytes": vmas.numbers("bytes").astype(np.float64),
            "zero": vmas.numbers("zero").astype(np.float64),
            "state": vmas.state,
        }
    )


# ---- again and again ----


@dataclasses.dataclass(frozen=True)
class Step:
    """One census of a watch, in numbers.

    Attributes
    ----------
    at : float
        Seconds since the watch began, when it was taken.
    vmas : int
    states : dict
        VMAs by state.
    zero : int
        Zero pages in the bare ones.
    seconds, cpu : float
        As in `Taken`.
    share : float
        Of one CPU, that watching takes at this pace.
    """

    at: float
    vmas: int
    states: dict[str, int]
    zero: int
    seconds: float
    cpu: float
    share: float


class Watch:
    """Takes a census every few seconds until it is stopped, or cannot go on.

    Parameters
    ----------
    take : callable
        Returns a `Taken`; `Observer.census` with the processes filled in.
    every : float
        Seconds from one to the next; one that takes longer is followed at once by the next.
    tell : callable
        Called after each census, and when it cannot go on, in the watching thread.

    Attributes
    ----------
    steps : list of Step
    vmas : Vmas or None
        Of the last census.
    changed : DataFrame or None
        What it has that the one before had not.
    census : Census or None
        The last one.
    trouble : str
        Why it does not go on; empty otherwise.
    """

    def __init__(
        self, take: Callable[[], Taken], every: float, tell: Callable[[Watch], None]
    ) -> None:
        self._take, self.every, self._tell = take, max(every, 0.1), tell
        self.steps: list[Step] = []
        self.vmas: Vmas | None = None
        self.changed: pd.DataFrame | None = None
        self.census: Census | None = None
        self.trouble = ""
        self._begun = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether another census will come."""
        return self._thread is not None and self._thread.is_alive() and not self._stopped.is_set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; no census is being taken when this returns."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _loop(self) -> None:
        while not self._stopped.is_set():
            begin = time.monotonic()
            going = self.step()
            if not self._stopped.is_set() or not going:
                self._tell(self)
            if not going:
                return
            self._stopped.wait(max(self.every - (time.monotonic() - begin), 0))

    def step(self) -> bool:
        """Take one census now; whether it can go on."""
        at = time.monotonic() - self._begun
        try:
            taken = self._take()
        except AnonvmaError as error:
            self.trouble = self._trouble(error, at)
            return False
        vmas = Vmas(taken.census.vmas, int(taken.census.header["page_size"]))
        if self.vmas is not None:
            self.changed = changes(self.vmas, vmas)
        self.vmas, self.census = vmas, taken.census
        counts = np.bincount(vmas.state, minlength=len(STATES)).tolist()
        self.steps.append(
            Step(
                at,
                len(vmas),
                dict(zip(STATES, counts, strict=True)),
                int(vmas.numbers("zero").sum()),
                taken.seconds,
                taken.cpu,
                taken.cpu / max(self.every, taken.seconds),
            )
        )
        return True

    def _trouble(self, error: AnonvmaError, at: float) -> str:
        reason = str(error).rstrip(".")
        kept = "; the last census stays shown" if self.steps else ""
        if isinstance(error, Vanished) and self.steps:
            return f"The process watched ended within {at:.0f} s of the start ({reason}){kept}."
        if isinstance(error, PrivilegeError) and self.steps:
            return (
                f"Privilege was lost after census {len(self.steps)} ({reason}){kept}; get it "
                "back, then press 'Start'."
            )
        return f"{reason[0].upper()}{reason[1:]}{kept}."

    def history(self) -> pd.DataFrame:
        """Return the steps: at, vmas, a column per state, zero, seconds, cpu, share."""
        rows = []
        for step in self.steps:
            row = dataclasses.asdict(step)
            rows.append({**row.pop("states"), **row})
        columns = ["at", "vmas", *STATES, "zero", "seconds", "cpu", "share"]
        return pd.DataFrame(rows, columns=columns)
