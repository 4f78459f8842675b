# SPDX-License-Identifier: GPL-2.0-only
"""Compare: conditions side by side, what changed and how sure that is.

`table` sets every metric of every run beside the first condition's: ratio with its interval, effect
size, p-value, and q, which is p corrected for all the rows that were looked at. `shown` keeps the
rows worth reading, by one plain rule; `text` sets them within 100 columns; `primary_rows` has the
ratio that was to be judged beforehand, and so needs no correction; `sections` says it all, the
answer first, with the cause (`anonvma.compare.attribution`).

The unit is the run, of a guest the boot: what its repeats say is averaged first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base import numerals, statistics
from anonvma.base.errors import RunError
from anonvma.run.runs import Run
from anonvma.tables import metrics

PRIMARY = ("vm-scalability.throughput", "vm-scalability.time.elapsed_time")
"""What a comparison is about unless it is said: the first of these that the runs have."""

SMALL = 0.01
"""A change below this share of the first mean is not shown, however sure it is."""

SMALL_POINTS = 0.1
"""Likewise of a row in per cent, whose change is a difference in percentage points."""

EQUIVALENT = 0.03
"""A ratio whose whole interval lies within 1 ± this is equivalent to 1."""

RULE = (
    f"A row is shown when it changed: q, its p-value corrected for all rows looked at, is below "
    f"{numerals.percent(statistics.LEVEL)}, and the change is {numerals.percent(SMALL)} or more "
    f"({SMALL_POINTS} points of a row in per cent). The primary metric is shown in any case."
)


class Verdict(enum.StrEnum):
    """What is to be said of a row; the table has the values."""

    HIGHER = "higher"
    LOWER = "lower"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    SINGLE_RUN = "n = 1"
    ONE_SIDE = "one side"


CHANGED = (Verdict.HIGHER, Verdict.LOWER)

_COLUMNS = [
    "metric",
    "condition",
    "n_base",
    "n",
    "base",
    "base_sd",
    "mean",
    "sd",
    "absolute",
    "change",
    "ratio",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "effect",
    "p",
    "q",
    "verdict",
]


def is_absolute(metric: str) -> bool:
    """Tell whether a metric's change is a difference: shares, as the kernel test robot has it."""
    return metric.startswith("perf-profile") or metric.endswith("%")


# ---- the table ----


