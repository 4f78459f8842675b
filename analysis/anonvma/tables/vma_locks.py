# SPDX-License-Identifier: GPL-2.0-only
"""Locks of single VMAs: whose writers wait for readers, and whose readers fail for a writer.

A page fault takes the lock of its VMA for reading and goes on without mmap_lock; fork, mprotect and
others take it for writing and wait until the last reader has left. A fault that comes meanwhile
fails, and takes mmap_lock.

Functions take a run's table ``contended`` and return a table with named columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from anonvma.base.numerals import percent
from anonvma.base.section import Whole
from anonvma.run.vocabulary import VMA_LOCK

HOW = (
    "A writer of a VMA, such as fork or mprotect, waits until the last reader of its lock has "
    "left; a page fault that finds its VMA locked for writing takes mmap_lock. Mean of one repeat."
)
WRITER, READER = "writer waited", "reader failed"


def _of_vmas(contended: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of VMA locks, with the side that they are of."""
    found = contended[contended["lock"].astype("object") == VMA_LOCK]
    side = pd.Series(WRITER, found.index, "object").where(found["success"], READER)
    return found.assign(what=side)


def by_caller(contended: pd.DataFrame) -> pd.DataFrame:
    """Who acquired locks of VMAs for writing, how often that waited, and how long.

    Returns
    -------
    DataFrame
        One row per caller, most time first: asked_by, acquired (mean of one repeat; where the
        kernel does not show those that did not wait, as many as waited), waited, wait_ms (summed),
        mean_ns (of one that waited), longest_ns.
    """
    n = max(int(contended["repeat"].nunique()), 1)
    found = _of_vmas(contended)
    sums = found[found["what"] == WRITER].groupby("asked_by", observed=True)
    table = sums.agg(
        acquired=("count", "sum"),
        waited=("contended", "sum"),
        wait_ns=("wait_ns", "sum"),
        longest_ns=("longest_ns", "max"),
    ).reset_index()
    table["mean_ns"] = table["wait_ns"] / table["waited"].where(table["waited"] > 0)
    table["wait_ms"] = table["wait_ns"] / 1e6 / n
    table[["acquired", "waited"]] = table[["acquired", "waited"]] / n
    columns = ["asked_by", "acquired", "waited", "wait_ms", "mean_ns", "longest_ns"]
    return table.sort_values(["wait_ms", "acquired"], ascending=False, ignore_index=True)[columns]


def waits(contended: pd.DataFrame) -> pd.DataFrame:
    """On which VMAs, as they then were, writers waited for readers, or readers failed for one.

    Returns
    -------
    DataFrame
        One row per caller, kind of VMA and what happened, most time first: what (`WRITER` or
        `READER`), asked_by, because_of (what the writer was about; empty where that is not known),
        origin, state, vmas (how many), times (mean of one repeat), wait_ms (summed, likewise; a
        reader does not wait here but for mmap_lock), longest_ns.
    """
    n = max(int(contended["repeat"].nunique()), 1)
    found = _of_vmas(contended)
    found = found[found["contended"] > 0]
    keys = ["what", "asked_by", "because_of", "origin", "state"]
    named = found.astype(dict.fromkeys(keys, "object")).fillna(dict.fromkeys(keys, ""))
    # Numbered anew in each repeat, and when it is given an anon_vma.
    named = named.assign(vma=named["repeat"].astype("str") + ":" + named["owner"].astype("str"))
    table = (
        named.groupby(keys)
        .agg(
            vmas=("vma", "nunique"),
            times=("contended", "sum"),
            wait_ms=("wait_ns", "sum"),
            longest_ns=("longest_ns", "max"),
        )
        .reset_index()
        .astype(dict.fromkeys(keys, "str"))
    )
    table["times"], table["wait_ms"] = table["times"] / n, table["wait_ms"] / 1e6 / n
    return table.sort_values(["wait_ms", "times"], ascending=False, ignore_index=True)


def said(contended: pd.DataFrame) -> str:
    """Say how often writers waited and readers failed, and on which VMAs most of it was."""
    table = waits(contended)
    unseen = (
        "no reader was seen to fail for a writer, which is seen where the kernel lets functions be "
        "traced (fentry or kprobe.multi)."
    )
    if table.empty:
        return f"No writer waited for a reader of a VMA, and {unseen}"
    times = table.groupby("what")["times"].sum().reindex([WRITER, READER], fill_value=0)
    most = table.groupby(["origin", "state"])["times"].sum().sort_values(ascending=False)
    share, where = (
        percent(most.iloc[0] / most.sum()),
        "VMAs that were {}, {}".format(*most.index[0]),
    )
    ms = table["wait_ms"].sum()
    waited = f"Writers of VMAs waited {times[WRITER]:,.0f} times, {ms:,.1f} ms in all"
    if not times[READER]:
        return f"{waited}, {share} of the times on {where}; {unseen}"
    return f"{waited}, and readers failed {times[READER]:,.0f} times: {share} of both on {where}."


def whole(contended: pd.DataFrame) -> Whole:
    """What the rows of `waits` add up to."""
    found = _of_vmas(contended)
    n = max(int(contended["repeat"].nunique()), 1)
    total = float(found["contended"].sum()) / n
    return Whole("times", total, "waits of writers and failures of readers")


def whole_by_caller(contended: pd.DataFrame) -> Whole:
    """What the rows of `by_caller` add up to."""
    table = by_caller(contended)
    all_waited = bool((table["acquired"] == table["waited"]).all())  # the others are not seen
    noun = "acquisitions that waited" if all_waited else "acquisitions"
    return Whole("acquired", float(table["acquired"].sum()), noun)


def each(contended: pd.DataFrame) -> pd.DataFrame:
    """Return the same as `waits` one VMA at a time, by where it began when first seen.

    Returns
    -------
    DataFrame
        One row per group of like waits on one VMA: start, end, what, asked_by, because_of, origin,
        state, times, wait_ns, longest_ns, log2_ns.
    """
    found = _of_vmas(contended)
    columns = ["start", "end", "what", "asked_by", "because_of", "origin", "state", "contended"]
    columns += ["wait_ns", "longest_ns", "log2_ns"]
    rows = found.loc[(found["contended"] > 0) & (found["start"] > 0), columns]
    return rows.rename(columns={"contended": "times"}).reset_index(drop=True)


def known_said(header: Mapping[str, Any]) -> str:
    """Say what this kernel does not show of VMA locks, why, and what would give it."""
    if not header["vma_locks"]:
        return "This kernel has no locks of VMAs: Linux 6.4 or later has them."
    calls = header["calls"]
    why = f": {header['why_no_calls']}" if header["why_no_calls"] else ""
    lacking = []
    if not header["writers_seen"]:
        lacking.append("how often the lock of a VMA was free for its writer (waits are known)")
    if not header["readers_seen"]:
        lacking.append("how often a page fault found its VMA locked for writing")
    if calls is None:
        lacking.append("which VMAs fork copied, and whom it kept waiting")
    if not lacking:
        return f"The kernel's functions were seen by {calls}."
    need = (
        "Linux 6.15 or later, whose __vma_start_write() is a function of its own"
        if calls
        else "a kernel with fentry or kprobe.multi (CONFIG_FUNCTION_TRACER, CONFIG_FPROBE)"
    )
    return f"Not known: {'; '.join(lacking)}{why}. Remedy: {need}."
