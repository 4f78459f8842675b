# SPDX-License-Identifier: GPL-2.0-only
"""Cause: which VMAs, and which calls, a change in the acquisitions of mmap_lock comes from.

Two conditions took mmap_lock a different number of times. Each acquisition has a reason, and the
reasons are counted twice, independently: by who asked for the lock (table ``locks``), and by the
lock path of each fault (table ``faults``). `explain` takes the difference apart.

Faults on one kind of VMA can take the lock less often in two ways, which add up exactly:

- **lock path**: there are as many faults, and another share of them takes mmap_lock. This alone is
  what a check for an ``anon_vma`` does, and only where the VMAs were found *bare*;
- **number**: the share is the same, and there are more faults or fewer: another page size, more
  memory, another program.

A fault that first tried the VMA's lock and then was *repeated* under mmap_lock is a third thing,
contention most often, and counted apart. Calls (mmap, munmap, ...) count as they are. Whatever of
the change the faults do not account for is *unexplained*, with its size.

So bare VMAs are blamed only for faults that found a VMA bare and had their lock path changed. A
busy neighbour, a slower munmap or larger pages do not look like that, and are not.

For faults that make an ``anon_vma`` under the VMA's lock mmap_lock is taken too, by trying
(``vmf_anon_prepare()``): one acquisition each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anonvma.base import statistics
from anonvma.base.axes import own
from anonvma.base.numerals import number, percent
from anonvma.compare import changes
from anonvma.run.runs import Run, having
from anonvma.run.vocabulary import TRACING_LOSSES
from anonvma.tables import locks, losses
from anonvma.tables.faults import timed_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HOW", "Cause", "explain", "plot_taken", "printed", "taken", "verdicts"]

HOW = (
    "Acquisitions of mmap_lock by the workload in one repeat. lock path: as many faults, another "
    "share of them under mmap_lock; number: the same share of more faults, or fewer; repeated: "
    "begun under the VMA's lock; calls: not a fault. share is of the whole change, in per cent. "
    "Waits of faults are divided among them by acquisitions."
)

_NEEDED = ("faults", "locks")
"""The tables without which a run tells no cause."""

PATH, REPEATED, NUMBER, CALLS, UNEXPLAINED = (
    "lock path",
    "repeated",
    "number",
    "calls",
    "unexplained",
)
_KEY = ["origin", "mode", "access", "before", "after"]
_STATES = {
    ("bare", "bare"): "stays bare",
    ("bare", "anon_vma"): "bare, gets an anon_vma",
    ("anon_vma", "anon_vma"): "has an anon_vma",
}
_LEAST = 0.01  # of all that changed: smaller rows are printed as one
_BLAMED = 0.5  # of the change: bare VMAs are the cause
_PARTLY = 0.05  # below it they are not even a part of it


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why one condition takes mmap_lock more or less often than another.

    Attributes
    ----------
    table : DataFrame
        One row a reason, the largest first: cause (`PATH`, `REPEATED`, `NUMBER`, `CALLS`,
        `UNEXPLAINED`), origin, access, mode and state of the VMAs or the caller's name; vmas_base,
        vmas_head (zero-page VMAs of that origin in the census; null where it is not about bare
        ones); faults_base, faults_head; taken_base, taken_head; wait_ms_base, wait_ms_head; change
        (acquisitions, head - base), low, high (95 %), share (of the whole change). Means of one
        repeat.
    change, low, high : float
        Of all acquisitions, head - base, with its 95 % interval; NaN where it cannot be told.
    bare_share : float or None
        The part of the change that is the lock path of faults on bare VMAs; None where nothing
        changed or nothing can be told.
    unexplained_share : float or None
        The part that nothing accounts for.
    verdict : {"bare VMAs", "in part bare VMAs", "not bare VMAs", "no change", "unknown"}
    sentences : list of str
        The same in words.
    """

    table: pd.DataFrame
    change: float
    low: float
    high: float
    bare_share: float | None
    unexplained_share: float | None
    verdict: str
    sentences: list[str]


_COLUMNS = [
    "cause",
    "origin",
    "access",
    "mode",
    "state",
    "vmas_base",
    "vmas_head",
    "faults_base",
    "faults_head",
    "taken_base",
    "taken_head",
    "wait_ms_base",
    "wait_ms_head",
    "change",
    "low",
    "high",
    "share",
]