def table(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Set every metric of every condition beside the first condition's.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run

    Returns
    -------
    DataFrame
        One row per metric and condition but the first, see `of_matrix`.
    """
    runs = [run for each in conditions.values() for run in each]
    labels = [name for name, each in conditions.items() for _ in each]
    return of_matrix(metrics.matrix(runs), labels)


def of_matrix(values: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Do what `table` does, from the runs' metrics themselves.

    Parameters
    ----------
    values : DataFrame, float64
        One row per run and one column per metric, null where a run lacks one.
    labels : sequence of str
        The condition of each run; the first label is the one the others are compared with.

    Returns
    -------
    DataFrame
        metric, condition, n_base, n (int64); base, base_sd, mean, sd (sample standard deviation);
        absolute (bool: change is a difference); change (per cent of base, or the difference);
        ratio, low, high; difference, difference_low, difference_high; effect (Hedges' g); p; q
        (p corrected for all rows that have one); verdict, a `Verdict`: ``higher``, ``lower``
        (q < 5 %), ``equivalent`` (the interval of the ratio lies within 1 ± 3 %), ``inconclusive``
        (neither), ``n = 1`` (on either side), ``one side`` (measured in one of the two only).
    """
    names = list(dict.fromkeys(labels))
    columns = [str(name) for name in values.columns]
    resolution = np.array([1.0 if _is_whole(name) else 0.0 for name in columns])
    kinds = [name.partition(".")[0] for name in columns]
    array = values.to_numpy(float)
    rows = {name: array[[label == name for label in labels]] for name in names}
    base, *heads = names
    parts = []
    for head in heads:
        part = statistics.between(rows[base], rows[head], resolution=resolution, kinds=kinds)
        part.insert(0, "metric", columns)
        part.insert(1, "condition", head)
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    found = found[(found["n_base"] > 0) | (found["n"] > 0)].reset_index(drop=True)
    found["absolute"] = [is_absolute(name) for name in found["metric"]]
    percent = 100 * found["difference"] / found["base"].where(found["base"] != 0)
    found["change"] = found["difference"].where(found["absolute"], percent)
    found["q"] = statistics.adjust(found["p"])
    found["verdict"] = _verdicts(found)
    return found[_COLUMNS]


def judged_anew(found: pd.DataFrame) -> pd.DataFrame:
    """Correct the p-values of some rows of `table` for no more than these, and judge them again."""
    again = found.assign(q=statistics.adjust(found["p"]))
    return again.assign(verdict=_verdicts(again))


_WHOLE = ("census.", "faults.", "mmap-lock.", "proc-vmstat.", "vm-scalability.workload")
_WHOLE_ENDS = ("_context_switches", "_page_faults", "-faults", "-switches", "-migrations")


def _is_whole(metric: str) -> bool:
    """Tell whether a metric counts in whole numbers: no rates, and no times."""
    if metric.startswith(("perf-stat.ps.", "perf-stat.i.")) or ".wait_ns" in metric:
        return False
    return metric.startswith(_WHOLE) or metric.endswith(_WHOLE_ENDS)


def _verdicts(found: pd.DataFrame) -> npt.NDArray[Any]:
    sure = found["q"] < statistics.LEVEL
    near = (found["low"] > 1 - EQUIVALENT) & (found["high"] < 1 + EQUIVALENT)
    constant = (found["difference"] == 0) & found["p"].notna()
    choices = [
        ((found["n"] == 0) | (found["n_base"] == 0), Verdict.ONE_SIDE),
        ((found["n"] == 1) | (found["n_base"] == 1), Verdict.SINGLE_RUN),
        (sure & (found["difference"] > 0), Verdict.HIGHER),
        (sure & (found["difference"] < 0), Verdict.LOWER),
        (near | constant, Verdict.EQUIVALENT),
    ]
    return np.select(
        [rows.to_numpy() for rows, _ in choices],
        [str(verdict) for _, verdict in choices],
        default=str(Verdict.INCONCLUSIVE),
    )


def with_primary(found: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Judge the rows of the primary metric as `primary_rows` does: by p, without a correction.

    So that a table does not say "inconclusive" of what the answer above it calls higher.
    """
    name = primary(set(found["metric"]), metric, missing_ok=True)
    rows = found["metric"] == name
    again = found.assign(q=found["q"].where(~rows, found["p"]))
    both = rows & (found["n"] > 0) & (found["n_base"] > 0)
    verdicts = pd.Series(_verdicts(again), found.index)
    return again.assign(verdict=found["verdict"].where(~both, verdicts))


def shown(found: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Keep the rows worth reading, by `RULE`, the largest effects first.

    The primary metric is judged as in `with_primary`.

    Parameters
    ----------
    found : DataFrame
        As `table` returns it.
    metric : str, optional
        The primary metric; by default the first of `PRIMARY` there is.
    """
    first = primary(set(found["metric"]), metric, missing_ok=True)
    large = found["change"].abs() >= np.where(found["absolute"], SMALL_POINTS, 100 * SMALL)
    large |= found["base"] == 0
    kept = found["verdict"].isin(CHANGED) & large
    is_head = found["metric"] == first
    size = _size(found)
    # Of what came or went entirely, the most first.
    most = found["difference"].abs().where(np.isinf(size), 0.0)
    order = pd.DataFrame(
        {"head": ~is_head, "size": -size, "most": -most, "metric": found["metric"]}
    ).sort_values(["head", "size", "most", "metric"], kind="stable")
    rows = with_primary(found, metric)
    return rows.loc[order.index[(kept | is_head)[order.index]]].reset_index(drop=True)


def _size(found: pd.DataFrame) -> pd.Series[float]:
    """How large a change is, whatever its direction: what came or went entirely is infinite."""
    ratio = found["ratio"].where(found["ratio"] > 0)
    size = np.log(ratio).abs()
    gone = (found["difference"] != 0) & ratio.isna()
    points = (found["difference"].abs() / 100).where(found["absolute"])
    sizes: pd.Series[float] = size.mask(gone, np.inf).where(~found["absolute"], points)
    return sizes.fillna(0.0)


# ---- the one that was to be judged ----


def primary_rows(
    conditions: Mapping[str, Sequence[Run]], metric: str | None = None
) -> pd.DataFrame:
    """Estimate the ratio of the primary metric of each condition to the first.

    It is named beforehand, so its p-value needs no correction for the other rows.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
    metric : str, optional
        By default the first of `PRIMARY` that the runs have.

    Returns
    -------
    DataFrame
        One row per condition but the first: metric, condition, n_base, n, base, mean, ratio, low,
        high, half_width (of the interval, as a share of the ratio), p, verdict (``higher``,
        ``lower``, ``equivalent``, ``inconclusive`` or ``n = 1``).

    Raises
    ------
    RunError
        When no run has the metric.

    Examples
    --------
    >>> from anonvma.compare import conditions
    >>> sides = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    >>> primary_rows(sides)[["metric", "n", "verdict"]].iloc[0].to_dict()
    {'metric': 'vm-scalability.throughput', 'n': 19, 'verdict': 'higher'}
    """
    return primary_of(table(conditions), metric)


def primary_of(found: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Do what `primary_rows` does, from the rows of `table`."""
    name = primary(set(found["metric"]), metric)
    rows = found[found["metric"] == name].assign(q=lambda rows: rows["p"])
    rows = rows.assign(verdict=_verdicts(rows))
    rows["half_width"] = statistics.half_width(
        rows["ratio"].where(rows["ratio"] > 0), rows["low"], rows["high"]
    )
    columns = ["metric", "condition", "n_base", "n", "base", "mean", "ratio", "low", "high"]
    return rows[[*columns, "half_width", "p", "verdict"]].reset_index(drop=True)


def primary(known: set[str], metric: str | None = None, missing_ok: bool = False) -> str:
    """Return the metric that a comparison is about: the one named, or the first of `PRIMARY`."""
    if metric is not None and metric in known:
        return metric
    if metric is not None and not missing_ok:
        raise RunError(f"no run has the metric {metric!r}: 'anonvma compare --all' lists them.")
    return next((name for name in PRIMARY if name in known), metric or "")
