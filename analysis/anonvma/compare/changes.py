# SPDX-License-Identifier: GPL-2.0-only
"""Compare: conditions side by side, what changed and how sure that is.

`table` sets every metric of every run beside the first condition's: ratio with its interval, effect
size, p-value, and q, which is p corrected for all the rows that were looked at. `shown` keeps the
rows worth reading, by one plain rule; `text` sets them within 100 columns; `headline` is the one
ratio that was to be judged beforehand, and so needs no correction; `sections` says it all, the
answer first, with the cause (`anonvma.compare.attribution`).

The unit is the run, of a guest the boot: what its repeats say is averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base import numerals, statistics
from anonvma.base.axes import own
from anonvma.base.errors import RunError
from anonvma.base.text import printable
from anonvma.run import processors
from anonvma.run.runs import Run
from anonvma.tables import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "HEADLINES",
    "RULE",
    "answered",
    "brief",
    "headline",
    "headline_of",
    "headline_said",
    "is_absolute",
    "judged_anew",
    "most_said",
    "of_matrix",
    "plot_shown",
    "shown",
    "table",
    "text",
    "with_headline",
]

HEADLINES = ("vm-scalability.throughput", "vm-scalability.time.elapsed_time")
"""What a comparison is about unless it is said: the first of these that the runs have."""

SMALL = 0.01
"""A change below this share of the first mean is not shown, however sure it is."""

SMALL_POINTS = 0.1
"""Likewise of a row in per cent, whose change is a difference in percentage points."""

ALIKE = 0.03
"""A ratio whose whole interval lies within 1 ± this is called alike."""

WIDTH = 100
_NUMBERS = 58  # columns of a row's numbers and verdict

RULE = (
    f"A row is shown when it changed: q, its p-value corrected for all rows looked at, is below "
    f"{numerals.percent(statistics.LEVEL)}, and the change is {numerals.percent(SMALL)} or more "
    f"({SMALL_POINTS} points of a row in per cent). The headline is shown in any case."
)

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
        One row a metric and condition but the first, see `of_matrix`.
    """
    runs = [run for each in conditions.values() for run in each]
    labels = [name for name, each in conditions.items() for _ in each]
    return of_matrix(metrics.matrix(runs), labels)