def explain(
    conditions: Mapping[str, Sequence[Run]], head: str | None = None, metric: str | None = None
) -> Cause:
    """Explain why a condition takes mmap_lock more or less often than the first one.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The first is the base. Counts are of those that were traced, the headline is of all.
    head : str, optional
        Which other one; the last by default.
    metric : str, optional
        The headline that the sentences speak of, see `anonvma.compare.changes.headline`.

    Returns
    -------
    Cause
    """
    base = next(iter(conditions))
    head = head or list(conditions)[-1]
    sides = {name: conditions[name] for name in (base, head)}
    traced = {name: having(runs, *_NEEDED) for name, runs in sides.items()}
    for name, runs in sides.items():
        if not traced[name]:
            lacks = next(table for table in _NEEDED if table not in runs[0].manifest.tables)
            return _unknown(f"run {runs[0].id} of {name} has no table {lacks!r}")
    first = changes.headline(sides, metric).iloc[0]
    one, other = (_Side(name, runs) for name, runs in traced.items())
    table, total = _taken_apart(one, other)
    return _judged(one, other, table, total, first)


def _unknown(lacking: str) -> Cause:
    nan = float("nan")
    said = (
        f"What caused it cannot be told: {lacking}. Remedy: collect with tracing, on a kernel that "
        "allows it ('anonvma doctor')."
    )
    table = pd.DataFrame(columns=_COLUMNS)
    return Cause(table, nan, nan, nan, None, None, "unknown", [said])


# ---- one side ----


class _Side:
    """The runs of one condition: acquisitions by kind of fault and by caller, one column a run."""

    def __init__(self, name: str, runs: Sequence[Run]) -> None:
        self.name, self.runs, self.n = name, runs, len(runs)
        each = [_fault_groups(run) for run in runs]
        self.faults = _wide([part["faults"] for part in each])
        self.direct = _wide([part["direct"] for part in each])
        self.repeated = _wide([part["repeated"] for part in each])
        self.time_ns = _wide([part["time_ns"] for part in each])
        self.timed = _wide([part["timed"] for part in each])
        self.unknown = float(np.mean([part["unknown"].sum() for part in each]))
        callers = [_callers(run) for run in runs]
        self.taken = _wide([part["taken"] for part in callers])
        self.waited = _wide([part["wait_ns"] for part in callers]) / 1e6
        self.vmas = _zero_page_vmas(runs)


def _wide(columns: Sequence[pd.Series[float]]) -> pd.DataFrame:
    """Return series as the columns of a table; what one of them does not list was 0 there."""
    return pd.concat(list(columns), axis=1, keys=range(len(columns))).fillna(0.0)


def _fault_groups(run: Run) -> pd.DataFrame:
    """Return faults and the acquisitions they amount to, by kind, as means of one repeat."""
    table = run.table("faults")
    repeats = max(int(table["repeat"].nunique()), 1)
    found = table[table["result"] != "error"]
    origin = found["origin"].astype("object").fillna("no VMA")
    found = found.assign(origin=origin).astype(
        {"count": "float64", "time_ns": "float64", **{name: "object" for name in _KEY}}
    )
    count, path = found["count"], found["path"].astype("object")
    makes = (found["before"] == "bare") & (found["after"] == "anon_vma")
    tries = (path == "vma") & makes & (found["mode"] == "user")
    parts = found.assign(
        faults=count,
        direct=count.where((path == "mmap") | tries, 0.0),
        repeated=count.where(path == "retry", 0.0),
        unknown=count.where(path == "unknown", 0.0),
        timed=timed_count(found),
    )
    names = ["faults", "direct", "repeated", "unknown", "timed"]
    sums = parts.groupby(_KEY, observed=True)[names].sum()
    sums["time_ns"] = parts.groupby(_KEY, observed=True)["time_ns"].sum(min_count=1)
    return sums / repeats


def _callers(run: Run) -> pd.DataFrame:
    """Return the acquisitions and waits of the workload by caller, as means of one repeat."""
    table = run.table("locks")
    repeats = max(int(table["repeat"].nunique()), 1)
    own = locks.of_workload(table).astype(
        {"wait_ns": "float64", "asked_by": "object", "mode": "object"}
    )
    return own.groupby(["asked_by", "mode"])[["taken", "wait_ns"]].sum() / repeats


