# SPDX-License-Identifier: GPL-2.0-only
"""How much of a change in acquisitions bare VMAs are to blame for.

They are blamed only for faults that found a VMA bare and had their lock path changed. A busy
neighbour, a slower munmap or larger pages do not look like that, and are not.
"""

from __future__ import annotations

import dataclasses
import enum

import pandas as pd

from anonvma.compare.attribution.acquisitions import STATES, Side
from anonvma.compare.attribution.decomposition import PATH, UNEXPLAINED, Estimate

_BLAMED = 0.5  # of the change: bare VMAs are the cause
PARTLY = 0.05  # below it they are not even a part of it


class Verdict(enum.StrEnum):
    """How much of a change in mmap_lock bare VMAs are the cause of."""

    BARE = "bare VMAs"
    PARTLY_BARE = "in part bare VMAs"
    NOT_BARE = "not bare VMAs"
    NO_CHANGE = "no change"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a decomposed change amounts to; see `Cause`."""

    total: Estimate
    changed: bool
    verdict: Verdict
    bare_share: float | None = None
    unexplained_share: float | None = None


def judge(one: Side, other: Side, table: pd.DataFrame, total: Estimate) -> Judgement:
    """Judge how much of a change the lock path of faults on bare VMAs accounts for."""
    single = min(one.n, other.n) < 2
    if not (total.is_sure or (single and total.change != 0)):
        return Judgement(total, False, Verdict.NO_CHANGE)
    bare_share = float(_of_bare(table)["change"].sum() / total.change)
    unexplained = float(table.loc[table["cause"] == UNEXPLAINED, "change"].sum() / total.change)
    verdict = Verdict.NOT_BARE
    if bare_share >= _BLAMED:
        verdict = Verdict.BARE
    elif bare_share >= PARTLY:
        verdict = Verdict.PARTLY_BARE
    return Judgement(total, True, verdict, bare_share, unexplained)


def _of_bare(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that blame bare VMAs: a changed lock path of faults that found them bare."""
    bare = table["state"].isin([STATES["bare", "bare"], STATES["bare", "anon_vma"]])
    return table[bare & (table["cause"] == PATH) & (table["mode"] == "user")]
