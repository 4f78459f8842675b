# SPDX-License-Identifier: GPL-2.0-only
"""Counters, in the rows that kernel people read: what each is made of, and which cannot exist.

The rows of the kernel test robot (lkp-tests, programs/perf-stat/parse), here from each repeat:

``perf-stat.total.EVENT``
    what was counted in all.
``perf-stat.ps.EVENT``
    that, per second of wall time.
``perf-stat.i.EVENT``
    the mean over intervals of what was counted in each, per second. The last interval, which the
    workload's end cuts short, is left out where there are others.
``perf-stat.overall.X``
    ratios of totals, by `FORMULAS`: cpi, ipc, MPKI, cycles-between-cache-misses, miss rates. And
    ``perf-stat.i.X``, the mean of the same ratios over intervals.

A rate of ``X-misses`` beside ``Xs`` is ``100 * misses / (Xs + misses)``, as the robot has it, so
that the rows can be set beside the robot's; where perf's ``X-loads`` include those that miss it is
a little low (a true 10 % shows as 9.1).

Software clocks are in ms, as perf has them. A row that cannot be is not there, and
`absent` says why; a counter that shared its hardware with others was extrapolated by perf, and
`counters` says what share of the time it was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from anonvma import statistics
from anonvma.perf import TIME_EVENTS
from anonvma.runs import Run, field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FORMULAS",
    "INTERVALS",
    "absent",
    "counters",
    "derived",
    "intervals",
    "metrics",
    "plot_intervals",
]

INTERVALS = pa.schema(
    [
        field("seconds", pa.float64(), "s", "when the interval ended, since the start"),
        field("event", pa.string(), "", "perf's name of it"),
        field("value", pa.float64(), "column unit", "in the interval; null where there is none"),
        field("unit", pa.string(), "", "of the value; empty for a plain number"),
        field(
            "running_share",
            pa.float64(),
            "",
            "share of the interval that it was counted, below 1 when multiplexed",
        ),
        field("supported", pa.bool_(), "", "whether this machine can count it"),
    ]
)
"""Columns of the table ``perf_intervals``, after ``repeat``."""

_SAME = {"cpu-cycles": "cycles", "branch-instructions": "branches"}
"""Other names that perf has for an event."""


class Formula(NamedTuple):
    """A ratio of counts.

    Attributes
    ----------
    words : str
        As a person would write it.
    above, below : tuple of str
        The events that are summed above and below the line.
    factor : float
        What it is multiplied by.
    """

    words: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    factor: float = 1

    @property
    def needed(self) -> tuple[str, ...]:
        """The events without which it cannot be."""
        return tuple(dict.fromkeys((*self.above, *self.below)))


def _rate(stem: str) -> Formula:
    misses, all_ = f"{stem}-misses", f"{stem}s"
    return Formula(f"100 * {misses} / ({all_} + {misses})", (misses,), (all_, misses), 100)


FORMULAS: Mapping[str, Formula] = {
    "cpi": Formula("cycles / instructions", ("cycles",), ("instructions",)),
    "ipc": Formula("instructions / cycles", ("instructions",), ("cycles",)),
    "MPKI": Formula(
        "1000 * cache-misses / instructions", ("cache-misses",), ("instructions",), 1000
    ),
    "cycles-between-cache-misses": Formula("cycles / cache-misses", ("cycles",), ("cache-misses",)),
    "cache-miss-rate%": Formula(
        "100 * cache-misses / cache-references", ("cache-misses",), ("cache-references",), 100
    ),
    "branch-miss-rate%": Formula(
        "100 * branch-misses / branches", ("branch-misses",), ("branches",), 100
    ),
    "instructions-per-iTLB-miss": Formula(
        "instructions / iTLB-load-misses", ("instructions",), ("iTLB-load-misses",)
    ),
    **{
        f"{stem}-miss-rate%": _rate(stem)
        for stem in (
            "dTLB-load",
            "dTLB-store",
            "iTLB-load",
            "L1-dcache-load",
            "LLC-load",
            "LLC-store",
            "node-load",
            "node-store",
        )
    },
}
"""By the end of its name, how a row comes about."""


def derived(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the ratios of `FORMULAS` that counts allow; nothing is divided by 0.

    Parameters
    ----------
    counts : mapping
        Event to count.
    """
    known = {plain(event): value for event, value in counts.items()}
    found = {}
    for name, formula in FORMULAS.items():
        if all(event in known for event in formula.needed):
            below = sum(known[event] for event in formula.below)
            if below:
                above = sum(known[event] for event in formula.above)
                found[name] = formula.factor * above / below
    return found


