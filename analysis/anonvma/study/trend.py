# SPDX-License-Identifier: GPL-2.0-only
"""Headline metrics of accumulated runs over time, and where they changed.

A *series* is one metric of like runs in the order of time: the same workload and parameters on the
same machine, under the kernel that the study calls by the same name, whatever release that has
become meanwhile.

A change is looked for by ranks. For each place where a series can be cut, with at least `LEAST`
runs on both sides, the statistic is the standardised difference of the rank sums (Wilcoxon, Mann
and Whitney); the largest of them is compared with the largest of the same series in `PERMUTATIONS`
random orders, and a place whose p is at most `ALPHA` is a change. Both parts are then searched
alike. A series without a change is so said to have one with probability `ALPHA`, whatever its
distribution: ranks do not care, and a single outlier is no change. What it takes for granted is
that runs are exchangeable as long as nothing changes; where neighbours are alike for other reasons,
such as a machine that is warmer by day, more changes are found than there are.

Why not a library: those that cut series ask for a penalty, and none of the usual choices says how
often it cuts one that has no change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base import statistics
from anonvma.base.errors import StoreError
from anonvma.base.numerals import percent
from anonvma.base.section import Section
from anonvma.report import layout
from anonvma.study.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALPHA = 0.01
LEAST = 3
FEWEST = 12
"""Runs of a series below which no cut can be as improbable as `ALPHA`."""
PERMUTATIONS = 999
_NEAR = 10  # runs around a cut by ranks

METRICS = (
    "vm-scalability.throughput",
    "vm-scalability.time.elapsed_time",
    "vm-scalability.time.minor_page_faults",
    "proc-vmstat.vma_lock_abort",
    "anonvma.bare.zero-page",
)
"""What is shown unless asked otherwise; every metric of the view ``headlines`` can be."""

_SQL = """
select r.run, r.created, r.kernel_release, r.workload, r.parameters, h.metric, h.value,
    r.target, r.kernel, r.kind, r.cpu_model, r.cpus, r.accel
from headlines h join runs r using (run)
order by r.created, r.run
"""


# ---- series ----


def series(store: Store, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Return the headline metrics of all runs, in the order of time.

    Returns
    -------
    DataFrame
        One row per run and metric: series (what the runs have in common, in words), metric, created
        (UTC), run, kernel_release, value.

    Raises
    ------
    StoreError
        There is no such metric, or a table is damaged.
    """
    every = store.query(_SQL)
    for name in metrics:
        if len(every) and name not in set(every["metric"]):
            known = ", ".join(sorted(set(every["metric"])))
            # A metric that is shown by default need not be there: not every kernel counts all.
            if name not in METRICS:
                raise StoreError(f"no run has a metric {name!r}: there are {known}.")
    rows = every[every["metric"].isin(list(metrics))].reset_index(drop=True)
    return pd.DataFrame(
        {
            "series": _names(rows),
            "metric": rows["metric"].astype(str),
            "created": rows["created"],
            "run": rows["run"].astype(str),
            "kernel_release": rows["kernel_release"].astype(str),
            "value": rows["value"].astype(float),
        }
    )


def _names(rows: pd.DataFrame) -> list[str]:
    """Name each row's series; machines that the name would not tell apart are numbered."""
    names: list[str] = []
    machines: dict[str, list[tuple[object, ...]]] = {}
    for row in rows.itertuples(index=False):
        machine = (row.kind, row.cpu_model, row.cpus, row.accel)
        words = [str(row.workload), *_parameters(str(row.parameters))]
        where = [w for w in (row.target, row.kernel) if isinstance(w, str)] or [str(row.kind)]
        if row.kind == "guest" and not isinstance(row.kernel, str):
            where.append(str(row.kernel_release))
        name = f"{' '.join(words)}, {' '.join(where)}"
        known = machines.setdefault(name, [])
        if machine not in known:
            known.append(machine)
        number = known.index(machine)
        names.append(f"{name}, machine {number + 1}" if number else name)
    return names


def _parameters(text: str) -> list[str]:
    given = json.loads(text)
    return [
        f"{name}={_size(value) if name in ('bytes', 'unit') else value}"
        for name, value in given.items()
        if name != "workload" and value is not None
    ]


def _size(value: object) -> str:
    if isinstance(value, int):
        for suffix, unit in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
            if value and value % unit == 0:
                return f"{value // unit}{suffix}"
    return str(value)


# ---- changes ----