def _zero_page_vmas(runs: Sequence[Run]) -> pd.Series[float]:
    """Return how many zero-page VMAs of each origin there were, mean of the repeats."""
    counts = []
    for run in runs:
        if "census" in run.manifest.tables:
            table = run.table("census")
            found = table[table["class"] == "zero-page"]
            repeats = max(int(table["repeat"].nunique()), 1)
            counts.append(found["origin"].astype("object").value_counts() / repeats)
    return _wide(counts).mean(axis=1) if counts else pd.Series(dtype="float64")


# ---- taken apart ----


class _Estimate:
    """A difference with its interval, from values of the runs of both sides."""

    def __init__(self, change: float, base: Iterable[float], head: Iterable[float]) -> None:
        self.change = change
        sides = [np.asarray(list(values), float) for values in (base, head)]
        # Acquisitions are whole numbers.
        self.low, self.high = statistics.around(change, *sides, resolution=1.0)

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves 0 out; never with a single run."""
        return bool(self.low > 0 or self.high < 0)


def _taken_apart(one: _Side, other: _Side) -> tuple[pd.DataFrame, _Estimate]:
    rows = _fault_rows(one, other) + _call_rows(one, other)
    sums = [side.taken.sum() for side in (one, other)]
    total = _Estimate(float(sums[1].mean() - sums[0].mean()), *sums)
    rest = [
        side.taken.sum()
        - side.direct.sum()
        - side.repeated.sum()
        - side.taken.drop("page fault", level="asked_by", errors="ignore").sum()
        for side in (one, other)
    ]
    left = _Estimate(float(rest[1].mean() - rest[0].mean()), *rest)
    means = [float(values.mean()) for values in rest]
    rows.append(_row(UNEXPLAINED, left, taken=(means[0], means[1])))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    whole = total.change if total.is_sure or one.n < 2 or other.n < 2 else float("nan")
    table["share"] = table["change"] / (whole if whole else float("nan"))
    last = table["cause"] == UNEXPLAINED
    order = pd.DataFrame({"last": last, "size": -table["change"].abs()})
    order = order.sort_values(["last", "size"], kind="stable")
    return table.loc[order.index].reset_index(drop=True), total


def _row(cause: str, estimate: _Estimate, **known: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {"cause": cause, "change": estimate.change}
    row |= {"low": estimate.low, "high": estimate.high}
    for name, value in known.items():
        if isinstance(value, tuple):
            row[f"{name}_base"], row[f"{name}_head"] = value
        else:
            row[name] = value
    return row


def _fault_rows(one: _Side, other: _Side) -> list[dict[str, Any]]:
    index = one.faults.index.union(other.faults.index)
    sides = (one, other)
    waits = [_wait_of_an_acquisition(side) for side in sides]
    rows = []
    for key in index:
        faults, direct, repeated = (
            [_values(getattr(side, name), key, side.n) for side in sides]
            for name in ("faults", "direct", "repeated")
        )
        origin, mode, access, before, after = key
        taken = [d + r for d, r in zip(direct, repeated, strict=True)]
        known = {
            "origin": origin,
            "access": access,
            "mode": mode,
            "state": _STATES.get((before, after), f"{before} -> {after}"),
            "faults": tuple(float(f.mean()) for f in faults),
            "taken": tuple(float(t.mean()) for t in taken),
            "wait_ms": tuple(float(t.mean()) * w for t, w in zip(taken, waits, strict=True)),
        }
        if (before, after) == ("bare", "bare"):
            known["vmas"] = tuple(float(side.vmas.get(origin, 0.0)) for side in sides)
        rows += [
            _row(cause, estimate, **known)
            for cause, estimate in _effects(faults, direct, repeated)
            if abs(estimate.change) > 1e-9
        ]
    return rows


def _values(table: pd.DataFrame, key: Any, n: int) -> np.ndarray[Any, Any]:
    return table.loc[key].to_numpy(float) if key in table.index else np.zeros(n)


def _wait_of_an_acquisition(side: _Side) -> float:
    """Return the mean wait of a page fault for mmap_lock, in ms."""
    asked = side.taken.index.get_level_values("asked_by") == "page fault"
    acquisitions = float(side.taken[asked].to_numpy().sum()) / side.n
    return float(side.waited[asked].to_numpy().sum()) / side.n / max(acquisitions, 1.0)


def _effects(
    faults: Sequence[np.ndarray[Any, Any]],
    direct: Sequence[np.ndarray[Any, Any]],
    repeated: Sequence[np.ndarray[Any, Any]],
) -> list[tuple[str, _Estimate]]:
    """Take the change of one kind of fault apart; the parts add up to the whole of it."""
    d, r = (_split(faults, taken) for taken in (direct, repeated))
    number = _Estimate(
        d[1].change + r[1].change,
        *(a + b for a, b in zip(d[1].values, r[1].values, strict=True)),
    )
    return [(PATH, d[0]), (REPEATED, r[0]), (NUMBER, number)]


class _Part(_Estimate):
    def __init__(self, change: float, values: Sequence[np.ndarray[Any, Any]]) -> None:
        super().__init__(change, *values)
        self.values = values


def _split(
    faults: Sequence[np.ndarray[Any, Any]], taken: Sequence[np.ndarray[Any, Any]]
) -> tuple[_Part, _Part]:
    """Return what another share, and what another number of faults, adds to the acquisitions.

    Of the product of number and share each change is weighted with the other's mean, so that the
    two add up (Kitagawa 1955). For the interval each run is put in the place of its side's mean.
    """
    n = [float(values.mean()) for values in faults]
    a = [float(values.mean()) for values in taken]
    share, number = _parts(n[0], a[0], n[1], a[1])
    of_base = [_parts(f, t, n[1], a[1]) for f, t in zip(faults[0], taken[0], strict=True)]
    of_head = [_parts(n[0], a[0], f, t) for f, t in zip(faults[1], taken[1], strict=True)]
    base, head = np.array(of_base, float), np.array(of_head, float)
    return (
        _Part(share, [base[:, 0], head[:, 0]]),
        _Part(number, [base[:, 1], head[:, 1]]),
    )


def _parts(n0: float, a0: float, n1: float, a1: float) -> tuple[float, float]:
    if n0 == 0 or n1 == 0:  # no share on one side: the other's holds
        return 0.0, a1 - a0
    r0, r1 = a0 / n0, a1 / n1
    return (n0 + n1) / 2 * (r1 - r0), (r0 + r1) / 2 * (n1 - n0)


def _call_rows(one: _Side, other: _Side) -> list[dict[str, Any]]:
    rows = []
    for key in one.taken.index.union(other.taken.index):
        asked_by, mode = key
        if asked_by == "page fault":
            continue
        taken = [_values(side.taken, key, side.n) for side in (one, other)]
        waited = [_values(side.waited, key, side.n) for side in (one, other)]
        estimate = _Estimate(float(taken[1].mean() - taken[0].mean()), *taken)
        if abs(estimate.change) > 1e-9:
            means = tuple(float(t.mean()) for t in taken)
            waits = tuple(float(w.mean()) for w in waited)
            rows.append(
                _row(CALLS, estimate, origin=asked_by, mode=mode, taken=means, wait_ms=waits)
            )
    return rows


# ---- judged ----


def _judged(
    one: _Side, other: _Side, table: pd.DataFrame, total: _Estimate, first: pd.Series[Any]
) -> Cause:
    single = min(one.n, other.n) < 2
    changed = total.is_sure or (single and total.change != 0)
    bare_share = unexplained = None
    verdict = "no change"
    if changed:
        bare_share = float(_of_bare(table)["change"].sum() / total.change)
        unexplained = float(table.loc[table["cause"] == UNEXPLAINED, "change"].sum() / total.change)
        verdict = "not bare VMAs"
        if bare_share >= _BLAMED:
            verdict = "bare VMAs"
        elif bare_share >= _PARTLY:
            verdict = "in part bare VMAs"
    said = [_total_said(one, other, total, changed)]
    if changed:
        said += _reasons_said(one, other, table, total)
        said.append(_verdict_said(one, other, verdict, bare_share, unexplained, table))
    said.append(_headline_said(one, other, verdict, first))
    said += _doubts(one, other)
    return Cause(
        table,
        total.change,
        total.low,
        total.high,
        bare_share,
        unexplained,
        verdict,
        [sentence for sentence in said if sentence],
    )


def _of_bare(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that blame bare VMAs: a changed lock path of faults that found them bare."""
    bare = table["state"].isin([_STATES["bare", "bare"], _STATES["bare", "anon_vma"]])
    return table[bare & (table["cause"] == PATH) & (table["mode"] == "user")]


