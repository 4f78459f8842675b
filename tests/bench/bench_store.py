# SPDX-License-Identifier: GPL-2.0-only
"""A thousand runs: listing, opening and comparing them; `make bench` runs it after bench_guest.py.

Beside each is what one would otherwise do: open every run with `anonvma.run.runs`, and put the
tables together with pandas. The runs are copies of the recorded ones of the two kernels.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from anonvma.base import paths as places
from anonvma.run.runs import Run
from anonvma.study import trend
from anonvma.study.store import Store
from anonvma.tables import metrics

ABORTS = """
select regime, workload, avg(value) as aborts, count(*) as n
from headlines join runs using (run) where metric = 'proc-vmstat.vma_lock_abort' group by all
"""
BARE = """
select run, origin, sum(count) as faults from faults where before = 'bare' group by all
"""


def copies(directory: Path, count: int) -> None:
    """Fill a directory with so many runs."""
    found = [path for path in sorted(places.recorded().glob("*-mt-[0-9]")) if path.is_dir()]
    for number in range(count):
        source = found[number % len(found)]
        shutil.copytree(source, directory / f"{number % 10}" / f"{source.name}-{number}")


def opened(directory: Path) -> list[Run]:
    """Every run, found whole."""
    return [Run.open(path.parent) for path in directory.glob("*/*/manifest.json")]


def measured(directory: Path, most: int) -> int:
    """How many metrics so many runs have, as a comparison reads them."""
    paths = itertools.islice(directory.glob("*/*/manifest.json"), most)
    return metrics.matrix([Run.open(path.parent) for path in paths]).shape[1]


def listed(directory: Path) -> pd.DataFrame:
    """Every run's manifest, as `anonvma runs` lists them."""
    with Store([directory]) as store:
        return store.runs()


def aborts_by_pandas(directory: Path) -> pd.DataFrame:
    """The comparison by opening each run."""
    rows = []
    for run in opened(directory):
        table = run.table("vmstat")
        value = table[table["counter"] == "vma_lock_abort"]["difference"].mean()
        regime, name = run.manifest.features["regime"]["name"], run.manifest.workload.name
        rows.append({"regime": regime, "workload": name, "aborts": value})
    grouped = pd.DataFrame(rows).groupby(["regime", "workload"])["aborts"]
    return grouped.agg(["mean", "size"]).reset_index()


def bare_by_pandas(directory: Path) -> pd.DataFrame:
    """Faults on bare VMAs, by reading each run's table, if it was traced."""
    traced = [run for run in opened(directory) if "faults" in run.manifest.tables]
    table = pd.concat([run.table("faults").assign(run=run.id) for run in traced])
    bare = table[table["before"] == "bare"]
    return bare.groupby(["run", "origin"], observed=True)["count"].sum().reset_index()


def asked(directory: Path, sql: str) -> pd.DataFrame:
    """Open the store and ask, as `anonvma query` does."""
    with Store([directory]) as store:
        return store.query(sql)


def trends(directory: Path) -> pd.DataFrame:
    """What `anonvma trend` finds."""
    with Store([directory]) as store:
        return trend.changes(trend.series(store))


def timed(work: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Seconds: median, lowest, highest."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times), min(times), max(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench_store.py", description=(__doc__ or "")[:80])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is done")
    parser.add_argument("--runs", type=int, default=1000, help="how many runs there are")
    given = parser.parse_args()
    rounds = max(1, given.rounds)
    with tempfile.TemporaryDirectory(prefix="anonvma-bench-") as name:
        directory = Path(name)
        copies(directory, given.runs)
        rows: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
            ("list all", lambda: listed(directory), lambda: opened(directory)),
            ("open one, checked", lambda: Run.open(next(directory.glob("*/*"))), None),
            ("open one, its metrics", lambda: measured(directory, 1), None),
            ("open 500, their metrics", lambda: measured(directory, 500), None),
            ("open all, checked", lambda: opened(directory), None),
            ("compare kernels' aborts", lambda: asked(directory, ABORTS),
             lambda: aborts_by_pandas(directory)),
            ("faults on bare VMAs", lambda: asked(directory, BARE),
             lambda: bare_by_pandas(directory)),
            ("trend, with changes", lambda: trends(directory), None),
        ]  # fmt: skip
        print(f"\n{given.runs:,} runs, seconds, median [lowest, highest] of {rounds}\n")
        print(f"{'':26}{'here':>22}{'each run by pandas':>22}{'ratio':>8}")
        for what, ours, usual in rows:
            print(line(what, timed(ours, rounds), timed(usual, rounds) if usual else None))
    print("\nWith the cache of files warm; after the first round with the inventory of runs.")


def line(what: str, ours: tuple[float, ...], usual: tuple[float, ...] | None) -> str:
    """One line of the table; the ratio is that of the medians."""

    def shown(times: tuple[float, ...]) -> str:
        return f"{times[0]:.2f} [{times[1]:.2f}, {times[2]:.2f}]"

    text = f"{what:26}{shown(ours):>22}"
    return text + (f"{shown(usual):>22}{usual[0] / ours[0]:>8.1f}" if usual else f"{'-':>22}")


if __name__ == "__main__":
    main()