def change_points(values: npt.ArrayLike, *, permutations: int = PERMUTATIONS) -> list[int]:
    """Return where a series changes: the positions of the first values after each change.

    Parameters
    ----------
    values : array_like, shape (n,)
        In the order of time; none of them null.
    permutations : int
        How many random orders it is compared with; at least ``1 / ALPHA - 1``.
    """
    series = np.asarray(values, dtype=float)
    random = np.random.default_rng(0)  # the same answer to the same question
    found: list[int] = []
    todo = [(0, len(series))]
    while todo:
        first, end = todo.pop()
        cut = _cut(series[first:end], permutations, random)
        if cut is not None:
            found.append(first + cut)
            todo += [(first, first + cut), (first + cut, end)]
    return sorted(found)


def _cut(
    part: npt.NDArray[np.float64], permutations: int, random: np.random.Generator
) -> int | None:
    """Return where a part is best cut in two, or None."""
    if len(part) < FEWEST or np.ptp(part) == 0:
        return None
    ranks = np.asarray(pd.Series(part).rank(), dtype=np.float64)
    observed = _rank_sums(ranks[np.newaxis])[0]
    orders = random.permuted(np.tile(ranks, (permutations, 1)), axis=1)
    largest = _rank_sums(orders).max(axis=1)
    # Equal but for rounding is as large.
    as_large = np.count_nonzero(largest >= observed.max() - 1e-9)
    if (1 + as_large) / (1 + permutations) > ALPHA:
        return None
    return _place(part, LEAST + int(observed.argmax()))


def _place(part: npt.NDArray[np.float64], cut: int) -> int:
    """Return where near a cut the values themselves are best cut, by absolute deviations.

    Ranks tell whether, and not quite where: a value at the edge that is the smallest of the larger
    ones has the rank next to the others'.
    """
    near = range(max(LEAST, cut - _NEAR), min(len(part) - LEAST, cut + _NEAR) + 1)
    costs = {at: _deviations(part[:at]) + _deviations(part[at:]) for at in near}
    return min(near, key=lambda at: (costs[at], abs(at - cut)))


def _deviations(values: npt.NDArray[np.float64]) -> float:
    return float(np.abs(values - np.median(values)).sum())


def _rank_sums(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return, for each row of ranks and each cut of it, the standardised rank sum."""
    n = ranks.shape[1]
    before = np.arange(LEAST, n - LEAST + 1)
    sums = np.cumsum(ranks, axis=1)[:, before - 1]
    expected = before * (n + 1) / 2
    spread = np.sqrt(before * (n - before) * (n + 1) / 12)
    standardised: npt.NDArray[np.float64] = np.abs(sums - expected) / spread
    return standardised


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the changes of every series.

    Parameters
    ----------
    rows : DataFrame
        Of `series`.

    Returns
    -------
    DataFrame
        series, metric, since (when the first run after it was made), run (that run), n before and
        n after (runs up to the next change), before and after (means), change % of the mean, low
        and high (95 % interval of it, as of a comparison; null where a mean is 0).
    """
    found = []
    for (name, metric), part in rows.groupby(["series", "metric"], sort=False):
        values = part["value"].to_numpy()
        cuts = [0, *change_points(values), len(values)]
        for first, cut, end in zip(cuts, cuts[1:], cuts[2:], strict=False):
            row = part.iloc[cut]
            found.append(
                {
                    "series": name,
                    "metric": metric,
                    "since": row["created"],
                    "run": row["run"],
                    **_difference(values[first:cut], values[cut:end]),
                }
            )
    columns = ["series", "metric", "since", "run", "n before", "before", "n after", "after"]
    return pd.DataFrame(found, columns=[*columns, "change %", "low", "high"])


def _difference(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]
) -> dict[str, float]:
    told = {"n before": len(before), "before": before.mean(), "n after": len(after)}
    told |= {"after": after.mean()}
    scale = 100 / abs(before.mean()) if before.mean() else float("nan")
    change = (after.mean() - before.mean()) * scale
    low = high = change
    if np.ptp(before) or np.ptp(after):
        bounds = statistics.around(after.mean() - before.mean(), before, after)
        low, high = (bound * scale for bound in bounds)
    return {**told, "change %": change, "low": low, "high": high}


def too_short(rows: pd.DataFrame) -> list[str]:
    """Return a sentence on the series that have too few runs to be searched, if there are any."""
    counts = rows.groupby("series", sort=False)["run"].nunique()
    short = counts[counts < FEWEST]
    if short.empty:
        return []
    return [
        f"{len(short)} of {len(counts)} series have fewer than {FEWEST} runs, too few for a change "
        f"to be told from chance (the longest of them {short.max()})."
    ]