def _total_said(one: _Side, other: _Side, total: _Estimate, changed: bool) -> str:
    sums = [float(side.taken.sum().mean()) for side in (one, other)]
    interval = (
        f", 95 % interval {total.low:+,.0f} to {total.high:+,.0f}"
        if np.isfinite(total.low)
        else ", a single run has no interval"
    )
    numbers = (
        f"{sums[0]:,.0f} times in {one.name} and {sums[1]:,.0f} in {other.name} "
        f"({total.change:+,.0f}{interval}; n = {one.n} and {other.n})"
    )
    if changed:
        return f"The workload took mmap_lock {numbers}."
    return f"The workload took mmap_lock as often, as far as these runs show: {numbers}."


def _reasons_said(one: _Side, other: _Side, table: pd.DataFrame, total: _Estimate) -> list[str]:
    """Say the reasons that make up most of the change, the largest first, three at most."""
    reasons = table[(table["cause"] != UNEXPLAINED) & (table["share"].abs() >= _PARTLY)]
    return [
        f"{abs(row['change']):,.0f} {'fewer' if row['change'] < 0 else 'more'} "
        f"({percent(row['share'])} of the change): {_reason(one, other, row)}."
        for row in reasons.head(3).to_dict(orient="records")
    ]


def _reason(one: _Side, other: _Side, row: Mapping[Any, Any]) -> str:
    if row["cause"] == CALLS:
        return (
            f"{row['origin']} took it for {row['mode']} {row['taken_base']:,.0f} times in "
            f"{one.name} and {row['taken_head']:,.0f} in {other.name}"
        )
    faults = f"{row['access']} faults on {row['origin']} VMAs ({_state_said(row)})"
    counts = (
        f"{row['faults_base']:,.0f} in {one.name} and {row['faults_head']:,.0f} in {other.name}"
    )
    if row["cause"] == NUMBER:
        return (
            f"{faults}, whose number is another: {counts}, while mmap_lock was taken for "
            f"{_share(row, 'base')} and {_share(row, 'head')} of them"
        )
    how = "again, after the VMA's own lock," if row["cause"] == REPEATED else "for"
    return (
        f"{faults}: {counts}, and mmap_lock was taken {how} {_share(row, 'base')} of the former "
        f"and {_share(row, 'head')} of the latter"
    )