def of_matrix(values: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Do what `table` does, from the runs' metrics themselves.

    Parameters
    ----------
    values : DataFrame, float64
        One row a run and one column a metric, null where a run lacks one.
    labels : sequence of str
        The condition of each run; the first label is the one the others are compared with.

    Returns
    -------
    DataFrame
        metric, condition, n_base, n (int64); base, base_sd, mean, sd (sample standard deviation);
        absolute (bool: change is a difference); change (per cent of base, or the difference);
        ratio, low, high; difference, difference_low, difference_high; effect (Hedges' g); p; q
        (p corrected for all rows that have one); verdict: ``higher``, ``lower`` (q < 5 %),
        ``alike`` (the interval of the ratio lies within 1 ± 3 %), ``unclear`` (neither),
        ``n = 1`` (on either side), ``only in NAME``.
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
    found["verdict"] = _verdicts(found, base)
    return found[_COLUMNS]


def judged_anew(found: pd.DataFrame) -> pd.DataFrame:
    """Correct the p-values of some rows of `table` for no more than these, and judge them again."""
    again = found.assign(q=statistics.adjust(found["p"]))
    return again.assign(verdict=_verdicts(again, "base"))


_WHOLE = ("census.", "faults.", "mmap-lock.", "proc-vmstat.", "vm-scalability.workload")
_WHOLE_ENDS = ("_context_switches", "_page_faults", "-faults", "-switches", "-migrations")


def _is_whole(metric: str) -> bool:
    """Tell whether a metric counts in whole numbers: no rates, and no times."""
    if metric.startswith(("perf-stat.ps.", "perf-stat.i.")) or ".wait_ns" in metric:
        return False
    return metric.startswith(_WHOLE) or metric.endswith(_WHOLE_ENDS)


def _verdicts(found: pd.DataFrame, base: str) -> npt.NDArray[Any]:
    sure = found["q"] < statistics.LEVEL
    near = (found["low"] > 1 - ALIKE) & (found["high"] < 1 + ALIKE)
    constant = (found["difference"] == 0) & found["p"].notna()
    choices = [
        (found["n"] == 0, f"only in {base}"),
        (found["n_base"] == 0, "only in " + found["condition"]),
        ((found["n"] == 1) | (found["n_base"] == 1), "n = 1"),
        (sure & (found["difference"] > 0), "higher"),
        (sure & (found["difference"] < 0), "lower"),
        (near | constant, "alike"),
    ]
    verdicts: npt.NDArray[Any] = np.select(
        [cond.to_numpy() for cond, _ in choices],
        [np.broadcast_to(np.asarray(text, object), len(found)) for _, text in choices],
        default="unclear",
    )
    return verdicts.astype(str)


def with_headline(found: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Judge the headline's rows of `table` as `headline` does: by p, without a correction.

    So that a table does not say "unclear" of what the answer above it calls higher.
    """
    name = _headline_of(set(found["metric"]), metric, missing_ok=True)
    rows = found["metric"] == name
    again = found.assign(q=found["q"].where(~rows, found["p"]))
    both = rows & (found["n"] > 0) & (found["n_base"] > 0)
    verdicts = pd.Series(_verdicts(again, "base"), found.index)
    return again.assign(verdict=found["verdict"].where(~both, verdicts))


def shown(found: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Keep the rows worth reading, by `RULE`, the largest effects first.

    The headline is judged as in `with_headline`.

    Parameters
    ----------
    found : DataFrame
        As `table` returns it.
    metric : str, optional
        The headline; by default the first of `HEADLINES` there is.
    """
    first = _headline_of(set(found["metric"]), metric, missing_ok=True)
    large = found["change"].abs() >= np.where(found["absolute"], SMALL_POINTS, 100 * SMALL)
    large |= found["base"] == 0
    kept = found["verdict"].isin(["higher", "lower"]) & large
    is_head = found["metric"] == first
    size = _size(found)
    # Of what came or went entirely, the most first.
    most = found["difference"].abs().where(np.isinf(size), 0.0)
    order = pd.DataFrame(
        {"head": ~is_head, "size": -size, "most": -most, "metric": found["metric"]}
    ).sort_values(["head", "size", "most", "metric"], kind="stable")
    rows = with_headline(found, metric)
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


def headline(conditions: Mapping[str, Sequence[Run]], metric: str | None = None) -> pd.DataFrame:
    """Estimate the ratio of the headline metric of each condition to the first.

    It is named beforehand, so its p-value needs no correction for the other rows.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
    metric : str, optional
        By default the first of `HEADLINES` that the runs have.

    Returns
    -------
    DataFrame
        One row a condition but the first: metric, condition, n_base, n, base, mean, ratio, low,
        high, half_width (of the interval, as a share of the ratio), p, verdict (``higher``,
        ``lower``, ``alike``, ``unclear`` or ``n = 1``).

    Raises
    ------
    RunError
        When no run has the metric.
    """
    return headline_of(table(conditions), metric)


def headline_of(found: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """Do what `headline` does, from the rows of `table`."""
    name = _headline_of(set(found["metric"]), metric)
    rows = found[found["metric"] == name].assign(q=lambda rows: rows["p"])
    rows = rows.assign(verdict=_verdicts(rows, "base"))
    rows["half_width"] = statistics.half_width(
        rows["ratio"].where(rows["ratio"] > 0), rows["low"], rows["high"]
    )
    columns = ["metric", "condition", "n_base", "n", "base", "mean", "ratio", "low", "high"]
    return rows[[*columns, "half_width", "p", "verdict"]].reset_index(drop=True)


def _headline_of(known: set[str], metric: str | None, missing_ok: bool = False) -> str:
    if metric is not None and metric in known:
        return metric
    if metric is not None and not missing_ok:
        raise RunError(f"no run has the metric {metric!r}: 'anonvma compare --all' lists them.")
    return next((name for name in HEADLINES if name in known), metric or "")


def headline_said(found: pd.DataFrame, base: str) -> list[str]:
    """Say what `headline` found, a sentence a condition."""
    return [_headline_sentence(row, base) for row in found.to_dict(orient="records")]


def answered(
    conditions: Mapping[str, Sequence[Run]], found: pd.DataFrame, metric: str | None = None
) -> list[str]:
    """Say what became of the headline, on which CPUs, and what changed most.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
    found : DataFrame
        As `table` returns it.
    metric : str, optional
        The headline; by default the first of `HEADLINES` there is.
    """
    base = next(iter(conditions))
    first = headline_said(headline_of(found, metric), base)
    return [*first, *processors.said(conditions), most_said(found, base)]


def _headline_sentence(row: Mapping[Any, Any], base: str) -> str:
    name, head = row["metric"], row["condition"]
    ns = f"n = {row['n_base']} and {row['n']}"
    if row["n"] == 0 or row["n_base"] == 0:
        return f"{name} was measured in one of {base} and {head} only."
    if not np.isfinite(row["ratio"]):
        return f"{name} is {row['base']:.4g} in {base} and {row['mean']:.4g} in {head} ({ns})."
    ratio = f"{row['ratio']:.3g} times that of {base}"
    if row["verdict"] == "n = 1":
        return f"{name} of {head} is {ratio} ({ns}): with one run a side nothing is claimed."
    bounds = numerals.interval(row["low"], row["high"], apart=1)
    within = f"{ratio}, 95 % interval {bounds} ({ns})"
    if row["verdict"] == "alike":
        return f"{name} of {head} is alike: {within}."
    if row["verdict"] == "unclear":
        width = numerals.percent(row["half_width"]) if row["half_width"] < 10 else "a multiple"
        return (
            f"No change of {name} is shown: that of {head} is {within}; with these runs the ratio "
            f"is known to ±{width} only."
        )
    return f"{name} of {head} is {row['verdict']}: {within}."


def most_said(found: pd.DataFrame, base: str) -> str:
    """Say which rows of `table` changed most, whatever they are, and how many did at all."""
    changed = shown(found)
    # Judged with all others, the headline, too.
    changed = changed[changed["verdict"].isin(["higher", "lower"])]
    named = changed["metric"] == _headline_of(set(found["metric"]), None, missing_ok=True)
    key = found.set_index(["metric", "condition"])["q"]
    own = key.reindex(pd.MultiIndex.from_frame(changed[["metric", "condition"]])).to_numpy()
    changed = changed[~named | (own < statistics.LEVEL)]
    if found["p"].isna().all():
        return f"None of {len(found)} rows can be judged: that takes two runs a side."
    if changed.empty:
        return f"None of the {len(found)} rows that were looked at changed."
    largest = [
        f"{row['metric']} from {_number(row['base'])} in {base} to {_number(row['mean'])} in "
        f"{row['condition']}"
        for row in changed.head(2).to_dict(orient="records")
    ]
    return (
        f"Of {len(found)} rows that were looked at {len(changed)} changed; most of all "
        f"{' and '.join(largest)}."
    )


# ---- as text ----


def text(found: pd.DataFrame, width: int | None = None) -> str:
    """Set rows of `table` as text of at most 100 columns: n, interval and verdict with each.

    A name that is too long for its line stands on one of its own, its numbers below it.
    """
    several = found["condition"].nunique() > 1
    lines = []
    width = min(width or WIDTH, WIDTH)
    names = max(width - _NUMBERS, 2)
    head = f"{'':{names}}{'base':>9}{'head':>9}{'change':>9}{'95 % interval':>16}{'n':>5}"
    lines.append(f"{head} verdict"[:width])
    for row in found.to_dict(orient="records"):
        name = printable(str(row["metric"]))
        if several:
            name = f"{name} ({printable(str(row['condition']))})"
        if len(name) > names - 1:
            lines.append(name if len(name) <= width else name[: width - 1] + "…")
            name = ""
        lines.append(f"{name:{names}}{_cells(row)}".rstrip()[:width])
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[Any, Any]) -> str:
    ns = f"{row['n_base']}/{row['n']}" if row["n_base"] != row["n"] else f"{row['n']}"
    verdict = str(row["verdict"])
    verdict = "one side" if verdict.startswith("only in") else verdict
    return (
        f"{_number(row['base']):>9}{_number(row['mean']):>9}{_change(row):>9}{_interval(row):>16}"
        f"{ns:>5} {verdict}"
    )


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 99_999_995:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e6 else f"{value:.0f}"
    return f"{value:.4g}" if size >= 0.001 or value == 0 else f"{value:.1e}"


def _change(row: Mapping[Any, Any]) -> str:
    if row["absolute"]:
        return f"{row['difference']:+.1f}"
    if np.isfinite(row["ratio"]) and row["ratio"] >= 10:
        return _times(row["ratio"])
    return numerals.percent(row["change"] / 100, signed=True)


def _times(ratio: float) -> str:
    """Return a large ratio in at most seven columns."""
    if ratio >= 99_999.5:
        return f"x{ratio:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"x{ratio:.0f}" if ratio >= 100 else f"x{ratio:.1f}"


def _interval(row: Mapping[Any, Any]) -> str:
    if row["absolute"]:
        low, high = row["difference_low"], row["difference_high"]
        return f"{_signed(low)} {_signed(high)}" if np.isfinite(low) else "-"
    low, high = row["low"], row["high"]
    if not np.isfinite(low):
        return "-"
    if high >= 10:
        return f"{_times(low)} {_times(high)}"
    return f"{_signed(100 * (low - 1))} {_signed(100 * (high - 1))} %"


def _signed(bound: float) -> str:
    """Return a bound with one decimal, or as many as it takes not to read as no change."""
    for decimals in range(1, 4):
        shown = f"{bound:+.{decimals}f}"
        if float(shown) or not bound:
            break
    return shown


def plot_shown(found: pd.DataFrame, most: int = 12, ax: Axes | None = None) -> Axes:
    """Draw the ratios of rows of `table` with their intervals, as far as they have these."""
    import seaborn as sns

    ax = own(ax, 7, 4)
    rows = found[found["low"].notna() & (found["ratio"] > 0) & ~found["absolute"]].head(most)
    several = rows["condition"].nunique() > 1
    for place, row in enumerate(rows.to_dict(orient="records")):
        sure = row["verdict"] in ("higher", "lower")
        low = max(row["low"], row["ratio"] / 10)  # a bound of 0 has no place on a log scale
        ax.plot([low, row["high"]], [place, place], color="#555555", linewidth=1.5)
        ax.plot(row["ratio"], place, "o", color="#d55e00" if sure else "#999999")
    names = [
        f"{row['metric']} ({row['condition']})" if several else str(row["metric"])
        for row in rows.to_dict(orient="records")
    ]
    ax.set_yticks(range(len(names)), [printable(name) for name in names])
    ax.invert_yaxis()
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set(xlabel="ratio to the base, with its 95 % interval")
    sns.despine(ax=ax)
    return ax


# ---- the answer ----


def brief(found: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `table` with the columns that a reader needs; n is of both sides, or 3/4."""
    ns = found["n"].astype("str")
    both = found["n_base"].astype("str") + "/" + ns
    columns = ["metric", "condition", "base", "mean", "ratio", "low", "high", "n", "verdict"]
    brief = found.assign(n=ns.where(found["n_base"] == found["n"], both))[columns]
    return brief if found["condition"].nunique() > 1 else brief.drop(columns="condition")
