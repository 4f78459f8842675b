# SPDX-License-Identifier: GPL-2.0-only
"""Scaling: throughput and waits for mmap_lock against the number of tasks, and the serial share.

The universal scalability law (Gunther) says what throughput N tasks reach together::

    X(N) = rate * N / (1 + serial * (N - 1) + crosstalk * N * (N - 1))

*serial* is the share of the work that only one task can do at a time (Amdahl's), as under a lock
held for writing; *crosstalk* is what each pair of tasks costs, as when a line of memory goes back
and forth, and makes throughput fall again. `fit` finds the three from the runs, with intervals from
refits to runs drawn anew (bootstrap over runs, seed kept).

Where processors take turns, as in a guest under TCG on one thread of the host, throughput cannot
grow with tasks, whatever the kernel does: the law then names the emulator's serial share, near 1.
`caveats` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base import statistics
from anonvma.base.errors import RunError
from anonvma.base.numerals import percent
from anonvma.run import processors
from anonvma.run.runs import Run
from anonvma.tables import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THROUGHPUT = "vm-scalability.throughput"
WAIT = "mmap-lock.wait_ns"
_SEED = 1
_DRAWN = 400  # refits: enough for an interval of two digits
Array = npt.NDArray[np.float64]


def law(tasks: npt.ArrayLike, rate: float, serial: float, crosstalk: float) -> Array:
    """Return the throughput that the law gives for numbers of tasks.

    Examples
    --------
    >>> float(law(4.0, 100.0, 0.0, 0.0)), float(law(4.0, 100.0, 1.0, 0.0))
    (400.0, 100.0)
    """
    n = np.asarray(tasks, float)
    found: Array = rate * n / (1 + serial * (n - 1) + crosstalk * n * (n - 1))
    return found


def points(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Return throughput and waits of each run with its number of tasks.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        By the name of a kernel, its runs with any number of tasks.

    Returns
    -------
    DataFrame
        One row per run and metric: condition, tasks (int64), run, metric, value.

    Raises
    ------
    RunError
        When a run does not say how many tasks it had.
    """
    rows = []
    for name, runs in conditions.items():
        values = metrics.matrix(runs).reindex(columns=[THROUGHPUT, WAIT])
        for place, run in enumerate(runs):
            tasks = run.manifest.parameters.get("threads")
            if not isinstance(tasks, int):
                raise RunError(f"run {run.id} has no number of threads: it is no case of vmload.")
            for metric in (THROUGHPUT, WAIT):
                value = values.loc[place, metric]
                rows.append((name, tasks, run.id, metric, value))
    table = pd.DataFrame(rows, columns=["condition", "tasks", "run", "metric", "value"])
    return table.astype({"tasks": "int64", "value": "float64"})