def _state_said(row: Mapping[Any, Any]) -> str:
    vmas = row["vmas_base"]
    if vmas is None or not np.isfinite(vmas) or not vmas:
        return str(row["state"])
    return f"{row['state']}; the census has {vmas:,.0f} such VMAs, with zero pages only"


def _share(row: Mapping[Any, Any], side: str) -> str:
    share = row[f"taken_{side}"] / max(row[f"faults_{side}"], 1)
    return "all" if share == 1 else "none" if share == 0 else percent(share)


def _verdict_said(
    one: _Side,
    other: _Side,
    verdict: str,
    bare_share: float | None,
    unexplained: float | None,
    table: pd.DataFrame,
) -> str:
    assert bare_share is not None and unexplained is not None
    left = table.loc[table["cause"] == UNEXPLAINED, "change"].sum()
    rest = f"Unexplained: {number(abs(left))} ({percent(abs(unexplained))})."
    if verdict == "bare VMAs":
        return (
            f"So bare VMAs explain {percent(bare_share)} of the change in mmap_lock: what is asked "
            f"of a fault that finds one differs between {one.name} and {other.name}. {rest}"
        )
    if verdict == "in part bare VMAs":
        return (
            f"Bare VMAs explain {percent(bare_share)} of the change in mmap_lock, and not the "
            f"rest. {rest}"
        )
    share = percent(abs(bare_share)) if bare_share else "nothing"
    return (
        f"This is not explained by bare VMAs: the lock path of faults that find one accounts for "
        f"{share} of it. {rest}"
    )


