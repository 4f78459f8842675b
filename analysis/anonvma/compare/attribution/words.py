# SPDX-License-Identifier: GPL-2.0-only
"""What caused a change in mmap_lock, in words; `anonvma.compare.attribution` has the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base.numerals import number, percent
from anonvma.compare import changes
from anonvma.compare.attribution.acquisitions import Side
from anonvma.compare.attribution.blame import PARTLY, Judgement, Verdict
from anonvma.compare.attribution.decomposition import CALLS, NUMBER, REPEATED, UNEXPLAINED
from anonvma.run.vocabulary import TRACING_LOSSES
from anonvma.tables import losses


def sentences(
    one: Side, other: Side, table: pd.DataFrame, judgement: Judgement, first: pd.Series[Any]
) -> list[str]:
    """Say what changed, for which reasons, and what that has to do with the primary metric."""
    said = [_total_said(one, other, judgement)]
    if judgement.changed:
        said += _reasons_said(one, other, table)
        said.append(_verdict_said(one, other, judgement, table))
    said.append(_primary_said(one, other, judgement.verdict, first))
    said += _doubts(one, other)
    return [sentence for sentence in said if sentence]


def _total_said(one: Side, other: Side, judgement: Judgement) -> str:
    total = judgement.total
    sums = [float(side.taken.sum().mean()) for side in (one, other)]
    interval = (
        f", 95 % interval {total.low:+,.0f} to {total.high:+,.0f}"
        if np.isfinite(total.low)
        else ", a single run has no interval"
    )
    numbers = (
        f"{sums[0]:,.0f} times in {one.name} and {sums[1]:,.0f} in {other.name} "
        f"({total.change:+,.0f}{interval}; n = {one.n} and {other.n})"
    )
    if judgement.changed:
        return f"The workload took mmap_lock {numbers}."
    return f"The workload took mmap_lock as often, as far as these runs show: {numbers}."


def _reasons_said(one: Side, other: Side, table: pd.DataFrame) -> list[str]:
    """Say the reasons that make up most of the change, the largest first, three at most."""
    reasons = table[(table["cause"] != UNEXPLAINED) & (table["share"].abs() >= PARTLY)]
    return [
        f"{abs(row['change']):,.0f} {'fewer' if row['change'] < 0 else 'more'} "
        f"({percent(row['share'])} of the change): {_reason(one, other, row)}."
        for row in reasons.head(3).to_dict(orient="records")
    ]


def _reason(one: Side, other: Side, row: Mapping[Any, Any]) -> str:
    if row["cause"] == CALLS:
        return (
            f"{row['origin']} took it for {row['mode']} {row['taken_base']:,.0f} times in "
            f"{one.name} and {row['taken_head']:,.0f} in {other.name}"
        )
    faults = f"{row['access']} faults on {row['origin']} VMAs{_state_said(row)}"
    counts = (
        f"{row['faults_base']:,.0f} in {one.name} and {row['faults_head']:,.0f} in {other.name}"
    )
    if row["cause"] == NUMBER:
        return (
            f"{faults}, whose number is another: {counts}, while mmap_lock was taken for "
            f"{_share(row, 'base')} and {_share(row, 'head')} of them"
        )
    how = "again, after the VMA's own lock," if row["cause"] == REPEATED else "for"
    return (
        f"{faults}: {counts}, and mmap_lock was taken {how} {_share(row, 'base')} of the former "
        f"and {_share(row, 'head')} of the latter"
    )


_STATES = {"stays bare": " that stay bare"}


def _state_said(row: Mapping[Any, Any]) -> str:
    vmas, state = row["vmas_base"], _STATES.get(str(row["state"]), f" ({row['state']})")
    if vmas is None or not np.isfinite(vmas) or not vmas:
        return state
    return f"{state} (the census has {vmas:,.0f} such, with zero pages only)"


def _share(row: Mapping[Any, Any], side: str) -> str:
    share = row[f"taken_{side}"] / max(row[f"faults_{side}"], 1)
    return "all" if share == 1 else "none" if share == 0 else percent(share)


def _verdict_said(one: Side, other: Side, judgement: Judgement, table: pd.DataFrame) -> str:
    verdict, bare_share = judgement.verdict, judgement.bare_share
    unexplained = judgement.unexplained_share
    assert bare_share is not None and unexplained is not None
    left = table.loc[table["cause"] == UNEXPLAINED, "change"].sum()
    rest = f"Unexplained: {number(abs(left))} ({percent(abs(unexplained))})."
    if verdict is Verdict.BARE:
        return (
            f"So bare VMAs explain {percent(bare_share)} of the change in mmap_lock: what is asked "
            f"of a fault that finds one differs between {one.name} and {other.name}. {rest}"
        )
    if verdict is Verdict.PARTLY_BARE:
        return (
            f"Bare VMAs explain {percent(bare_share)} of the change in mmap_lock, and not the "
            f"rest. {rest}"
        )
    share = percent(abs(bare_share)) if bare_share else "nothing"
    return (
        f"This is not explained by bare VMAs: the lock path of faults that find one accounts for "
        f"{share} of it. {rest}"
    )


def _primary_said(one: Side, other: Side, verdict: Verdict, first: pd.Series[Any]) -> str:
    """Tie the change in mmap_lock to that of the primary metric, as far as it can be."""
    name = str(first["metric"])
    moved = first["verdict"] in changes.CHANGED
    if not moved:
        if verdict in (Verdict.BARE, Verdict.PARTLY_BARE):
            return (
                f"That {name} changed with it is not shown by these runs: on this machine, with "
                "this many tasks, the lock costs too little, or there are too few runs."
            )
        return ""
    how = f"{name} of {other.name} is {number(first['ratio'])} times that of {one.name}"
    if verdict is Verdict.BARE:
        return f"{how}. {_time_said(one, other)}".strip()
    if verdict is Verdict.PARTLY_BARE:
        return f"{how}; how much of that is due to bare VMAs is not told by these counts."
    return (
        f"{how}, and that is not explained by bare VMAs: their faults take mmap_lock as they did. "
        "As far as VMAs and mmap_lock go, all of it is unexplained."
        if verdict is Verdict.NO_CHANGE
        else f"{how}, and that is not explained by bare VMAs either."
    )


def _time_said(one: Side, other: Side) -> str:
    """Say what the faults on bare VMAs took each, where the source times them."""
    means = []
    for side in (one, other):
        bare = side.faults.index.get_level_values("before") == "bare"
        user = side.faults.index.get_level_values("mode") == "user"
        timed = float(side.timed[bare & user].to_numpy().sum())
        spent = side.time_ns.reindex(side.faults.index)[bare & user].to_numpy().sum()
        if not timed or not np.isfinite(spent) or not spent:
            return "How long its faults took is not known from this source."
        means.append(spent / timed / 1000)
    return (
        f"Traced, a fault on a bare VMA took {number(means[0])} µs in {one.name} and "
        f"{number(means[1])} in {other.name}."
    )


def _doubts(one: Side, other: Side) -> list[str]:
    found = []
    for side in (one, other):
        if side.unknown:
            found.append(
                f"The lock path of {side.unknown:,.0f} faults of {side.name} is unknown; what they "
                "took is among the unexplained."
            )
        traced = [run.table("tracing") for run in side.runs if "tracing" in run.manifest.tables]
        lost = losses.summed(pd.concat(traced)) if traced else {}
        told = [f"{count:,} {TRACING_LOSSES[name]}" for name, count in lost.items() if count]
        if told:
            found.append(f"The tracers of {side.name} lost {'; '.join(told)}.")
    return found