def plain(event: str) -> str:
    """Return an event's usual name: without its modifiers or unit (cycles:u, cpu_core/cycles/)."""
    name = event
    if name.count("/") == 2 and "=" not in name:
        name = name.split("/")[1]
    name = name.partition(":")[0] if not name.partition(":")[2].count(":") else name
    return _SAME.get(name, name)


# ---- tables of a run ----


def intervals(run: Run) -> pd.DataFrame:
    """Return what was counted in each interval, per second.

    Returns
    -------
    DataFrame
        One row an interval and event with a count: repeat, seconds (its end), length (s), whole
        (whether it has its full length), event, value (as counted), unit, per_s, running_share.

    Raises
    ------
    RunError
        When the run has no intervals.
    """
    table = run.table("perf_intervals")
    ends = table[["repeat", "seconds"]].drop_duplicates().sort_values(["repeat", "seconds"])
    ends["length"] = ends.groupby("repeat")["seconds"].diff().fillna(ends["seconds"])
    last = ends.groupby("repeat")["seconds"].transform("max") == ends["seconds"]
    only = ends.groupby("repeat")["seconds"].transform("size") == 1
    ends["whole"] = ~last | only
    found = table.dropna(subset="value").merge(ends, on=["repeat", "seconds"])
    found["per_s"] = found["value"] / found["length"]
    columns = ["repeat", "seconds", "length", "whole", "event", "value", "unit", "per_s"]
    return found[[*columns, "running_share"]]


def metrics(run: Run) -> pd.DataFrame:
    """Return the rows of a run, as `anonvma.metrics` wants them.

    Returns
    -------
    DataFrame
        repeat (int64), metric (str), value (float64). Empty where perf stat counted nothing.
    """
    rows: list[tuple[int, str, float]] = []
    if "perf_stat" in run.manifest.tables:
        seconds = _seconds(run)
        counted = run.table("perf_stat").dropna(subset="value")
        counted = counted[~counted["event"].isin(TIME_EVENTS)]  # columns of repeats already
        for repeat in sorted(counted["repeat"].unique()):
            part = counted[counted["repeat"] == repeat]
            totals = dict(zip(part["event"], part["value"].astype(float), strict=True))
            rows += [
                (int(repeat), name, value)
                for name, value in _of_totals(totals, seconds.get(repeat, 0.0))
            ]
    if "perf_intervals" in run.manifest.tables:
        whole = intervals(run).query("whole")
        whole = whole[~whole["event"].isin(TIME_EVENTS)]
        for repeat in sorted(whole["repeat"].unique()):
            part = whole[whole["repeat"] == repeat]
            rows += [(int(repeat), name, value) for name, value in _of_intervals(part)]
    frame = pd.DataFrame(rows, columns=["repeat", "metric", "value"])
    return frame.astype({"repeat": "int64", "metric": "str", "value": "float64"})


def _seconds(run: Run) -> pd.Series[float]:
    """Return the wall time of each repeat; of an imported run it may be unknown."""
    if "repeats" not in run.manifest.tables:
        return pd.Series(dtype="float64")
    seconds: pd.Series[float] = run.table("repeats").set_index("repeat")["seconds"]
    return seconds


def _of_totals(totals: Mapping[str, float], seconds: float) -> list[tuple[str, float]]:
    found = [(f"perf-stat.total.{event}", value) for event, value in totals.items()]
    if seconds > 0:
        found += [(f"perf-stat.ps.{event}", value / seconds) for event, value in totals.items()]
    return found + [(f"perf-stat.overall.{name}", v) for name, v in derived(totals).items()]


