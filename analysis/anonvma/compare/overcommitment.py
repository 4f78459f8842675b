# SPDX-License-Identifier: GPL-2.0-only
"""Overcommitment: what becomes of a comparison when guests have more CPUs than there are.

A writer that finds mmap_lock taken spins as long as its owner runs (`rwsem_optimistic_spin()`), and
a reader sleeps. In a guest the owner's virtual CPU may have no real one: the kernel takes it to be
running all the same, and the writer burns a real CPU that the owner would need. So a kernel whose
tasks spin loses by overcommitment what one whose tasks sleep does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anonvma.base import statistics
from anonvma.base.axes import own
from anonvma.base.errors import RunError
from anonvma.base.numerals import interval, number, percent
from anonvma.compare import changes
from anonvma.run import processors
from anonvma.run.runs import Run, having
from anonvma.run.vocabulary import QUEUED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Levels = Mapping[float, Mapping[str, Sequence[Run]]]
"""By virtual CPUs to a real one, the runs of each condition."""


def levels(conditions: Mapping[str, Sequence[Run]]) -> dict[float, dict[str, list[Run]]]:
    """Sort the runs of some conditions by how overcommitted their guests were, least first.

    Raises
    ------
    RunError
        When that is not known of one.
    """
    found: dict[float, dict[str, list[Run]]] = {}
    for name, runs in conditions.items():
        for run in runs:
            known = processors.of_run(run)
            if known is None or known.real is None:
                raise RunError(f"run {run.id} does not say how many real CPUs its guest had.")
            found.setdefault(known.overcommitment, {}).setdefault(name, []).append(run)
    return {level: found[level] for level in sorted(found)}


def ratios(by_level: Levels) -> pd.DataFrame:
    """Return the ratio of throughputs, the last condition over the first, at each level.

    Returns
    -------
    DataFrame
        One row per level: overcommitment, virtual, real, n_base, n, base, mean (MiB/s), ratio, low,
        high.

    Examples
    --------
    >>> from anonvma.compare import conditions
    >>> found = conditions.find(["early=over-early-*", "delayed=over-delayed-*"])
    >>> ratios(levels(found))[["virtual", "real"]].to_numpy().tolist()
    [[4, 2], [8, 2]]
    """
    rows = []
    for level, conditions in by_level.items():
        base, *_, head = conditions
        row = changes.primary_rows({name: conditions[name] for name in (base, head)}).iloc[0]
        first = processors.of_run(conditions[base][0])
        assert first
        rows.append(
            {
                "overcommitment": level,
                "virtual": first.virtual,
                "real": first.real,
                **{name: int(row[name]) for name in ("n_base", "n")},
                **{name: float(row[name]) / 1024 for name in ("base", "mean")},
                **{name: float(row[name]) for name in ("ratio", "low", "high")},
            }
        )
    return pd.DataFrame(rows)


_HOW = ["spinning", "asleep", "without a CPU"]


def waiting(by_level: Levels) -> pd.DataFrame:
    """Return how tasks wait for mmap_lock: spinning or asleep, and what else keeps them.

    Returns
    -------
    DataFrame
        One row per level and condition: overcommitment, condition, n (traced runs); voluntary
        (context switches of an execution, mean of all runs); then percent of the tasks' time:
        spinning (waiting for mmap_lock with a CPU), asleep (waiting for it without), without a CPU
        (runnable, not waiting for it), at work (the rest).
    """
    rows: list[dict[str, Any]] = []
    for level, conditions in by_level.items():
        for name, runs in conditions.items():
            shares = pd.DataFrame([_shares(run) for run in having(runs, "time")], columns=_HOW)
            row: dict[str, Any] = {"overcommitment": level, "condition": name, "n": len(shares)}
            row["voluntary"] = np.mean([_voluntary(run) for run in runs])
            rows.append(row | {how: shares[how].mean() for how in _HOW})
    table = pd.DataFrame(rows)
    table["at work"] = 100 - table[_HOW].sum(axis=1, skipna=False)
    return table


def _voluntary(run: Run) -> float:
    return float(run.table("repeats")["voluntary_ctxt"].mean())


def _shares(run: Run) -> dict[str, float]:
    """Return the percentages of the time of a run's tasks that `waiting` tells apart."""
    table = run.table("time")
    ns, cpu = table["ns"].astype("float64"), table["cpu"].astype("str")
    asks, runs = table["lock"].astype("str") == "waiting", cpu == "running"
    queued = cpu.isin(QUEUED)
    parts = (asks & runs, asks & ~runs, ~asks & queued)
    return {name: 100 * ns[part].sum() / ns.sum() for name, part in zip(_HOW, parts, strict=True)}


# ---- said and drawn ----


def said(by_level: Levels) -> list[str]:
    """Say where the ratio turns, if it does, and who spins there and who sleeps."""
    table, waits = ratios(by_level), waiting(by_level)
    if len(table) < 2:
        return []
    names = list(next(iter(by_level.values())))
    base, head = names[0], names[-1]
    told = [
        f"{row['virtual']} virtual CPUs on {row['real']}: throughput of {head} is "
        f"{number(row['ratio'])} times that of {base}, {_interval(row)}."
        for row in table.to_dict(orient="records")
    ]
    last = waits[waits["overcommitment"] == table["overcommitment"].iloc[-1]]
    if last["spinning"].notna().all():
        told.append(" ".join(_how_said(row) for row in last.to_dict(orient="records")))
    return told


def _interval(row: Mapping[Any, Any]) -> str:
    ns = f"n = {row['n_base']} and {row['n']}"
    if not np.isfinite(row["low"]):
        return ns
    level = percent(1 - statistics.LEVEL)
    return f"{level} interval {interval(row['low'], row['high'], apart=1)} ({ns})"


def _how_said(row: Mapping[Any, Any]) -> str:
    spinning, asleep = (percent(round(row[name] / 100, 2)) for name in ("spinning", "asleep"))
    return (
        f"Overcommitted {number(row['overcommitment'])} times, tasks of {row['condition']} wait "
        f"for mmap_lock spinning for {spinning} of their time and asleep for {asleep}, and give "
        f"up their CPU {number(round(row['voluntary']))} times."
    )


def plot_ratios(by_level: Levels, ax: Axes | None = None) -> Axes:
    """Draw `ratios` with their intervals against the virtual CPUs to a real one."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    from anonvma.base.drawing import sns

    ax = own(ax, 5, 3)
    table = ratios(by_level)
    errors = [table["ratio"] - table["low"], table["high"] - table["ratio"]]
    ax.errorbar(
        range(len(table)), table["ratio"], yerr=np.nan_to_num(errors).clip(min=0), fmt="o-",
        color="#d55e00", capsize=4,
    )  # fmt: skip
    for place, ratio in enumerate(table["ratio"]):
        ax.annotate(f"{ratio:.2f}", (place, ratio), (8, 4), textcoords="offset points")
    ax.axhline(1, color="0.4", linewidth=1)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(range(len(table)), list(_ticks(table)))
    ax.margins(x=0.2, y=0.2)
    ax.set(xlabel="virtual CPUs on real ones", ylabel="ratio of throughputs")
    sns.despine(ax=ax)
    return ax


def _ticks(table: pd.DataFrame) -> Iterator[str]:
    for row in table.to_dict(orient="records"):
        yield f"{row['virtual']} on {row['real']}"
