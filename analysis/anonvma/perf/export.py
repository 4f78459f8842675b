# SPDX-License-Identifier: GPL-2.0-only
"""Profiles for other programs: folded stacks, speedscope, the Firefox profiler.

Folded stacks are what flamegraph.pl, inferno and difffolded.pl read; speedscope takes a JSON file
of its own; the Firefox profiler takes text as ``perf script`` prints it. Each is loaded from a
file, and nothing is sent anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from anonvma.perf import profile as perf_profile
from anonvma.perf.stacks import Profile


def folded(profile: Profile, event: str | None = None) -> str:
    """Return folded stacks, a line each: ``comm;outermost;...;innermost PERIOD``."""
    sums = perf_profile.folded(profile, event)
    return "".join(f"{stack} {int(weight)}\n" for stack, weight in sums.items())


def speedscope(profile: Profile, event: str | None = None) -> str:
    """Return a file of speedscope's own format: one profile a thread, its samples in order.

    Weights are in ns for an event about time, else plain numbers of the event.
    """
    chosen = perf_profile.select(profile, event)
    name = str(chosen.samples["event"].iloc[0])
    frames = [
        {"name": symbol, "file": file} if isinstance(file, str) else {"name": symbol}
        for symbol, file in zip(
            profile.frames["symbol"], profile.frames["file"].astype(object), strict=True
        )
    ]
    tids = sorted(chosen.samples["tid"].unique())
    profiles = [
        _of_thread(profile, chosen.samples[chosen.samples["tid"] == tid], int(tid), name)
        for tid in tids
    ]
    return json.dumps(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",  # how it is recognised
            "exporter": "anonvma",
            "name": name,
            "activeProfileIndex": 0,
            "shared": {"frames": frames},
            "profiles": profiles,
        }
    )


def _of_thread(profile: Profile, part: pd.DataFrame, tid: int, event: str) -> dict[str, Any]:
    weights = [int(period) for period in part["period"]]
    comm = part["comm"].iloc[0]
    who = perf_profile.shown(comm) if isinstance(comm, str) else "[unknown]"
    return {
        "type": "sampled",
        "name": f"{who} {tid}",
        "unit": "nanoseconds" if "clock" in event else "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": [_ids(profile, int(stack))[::-1] for stack in part["stack"]],
        "weights": weights,
    }


def _ids(profile: Profile, stack: int) -> list[int]:
    first, last = profile.offsets[stack], profile.offsets[stack + 1]
    return [int(each) for each in profile.frame_ids[first:last]]


def firefox(profile: Profile, event: str | None = None) -> str:
    """Return text as ``perf script`` prints it, for the Firefox profiler's *load a profile*.

    Where an address would be there is the number of the function: addresses are not kept. What a
    line cannot carry (a newline in a name, a blank in the name of a file) is escaped.
    """
    return "".join(_text(profile, perf_profile.select(profile, event).samples))


def _text(profile: Profile, samples: pd.DataFrame) -> Iterator[str]:
    lines = []
    for number, (symbol, file) in enumerate(
        zip(profile.frames["symbol"], profile.frames["file"].astype(object), strict=True)
    ):
        where = file.replace(" ", "\\x20") if isinstance(file, str) else "[unknown]"
        lines.append(f"\t{number + 1:16x} {symbol} ({where})\n")
    stacks: dict[int, str] = {}
    # What a recording of a command has not is left out: the profiler does without.
    cpus = ["" if pd.isna(cpu) else f"[{int(cpu):03d}] " for cpu in samples["cpu"]]
    columns = samples.assign(cpu=cpus).astype({"comm": object, "event": object})
    names = ["time_ns", "cpu", "pid", "tid", "comm", "event", "period", "stack"]
    for time, cpu, pid, tid, name, event, period, stack in columns[names].to_numpy(object):
        comm = perf_profile.shown(name) if isinstance(name, str) else "[unknown]"
        seconds, rest = divmod(time, 1_000_000_000)
        if stack not in stacks:
            stacks[stack] = "".join(lines[each] for each in _ids(profile, stack))
        yield (
            f"{comm} {pid}/{tid} {cpu}{seconds}.{rest // 1000:06d}: "
            f"{period:10d} {event}: \n{stacks[stack]}\n"
        )


FORMATS = {"folded": folded, "speedscope": speedscope, "firefox": firefox}
"""By name, what writes it."""