def _of_intervals(part: pd.DataFrame) -> list[tuple[str, float]]:
    found = part.groupby("event", sort=False)["per_s"].mean()
    rows = [(f"perf-stat.i.{event}", float(value)) for event, value in found.items()]
    ratios = pd.DataFrame(
        [
            derived(dict(zip(one["event"], one["value"], strict=True)))
            for _, one in part.groupby("seconds")
        ]
    )
    return rows + [(f"perf-stat.i.{name}", float(value)) for name, value in ratios.mean().items()]


def counters(run: Run) -> pd.DataFrame:
    """Return what perf stat counted, each counter with how sure it is.

    Returns
    -------
    DataFrame
        event, unit, n (repeats that have a count), mean, sd, low, high of the total (see
        `anonvma.statistics.estimate`); per_s (mean total per second of wall time); running_share
        (the least of any repeat: below 1 the count was extrapolated).

    Raises
    ------
    RunError
        When perf stat counted nothing.
    """
    table = run.table("perf_stat").dropna(subset="value")
    seconds = _seconds(run)
    table = table.assign(per_s=table["value"] / table["repeat"].map(seconds))
    rows = []
    for event, part in table.groupby("event", sort=False):
        rows.append(
            {
                "event": event,
                "unit": part["unit"].iloc[0],
                **statistics.estimate(part["value"].astype("float64"))._asdict(),
                "per_s": part["per_s"].mean(),
                "running_share": part["running_share"].min(),
            }
        )
    names = ["event", "unit", "n", "mean", "sd", "low", "high", "per_s", "running_share"]
    return pd.DataFrame(rows, columns=names)


def plot_intervals(run: Run, event: str = "page-faults", ax: Axes | None = None) -> Axes:
    """Draw what was counted of an event over time, one line a repeat, per second."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    table = intervals(run)
    table = table[table["event"] == event]
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 2.4))
    for repeat, part in table.groupby("repeat"):
        ends = part["seconds"].to_numpy()
        edges = np.concatenate(([ends[0] - part["length"].iloc[0]], ends))
        ax.stairs(part["per_s"].to_numpy(), edges, label=str(repeat), linewidth=1.5)
    ax.yaxis.set_major_formatter(EngFormatter())
    ax.set(xlabel="seconds", ylabel=f"{event} a second", ylim=(0, None))
    ax.legend(title="repeat", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def absent(run: Run) -> pd.DataFrame:
    """Return the rows of `FORMULAS` that this run cannot have, and why.

    Returns
    -------
    DataFrame
        metric (``perf-stat.overall.…``), formula, lacking (the events without a count), reason.
    """
    table = run.table("perf_stat") if "perf_stat" in run.manifest.tables else _NOTHING
    why: dict[str, str] = {}
    for event, part in table.groupby("event", sort=False):
        name = plain(str(event))
        if not part["supported"].any():
            why[name] = "this machine does not offer the counter"
        elif part["value"].notna().sum() < part["repeat"].nunique():
            why[name] = "perf never came to count it in at least one repeat"
        elif not part["value"].astype(float).any():
            why[name] = "it counted 0"
        else:
            why[name] = ""
    rows: list[dict[str, Any]] = []

    def reason(event: str) -> str:
        return why.get(event, "it was not asked for")

    for metric, formula in FORMULAS.items():
        lacking = [event for event in formula.needed if reason(event)]
        # Not those that nobody asked for.
        if lacking and any(event in why for event in formula.above):
            reasons = dict.fromkeys(reason(event) for event in lacking)
            rows.append(
                {
                    "metric": f"perf-stat.overall.{metric}",
                    "formula": formula.words,
                    "lacking": ", ".join(lacking),
                    "reason": "; ".join(reasons),
                }
            )
    return pd.DataFrame(rows, columns=["metric", "formula", "lacking", "reason"])


_NOTHING = pd.DataFrame(
    {"event": pd.Series(dtype="str"), "supported": [], "value": [], "repeat": []}
)
