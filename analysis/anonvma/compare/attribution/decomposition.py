# SPDX-License-Identifier: GPL-2.0-only
"""A change in acquisitions taken apart: by lock path, by number of faults and by call.

The parts of one kind of fault add up to the whole of it (Kitagawa 1955).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base import statistics
from anonvma.compare.attribution.acquisitions import STATES, Side
from anonvma.run.vocabulary import PAGE_FAULT

PATH, REPEATED, NUMBER, CALLS, UNEXPLAINED = (
    "lock path",
    "repeated",
    "number",
    "calls",
    "unexplained",
)

COLUMNS = [
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


class Estimate:
    """A difference with its interval, from values of the runs of both sides."""

    def __init__(
        self,
        change: float,
        base: Iterable[Any],
        head: Iterable[Any],
        *,
        resolution: float = 1.0,  # acquisitions are whole numbers
    ) -> None:
        self.change = change
        sides = [np.asarray(list(values), float) for values in (base, head)]
        self.low, self.high = statistics.around(change, *sides, resolution=resolution)

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves 0 out; never with a single run."""
        return bool(self.low > 0 or self.high < 0)


def taken_apart(one: Side, other: Side) -> tuple[pd.DataFrame, Estimate]:
    """Return the rows that a change adds up from, the largest first, and the whole of it."""
    rows = _fault_rows(one, other) + _call_rows(one, other)
    sums = [side.taken.sum() for side in (one, other)]
    total = Estimate(float(sums[1].mean() - sums[0].mean()), *sums)
    rest = [
        side.taken.sum()
        - side.direct.sum()
        - side.repeated.sum()
        - side.taken.drop(PAGE_FAULT, level="asked_by", errors="ignore").sum()
        for side in (one, other)
    ]
    left = Estimate(float(rest[1].mean() - rest[0].mean()), *rest)
    means = [float(values.mean()) for values in rest]
    rows.append(_row(UNEXPLAINED, left, taken=(means[0], means[1])))
    table = pd.DataFrame(rows, columns=COLUMNS)
    whole = total.change if total.is_sure or one.n < 2 or other.n < 2 else float("nan")
    table["share"] = table["change"] / (whole if whole else float("nan"))
    last = table["cause"] == UNEXPLAINED
    order = pd.DataFrame({"last": last, "size": -table["change"].abs()})
    order = order.sort_values(["last", "size"], kind="stable")
    return table.loc[order.index].reset_index(drop=True), total


def _row(cause: str, estimate: Estimate, **known: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"cause": cause, "change": estimate.change}
    row |= {"low": estimate.low, "high": estimate.high}
    for name, value in known.items():
        if isinstance(value, tuple):
            row[f"{name}_base"], row[f"{name}_head"] = value
        else:
            row[name] = value
    return row


def _fault_rows(one: Side, other: Side) -> list[dict[str, Any]]:
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
            "state": STATES.get((before, after), f"{before} -> {after}"),
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


def _wait_of_an_acquisition(side: Side) -> float:
    """Return the mean wait of a page fault for mmap_lock, in ms."""
    asked = side.taken.index.get_level_values("asked_by") == PAGE_FAULT
    acquisitions = float(side.taken[asked].to_numpy().sum()) / side.n
    return float(side.waited[asked].to_numpy().sum()) / side.n / max(acquisitions, 1.0)


def _effects(
    faults: Sequence[np.ndarray[Any, Any]],
    direct: Sequence[np.ndarray[Any, Any]],
    repeated: Sequence[np.ndarray[Any, Any]],
) -> list[tuple[str, Estimate]]:
    """Take the change of one kind of fault apart; the parts add up to the whole of it."""
    d, r = (_split(faults, taken) for taken in (direct, repeated))
    number = Estimate(
        d[1].change + r[1].change,
        *(a + b for a, b in zip(d[1].values, r[1].values, strict=True)),
    )
    return [(PATH, d[0]), (REPEATED, r[0]), (NUMBER, number)]


class _Part(Estimate):
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


def _call_rows(one: Side, other: Side) -> list[dict[str, Any]]:
    rows = []
    for key in one.taken.index.union(other.taken.index):
        asked_by, mode = key
        if asked_by == PAGE_FAULT:
            continue
        taken = [_values(side.taken, key, side.n) for side in (one, other)]
        waited = [_values(side.waited, key, side.n) for side in (one, other)]
        estimate = Estimate(float(taken[1].mean() - taken[0].mean()), *taken)
        if abs(estimate.change) > 1e-9:
            means = tuple(float(t.mean()) for t in taken)
            waits = tuple(float(w.mean()) for w in waited)
            rows.append(
                _row(CALLS, estimate, origin=asked_by, mode=mode, taken=means, wait_ms=waits)
            )
    return rows
