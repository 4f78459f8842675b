# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of a run went: the tables and sentences that say it, and by what faults found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from anonvma.base.numerals import percent
from anonvma.perf.profile.purpose import parts
from anonvma.perf.profile.reading import main_event, of_run, select
from anonvma.perf.profile.shares import Kind, calltrace, children, mean, self_
from anonvma.run.runs import Run


def by_vma_class(run: Run) -> pd.DataFrame:
    """Return what share of the time went to faults, by what the faulting VMA was before.

    A sample of a clock does not know the address that faulted. So two observations of the same
    workload are put together: the profile says what share of the time was spent in page faults, and
    the tracer, in another execution, what each fault found. Where the tracer timed each fault, the
    share is divided as these times are, else by their number, as if each took as long as another;
    ``basis`` says which. It is an estimate: faults that wait asleep weigh more in times than in a
    profile, and a fault under mmap_lock takes longer than one that is not.

    Returns
    -------
    DataFrame
        before (state of the VMA, see `anonvma.run.vocabulary.STATES`), faults (mean number a
        repeat), of_faults (percent, of their time or number), basis, n (repeats), of_time (percent
        of all sampled time, mean), sd (sample standard deviation, over the repeats). No rows where
        no fault was traced.

    Raises
    ------
    RunError
        When the run lacks samples.
    """
    profiles = of_run(run)
    columns = ["before", "faults", "of_faults", "basis", "n", "of_time", "sd"]
    if "faults" not in run.manifest.tables:
        return pd.DataFrame(columns=columns)
    traced = run.table("faults")
    traced = traced[traced["result"] != "error"]
    if not len(traced):
        return pd.DataFrame(columns=columns)
    timed = bool(traced["time_ns"].notna().all())
    weight = "time_ns" if timed else "count"
    share = traced.pivot_table(
        index="repeat", columns="before", values=weight, aggfunc="sum", observed=True, fill_value=0
    ).astype("float64")
    portion = share.div(share.sum(axis=1), axis=0)
    number = traced.groupby("before", observed=True)["count"].sum() / traced["repeat"].nunique()
    in_faults = pd.Series(
        {
            repeat: parts(profile).filter(like="page fault").sum()
            for repeat, profile in profiles.items()
        }
    )
    # The tracer's repeats and the profile's are different executions: paired by number.
    of_time = portion.reindex(in_faults.index).ffill().bfill().mul(in_faults, axis=0)
    table = pd.DataFrame(
        {
            "faults": number,
            "of_faults": 100 * portion.mean(),
            "basis": "time" if timed else "number",
            "n": len(in_faults),
            "of_time": of_time.mean(),
            "sd": of_time.std(),
        }
    )
    return table.sort_values("of_time", ascending=False).rename_axis("before").reset_index()


def tables(
    of: Mapping[str, Run | Sequence[Run]], event: str | None = None, most: int = 15
) -> dict[str, pd.DataFrame]:
    """Return the tables that say where the time of a run went, or of two runs.

    Parameters
    ----------
    of : mapping
        By name, one run, or several of the same kind; or two of these, of which the second is what
        the first is compared with.
    event : str, optional
    most : int
        Rows of each table.

    Returns
    -------
    dict of str to DataFrame
        ``purpose`` (column part), ``self`` and ``children`` (symbol), ``call_path`` (path). Of one
        run: mean and sd of the share, per cent of the samples' weight; of two: base, base_sd, mean,
        sd, and points (percentage points).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = tables({"early": runs.find("early-profile-1")}, most=3)
    >>> list(found)
    ['purpose', 'self', 'children', 'call_path']
    """
    kinds: dict[str, tuple[str, Kind]] = {
        "purpose": ("part", parts),
        "self": ("symbol", self_),
        "children": ("symbol", children),
        "call_path": ("path", calltrace),
    }
    found = {}
    for key, (row, kind) in kinds.items():
        each = {name: mean(run, kind, event) for name, run in of.items()}
        table = next(iter(each.values()))
        if len(each) > 1:
            this, base = each.values()
            columns = {"base": base["mean"], "base_sd": base["sd"], "mean": this["mean"]}
            table = pd.DataFrame(columns | {"sd": this["sd"]})
            # What is in none of a run's repeats is 0 in each of them.
            for value, sd in (("base", "base_sd"), ("mean", "sd")):
                lacking = table[value].isna()
                table.loc[lacking, [value, sd]] = 0.0
            table["points"] = table["mean"] - table["base"]
            order = table["points"].abs()
        else:
            order = table["mean"]
        if kind is not parts:
            table = table.loc[order.sort_values(ascending=False, kind="stable").index].head(most)
        found[key] = table.rename_axis(row).reset_index()
    return found


def sentences(run: Run) -> list[str]:
    """Say where the time went, in a few sentences; nothing where it was not sampled."""
    if "samples" not in run.manifest.tables:
        return []
    profiles = of_run(run)
    table = pd.DataFrame({repeat: parts(profile) for repeat, profile in profiles.items()})
    mean = table.mean(axis=1)
    first = next(iter(profiles.values()))
    count = sum(len(select(profile).samples) for profile in profiles.values())
    faults = mean.filter(like="page fault").sum()
    waiting = mean.filter(like="waiting").sum()
    said = [
        f"Of {count:,} samples of {main_event(first)} in {len(profiles)} execution"
        f"{'s' if len(profiles) > 1 else ''}, {percent(faults / 100)} were in page faults and "
        f"{percent(waiting / 100)} spinning for mmap_lock."
    ]
    if "faults" in run.manifest.tables:
        classes = by_vma_class(run).set_index("before")
        if "bare" in classes.index:
            bare = classes.loc["bare"]
            said.append(
                f"Faults on bare VMAs are {percent(bare['of_faults'] / 100)} of the faults by "
                f"{bare['basis']}, and so an estimated {percent(bare['of_time'] / 100)} of the "
                "time."
            )
    return said