def _headline_said(one: _Side, other: _Side, verdict: str, first: pd.Series[Any]) -> str:
    """Tie the change in mmap_lock to that of the headline, as far as it can be."""
    name = str(first["metric"])
    moved = first["verdict"] in ("higher", "lower")
    if not moved:
        if verdict in ("bare VMAs", "in part bare VMAs"):
            return (
                f"That {name} changed with it is not shown by these runs: on this machine, with "
                "this many tasks, the lock costs too little, or there are too few runs."
            )
        return ""
    how = f"{name} of {other.name} is {first['ratio']:.3g} times that of {one.name}"
    if verdict == "bare VMAs":
        return f"{how}. {_time_said(one, other)}".strip()
    if verdict == "in part bare VMAs":
        return f"{how}; how much of that is due to bare VMAs is not told by these counts."
    return (
        f"{how}, and that is not explained by bare VMAs: their faults take mmap_lock as they did. "
        "As far as VMAs and mmap_lock go, all of it is unexplained."
        if verdict == "no change"
        else f"{how}, and that is not explained by bare VMAs either."
    )


def _time_said(one: _Side, other: _Side) -> str:
    """Say what the faults on bare VMAs took each, where the source times them."""
    means = []
    for side in (one, other):
        bare = side.faults.index.get_level_values("before") == "bare"
        user = side.faults.index.get_level_values("mode") == "user"
        timed = float(side.timed[bare & user].to_numpy().sum())
        spent = side.time_ns.reindex(side.faults.index)[bare & user].to_numpy().sum()
        if not timed or not np.isfinite(spent) or not spent:
            return "How long its faults took is not known from this source."
        means.append(spent / timed / 1000)
    return (
        f"Traced, a fault on a bare VMA took {means[0]:.2f} µs in {one.name} and {means[1]:.2f} "
        f"in {other.name}."
    )


def _doubts(one: _Side, other: _Side) -> list[str]:
    found = []
    for side in (one, other):
        if side.unknown:
            found.append(
                f"The lock path of {side.unknown:,.0f} faults of {side.name} is unknown; what they "
                "took is among the unexplained."
            )
        traced = [run.table("tracing") for run in side.runs if "tracing" in run.manifest.tables]
        lost = losses.summed(pd.concat(traced)) if traced else {}
        told = [f"{count:,} {TRACING_LOSSES[name]}" for name, count in lost.items() if count]
        if told:
            found.append(f"The tracers of {side.name} lost {'; '.join(told)}.")
    return found


# ---- printed ----


def printed(table: pd.DataFrame, least: float = _LEAST) -> pd.DataFrame:
    """Return the cause table as it is printed, the small rows summed up in one.

    Returns
    -------
    DataFrame
        cause, of (origin or caller), what (access or mode, and the state of the VMA), faults, taken
        and wait ms each as ``base > head``, change, share (per cent, null where nothing changed).
    """
    if table.empty:
        return pd.DataFrame(
            columns=["cause", "of", "what", "faults", "taken", "wait ms", "change", "share"]
        )
    large = table["change"].abs() >= max(least * table["change"].abs().sum(), 0.5)
    kept = table[large | (table["cause"] == UNEXPLAINED)]
    small = table[~large & (table["cause"] != UNEXPLAINED)]
    rows = [_printed(row) for row in kept.to_dict(orient="records")]
    if len(small):
        rest = {"cause": "other", "of": f"{len(small)} smaller", "what": "", "faults": "",
                "taken": "", "wait ms": "", "change": float(small["change"].sum()),
                "share": 100 * float(small["share"].sum(min_count=1))}  # fmt: skip
        rows.insert(len(rows) - 1, rest)
    return pd.DataFrame(rows)


def _printed(row: Mapping[Any, Any]) -> dict[str, Any]:
    words = [
        next((row[n] for n in ("access", "mode") if isinstance(row[n], str)), ""),
        row["state"],
    ]
    return {
        "cause": row["cause"],
        "of": row["origin"] if isinstance(row["origin"], str) else "",
        "what": ", ".join(word for word in words if isinstance(word, str) and word),
        "faults": _both(row, "faults", "{:,.0f}"),
        "taken": _both(row, "taken", "{:,.0f}"),
        "wait ms": _both(row, "wait_ms", "{:,.1f}"),
        "change": float(row["change"]),
        "share": 100 * float(row["share"]),
    }


