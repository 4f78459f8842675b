# SPDX-License-Identifier: GPL-2.0-only
"""Metrics: everything that a run measured, as numbers with the names kernel people read.

`of` puts every source of a run into one long frame, one row a repeat and metric:

- ``vm-scalability.*``: throughput, and ``vm-scalability.time.*`` as time(1) has it;
- ``perf-stat.*``: what perf stat counted;
- ``proc-vmstat.*``: counters of the whole machine; ``nr_*`` are levels at the end of the workload;
- ``vma-lock.*%``: how faults that tried their VMA's lock fared;
- ``mmap-lock.*``: how often it was taken, found taken and waited for, in all and by caller;
- ``faults.*``: by lock path, and by origin, access, what was found and left, and path;
- ``census.*``: VMAs by class and origin.

`matrix` turns runs into one row a run. The repeats of a run are averaged first: the run is the
unit. Nothing that was not looked at becomes 0; what was looked at and did not occur does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from anonvma import locks, perf_profile, perf_stat
from anonvma.runs import Run

__all__ = ["SOURCES", "matrix", "of"]

Source = Callable[[Run], pd.DataFrame]
"""Takes a run and returns its metrics: repeat (int64), metric (str), value (float64)."""

COLUMNS = ["repeat", "metric", "value"]
_COUNTED_APART = ("census.", "faults.", "mmap-lock.")
"""Sources that list what occurs: what a run that has the source does not list was 0 there."""


def of(run: Run) -> pd.DataFrame:
    """Return every metric of every source of a run, in one long frame.

    Returns
    -------
    DataFrame
        One row a repeat and metric: repeat (int64), metric (str), value (float64).
    """
    parts = [source(run) for source in SOURCES]
    found = pd.concat([part for part in parts if len(part)] or [_frame({})], ignore_index=True)
    return found.astype({"repeat": "int64", "metric": "str", "value": "float64"}).dropna(
        subset="value"
    )


def matrix(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the metrics of some runs, one row a run and one column a metric.

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
    """
    rows = [_of_run(run) for run in runs]
    table = pd.DataFrame(rows, index=pd.RangeIndex(len(runs)), dtype="float64")
    table = table.reindex(columns=sorted(table.columns))
    for prefix in _COUNTED_APART:
        columns = [name for name in table if str(name).startswith(prefix)]
        looked = table[columns].notna().any(axis=1)
        table.loc[looked, columns] = table.loc[looked, columns].fillna(0.0)
    kernels = pd.Series([run.manifest.target.get("kernel_release") for run in runs])
    counters = [name for name in table if str(name).startswith("proc-vmstat.")]
    counters = [name for name in counters if not str(name).startswith("proc-vmstat.nr_")]
    for kernel in kernels.unique():
        same = table.loc[kernels == kernel, counters]
        known = [name for name in counters if same[name].notna().any()]
        among = (kernels == kernel) & table[counters].notna().any(axis=1)
        table.loc[among, known] = table.loc[among, known].fillna(0.0)
    return table


_known: weakref.WeakKeyDictionary[Run, dict[str, float]] = weakref.WeakKeyDictionary()


def _of_run(run: Run) -> dict[str, float]:
    """Return the means of a run's repeats; a run that is open does not change, so only once."""
    if run not in _known:
        _known[run] = _means(run)
    return _known[run]


def _means(run: Run) -> dict[str, float]:
    """Average the repeats of a run: of what only occurs, over all that were looked at."""
    found = of(run)
    sums = found.groupby("metric")["value"].agg(["sum", "count"])
    every = {
        prefix: found.loc[found["metric"].str.startswith(prefix), "repeat"].nunique()
        for prefix in (*_COUNTED_APART, "proc-vmstat.")
    }
    means = {}
    for name, total, count in sums.itertuples():
        prefix = next((p for p in every if str(name).startswith(p)), None)
        if prefix is None or str(name).startswith("proc-vmstat.nr_"):
            means[str(name)] = total / count
        else:
            means[str(name)] = total / every[prefix]
    return means


def _frame(columns: dict[str, pd.Series[float]]) -> pd.DataFrame:
    """Return metrics by name, each a series of values by repeat, as a long frame."""
    parts = [
        pd.DataFrame(
            {
                "repeat": values.index.to_numpy("int64"),
                "metric": name,
                "value": values.to_numpy("float64", na_value=np.nan),
            }
        )
        for name, values in columns.items()
    ]
    if parts:
        return pd.concat(parts, ignore_index=True)
    return pd.DataFrame(
        {"repeat": pd.Series(dtype="int64"), "metric": pd.Series(dtype="str"),
         "value": pd.Series(dtype="float64")}
    )  # fmt: skip


def _long(sums: pd.Series[float], prefix: str) -> pd.DataFrame:
    """Return sums by repeat and metric as a long frame."""
    long: pd.DataFrame = sums.rename("value").reset_index()[COLUMNS]
    return long.assign(metric=prefix + long["metric"].astype("str"))


def _word(text: object) -> str:
    """Return a name as a metric's has it: without blanks."""
    return "-".join(str(text).split())


# ---- the workload ----


