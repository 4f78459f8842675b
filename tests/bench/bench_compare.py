# SPDX-License-Identifier: GPL-2.0-only
"""How long a comparison of many runs takes, against the usual way; `make bench` runs it.

Runs and metrics are made up: measurements and counts, of which some runs lack some. Ours is
`anonvma.compare.changes.of_matrix`, from the runs' metrics to every row's ratio, interval, effect,
corrected p-value and verdict. The usual way is what one would write without it: pandas groupby, and
SciPy's t-test in a loop over the metrics, to the p-values alone. Both are run in one go, and their
p-values are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from bench import progress
from scipy import stats

from anonvma.compare import changes
from anonvma.run import runs
from anonvma.tables import metrics

AIM_S = 10.0  # "in seconds"


def made_up(runs: int, metrics: int, seed: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """Return metrics of runs, one row per run, and the condition of each."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(8, 1, metrics))
    values = level * np.exp(0.1 * rng.normal(0, 1, (runs, metrics)))
    values[:, : metrics // 2] = np.floor(values[:, : metrics // 2])
    values[rng.random(values.shape) < 0.01] = np.nan
    names = [f"faults.{n}" if n < metrics // 2 else f"perf-stat.{n}" for n in range(metrics)]
    labels = ["base" if n < runs // 2 else "head" for n in range(runs)]
    return pd.DataFrame(values, columns=names), labels


def usual(values: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Do it with a long frame, groupby and a t-test a metric."""
    long = values.assign(condition=labels).melt("condition", var_name="metric").dropna()
    rows = []
    for metric, part in long.groupby("metric", sort=False):
        sides = {name: found["value"] for name, found in part.groupby("condition")}
        test = stats.ttest_ind(sides["head"], sides["base"], equal_var=False)
        ratio = sides["head"].mean() / sides["base"].mean()
        rows.append({"metric": metric, "ratio": ratio, "p": test.pvalue})
    return pd.DataFrame(rows)


def timed(function: Callable[[], pd.DataFrame]) -> tuple[float, pd.DataFrame]:
    """Return how long it took, and what it returned."""
    begin = time.perf_counter()
    found = function()
    return time.perf_counter() - begin, found


def main(words: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--metrics", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)
    values, labels = made_up(options.runs, options.metrics)
    ours, theirs = [], []
    for number in range(max(options.rounds, 1)):
        progress(f"round {number + 1} of {options.rounds}")
        seconds, mine = timed(lambda: changes.of_matrix(values, labels))
        ours.append(seconds)
        seconds, other = timed(lambda: usual(values, labels))
        theirs.append(seconds)
    same = mine.set_index("metric")["p"].reindex(other["metric"]).to_numpy()
    # Where runs lack a metric n is unequal, for which ours has fewer degrees of freedom.
    apart = float(np.nanmax(np.abs(same - other["p"].to_numpy())))
    fast, slow = statistics.median(ours), statistics.median(theirs)
    print(f"{options.runs} runs x {options.metrics:,} metrics, n = {len(ours)}, median")
    print()
    print(f"{'anonvma compare':34}{fast:>10.2f} s")
    print(f"{'groupby and a t-test a metric':34}{slow:>10.2f} s{slow / fast:>10.1f} x ours")
    print(f"largest difference of a p-value: {apart:.1g}")
    opened, found = timed(lambda: metrics.matrix(runs.find_all("scaling-early-*")))
    print(f"{'opening a run, reading its metrics':34}{1000 * opened / len(found):>9.0f} ms each")
    verdict = "met" if fast <= AIM_S else "not met"
    print(
        f"Aim: {options.runs} runs x {options.metrics:,} metrics in seconds: {fast:.2f}, {verdict}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
