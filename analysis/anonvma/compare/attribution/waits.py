# SPDX-License-Identifier: GPL-2.0-only
"""Which locks a change in waiting comes from, each by its name: mmap_lock is but one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base.numerals import percent
from anonvma.compare.attribution.decomposition import Estimate
from anonvma.run.runs import Run, having
from anonvma.tables import contended

TABLE = "contended"
COLUMNS = ["lock", "of", "waits", "wait ms", "change", "low", "high", "share"]
_SIDES = ["waits_base", "waits_head", "wait_ms_base", "wait_ms_head"]
HOW = (
    "Locks that were contended, and how long the workload waited for them in one repeat, all tasks "
    "together. share is of the whole change, in per cent; rows below 1 % of it are left out."
)
_LEAST = 0.01  # of all that changed: smaller rows are left out


def _side(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return waits and ms of waiting by lock, one column per run, means of one repeat."""
    sums = [
        contended.by_name(run.table(TABLE)).groupby(["lock", "of"])[["waits", "wait_ms"]].sum()
        for run in runs
    ]
    waits, waited = (
        pd.concat([each[name] for each in sums], axis=1, keys=range(len(sums))).fillna(0.0)
        for name in ("waits", "wait_ms")
    )
    return waits, waited


def taken_apart(base: Sequence[Run], head: Sequence[Run]) -> tuple[pd.DataFrame, Estimate | None]:
    """Return the rows that a change in waiting adds up from, the largest first, and the whole.

    Returns
    -------
    DataFrame
        One row per lock: lock, of (what it belongs to), waits_base, waits_head, wait_ms_base,
        wait_ms_head (means of one repeat), change (ms), low, high (95 %), share (of the whole, per
        cent). Of runs without the table no rows, and None.
    Estimate or None
        Of all waiting, in ms.
    """
    sides = [having(runs, TABLE) for runs in (base, head)]
    if not all(sides):
        return pd.DataFrame(columns=["lock", "of", *_SIDES, *COLUMNS[4:]]), None
    (waits, ms), (other_waits, other_ms) = (_side(runs) for runs in sides)
    whole = _estimate(ms.sum(), other_ms.sum())
    rows = []
    for key in ms.index.union(other_ms.index):
        values = [_values(table, key) for table in (waits, other_waits, ms, other_ms)]
        estimate = _estimate(*values[2:])
        rows.append(
            {
                **dict(zip(("lock", "of"), key, strict=True)),
                **dict(zip(_SIDES, (float(each.mean()) for each in values), strict=True)),
                "change": estimate.change,
                "low": estimate.low,
                "high": estimate.high,
                "share": 100 * estimate.change / whole.change if whole.change else float("nan"),
            }
        )
    table = pd.DataFrame(rows, columns=["lock", "of", *_SIDES, *COLUMNS[4:]])
    large = table["change"].abs() >= _LEAST * max(float(table["change"].abs().sum()), 0.1)
    kept = table[large].sort_values("change", key=abs, ascending=False, ignore_index=True)
    return kept, whole


def _values(table: pd.DataFrame, key: Any) -> np.ndarray[Any, Any]:
    return table.loc[key].to_numpy(float) if key in table.index else np.zeros(table.shape[1])


def _estimate(base: Any, head: Any) -> Estimate:
    return Estimate(float(np.mean(head) - np.mean(base)), base, head, resolution=0.0)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `taken_apart` as it is shown: `COLUMNS`, both sides in one cell."""
    shapes = {"waits": ("waits", "{:,.0f} > {:,.0f}"), "wait_ms": ("wait ms", "{:,.1f} > {:,.1f}")}
    for name, (shown, shape) in shapes.items():
        sides = zip(table[f"{name}_base"], table[f"{name}_head"], strict=True)
        table = table.assign(**{shown: [shape.format(*each) for each in sides]})
    return table[COLUMNS]


def said(one: str, other: str, table: pd.DataFrame, whole: Estimate | None) -> str:
    """Say which lock a change in waiting is due to; nothing where it is not sure that it changed.

    Parameters
    ----------
    one, other : str
        The conditions' names.
    table, whole
        As `taken_apart` returns them.
    """
    if whole is None or not whole.is_sure or table.empty:
        return ""
    first = table.iloc[0]
    how = "less" if whole.change < 0 else "more"
    return (
        f"The workload waited {abs(whole.change):,.0f} ms {how} for contended locks in {other} "
        f"than in {one} (95 % interval {whole.low:+,.0f} to {whole.high:+,.0f}): "
        f"{_most(float(first['share']))} of that is {first['lock']} ({first['of']}), waited for "
        f"{first['wait_ms_base']:,.1f} ms and {first['wait_ms_head']:,.1f} ms."
    )


def _most(share: float) -> str:
    """Say what part of a change one of its parts is; the others may go the other way."""
    if round(share) == 100:
        return "all"
    return percent(share / 100) if share < 100 else "more than all"
