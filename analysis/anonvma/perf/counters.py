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
    ratios of totals (`anonvma.perf.formulas`): cpi, ipc, MPKI, cycles-between-cache-misses, miss
    rates. And ``perf-stat.i.X``, the mean of the same ratios over intervals. Of counters limited
    to a mode of the processor they have that in their name (``ipc:u``); kinds of cores are added
    up.

A rate of ``X-misses`` beside ``Xs`` is ``100 * misses / (Xs + misses)``, as the robot has it, so
that the rows can be set beside the robot's; where perf's ``X-loads`` include those that miss it is
a little low (a true 10 % shows as 9.1).

Software clocks are in ms, as perf has them. A row that cannot be is not there, and
`absent` says why; a counter that shared its hardware with others was extrapolated by perf, and
`counters` says what share of the time it was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anonvma.base import statistics
from anonvma.perf.event_names import counter
from anonvma.perf.events import TIME_EVENTS
from anonvma.perf.formulas import FORMULAS, derived, limited
from anonvma.run.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# ---- tables of a run ----


def intervals(run: Run) -> pd.DataFrame:
    """Return what was counted in each interval, per second.

    Returns
    -------
    DataFrame
        One row per interval and event with a count: repeat, seconds (its end), length (s), whole
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
    """Return the rows of a run, as `anonvma.tables.metrics` wants them.

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
            totals = _by_event(part)
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


def _by_event(part: pd.DataFrame) -> dict[str, float]:
    sums = part.groupby("event", sort=False)["value"].sum()
    return {str(event): float(value) for event, value in sums.items()}


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
    ratios = pd.DataFrame([derived(_by_event(one)) for _, one in part.groupby("seconds")])
    return rows + [(f"perf-stat.i.{name}", float(value)) for name, value in ratios.mean().items()]


def counters(run: Run) -> pd.DataFrame:
    """Return what perf stat counted, each counter with how sure it is.

    Returns
    -------
    DataFrame
        event, unit, n (repeats that have a count), mean, sd, low, high of the total (see
        `anonvma.base.statistics.estimate`); per_s (mean total per second of wall time);
        running_share (the least of any repeat: below 1 the count was extrapolated).

    No rows where perf stat counted nothing.
    """
    table = run.table("perf_stat") if "perf_stat" in run.manifest.tables else _NOTHING
    table = table.dropna(subset="value")
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
    """Draw what was counted of an event over time, one line per repeat, per second."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    if ax is None:
        _, ax = plt.subplots(figsize=(7, 2.4))
    table = intervals(run) if "perf_intervals" in run.manifest.tables else _NOTHING
    table = table[table["event"] == event]
    if table.empty:
        ax.text(0.5, 0.5, f"no {event} were counted in intervals", ha="center", va="center")
        ax.set_axis_off()
        return ax
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
    why: dict[str, dict[str, dict[str, str]]] = {}
    for event, part in table.groupby("event", sort=False):
        name, mode, pmu = counter(str(event))
        why.setdefault(mode, {}).setdefault(name, {}).setdefault(pmu, _reason(part))
    rows: list[dict[str, Any]] = []
    for mode, known in why.items():
        for metric, formula in FORMULAS.items():
            lacking = {
                event: _reasons(known.get(event, {}))
                for event in formula.needed
                if not known.get(event) or any(known[event].values())
            }
            cores = {frozenset(known.get(event, {})) for event in formula.needed}
            if not lacking and len(cores) > 1 and not all("" in each for each in cores):
                lacking = dict.fromkeys(formula.needed, "not all were counted on the same cores")
            # Not those that nobody asked for.
            if lacking and any(event in known for event in formula.above):
                rows.append(
                    {
                        "metric": f"perf-stat.overall.{limited(metric, mode)}",
                        "formula": formula.words,
                        "lacking": ", ".join(lacking),
                        "reason": "; ".join(dict.fromkeys(lacking.values())),
                    }
                )
    return pd.DataFrame(rows, columns=["metric", "formula", "lacking", "reason"])


def _reason(part: pd.DataFrame) -> str:
    """Return why an event has no count to divide by; "" if it has."""
    if not part["supported"].any():
        return "this machine does not offer the counter"
    if part["value"].notna().sum() < part["repeat"].nunique():
        return "perf never came to count it in at least one repeat"
    return "" if part["value"].astype(float).any() else "it counted 0"


def _reasons(by_core: Mapping[str, str]) -> str:
    if not by_core:
        return "it was not asked for"
    return "; ".join(dict.fromkeys(reason for reason in by_core.values() if reason))


def lacking_said(run: Run) -> str:
    """Say why `counters` or `absent` has no rows."""
    if "perf_stat" in run.manifest.tables and len(counters(run)):
        return "This run lacks none of them."
    return "This run has no counters: perf stat was not run, or could count nothing."


_NOTHING = pd.DataFrame(
    {"event": pd.Series(dtype="str"), "supported": [], "value": [], "repeat": []}
)
