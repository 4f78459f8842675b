# SPDX-License-Identifier: GPL-2.0-only
"""Metrics: everything that a run measured, as numbers with the names kernel people read.

`of` puts every source of a run into one long frame, one row per repeat and metric:

- ``vm-scalability.*``: throughput, and ``vm-scalability.time.*`` as time(1) has it;
- ``perf-stat.*``: what perf stat counted;
- ``proc-vmstat.*``: counters of the whole machine; ``nr_*`` are levels at the end of the workload;
- ``vma-lock.*%``: how faults that tried their VMA's lock fared;
- ``mmap-lock.*``: how often it was acquired, contended and waited for, in all and by caller;
- ``contended.*``: how often each lock was waited for, and how long, by its name;
- ``faults.*``: by lock path, and by origin, access, what was found and left, and path;
- ``census.*``: VMAs by class and origin.

`matrix` turns runs into one row per run. The repeats of a run are averaged first: the run is the
unit. Nothing that was not looked at becomes 0; what was looked at and did not occur does.

A run's tables are small and runs are many, so none becomes a frame on the way: Arrow groups the
rows of a table once, and what little is left is added up by name.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from anonvma.perf import counters as perf_stat
from anonvma.perf import profile
from anonvma.run.runs import Run, once

Row = tuple[int, str, float]
"""Repeat, metric, value."""
Source = Callable[[Run], Iterator[Row]]

COLUMNS = ["repeat", "metric", "value"]
_COUNTED_APART = ("census.", "contended.", "faults.", "mmap-lock.")
"""Sources that list what occurs: what a run that has the source does not list was 0 there."""


def of(run: Run) -> pd.DataFrame:
    """Return every metric of every source of a run, in one long frame.

    Returns
    -------
    DataFrame
        One row per repeat and metric: repeat (int64), metric (str), value (float64).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = of(runs.find("small-allocs-mt"))
    >>> found.loc[found["metric"] == "census.bare", "value"].tolist()
    [20482.0, 20482.0, 20482.0, 20482.0, 20482.0]
    """
    found = pd.DataFrame(list(_rows(run)), columns=COLUMNS)
    return found.astype({"repeat": "int64", "metric": "str", "value": "float64"})


def _rows(run: Run) -> Iterator[Row]:
    """Yield every metric of every source that has a value."""
    for source in SOURCES:
        for repeat, metric, value in source(run):
            if not math.isnan(value):
                yield repeat, metric, value


def matrix(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the metrics of some runs, one row per run and one column per metric.

    Parameters
    ----------
    runs : sequence of Run
        Of all conditions that are to be compared: a counter of /proc/vmstat that one run of a
        kernel has was 0 in the others of that kernel which do not list it, for only those that
        changed are recorded.

    Returns
    -------
    DataFrame
        float64, means of the repeats; null where a run does not have a metric. Index: the
        places of the runs, from 0.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> matrix([runs.find("small-allocs-mt")])["census.bare"].tolist()
    [20482.0]
    """
    rows = [_means(run) for run in runs]
    table = pd.DataFrame(rows, index=pd.RangeIndex(len(runs)), dtype="float64")
    table = table.reindex(columns=sorted(table.columns))
    values = table.to_numpy(copy=True)
    names = np.array(table.columns, dtype="str")
    # Of a profile, rows below 0.05 % are left out, event by event.
    sampled = {prefix for name in table if (prefix := _of_event(str(name)))}
    for prefix in (*_COUNTED_APART, *sorted(sampled)):
        _fill(values, np.char.startswith(names, prefix))
    kernels = np.array(
        [run.manifest.target.get("kernel_release") or "" for run in runs], dtype="str"
    )
    counters = np.char.startswith(names, _COUNTERS) & ~np.char.startswith(names, _LEVELS)
    for kernel in set(kernels) - {""}:  # of runs that do not name theirs nothing is known
        same = values[kernels == kernel]
        _fill(same, counters & ~np.isnan(same).all(axis=0))
        values[kernels == kernel] = same
    return pd.DataFrame(values, index=table.index, columns=table.columns)


def _fill(values: npt.NDArray[np.float64], columns: npt.NDArray[np.bool_]) -> None:
    """Let what a row lacks of these columns be 0, if it has one of them: so they were looked at."""
    part = values[:, columns]
    part[np.isnan(part) & ~np.isnan(part).all(axis=1, keepdims=True)] = 0.0
    values[:, columns] = part


