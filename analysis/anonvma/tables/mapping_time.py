# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of one mapping goes: user mode, page faults, mmap(), waiting, and the rest.

What the tasks of a workload spent in an execution traced for this alone (tables ``time`` and
``time_totals``) is told by parts that leave nothing out: all of them and the tracer's own programs
add up to tasks x elapsed time by the workload's own clock, and what is left is a part, too.

Tracing slows what it looks at. So what is taken from such an execution is how its time, less the
tracer's, divides into the parts; and these shares are of the time that a mapping takes where
nothing is traced, by the throughput of the executions that the runs are compared by.

- *waiting for mmap_lock* is all from asking for it to the answer: spinning, asleep, woken.
- *waiting for a CPU* is to be runnable and not to run, while not waiting for mmap_lock.
- *holding* is what mmap() does with mmap_lock; page faults hold it, if at all, for reading.
- *user mode* is by the kernel's own account, often by ticks: no event marks the way into the kernel
  and out of it, which is the rest of the time that no event was seen in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from anonvma.base.axes import own
from anonvma.base.numerals import number
from anonvma.run.runs import Run
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

USER = "user mode"
WORK, HOLDING, WAITING = "at work", "holding mmap_lock", "waiting for mmap_lock"
FAULTS, MMAP, MUNMAP, OTHERS = "page faults", "mmap()", "munmap()", "other calls"
ASLEEP = "asleep for another reason"
QUEUED, BEHIND = "waiting for a CPU", "waiting for a CPU that other processes have"
WAY = "into the kernel and out of it"
UNKNOWN = "in what is not known"
TRACER, BEFORE, LEFT = "the tracer", "before the work began", "not accounted for"
WHOLE = "tasks x elapsed"

PARTS = {
    USER: "#dddddd",
    WAY: "#b3cde3",
    f"{FAULTS}, {WORK}": "#56b4e9",
    f"{FAULTS}, {WAITING}": "#d55e00",
    f"{MMAP}, {WORK}": "#a5dbc6",
    f"{MMAP}, {HOLDING}": "#009e73",
    f"{MMAP}, {WAITING}": "#e69f00",
    f"{MUNMAP}, {WORK}": "#cc79a7",
    f"{MUNMAP}, {WAITING}": "#a64d79",
    f"{OTHERS}, {WORK}": "#f0e442",
    f"{OTHERS}, {WAITING}": "#b8ac20",
    ASLEEP: "#8888aa",
    QUEUED: "#bbbbbb",
    BEHIND: "#777777",
    UNKNOWN: "#555555",
    TRACER: "#ffffff",
    BEFORE: "#f5f5f5",
    LEFT: "#000000",
}
"""The parts, in the order they are shown, with their colours."""

_OF_CONTEXT = {
    "fault": FAULTS,
    "kernel fault": FAULTS,
    "mmap": MMAP,
    "munmap": MUNMAP,
}


@dataclasses.dataclass(frozen=True)
class Unit:
    """What the time is divided by."""

    name: str
    count: str | None  # the column of time_totals; None: 1


MAPPING = Unit("mapping", "mmaps")
FAULT = Unit("page fault", "faults_ended")
EXECUTION = Unit("execution", None)


def lacking(conditions: Mapping[str, Sequence[Run]]) -> str:
    """Say of which condition no run tells where its time went, or nothing."""
    for name, runs in conditions.items():
        if not told(runs):
            return f"no run of {name} has a table 'time'"
    return ""


