# SPDX-License-Identifier: GPL-2.0-only
"""Which part of the time made the change in throughput, and on which VMAs.

The time that the tasks of two conditions spend on one mapping (`anonvma.tables.mapping_time`)
differs; the difference is taken apart. It is the sum of the differences of all parts, and one of
them needs a second look: a task that waits for a CPU waits because others run. So the time that
tasks of the workload waited for each other's CPUs is laid to what they ran, in proportion, as a
factor: runnable over running. A part that runs longer costs that much more of it; a factor that is
itself another, for there are fewer CPUs or more tasks, is a row of its own (*CPUs to share*). Both
add up: of a product each change is weighted with the other's mean (Kitagawa 1955).

Time of page faults is laid to VMAs by how many faults, or acquisitions of mmap_lock, each kind had
in the executions traced for those.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from anonvma.base import statistics
from anonvma.base.numerals import interval, number, percent
from anonvma.compare import changes
from anonvma.run.runs import Run
from anonvma.tables import mapping_time
from anonvma.tables.mapping_time import (
    BEFORE,
    BEHIND,
    FAULTS,
    LEFT,
    QUEUED,
    WAITING,
    WORK,
    Unit,
)

SHARED = "CPUs to share"
"""The row of what waiting for a CPU costs more or less for other reasons than what tasks run."""

_MOST = 0.5  # of the change: it is the cause
_PART = 0.05  # below it, it is not worth a sentence
_UNSURE = 0.15  # unexplained, of the change: said as a doubt

_Parts: TypeAlias = "tuple[pd.Series[float], pd.Series[float]]"


@dataclasses.dataclass(frozen=True)
class TimeCause:
    """What made the time of one mapping longer or shorter in one condition than in another.

    Attributes
    ----------
    table : DataFrame
        One row per part, the largest effect first, what is not accounted for last: part, base, head
        (microseconds of a unit), made (what it adds to the change), low, high (95 %; null for a
        single run), share (of the whole change; null where there is none).
    change, low, high : float
        Of the whole, head less base, in microseconds, with its interval.
    unexplained : float or None
        The share of the change that is not accounted for; None where nothing changed.
    cause : str or None
        The part that makes most of the change; None where none does, or nothing changed.
    vmas : DataFrame
        Of the page faults' time, what each kind of VMA adds: part, origin, state, made.
    sentences : list of str
    """

    table: pd.DataFrame
    change: float
    low: float
    high: float
    unexplained: float | None
    cause: str | None
    vmas: pd.DataFrame
    sentences: list[str]


def explain(
    conditions: Mapping[str, Sequence[Run]], head: str | None = None, metric: str | None = None
) -> TimeCause | None:
    """Explain by which parts of it the time of one mapping differs from the first condition's.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The first is the base. Parts are of the runs that tell where their time went, the metric
        is of all.
    head : str, optional
        Which other one; the last by default.
    metric : str, optional
        The primary metric, which the sentences speak of.

    Returns
    -------
    TimeCause or None
        None where `anonvma.tables.mapping_time.lacking` says why.
    """
    base = next(iter(conditions))
    head = head or list(conditions)[-1]
    sides = {name: conditions[name] for name in (base, head)}
    if mapping_time.lacking(sides):
        return None
    unit = mapping_time.unit_of(sides)
    one, other = (_Side(name, runs, unit) for name, runs in sides.items())
    table, change, (low, high) = _taken_apart(one, other)
    sure = low > 0 or high < 0 or (min(len(one.whole), len(other.whole)) < 2 and change != 0)
    whole = change if sure else float("nan")
    table["share"] = table["made"] / whole
    explained = table[table["part"] != LEFT]
    cause = None
    if sure and len(explained) and explained["share"].iloc[0] >= _MOST:
        cause = str(explained["part"].iloc[0])
    vmas = _of_vmas(one, other)
    unexplained = float(table.loc[table["part"] == LEFT, "share"].sum()) if sure else None
    found = TimeCause(table, change, low, high, unexplained, cause, vmas, [])
    first = changes.primary_rows(sides, metric).iloc[0]
    return dataclasses.replace(found, sentences=_said(one, other, found, unit, first))


# ---- one side ----


class _Side:
    """One condition: what its tasks spent on one unit."""

    def __init__(self, name: str, runs: Sequence[Run], unit: Unit) -> None:
        self.name, self.runs = name, mapping_time.told(runs)
        self.spent = mapping_time.spent(runs, unit)
        self.whole = self.spent.whole
        self.shares = self.spent.shares.fillna(0.0)

    @property
    def us(self) -> pd.Series[float]:
        return self._parts(float(self.whole.mean()), self.shares.mean(), self.running)[0]

    @property
    def running(self) -> pd.Series[float]:
        return self.spent.running.mean()

    @staticmethod
    def _parts(whole: float, shares: pd.Series[float], running: pd.Series[float]) -> _Parts:
        return whole * shares, whole * running

    def mean(self) -> _Parts:
        return self._parts(float(self.whole.mean()), self.shares.mean(), self.running)

    def of_each(self) -> tuple[list[_Parts], list[_Parts]]:
        """Return what `mean` would be by the time of each run, and by the shares of each."""
        by_whole = [self._parts(float(w), self.shares.mean(), self.running) for w in self.whole]
        whole = float(self.whole.mean())
        by_shares = [
            self._parts(whole, self.shares.iloc[i], self.spent.running.iloc[i])
            for i in range(len(self.shares))
        ]
        return by_whole, by_shares


def _factor(us: pd.Series[float], running: pd.Series[float]) -> float:
    """Return for how long a task is runnable or running, of the time that it runs."""
    whole = float(running.sum())
    return 1 + float(us[QUEUED]) / whole if whole else 1.0


def _effects(base: _Parts, head: _Parts) -> pd.Series[float]:
    """Return what each part adds to the change; they add up to the whole of it."""
    (us0, run0), (us1, run1) = base, head
    factors = _factor(us0, run0), _factor(us1, run1)
    queue = sum(factors) / 2 - 1
    made = (us1 - us0).drop(QUEUED) + queue * (run1 - run0).drop(QUEUED)
    shared = float((run0 + run1).sum()) / 2 * (factors[1] - factors[0])
    if not (run0.sum() and run1.sum()):
        shared = float(us1[QUEUED] - us0[QUEUED])
    made[SHARED] = shared
    return made


def _taken_apart(one: _Side, other: _Side) -> tuple[pd.DataFrame, float, tuple[float, float]]:
    means = one.mean(), other.mean()
    made = _effects(*means)
    # For the interval each run is put in the place of its side's mean: its time, and its shares,
    # which are of executions of their own.
    varied = [
        (
            pd.DataFrame([_effects(each, means[1]) for each in base]),
            pd.DataFrame([_effects(means[0], each) for each in head]),
        )
        for base, head in zip(one.of_each(), other.of_each(), strict=True)
    ]
    rows = []
    for part, value in zip(made.index.astype(str), made, strict=True):
        bounds = [statistics.around(float(value), base[part], head[part]) for base, head in varied]
        half = math.hypot(*(high - float(value) for _, high in bounds))
        shown = QUEUED if part == SHARED else part
        rows.append(
            {
                "part": part,
                "base": float(means[0][0][shown]),
                "head": float(means[1][0][shown]),
                "made": float(value),
                "low": float(value) - half,
                "high": float(value) + half,
            }
        )
    table = pd.DataFrame(rows)
    kept = table[(table[["base", "head", "made"]].abs() >= 0.0005).any(axis=1)]
    order = pd.DataFrame({"last": kept["part"] == LEFT, "size": -kept["made"].abs()})
    # What goes the way of the whole first.
    change = float(other.whole.mean() - one.whole.mean())
    order["against"] = (kept["made"] * change) < 0
    order = order.sort_values(["last", "against", "size"], kind="stable")
    bounds_of_whole = statistics.around(change, one.whole, other.whole)
    return kept.loc[order.index].reset_index(drop=True), change, bounds_of_whole


# ---- on which VMAs ----


def _of_vmas(one: _Side, other: _Side) -> pd.DataFrame:
    """Lay the time of page faults to the VMAs they were on, and so its change."""
    columns = ["part", "origin", "state", "made"]
    sides = (one, other)
    if any("faults" not in run.manifest.tables for side in sides for run in side.runs):
        return pd.DataFrame(columns=columns)
    rows = []
    for part, weight in ((f"{FAULTS}, {WORK}", "count"), (f"{FAULTS}, {WAITING}", "taken")):
        parts = [_by_vma(side, weight) * float(side.us[part]) for side in sides]
        index = parts[0].index.union(parts[1].index)
        made = parts[1].reindex(index, fill_value=0.0) - parts[0].reindex(index, fill_value=0.0)
        origins, states = (made.index.get_level_values(level) for level in (0, 1))
        rows += [
            {"part": part, "origin": origin, "state": state, "made": float(value)}
            for origin, state, value in zip(origins, states, made, strict=True)
        ]
    table = pd.DataFrame(rows, columns=columns)
    order = table["made"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _by_vma(side: _Side, weight: str) -> pd.Series[float]:
    """Return the share of each kind of VMA in the faults of one side, or in what they took."""
    sums = []
    for run in side.runs:
        faults = run.table("faults")
        faults = faults[~faults["mode"].isin(["gup"]) & (faults["result"] != "error")]
        counts = faults["count"].astype("float64")
        if weight == "taken":
            counts = counts.where(faults["path"].isin(["mmap", "retry"]), 0.0)
        origin = faults["origin"].astype("object").fillna("no VMA")
        state = faults["before"].astype("object")
        sums.append(counts.groupby([origin.to_numpy(), state.to_numpy()]).sum())
    total = pd.concat(sums).groupby(level=[0, 1]).sum()
    whole = float(total.sum())
    shares: pd.Series[float] = total / whole if whole else total * 0.0
    return shares


# ---- words ----


def _said(
    one: _Side, other: _Side, found: TimeCause, unit: Unit, first: pd.Series[Any]
) -> list[str]:
    sums = [float(side.whole.mean()) for side in (one, other)]
    bounds = interval(found.low, found.high, apart=0)
    within = f"95 % interval {bounds}" if bounds != "-" else "a single run has no interval"
    whole = (
        f"A {unit.name} takes {number(sums[0])} µs of the tasks' time in {one.name} and "
        f"{number(sums[1])} in {other.name} ({_signed(found.change)} µs, {within})"
    )
    if found.unexplained is None:
        return [f"{whole}: no change is shown, so none is explained."]
    said = [f"{whole}.", *_parts_said(found), _cause_said(one, other, found)]
    left = abs(found.unexplained)
    said.append(
        f"Unexplained: {percent(left)} of the change."
        + (" That is too much for the parts to be relied upon." if left > _UNSURE else "")
    )
    said.append(_same_way_said(one, other, found, first))
    return [sentence for sentence in said if sentence]


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def _parts_said(found: TimeCause) -> list[str]:
    parts = found.table[found.table["part"] != LEFT]
    rows, against = parts[parts["share"] >= _PART], parts[parts["share"] <= -_PART]
    return [
        f"{_signed(row['made'])} µs ({percent(row['share'])} of the change): {row['part']}"
        f"{_vmas_said(found, str(row['part']))}."
        for row in rows.head(3).to_dict(orient="records")
    ] + [
        f"Against that, {_signed(row['made'])} µs: {row['part']}{_SHARING.get(row['part'], '')}."
        for row in against.head(1).to_dict(orient="records")
    ]


def _vmas_said(found: TimeCause, part: str) -> str:
    rows = found.vmas[found.vmas["part"] == part]
    whole = float(rows["made"].sum())
    if not len(rows) or not whole:
        return ""
    row = rows.iloc[0]
    share = float(row["made"]) / whole
    if share <= 0:
        return ""
    vmas = "where there was no VMA" if row["origin"] == "no VMA" else f"on {row['origin']} VMAs"
    return f", {percent(min(share, 1.0))} of it {vmas} that were found {row['state']}"


_SHARING = {SHARED: ", for which tasks wait the more the fewer of them wait for something else"}
_NAMED = {
    BEHIND: "the CPUs were taken by tasks that are not of the workload",
    BEFORE: "the tasks began to work later",
}


def _cause_said(one: _Side, other: _Side, found: TimeCause) -> str:
    if found.cause is None:
        return "No part alone makes most of the change."
    if found.cause == SHARED:
        cpus = [_cpus(side) for side in (one, other)]
        if cpus[0] != cpus[1]:
            return (
                f"So most of the change is waiting for CPUs: there are {number(cpus[0])} in "
                f"{one.name} and {number(cpus[1])} in {other.name}."
            )
        return (
            "So most of the change is that tasks of the workload wait for each other's CPUs, of "
            f"which there are {number(cpus[0])} in both, more or less than what they run explains."
        )
    return f"So most of the change is this: {_NAMED.get(found.cause, found.cause)}."


def _cpus(side: _Side) -> float:
    totals = pd.concat([run.table("time_totals") for run in side.runs])
    return float(totals["cpus"].astype("float64").mean())


def _same_way_said(one: _Side, other: _Side, found: TimeCause, first: pd.Series[Any]) -> str:
    """Set the change of throughput while this was traced beside that of untraced executions."""
    rates = [mapping_time.slowed(side.runs) for side in (one, other)]
    traced, untraced = ((rates[1][i] / rates[0][i]) if rates[0][i] > 0 else 0.0 for i in (0, 1))
    if not (traced > 0 and untraced > 0):
        return ""
    said = (
        f"While this was traced throughput of {other.name} was {number(traced)} times that of "
        f"{one.name}, untraced {number(untraced)}"
    )
    if (traced - 1) * (untraced - 1) < 0:
        return f"{said}: tracing turned the change round, so the parts do not explain it."
    return f"{said}."
