# SPDX-License-Identifier: GPL-2.0-only
"""What makes a tracer lose something, and the reckoning of what it lost.

`reckon` runs one of `LOADS` on a target under `vmaprobe faults` and one under `vmaprobe locks`
and returns what does not add up, each with its numbers; an empty list is a pass. It is the same on
this machine and in a guest::

    with Guest(image, append="preempt=full", accel="tcg") as guest:
        stress = Stress(guest, build, odd_faults)
        for load in LOADS:
            assert stress.reckon(load, "auto", scale=1.0) == []

and ``python tests/helpers/stress.py IMAGE [--append preempt=full] [--rounds 20] [--scale 1]``
prints the same as a table, for a kernel by hand.

What has to add up, to the unit:

- every task: the faults counted and those told as unseen are those that the kernel charged to it
  (``tasks_differ``);
- the command: what getrusage() has of it is traced, unseen, or told as lost;
- acquisitions of mmap_lock: those of a histogram of the same tracepoint, made by the kernel;
- where an exact source was asked for, nothing is lost at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anonvma.probe.faults_file import Faults, read_faults
from anonvma.probe.locks_file import Locks, read_locks
from anonvma.target.target import Target

ROOT = Path(__file__).resolve().parents[2]


class Load(NamedTuple):
    """A program and its words, by how much of it is wanted."""

    program: str  # vmload or odd_faults
    words: Callable[[float], list[str]]
    locks: bool = False  # whether it is for mmap_lock, too


def _some(number: float, scale: float) -> str:
    return str(max(int(number * scale), 8))


LOADS = {
    "small-allocs-mt": Load(
        "vmload",
        lambda scale: [
            *("--case", "small-allocs-mt", "-t", "8", "--unit", "40k"),
            f"{_some(8192, scale)}k",
        ],
    ),
    "forking-server": Load("odd_faults", lambda scale: ["server", "8", _some(50, scale)], True),
    "children": Load("odd_faults", lambda scale: ["children", _some(2000, scale), "1"], True),
    "churn": Load("odd_faults", lambda scale: ["contention", "4", _some(3000, scale)], True),
}


class Stress:
    """A target with the probe and the programs on it."""

    def __init__(self, target: Target, build: Path, odd_faults: Path) -> None:
        self._target = target
        self._probe = target.push(build / "vmaprobe")
        self._programs = {
            "vmload": target.push(build / "vmload"),
            "odd_faults": target.push(odd_faults),
        }

    def faults(self, load: str, source: str, scale: float) -> Faults:
        """Trace the faults of a load."""
        return read_faults(self._trace(["faults", "--source", source], load, scale))

    def locks(self, load: str, scale: float) -> Locks:
        """Trace mmap_lock under a load."""
        return read_locks(self._trace(["locks"], load, scale))

    def _trace(self, words: list[str], load: str, scale: float) -> bytes:
        output = self._target.place("stress")
        command = [self._programs[LOADS[load].program], *LOADS[load].words(scale)]
        words = [self._probe, *words, "--output", output, "--", *command]
        done = self._target.run(words, privileged=True)
        assert done.returncode == 0, done.stderr
        return self._target.read(output)

    def reckon(self, load: str, source: str, scale: float) -> list[str]:
        """Return what does not add up."""
        wrong = disagreements(self.faults(load, source, scale), exact=source != "fentry")
        if LOADS[load].locks:
            wrong += lock_disagreements(self.locks(load, scale))
        return [f"{load}, {source}: {each}" for each in wrong]


def disagreements(found: Faults, exact: bool = True) -> list[str]:
    """Return what does not add up in a tracing of faults."""
    told, losses = found.header, found.losses
    ended = found.faults["result"].isin(["minor", "major"])
    counted = int(found.faults.loc[ended, "count"].sum())
    known = counted + losses["faults_lost"] + told["unseen_gup"] + losses["faults_missed"]
    wrong = []
    if known != told["charged"]:
        wrong.append(f"{known} faults are told, {told['charged']} were charged to tasks")
    used = told["minor_faults"] + told["major_faults"] - told["faults_before"]
    if known + losses["pending"] + losses["unaccounted"] != used:
        wrong.append(f"{known} faults and losses of {losses} are not the {used} of getrusage()")
    return wrong + ([f"lost: {_some_lost(losses)}"] if exact and _some_lost(losses) else [])


def lock_disagreements(found: Locks) -> list[str]:
    """Return what does not add up in a tracing of mmap_lock's acquisitions.

    Waits for locks of all kinds, which this traces too, have no witness here.
    """
    lost = _some_lost({name: n for name, n in found.losses.items() if name != "waits_lost"})
    return [f"lost: {lost}; {found.header['witness']}"] if lost else []


def _some_lost(losses: dict[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in losses.items() if count}


def main(words: list[str]) -> int:
    """Boot an image and print what each source loses on it."""
    from anonvma.target.guest import Guest

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("odd_faults", type=Path, help="tests/helpers/odd_faults.c, compiled static")
    parser.add_argument("--append", default="")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument(
        "--source", action="append", choices=["auto", "fentry", "kprobe", "tracepoint"]
    )
    options = parser.parse_args(words)
    failed = 0
    with Guest(options.image, accel="tcg", append=options.append) as guest:
        stress = Stress(guest, ROOT / "build", options.odd_faults)
        print(guest.facts()["kernel_release"], options.append, flush=True)
        for number in range(1, options.rounds + 1):
            for load in LOADS:
                for source in options.source or ["auto", "fentry"]:
                    found = stress.faults(load, source, options.scale)
                    wrong = disagreements(found, exact=source != "fentry")
                    lost = _some_lost(found.losses)
                    charged = found.header["charged"]
                    lost |= {name: n for name, n in found.header["misses"].items() if n}
                    print(f"{number:3} {load:16} {source:10} charged {charged:7,}  lost {lost}")
                    print(*(f"    {each}\n" for each in wrong), sep="", end="", flush=True)
                    failed += bool(wrong)
                if LOADS[load].locks:
                    seen = stress.locks(load, options.scale)
                    wrong = lock_disagreements(seen)
                    print(f"{number:3} {load:16} {'locks':10} {seen.header['witness']}")
                    print(*(f"    {each}\n" for each in wrong), sep="", end="", flush=True)
                    failed += bool(wrong)
    print(f"{failed} disagreements" if failed else "all adds up")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