def told(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that tell where their time went: not each boot need be traced."""
    names = {"time", "time_totals"}
    return [
        run
        for run in runs
        if names <= set(run.manifest.tables) and all(len(run.table(name)) for name in names)
    ]


def unit_of(conditions: Mapping[str, Sequence[Run]]) -> Unit:
    """Return what the time of all of these runs can be divided by.

    A mapping, where the workload marks what it times and makes some; else a page fault, else an
    execution: what a command maps to start is not its work.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> unit_of({"early": [runs.find("early-small-allocs-mt-1")]}).name
    'mapping'
    """
    every = sums([run for each in conditions.values() for run in each])
    if not every["in_window"].all():
        return EXECUTION
    for unit in (MAPPING, FAULT):
        if (every[unit.count] > 0).all():
            return unit
    return EXECUTION


def title(unit: Unit = MAPPING) -> str:
    """Name the section, and the figure."""
    return f"Where the time of one {unit.name} goes"


def _part(context: str, lock: str, cpu: str) -> str:
    """Return the part that a state belongs to."""
    what = _OF_CONTEXT.get(context, OTHERS)
    if lock == "waiting":
        return f"{what}, {WAITING}"
    if cpu != "running":
        return ASLEEP if cpu == "sleeping" else BEHIND if cpu.endswith("others") else QUEUED
    if context in ("user", "unknown"):
        return USER if context == "user" else UNKNOWN
    return f"{what}, {HOLDING if context == 'mmap' and lock != 'none' else WORK}"


def of_run(run: Run, unit: Unit) -> pd.DataFrame:
    """Where the time of one mapping, or another unit, goes in a run.

    Returns
    -------
    DataFrame
        Index: `PARTS`. Columns: us (microseconds of the traced execution, mean of the repeats),
        running (that part of them with a CPU).
    """
    times, totals = run.table("time"), run.table("time_totals").set_index("repeat")
    divisor = totals[unit.count].astype("float64") if unit.count else 1.0
    columns = ["context", "lock", "cpu"]
    states = times[columns].astype("str").drop_duplicates()
    known = {key: _part(*key) for key in states.itertuples(index=False, name=None)}
    keys = list(times[columns].astype("str").itertuples(index=False, name=None))
    named = times.assign(
        part=[known[key] for key in keys],
        running=times["ns"].where(times["cpu"] == "running", 0),
    )
    sums = {
        name: named.pivot_table(values=column, index="repeat", columns="part", aggfunc="sum")
        .reindex(index=totals.index, columns=list(PARTS), fill_value=0)
        .fillna(0)
        .astype("float64")
        for name, column in (("us", "ns"), ("running", "running"))
    }
    for wide in sums.values():
        wide[TRACER] = totals["tracer_ns"].astype("float64")
        account = totals["user_ns"].astype("float64").clip(upper=wide[USER])
        wide[WAY] = wide[USER] - account
        wide[USER] = account
    whole = sums["us"]
    whole[BEFORE] = totals["before_ns"].astype("float64")
    clock = totals["clock_ns"].astype("float64")
    whole[LEFT] = clock - whole.drop(columns=LEFT).sum(axis=1)
    return pd.DataFrame(
        {name: wide.div(divisor, axis=0).mean() / 1000 for name, wide in sums.items()}
    )


@dataclasses.dataclass(frozen=True)
class Spent:
    """The time of one condition's tasks.

    Attributes
    ----------
    whole : Series
        Microseconds of one unit where nothing is traced, one value a run; of a workload without a
        clock of its own those of the traced executions, less the tracer's.
    shares, running : DataFrame
        What of that is each of `PARTS` but the tracer, and is that with a CPU; one row per run that
        tells.
    """

    whole: pd.Series[float]
    shares: pd.DataFrame
    running: pd.DataFrame

    @property
    def us(self) -> pd.Series[float]:
        """Each part in microseconds, by the means of the runs."""
        return self.shares.mean() * float(self.whole.mean())


def spent(runs: Sequence[Run], unit: Unit) -> Spent:
    """Return the time of one condition's tasks, of which at least one run tells."""
    each = [of_run(run, unit) for run in told(runs)]
    totals = [float(part["us"].drop(TRACER).sum()) for part in each]
    shares, running = (
        pd.DataFrame([part[name].drop(TRACER) / total
                      for part, total in zip(each, totals, strict=True)])
        for name in ("us", "running")
    )  # fmt: skip
    clocks = [] if sums(runs)["clock_ns"].isna().any() else _clocks(runs, unit)
    whole = pd.Series(clocks or totals, dtype="float64")
    return Spent(whole, shares.reset_index(drop=True), running.reset_index(drop=True))


def _clocks(runs: Sequence[Run], unit: Unit) -> list[float]:
    """Return by the workload's own clock, untraced, what its tasks took for one unit in each run.

    All runs of a condition make as many mappings, and take as many faults, as those that tell.
    """
    count = float(sums(runs)[unit.count].astype("float64").mean()) if unit.count else 1.0
    tasks = [run.table("throughput") for run in runs if "throughput" in run.manifest.tables]
    return [float(rows.groupby("repeat")["usecs"].sum().mean()) / count for rows in tasks]


def table(conditions: Mapping[str, Sequence[Run]], unit: Unit | None = None) -> pd.DataFrame:
    """Where the time of one mapping goes in each condition, in microseconds.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        Of which `lacking` says nothing.
    unit : Unit, optional
        What the time is divided by; as `unit_of` has it by default.

    Returns
    -------
    DataFrame
        One row per part that any of them has, in their order, and ``tasks x elapsed`` last: part,
        then a column per condition (mean of its runs). What is not accounted for is in any case a
        row; it is null where the workload has no clock of its own.
    """
    unit = unit or unit_of(conditions)
    wide = pd.DataFrame({name: spent(runs, unit).us for name, runs in conditions.items()})
    kept = wide[(wide.abs() >= 0.0005).any(axis=1) | (wide.index == LEFT)]
    total = pd.DataFrame(wide.sum()).T.set_axis([WHOLE])
    both = pd.concat([kept, total])
    return both.rename_axis("part").reset_index()


def held(runs: Sequence[Run], unit: Unit) -> tuple[float, float]:
    """Return how long mmap_lock was held for writing, and what of it by a task without a CPU.

    In microseconds of a `unit`, in the traced executions; mean of the runs.
    """
    values = []
    for run in told(runs):
        times, totals = run.table("time"), run.table("time_totals")
        count = float(totals[unit.count].sum()) if unit.count else float(len(totals))
        writing = times[times["lock"] == "writing"]
        without = writing[writing["cpu"] != "running"]
        values.append([float(part["ns"].sum()) / 1000 / count for part in (writing, without)])
    mean = pd.DataFrame(values).mean()
    return float(mean[0]), float(mean[1])


def slowed(runs: Sequence[Run]) -> tuple[float, float]:
    """Return the throughput (KiB/s) of the execution that was traced for this, and untraced.

    Means of the runs; null for a workload that prints none.
    """
    rows = pd.concat([run.table("tracing") for run in told(runs)])
    mean = rows.groupby("traced")["kb_per_s"].mean().astype("float64")
    return float(mean.get("time", float("nan"))), float(mean.get("untraced", float("nan")))


def sums(runs: Sequence[Run]) -> pd.DataFrame:
    """Return ``time_totals`` of the runs that have one, one row per execution."""
    return pd.concat([run.table("time_totals") for run in told(runs)])


def pages(runs: Sequence[Run]) -> float:
    """Return how many page faults a mapping took, mean of the runs."""
    totals = sums(runs)
    return float(totals["faults_ended"].sum()) / max(float(totals["mmaps"].sum()), 1.0)


# ---- the figure ----


def plot(conditions: Mapping[str, Sequence[Run]], ax: Axes | None = None) -> Axes:
    """Draw `table` as a bar per condition, its length the time of the same work."""
    from anonvma.base.drawing import sns

    ax = own(ax, 8, 2.4)
    if lacking(conditions):
        return blank(ax, title(), "not recorded with these runs")
    unit = unit_of(conditions)
    rows = table(conditions, unit).set_index("part").drop(index=WHOLE)
    rows = rows.clip(lower=0).fillna(0)
    rows = rows.loc[(rows.div(rows.sum()) >= 0.001).any(axis=1)]
    colours: list[Any] = [PARTS[part] for part in rows.index]
    ax = rows.T.plot.barh(stacked=True, width=0.62, ax=ax, color=colours, legend=False)
    for bars, part in zip(ax.containers, rows.index, strict=True):
        for bar in bars:
            bar.set_edgecolor("#999999" if part == BEFORE else "white")
            bar.set_linewidth(0.5)
    totals = rows.sum()
    for place, (name, total) in enumerate(totals.items()):
        ax.text(total, place, f" {number(total, 3)} µs", va="center", fontweight="bold")
        _label(ax, rows[name], place, float(totals.max()))
    ax.invert_yaxis()
    ax.margins(x=0.12)
    of = (
        f" of {number(round(pages(next(iter(conditions.values()))), 1))} pages"
        if unit is MAPPING
        else ""
    )
    ax.set(xlabel=f"µs of the tasks' time for one {unit.name}{of}", ylabel="", title=title(unit))
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.25), ncols=2)
    sns.despine(ax=ax)
    return ax


def _label(ax: Axes, parts: pd.Series[Any], place: int, longest: float) -> None:
    """Write into each piece of a bar that has room for it how long it is."""
    left = 0.0
    for part, value in parts.items():
        if value >= 0.05 * longest:
            dark = part in (LEFT, UNKNOWN, BEHIND, f"{FAULTS}, {WAITING}", f"{MMAP}, {HOLDING}")
            ax.text(
                left + value / 2,
                place,
                number(value, 2),
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
            )
        left += value
