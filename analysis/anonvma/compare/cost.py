# SPDX-License-Identifier: GPL-2.0-only
"""What sending page faults to mmap_lock costs on one kernel: ratios, switches, and who waits.

Read from the tables lock_cost and lock_waits, which `anonvma.study.cost_experiment` makes; said by
`anonvma.report.cost_report`. *User* is the way
in which tasks touch their pages themselves, so that on a kernel with per-VMA locks and no early
check each fault takes the VMA's lock; *kernel* is the way in which a system call of theirs touches
first, so that each fault takes mmap_lock, as an early check would have it of a bare VMA.

The ratio is throughput of user over kernel. As an estimate of the early check it is a lower bound:
there a fault in user mode takes the VMA's lock and gives it up before it falls back, which a fault
in kernel mode never tries (`do_user_addr_fault()`). With one thread nobody contends: that ratio is
what a fault in kernel mode and an uncontended mmap_lock cost by themselves.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from anonvma.base import statistics
from anonvma.run.runs import Run
from anonvma.run.vocabulary import PAGE_FAULT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AGAIN = "user again"
"""The second way of an A/A test, in which nothing differs from the first."""

USAGE = (
    "seconds",
    "user_s",
    "system_s",
    "minor_faults",
    "major_faults",
    "voluntary_ctxt",
    "involuntary_ctxt",
)
"""What ``vmaprobe usage`` tells of an execution."""

WAITS_FROM_CALLERS = {"asked_by": "caller", "taken": "acquisitions"}
"""Columns of `anonvma.tables.locks.callers` by what they are called in the table lock_waits."""


class Verdict(enum.Enum):
    """What is known of the ratio at the number of threads that is judged."""

    SLOWER = "mmap_lock is slower"
    FASTER = "mmap_lock is faster"
    NOT_SHOWN = "no difference is shown"
    TOO_FEW = "too few blocks"


@dataclass(frozen=True)
class Cost:
    """What one run of the experiment found.

    Attributes
    ----------
    verdict : Verdict
        Of `judged`, from whether its simultaneous interval holds 1.
    judged : int
        The number of threads nearest to the number of CPUs: the case's own default.
    table : DataFrame
        `by_threads`.
    voluntary : dict of str to float
        By way, voluntary context switches of one execution at `judged`.
    pages : int
        Pages that one execution at `judged` touches.
    acquired : dict of str to int, or None
        By way, how often page faults acquired mmap_lock in a traced execution at `judged`.
    compares : bool
        Whether the ways differ; False in an A/A test.
    """

    verdict: Verdict
    judged: int
    table: pd.DataFrame
    voluntary: dict[str, float]
    pages: int
    acquired: dict[str, int] | None
    compares: bool

    @property
    def paths_differ(self) -> bool | None:
        """Whether one way's faults took mmap_lock and the other's did not; None if not traced."""
        if self.acquired is None or not self.compares:
            return None
        return self.acquired["user"] < self.pages / 5 and self.acquired["kernel"] > self.pages * 0.8


def sides(rows: pd.DataFrame) -> tuple[str, str]:
    """Return the two ways of a run of the experiment, the first of each ratio first."""
    return ("user", AGAIN if (rows["way"] == AGAIN).any() else "kernel")


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the ratio of throughputs, user over the other way, at each number of threads.

    The intervals hold together at 95 %: each is at 1 - 5 % / their number (Bonferroni), so that
    looking at several numbers of threads claims no more often than looking at one.

    Parameters
    ----------
    rows : DataFrame
        The table lock_cost, or the like columns of it: repeat, threads, way, mib_per_s.

    Returns
    -------
    DataFrame
        By threads: n (blocks), ratio, low, high, half_width (share of the ratio; null for n = 1).
    """
    first, other = sides(rows)
    level = statistics.LEVEL / rows["threads"].nunique()
    found = {}
    for threads, part in rows.groupby("threads"):
        speeds = part.pivot(index="repeat", columns="way", values="mib_per_s").dropna()
        row = statistics.between(speeds[other], speeds[first], level=level).iloc[0]
        found[threads] = {
            "n": len(speeds),
            **{name: row[name] for name in ("ratio", "low", "high")},
            "half_width": statistics.half_width(row["ratio"], row["low"], row["high"]),
        }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("threads")


def by_threads(run: Run) -> pd.DataFrame:
    """Return throughput both ways, and its ratio.

    Returns
    -------
    DataFrame
        By threads: n (blocks), user and kernel (MiB/s, means), ratio, low, high (see `ratios`). In
        an A/A test "user again" stands for kernel.
    """
    rows = run.table("lock_cost")
    table = ratios(rows).drop(columns="half_width")
    means = rows.pivot_table(index="threads", columns="way", values="mib_per_s")
    for place, way in enumerate(sides(rows), 1):
        table.insert(place, way, means[way])
    return table