@once
def _means(run: Run) -> dict[str, float]:
    """Average the repeats of a run: of what only occurs, over all that were looked at."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    looked: dict[str, set[int]] = {prefix: set() for prefix in (*_COUNTED_APART, _COUNTERS)}
    for repeat, name, value in _rows(run):
        sums[name] += value
        counts[name] += 1
        if prefix := _prefix(name):
            looked[prefix].add(repeat)
    means = {}
    for name, total in sums.items():
        prefix = "" if name.startswith(_LEVELS) else _prefix(name)
        means[name] = total / (len(looked[prefix]) if prefix else counts[name])
    return means


_COUNTERS = "proc-vmstat."
_LEVELS = "proc-vmstat.nr_"


def _prefix(name: str) -> str:
    """Return the source of a metric that lists only what occurs, else nothing."""
    return next((prefix for prefix in (*_COUNTED_APART, _COUNTERS) if name.startswith(prefix)), "")


def _of_event(name: str) -> str:
    """Return what all rows of one kind and event of a profile begin with, else nothing."""
    parts = name.split(".", 3)
    return ".".join((*parts[:3], "")) if parts[0] == "perf-profile" and len(parts) > 3 else ""


def _grouped(
    run: Run, table: str, keys: Sequence[str], sums: Sequence[str] = ()
) -> Iterator[tuple[int, tuple[Any, ...], tuple[float, ...]]]:
    """Yield, of a run's table, the repeat, the keys, and the sums of each group of like rows.

    The last of the sums is the number of rows; what is null adds nothing.
    """
    rows = run.arrow(table, ["repeat", *keys, *sums])
    plain = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in rows.columns
    ]
    rows = pa.Table.from_arrays(plain, names=rows.column_names)
    by = rows.group_by(["repeat", *keys], use_threads=False)
    found = by.aggregate([*((name, "sum") for name in sums), ([], "count_all")])
    names = ["repeat", *keys, *(f"{name}_sum" for name in sums), "count_all"]
    for repeat, *rest in zip(*(found[name].to_pylist() for name in names), strict=True):
        yield repeat, tuple(rest[: len(keys)]), tuple(float(n or 0) for n in rest[len(keys) :])


def _named(sums: dict[tuple[int, str], float], prefix: str) -> Iterator[Row]:
    for (repeat, name), value in sums.items():
        yield repeat, prefix + name, value


def _word(text: object) -> str:
    """Return a name as a metric's has it: without blanks."""
    return "-".join(str(text).split())


# ---- the workload ----


def workload(run: Run) -> Iterator[Row]:
    """Yield throughput and times of the workload.

    ``vm-scalability.throughput`` is the sum of the tasks' KiB/s, ``.median`` the median task's;
    ``.workload`` the accesses of eight bytes (usemem's own count).
    """
    if "throughput" in run.manifest.tables:
        tasks = run.arrow("throughput", ["repeat", "kb_per_s", "bytes"]).to_pylist()
        for repeat in sorted({task["repeat"] for task in tasks}):
            own = [task for task in tasks if task["repeat"] == repeat]
            speeds = [task["kb_per_s"] for task in own]
            yield repeat, "vm-scalability.throughput", float(sum(speeds))
            yield repeat, "vm-scalability.median", float(statistics.median(speeds))
            yield repeat, "vm-scalability.workload", sum(task["bytes"] for task in own) / 8
    if "repeats" not in run.manifest.tables:  # of a profile that was imported
        return
    for row in run.arrow("repeats", ["repeat", *_TIMES.values()]).to_pylist():
        for name, column in _TIMES.items():
            if row[column] is not None:
                yield row["repeat"], f"vm-scalability.time.{name}", float(row[column])


_TIMES = {
    "elapsed_time": "seconds",
    "user_time": "user_s",
    "system_time": "system_s",
    "voluntary_context_switches": "voluntary_ctxt",
    "involuntary_context_switches": "involuntary_ctxt",
    "minor_page_faults": "minor_faults",
    "major_page_faults": "major_faults",
}


# ---- the kernel's counters ----


def proc_vmstat(run: Run) -> Iterator[Row]:
    """Yield the counters of /proc/vmstat, and the shares of ``vma_lock_*``."""
    if "vmstat" not in run.manifest.tables:
        return
    shares: dict[int, dict[str, float]] = defaultdict(dict)
    columns = ["repeat", "counter", "after", "difference"]
    for row in run.arrow("vmstat", columns).to_pylist():
        repeat, counter = row["repeat"], row["counter"]
        value = row["after" if counter.startswith("nr_") else "difference"]
        yield repeat, f"{_COUNTERS}{counter}", float("nan" if value is None else value)
        if counter.startswith("vma_lock_"):
            shares[repeat][counter.removeprefix("vma_lock_")] = float(row["difference"])
    for repeat, each in shares.items():
        if tried := sum(each.values()):
            for name, count in each.items():
                yield repeat, f"vma-lock.{name}%", 100 * count / tried