def how(rows: pd.DataFrame) -> str:
    """Return how changes were looked for, in words."""
    counts = rows.groupby(["series", "metric"])["run"].nunique()
    searched = int((counts >= FEWEST).sum())
    return (
        f"Changes are cuts whose difference of ranks, the largest of a series, is exceeded in at "
        f"most {percent(ALPHA)} of {PERMUTATIONS} random orders of its runs. {searched} series "
        f"were searched, so {searched * ALPHA:.1f} false ones are expected if nothing changed."
    )


# ---- in words ----


def text(rows: pd.DataFrame, found: pd.DataFrame) -> str:
    """Return each series, its changes, and how these were looked for, as text."""
    runs = rows["run"].nunique()
    heading = f"Trend of {runs:,} runs"
    if runs:
        heading += f", {rows['created'].min():%Y-%m-%d} to {rows['created'].max():%Y-%m-%d}"
    parts = [Section("Changes", _said(rows, found))]
    for name, part in rows.groupby("series"):
        parts.append(Section(str(name), [], _values(part)))
        changed = found[found["series"] == name]
        if len(changed):
            parts.append(Section(f"Changes of {name}", [], _readable(changed)))
    return layout.text(parts, heading)


def _said(rows: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    many = f"{len(found):,} in {found['series'].nunique()} series." if len(found) else "None."
    return [many, how(rows), *too_short(rows)]


def _values(part: pd.DataFrame) -> pd.DataFrame:
    """Return, for each metric of a series, n, mean and spread of all its runs, and the last."""
    table = part.groupby("metric")["value"].agg(["count", "mean", "std", "last"]).reset_index()
    return table.rename(columns={"count": "n", "std": "sd"})


def _readable(found: pd.DataFrame) -> pd.DataFrame:
    table = found.assign(
        since=found["since"].dt.strftime("%Y-%m-%d %H:%M"),
        **{"n": found["n before"].astype(str) + "+" + found["n after"].astype(str)},
    )
    return table[["since", "n", "before", "after", "change %", "low", "high", "metric"]]


# ---- the chart ----


def draw(rows: pd.DataFrame, found: pd.DataFrame, file: Path) -> None:
    """Draw the chart into a file, whose ending says of which kind.

    Raises
    ------
    StoreError
        When it cannot be written, or is of no kind that is known.
    """
    try:
        figure(rows, found).savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot draw {file}: {str(error).partition(';')[0]}.") from None


def figure(rows: pd.DataFrame, found: pd.DataFrame) -> Figure:
    """Draw every metric over time: a point a run, a line a stretch without a change.

    Values are percent of the mean before the series' first change, so that series of any size share
    an axis.
    """
    from matplotlib.figure import Figure

    from anonvma.base.drawing import sns

    metrics = list(dict.fromkeys(rows["metric"]))
    size = (9.0, 0.8 + 2.1 * max(len(metrics), 1))
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(max(len(metrics), 1), 1, sharex=True, squeeze=False)[:, 0]
    names = list(dict.fromkeys(rows["series"]))
    palette = sns.color_palette("colorblind" if len(names) <= 10 else "husl", len(names))
    colours = dict(zip(names, palette, strict=True))
    for metric, ax in zip(metrics, axes, strict=False):
        for name in names:
            part = rows[(rows["series"] == name) & (rows["metric"] == metric)]
            cuts = found[(found["series"] == name) & (found["metric"] == metric)]["run"]
            _draw(ax, part, set(cuts), colours[name], name)
        ax.set_title(metric, loc="left", fontsize="medium")
        ax.set_ylabel("% of before")
        sns.despine(ax=ax)
    if len(names) <= 12:
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", frameon=False, fontsize="small")
    for label in axes[-1].get_xticklabels():
        label.set_rotation(30)
        label.set_horizontalalignment("right")
    return drawn


def _draw(
    ax: Axes, part: pd.DataFrame, cuts: set[str], colour: tuple[float, float, float], name: str
) -> None:
    if part.empty:
        return
    stretch = part["run"].isin(cuts).cumsum()
    first = part["value"][stretch == stretch.iloc[0]].mean()
    shown = part["value"] / abs(first) * 100 if first else part["value"]
    ax.plot(part["created"], shown, ".", color=colour, alpha=0.5, label=name)
    for number in stretch.unique():
        inside = stretch == number
        times, mean = part["created"][inside], shown[inside].mean()
        ax.plot([times.iloc[0], times.iloc[-1]], [mean, mean], color=colour, lw=1.5)
        if number:
            ax.axvline(times.iloc[0], color=colour, lw=0.8, ls=":")