def by_threads(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Throughput and waits for mmap_lock, by condition and number of tasks.

    Returns
    -------
    DataFrame
        One row per condition and number of tasks: condition, tasks, n (runs), throughput (MiB/s of
        all tasks), low, high (95 % interval of the mean, see `anonvma.base.statistics.estimate`),
        speedup (over the mean of the fewest tasks of that condition), wait_ms (for mmap_lock, all
        tasks, while it is traced; null without), wait_low, wait_high.
    """
    table = points(conditions)
    rows = []
    for (name, tasks), part in table.groupby(["condition", "tasks"], sort=False):
        speed = part.loc[part["metric"] == THROUGHPUT, "value"].to_numpy() / 1024
        wait = part.loc[part["metric"] == WAIT, "value"].to_numpy() / 1e6
        each, waited = statistics.estimate(speed), statistics.estimate(wait)
        rows.append(
            {
                "condition": name,
                "tasks": tasks,
                "n": len(speed),
                "throughput": each.mean,
                "low": each.low,
                "high": each.high,
                "wait_ms": waited.mean,
                "wait_low": waited.low,
                "wait_high": waited.high,
            }
        )
    found = pd.DataFrame(rows).sort_values(["condition", "tasks"], kind="stable")
    first = found.groupby("condition")["throughput"].transform("first")
    found.insert(6, "speedup", found["throughput"] / first)
    order = {name: place for place, name in enumerate(conditions)}
    return found.sort_values("condition", key=lambda c: c.map(order), kind="stable").reset_index(
        drop=True
    )


def fit(table: pd.DataFrame) -> pd.DataFrame:
    """Fit the law to the runs of each condition.

    Parameters
    ----------
    table : DataFrame
        As `points` returns it.

    Returns
    -------
    DataFrame
        One row per condition: condition, n (runs), tasks (different numbers), rate (MiB/s of one
        task), serial, crosstalk, each with ``_low`` and ``_high`` (95 %, null where a number
        of tasks has one run only), best (the number of tasks with most throughput; null where it
        only grows). All null with fewer than three different numbers of tasks.
    """
    speeds = table[(table["metric"] == THROUGHPUT) & table["value"].notna()]
    rows = [
        {"condition": name, **_fit_one(part, np.random.default_rng(_SEED))}
        for name, part in speeds.groupby("condition", sort=False)
    ]
    return pd.DataFrame(rows)


_NAMES = ("rate", "serial", "crosstalk")


def _fit_one(part: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    tasks = part["tasks"].to_numpy(float)
    speed = part["value"].to_numpy(float) / 1024
    different = np.unique(tasks)
    found: dict[str, Any] = {"n": len(tasks), "tasks": len(different)}
    if len(different) < 3:
        return found | dict.fromkeys(
            [*(f"{n}{end}" for n in _NAMES for end in ("", "_low", "_high")), "best"], float("nan")
        )
    best = _least_squares(tasks, speed)
    groups = [np.flatnonzero(tasks == number) for number in different]
    bounds = np.full((2, 3), np.nan)
    if min(map(len, groups)) > 1:
        drawn = []
        for _ in range(_DRAWN):
            chosen = np.concatenate([rng.choice(group, len(group)) for group in groups])
            drawn.append(_least_squares(tasks[chosen], speed[chosen], best))
        bounds = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    for place, name in enumerate(_NAMES):
        found |= {
            name: best[place],
            f"{name}_low": bounds[0, place],
            f"{name}_high": bounds[1, place],
        }
    _, serial, crosstalk = best
    peak = ((1 - serial) / crosstalk) ** 0.5 if crosstalk > 1e-9 and serial < 1 else float("nan")
    return {**found, "best": peak}


def _least_squares(tasks: Array, speed: Array, start: Array | None = None) -> Array:
    """Fit with errors in proportion to throughput, as the spread of runs is."""
    from scipy import optimize

    scale = float(speed.max())
    first = float(np.median(speed[tasks == tasks.min()]) / tasks.min())
    guess = [first / scale, 0.1, 0.001] if start is None else [start[0] / scale, *start[1:]]

    def off(parameters: Array) -> Array:
        wanted = law(tasks, *parameters)
        found: Array = np.log(wanted) - np.log(speed / scale)
        return found

    def slopes(parameters: Array) -> Array:
        rate, serial, crosstalk = parameters
        below = 1 + serial * (tasks - 1) + crosstalk * tasks * (tasks - 1)
        by = (np.full_like(tasks, 1 / rate), (1 - tasks) / below, tasks * (1 - tasks) / below)
        return np.column_stack(by)

    # Of throughput that falls from the second task on, serial would be above 1, which no share is.
    done = optimize.least_squares(
        off,
        np.clip(guess, 1e-9, [np.inf, 1 - 1e-9, np.inf]),
        slopes,
        bounds=([1e-9, 0.0, 0.0], [np.inf, 1.0, np.inf]),
    )
    found: Array = done.x * np.array([scale, 1.0, 1.0])
    return found


# ---- drawn and said ----


def plot_by_threads(
    table: pd.DataFrame, fits: pd.DataFrame, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """Draw throughput with the law's curve, and waits for mmap_lock, on two axes.

    Parameters
    ----------
    table : DataFrame
        As `by_threads` returns it.
    fits : DataFrame
        As `fit` returns it, of the same runs.
    axes : sequence of Axes, optional
    """
    import matplotlib.pyplot as plt

    from anonvma.base.drawing import sns

    if axes is None:
        axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")[1]
    names = map(str, table["condition"].unique())
    colours = dict(zip(names, sns.color_palette("colorblind"), strict=False))
    speed, wait = axes
    for name, part in table.groupby("condition", sort=False):
        colour = colours[str(name)]
        for ax, value, low, high in (
            (speed, "throughput", "low", "high"),
            (wait, "wait_ms", "wait_low", "wait_high"),
        ):
            below, above = part[value] - part[low].clip(lower=0), part[high] - part[value]
            ax.errorbar(
                part["tasks"],
                part[value],
                yerr=np.nan_to_num([below, above]).clip(min=0),
                fmt="o" if ax is speed else "o-",
                color=colour,
                capsize=3,
                label=str(name),
            )
        row = fits[fits["condition"] == name].iloc[0]
        if np.isfinite(row["rate"]):
            fine = np.linspace(1, part["tasks"].max(), 50)
            speed.plot(fine, law(fine, row["rate"], row["serial"], row["crosstalk"]), color=colour)
    speed.set(ylabel="MiB/s, all tasks", title="Throughput, and the fitted law")
    wait.set(ylabel="ms, all tasks", title="Waits for mmap_lock")
    ticks = sorted(table["tasks"].unique())
    for ax in axes:
        ax.set(xlabel="tasks", xticks=ticks)
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
        sns.despine(ax=ax)
    return axes


def said(fits: pd.DataFrame) -> list[str]:
    """Say the serial share of each condition, a sentence each."""
    found = []
    for row in fits.to_dict(orient="records"):
        name = row["condition"]
        if not np.isfinite(row["serial"]):
            found.append(f"{name}: three different numbers of tasks are needed for a fit.")
            continue
        of = f"{row['n']} runs of {row['tasks']} numbers of tasks"
        if row["serial"] > 1 - 1e-6:
            found.append(
                f"{name}: throughput does not grow with tasks: the law's serial share is at its "
                f"limit, 100 % ({of})."
            )
            continue
        interval = (
            f", 95 % interval {percent(row['serial_low'])} to {percent(row['serial_high'])}"
            if np.isfinite(row["serial_low"])
            else ", without an interval for want of repeated runs"
        )
        peak = f" Throughput peaks near {row['best']:.0f} tasks." if row["best"] >= 1 else ""
        found.append(f"{name}: a serial share of {percent(row['serial'])}{interval} ({of}).{peak}")
    return found


def caveats(conditions: Mapping[str, Sequence[Run]]) -> list[str]:
    """Say what about the runs keeps their scaling from being the kernel's."""
    runs = [run for each in conditions.values() for run in each]
    found = []
    backings = [processors.of_run(run) for run in runs]
    turns = [each for each in backings if each and each.backing is processors.Backing.TURNS]
    if turns:
        found.append(
            f"In {len(turns)} of {len(runs)} runs the processors were emulated in turns on one "
            "thread of the host, so throughput cannot grow with tasks there: the serial share is "
            "the emulator's, near 100 %. What is the kernel's is how the two compare at "
            "the same number of tasks, and how often mmap_lock is acquired and contended. Remedy: "
            "KVM, or a real machine."
        )
    short = {
        f"{run.manifest.parameters['threads']} tasks on {run.manifest.target['cpus']} CPUs"
        for run in runs
        if run.manifest.parameters["threads"] > run.manifest.target["cpus"]
    }
    if short:
        found.append(f"More tasks than processors: {', '.join(sorted(short))}.")
    return found
