# SPDX-License-Identifier: GPL-2.0-only
"""Profiles for other programs: folded stacks, and text as ``perf script`` prints it.

flamegraph.pl, inferno and difffolded.pl read folded stacks, the Firefox profiler the text, and
speedscope both.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from anonvma.perf import profile as perf_profile
from anonvma.perf.stacks import Profile


def folded(profile: Profile, event: str | None = None) -> str:
    """Return folded stacks, a line each: ``comm;outermost;...;innermost PERIOD``."""
    sums = perf_profile.folded(profile, event)
    return "".join(f"{stack} {int(weight)}\n" for stack, weight in sums.items())


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