# ---- what the probe saw ----


def mmap_lock(run: Run) -> Iterator[Row]:
    """Yield how often the workload took mmap_lock, in all and by caller.

    ``acquired`` counts acquisitions, ``contended`` those that found it taken, ``wait_ns`` the time
    from asking to the answer, of tries that failed, too.
    """
    if "locks" not in run.manifest.tables:
        return
    keys = ["process", "asked_by", "mode", "success", "waited_for"]
    sums: dict[tuple[int, str], dict[str, float]] = defaultdict(lambda: dict.fromkeys(_WAITS, 0.0))
    for repeat, key, counts in _grouped(run, "locks", keys, ["count", "contended", "wait_ns"]):
        process, caller, mode, success, asked_for = key
        if process and asked_for:  # as `anonvma.tables.locks.of_workload` has it
            acquired = counts[0] if success else 0.0
            for name in ("", f".{_word(caller)}.{mode}"):
                for what, value in zip(_WAITS, (acquired, *counts[1:3]), strict=True):
                    sums[repeat, name][what] += value
    # What one repeat has and another has not is 0 there.
    for repeat in sorted({repeat for repeat, _ in sums}):
        for name in dict.fromkeys(name for _, name in sums):
            for what, value in sums[repeat, name].items():
                yield repeat, f"mmap-lock.{what}{name}", value


_WAITS = ("acquired", "contended", "wait_ns")


def contended(run: Run) -> Iterator[Row]:
    """Yield how often each lock was waited for, and how long; a lock is named by its kind."""
    if "contended" not in run.manifest.tables:
        return
    sums: dict[tuple[int, str], float] = defaultdict(float)
    for repeat, (lock,), counts in _grouped(run, "contended", ["lock"], ["contended", "wait_ns"]):
        for what, value in zip(("waits", "wait_ns"), counts[:2], strict=True):
            sums[repeat, f"{what}.{_word(lock)}"] += value
    yield from _named(sums, "contended.")


def faults(run: Run) -> Iterator[Row]:
    """Yield the faults that were traced, by lock path and by kind.

    A kind is ``ORIGIN.ACCESS.FOUND->LEFT.PATH``; those ended by an error are left out.
    """
    if "faults" not in run.manifest.tables:
        return
    sums: dict[tuple[int, str], float] = defaultdict(float)
    keys = ["result", "origin", "access", "before", "after", "path"]
    for repeat, key, (count, _) in _grouped(run, "faults", keys, ["count"]):
        result, origin, access, before, after, path = key
        if result == "error":
            continue
        change = _word(f"{before}->{after}")
        kind = f"{_word('no VMA' if origin is None else origin)}.{access}.{change}.{path}"
        for name in ("total", f"by-lock.{path}", kind):
            sums[repeat, name] += count
    yield from _named(sums, "faults.")


def census(run: Run) -> Iterator[Row]:
    """Yield the VMAs: all, anonymous, bare, and the bare ones by class and origin."""
    if "census" not in run.manifest.tables:
        return
    sums: dict[tuple[int, str], float] = defaultdict(float)
    for repeat, key, (count,) in _grouped(run, "census", ["anonymous", "bare", "class", "origin"]):
        anonymous, bare, kind, origin = key
        names = ["vmas"] + ["anonymous"] * anonymous
        if bare:
            names += ["bare", f"bare.{kind}", f"bare.{kind}.{_word(origin)}"]
        for name in names:
            sums[repeat, name] += count
    yield from _named(sums, "census.")


def _of_frame(made: Callable[[Run], pd.DataFrame]) -> Source:
    """Return the rows of a source that has them as a frame, for it makes other tables of it."""

    def source(run: Run) -> Iterator[Row]:
        frame = made(run)
        yield from zip(*(frame[name].tolist() for name in COLUMNS), strict=True)

    return source


SOURCES: list[Source] = [
    workload,
    _of_frame(perf_stat.metrics),
    _of_frame(profile.metrics),
    proc_vmstat,
    mmap_lock,
    contended,
    faults,
    census,
]
"""Where metrics come from, in this order."""
