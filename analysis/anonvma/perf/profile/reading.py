# SPDX-License-Identifier: GPL-2.0-only
"""The samples of a run: its events, and the stacks of one of them.

A profile by processor time sees a thread that spins or works, not one that sleeps: what waits for
mmap_lock asleep is in the table ``locks``, not here.
"""

from __future__ import annotations

import pandas as pd

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable
from anonvma.perf.stacks import Profile
from anonvma.run.runs import Run

# ---- reading ----


def of_run(run: Run) -> dict[int, Profile]:
    """Return what was sampled in each repeat of a run.

    Raises
    ------
    RunError
        When the run has no samples, with the reason that it gives.
    """
    tables = {name: run.table(name) for name in ("samples", "stacks", "frames")}
    found = {}
    for repeat in sorted(tables["samples"]["repeat"].unique()):
        part = {
            name: frame[frame["repeat"] == repeat].drop(columns="repeat")
            for name, frame in tables.items()
        }
        found[int(repeat)] = Profile.of_tables(**part)
    return found


def events(profile: Profile) -> list[str]:
    """Return the events sampled, the one with most samples first."""
    return [
        str(name) for name in profile.samples["event"].value_counts().loc[lambda n: n > 0].index
    ]


def main_event(profile: Profile) -> str:
    """Return the event that is about time: cycles or a clock if there, else the first.

    One whose samples stand for nothing, with a period of 0, only where there is no other.
    """
    periods = profile.samples.groupby("event", observed=True)["period"].sum()
    names = [name for name in events(profile) if periods[name] > 0] or events(profile)
    for wanted in ("cycles", "cpu-clock", "task-clock"):
        for name in names:
            if wanted in name:
                return name
    return names[0]


def select(profile: Profile, event: str | None = None) -> Profile:
    """Return the samples of one event, by default the main one.

    Raises
    ------
    ProfileError
        When there is none.
    """
    samples = profile.samples
    wanted = event or main_event(profile)
    mine = samples[samples["event"] == wanted]
    if mine.empty:
        raise ProfileError(
            f"there is no sample of {wanted!r}: it has {', '.join(events(profile))}."
        )
    return Profile(mine, profile.offsets, profile.frame_ids, profile.frames)


# ---- stacks as text ----


def folded(profile: Profile, event: str | None = None) -> pd.Series[int]:
    """Return folded stacks: ``comm;outermost;...;innermost``, and the sum of their periods.

    As stackcollapse makes them; inlined functions are among them, and a ``;`` in a name is ``:``.
    """
    chosen = select(profile, event).samples
    keys = ["comm", "stack"]
    sums = chosen.groupby(keys, observed=True, dropna=False)["period"].sum().reset_index()
    symbols = [symbol.replace(";", ":") for symbol in profile.frames["symbol"]]
    # Stored from the innermost outwards: all of it backwards, once.
    ids, total = profile.frame_ids[::-1].tolist(), len(profile.frame_ids)
    starts = (total - profile.offsets[1:]).tolist()
    ends = (total - profile.offsets[:-1]).tolist()
    names = []
    known: dict[object, str] = {}
    for comm, stack in zip(sums["comm"].astype(object), sums["stack"].tolist(), strict=True):
        if comm not in known:
            known[comm] = shown(comm) if isinstance(comm, str) else "[unknown]"
        path = map(symbols.__getitem__, ids[starts[stack] : ends[stack]])
        names.append(";".join((known[comm], *path)))
    folded_ = sums["period"].set_axis(pd.Index(names, name="stack"))
    return folded_.groupby(level=0, sort=True).sum()


def shown(comm: str) -> str:
    """Return a name of a thread fit for one line of text between semicolons."""
    return printable(comm).replace(";", ":")