def _both(row: Mapping[Any, Any], name: str, shape: str) -> str:
    values = [row[f"{name}_base"], row[f"{name}_head"]]
    if any(value is None or not np.isfinite(value) for value in values):
        return ""
    return " > ".join(_unsigned(shape.format(value)) for value in values)


def _unsigned(text: str) -> str:
    """Return a number without a sign if it is printed as 0."""
    return text.removeprefix("-") if not text.strip("-0.") else text


def verdicts(cases: Mapping[str, Mapping[str, Sequence[Run]]]) -> pd.DataFrame:
    """Explain several comparisons, and set their verdicts in one table.

    Parameters
    ----------
    cases : mapping
        By what differs, the conditions; the last of each is explained against the first.

    Returns
    -------
    DataFrame
        One row a case: what differs, change (acquisitions), low, high, largest reason, bare VMAs
        (their share of the change, per cent; null where nothing changed), unexplained (likewise),
        verdict.
    """
    rows = []
    for what, conditions in cases.items():
        found = explain(conditions)
        reasons = found.table[found.table["cause"] != UNEXPLAINED]
        first = _printed(reasons.iloc[0].to_dict()) if found.bare_share is not None else None
        rows.append(
            {
                "what differs": what,
                "change": found.change,
                "low": found.low,
                "high": found.high,
                "largest reason": f"{first['cause']}: {first['of']} {first['what']}".strip()
                if first
                else "-",
                "bare VMAs": _percent(found.bare_share),
                "unexplained": _percent(found.unexplained_share),
                "verdict": found.verdict,
            }
        )
    return pd.DataFrame(rows)


def _percent(share: float | None) -> float:
    return float("nan") if share is None else 100 * abs(share)


def taken(conditions: Mapping[str, Sequence[Run]], most: int = 5) -> pd.DataFrame:
    """How often the workload took mmap_lock in each condition, and what for.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        Traced ones.
    most : int
        Reasons that are told apart; the rest is ``other``.

    Returns
    -------
    DataFrame
        Index: the conditions. A column a reason, most acquisitions first: a kind of fault by what
        the VMA is, or a caller; ``other`` last. Means of one repeat.
    """
    columns = {}
    for name, runs in conditions.items():
        side = _Side(name, having(runs, *_NEEDED))
        by_fault = (side.direct + side.repeated).mean(axis=1)
        origin, _, access, before, after = by_fault.index.to_frame().T.to_numpy()
        kinds = [
            f"{how} faults, {what}, {_STATES.get((b, a), 'not anonymous')}"
            for how, what, b, a in zip(access, origin, before, after, strict=True)
        ]
        faults = by_fault.groupby(np.array(kinds)).sum()
        asked = side.taken.index.get_level_values("asked_by")
        calls = side.taken.mean(axis=1).groupby(asked).sum()
        columns[name] = pd.concat([faults, calls.drop("page fault", errors="ignore")])
    wide = pd.DataFrame(columns).fillna(0.0).T
    order = wide.max().sort_values(ascending=False, kind="stable").index
    found = wide[order[:most]]
    return found.assign(other=wide[order[most:]].sum(axis=1))


def plot_taken(
    conditions: Mapping[str, Sequence[Run]], most: int = 4, ax: Axes | None = None
) -> Axes:
    """Draw `taken` as a bar a condition, its length the acquisitions of mmap_lock."""
    import seaborn as sns

    ax = own(ax, 8, 1.8)
    table = taken(conditions, most)
    colours = [*sns.color_palette("colorblind", most), (0.75, 0.75, 0.75)]
    ax = table.plot.barh(stacked=True, width=0.6, ax=ax, color=colours)
    for place, total in enumerate(table.sum(axis=1)):
        ax.text(total, place, f" {total:,.0f}", va="center")
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.set(xlabel="acquisitions of mmap_lock in one repeat", ylabel="")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.4), ncols=2)
    sns.despine(ax=ax)
    return ax