def workload(run: Run) -> pd.DataFrame:
    """Return throughput and times of the workload.

    ``vm-scalability.throughput`` is the sum of the tasks' KiB/s, ``.median`` the median task's;
    ``.workload`` the accesses of eight bytes (usemem's own count).
    """
    found: dict[str, pd.Series[float]] = {}
    if "throughput" in run.manifest.tables:
        tasks = run.table("throughput").groupby("repeat")
        found["vm-scalability.throughput"] = tasks["kb_per_s"].sum()
        found["vm-scalability.median"] = tasks["kb_per_s"].median()
        found["vm-scalability.workload"] = tasks["bytes"].sum() / 8
    used = run.table("repeats").set_index("repeat")
    names = {
        "elapsed_time": used["seconds"],
        "user_time": used["user_s"],
        "system_time": used["system_s"],
        "voluntary_context_switches": used["voluntary_ctxt"],
        "involuntary_context_switches": used["involuntary_ctxt"],
        "minor_page_faults": used["minor_faults"],
        "major_page_faults": used["major_faults"],
    }
    return _frame({**found, **{f"vm-scalability.time.{k}": v for k, v in names.items()}})


# ---- the kernel's counters ----


def proc_vmstat(run: Run) -> pd.DataFrame:
    """Return the counters of /proc/vmstat, and the shares of ``vma_lock_*``."""
    if "vmstat" not in run.manifest.tables:
        return _frame({})
    table = run.table("vmstat")
    level = table["counter"].str.startswith("nr_")
    counts = pd.DataFrame(
        {
            "repeat": table["repeat"].astype("int64"),
            "metric": "proc-vmstat." + table["counter"].astype("str"),
            "value": table["after"].where(level, table["difference"]).astype("float64"),
        }
    )
    of_vmas = table[table["counter"].str.startswith("vma_lock_")]
    each = of_vmas.pivot(index="repeat", columns="counter", values="difference").astype("float64")
    tried = each.sum(axis=1)
    shares = {
        f"vma-lock.{str(name).removeprefix('vma_lock_')}%": 100
        * each[name]
        / tried.where(tried > 0)
        for name in each
    }
    return pd.concat([counts, _frame(shares)], ignore_index=True) if shares else counts


# ---- what the probe saw ----


def mmap_lock(run: Run) -> pd.DataFrame:
    """Return how often the workload took mmap_lock, in all and by caller.

    ``acquired`` counts takings, ``contended`` those that found it taken, ``wait_ns`` the time from
    asking to the answer, of tries that failed, too.
    """
    if "locks" not in run.manifest.tables:
        return _frame({})
    own = locks.of_workload(run.table("locks")).rename(columns={"taken": "acquired"})
    own = own.astype({"contended": "float64", "wait_ns": "float64"})
    caller = own["asked_by"].map(_word).astype("str") + "." + own["mode"].astype("str")
    names = ["acquired", "contended", "wait_ns"]
    sums = own.groupby([own["repeat"], caller.rename("caller")])[names].sum()
    total = own.groupby("repeat")[names].sum()
    parts = [_frame({f"mmap-lock.{name}": total[name] for name in names})]
    wide = sums.unstack("caller", fill_value=0.0)
    named = {f"mmap-lock.{name}.{who}": wide[name][who] for name in names for who in wide[name]}
    parts.append(_frame(named))
    return pd.concat(parts, ignore_index=True)


def faults(run: Run) -> pd.DataFrame:
    """Return the faults that were traced, by lock path and by kind.

    A kind is ``ORIGIN.ACCESS.FOUND->LEFT.PATH``; those ended by an error are left out.
    """
    if "faults" not in run.manifest.tables:
        return _frame({})
    table = run.table("faults")
    table = table[table["result"] != "error"].astype({"count": "float64"})
    origin = table["origin"].astype("object").fillna("no VMA").map(_word)
    change = (table["before"].astype("str") + "->" + table["after"].astype("str")).map(_word)
    kind = origin + "." + table["access"].astype("str") + "." + change
    kind = kind + "." + table["path"].astype("str")
    path = "by-lock." + table["path"].astype("str")
    parts = [
        table.groupby([table["repeat"], names.rename("metric")])["count"].sum()
        for names in (pd.Series("total", index=table.index), path, kind)
    ]
    return _long(pd.concat(parts), "faults.")


def census(run: Run) -> pd.DataFrame:
    """Return the VMAs: all, anonymous, bare, and the bare ones by class and origin."""
    if "census" not in run.manifest.tables:
        return _frame({})
    table = run.table("census")
    anonymous, bare = table[table["anonymous"]], table[table["bare"]]
    where = bare["class"].astype("str") + "." + bare["origin"].map(_word).astype("str")
    parts = [
        (table, pd.Series("vmas", index=table.index)),
        (anonymous, pd.Series("anonymous", index=anonymous.index)),
        (bare, pd.Series("bare", index=bare.index)),
        (bare, "bare." + bare["class"].astype("str")),
        (bare, "bare." + where),
    ]
    sizes = [part.groupby([part["repeat"], names.rename("metric")]).size() for part, names in parts]
    return _long(pd.concat(sizes), "census.")


SOURCES: list[Source] = [
    workload,
    perf_stat.metrics,
    perf_profile.metrics,
    proc_vmstat,
    mmap_lock,
    faults,
    census,
]
"""Where metrics come from, in this order."""