def switches(run: Run) -> pd.DataFrame:
    """Return the context switches of one execution.

    Returns
    -------
    DataFrame
        By threads and way: voluntary and involuntary (means), n (executions).
    """
    groups = run.table("lock_cost").groupby(["threads", "way"], sort=False)
    return groups.agg(
        voluntary=("voluntary_ctxt", "mean"),
        involuntary=("involuntary_ctxt", "mean"),
        n=("repeat", "size"),
    ).sort_index(level="threads", sort_remaining=False)


def waits(run: Run) -> pd.DataFrame:
    """Return who acquired mmap_lock in the traced executions, and how long each waited.

    Returns
    -------
    DataFrame
        One row per number of threads, caller and way, the callers that waited longest first:
        threads, caller (with the mode), way, acquired (how often), contended (how many of these
        waited), wait_ms (summed over the tasks). Callers with less than a hundredth of the
        acquisitions and of the wait are together "others".
    """
    table = run.table("lock_waits")
    table["caller"] = table["caller"] + " (" + table["mode"] + ")"
    counted = ["acquisitions", "wait_ms"]
    shares = table[counted] / table.groupby(["threads", "way"])[counted].transform("sum")
    few = (shares < 0.01).all(axis="columns").groupby([table["threads"], table["caller"]])
    table["few"] = few.transform("all")
    table["caller"] = table["caller"].mask(table["few"], "others")
    found = table.groupby(["threads", "few", "caller", "way"], as_index=False).agg(
        acquired=("acquisitions", "sum"), contended=("contended", "sum"), wait_ms=("wait_ms", "sum")
    )
    counts = ["acquired", "contended"]
    found[counts] = found[counts].astype("int64")  # of one execution, so whole
    found["longest"] = found.groupby(["threads", "caller"])["wait_ms"].transform("max")
    order = {"threads": True, "few": True, "longest": False, "caller": True, "way": False}
    found = found.sort_values(list(order), ascending=list(order.values()), ignore_index=True)
    return found.drop(columns=["few", "longest"])


def row_of(table: pd.DataFrame, threads: int) -> pd.Series[Any]:
    """Return the row of one number of threads."""
    return table.loc[threads].squeeze()  # type: ignore[return-value]


def _acquired(run: Run, threads: int) -> dict[str, int] | None:
    if "lock_waits" not in run.manifest.tables:
        return None
    table = run.table("lock_waits")
    faults = table[(table["threads"] == threads) & (table["caller"] == PAGE_FAULT)]
    found = faults.groupby("way")["acquisitions"].sum()
    return {way: round(found.get(way, 0.0)) for way in sorted(set(table["way"]))}


def of_run(run: Run) -> Cost:
    """Return what a run of the experiment found.

    Raises
    ------
    RunError
        When it is another kind of run.
    """
    rows = run.table("lock_cost")
    table = by_threads(run)
    cpus = int(run.manifest.target["cpus"])
    judged = min(table.index, key=lambda threads: (abs(threads - cpus), threads))
    row = row_of(table, judged)
    if row["n"] < 3 or pd.isna(row["low"]):
        verdict = Verdict.TOO_FEW
    elif row["low"] > 1:
        verdict = Verdict.SLOWER
    elif row["high"] < 1:
        verdict = Verdict.FASTER
    else:
        verdict = Verdict.NOT_SHOWN
    size = int(rows.loc[rows["threads"] == judged, "bytes"].iloc[0])
    pages = size // int(run.manifest.target["page_size"])
    compares = not (rows["way"] == AGAIN).any()
    voluntary = {way: float(switches(run).loc[(judged, way), "voluntary"]) for way in sides(rows)}
    acquired = _acquired(run, int(judged))
    return Cost(verdict, int(judged), table, voluntary, pages, acquired, compares)


# ---- drawn ----


def plot_by_threads(run: Run, ax: Axes | None = None) -> Axes:
    """Draw the ratio of `by_threads`, with its interval, against the number of threads."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    from anonvma.base.drawing import sns

    table = by_threads(run)
    ax = ax or plt.subplots(figsize=(6.4, 3.6), layout="constrained")[1]
    errors = [table["ratio"] - table["low"], table["high"] - table["ratio"]]
    ax.errorbar(table.index, table["ratio"], errors, fmt="o-", color="#d55e00", capsize=4)
    for threads, row in table.iterrows():
        ax.annotate(
            f"{row['ratio']:.2f}", (threads, row["ratio"]), (7, 5), textcoords="offset points"
        )
    ax.axhline(1, color="0.4", linewidth=1)
    cpus = int(run.manifest.target["cpus"])
    ax.axvline(cpus, color="0.7", linewidth=1, linestyle=":")
    ax.annotate(
        f"{cpus} CPUs", (cpus, 0.02), (3, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", color="0.4",
    )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator([float(n) for n in table.index]))
    ax.xaxis.set_major_formatter(FixedFormatter([str(n) for n in table.index]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.12, y=0.2)
    label = "throughput under the VMA's lock\nover that under mmap_lock"
    ax.set(xlabel="threads", ylabel=label, title="What sending page faults to mmap_lock costs")
    sns.despine(ax=ax)
    return ax
