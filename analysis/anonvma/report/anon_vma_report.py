# SPDX-License-Identifier: GPL-2.0-only
"""The anon_vmas of a census, for a reader: how many there are, who shares them, what they cost."""

from __future__ import annotations

import pandas as pd

from anonvma.base.section import Section, Whole
from anonvma.base.tabular import LACKING
from anonvma.tables import anon_vmas


def section(chains: pd.DataFrame, slabs: pd.DataFrame, vmas: pd.DataFrame) -> Section:
    """Return the section of a census's anon_vmas."""
    table = anon_vmas.by_sharing(chains).reset_index()
    whole = Whole("anon_vmas", float(table["anon_vmas"].sum()), "anon_vmas")
    return Section("anon_vmas", sentences(chains, slabs, vmas), table, whole=whole)


def sentences(chains: pd.DataFrame, slabs: pd.DataFrame, vmas: pd.DataFrame) -> list[str]:
    """Say how many anon_vmas there are, which were needed, and what the kernel's slabs say."""
    if chains.empty:
        return [chains.attrs.get(LACKING, "No VMA has an anon_vma.")]
    total = anon_vmas.total(chains)
    said = [
        f"{total.vmas:,} VMAs have an anon_vma: {total.anon_vmas:,} of them, in "
        f"{total.families:,} families, linked by {total.chains:,} anon_vma_chains, at most "
        f"{total.longest:,} for one VMA.",
        *_lazily(chains, vmas, total),
    ]
    if slabs.empty:
        return [*said, "/proc/slabinfo has no line of their caches."]
    for row in anon_vmas.slabs(slabs, chains).reset_index().itertuples(index=False):
        said.append(
            f"/proc/slabinfo, of the whole machine: {row.active:,} objects of {row.cache} in use "
            f"or free in a processor's own slab, in {row.bytes:,} bytes of slabs."
        )
    return said


def _lazily(chains: pd.DataFrame, vmas: pd.DataFrame, total: anon_vmas.Total) -> list[str]:
    """Say how many a scheme would do without that makes one for a fork or for reclaim only."""
    needs = anon_vmas.by_need(chains, vmas)["anon_vmas"].to_dict()
    said = [
        f"{total.of_one_process:,} of the anon_vmas ({total.of_one_process / total.anon_vmas:.1%}) "
        "are linked to VMAs of one process alone: a scheme that makes one when a fork first shares "
        "its pages would do without."
    ]
    if needs["not known"]:
        return [*said, "Which of these have pages swapped out was not looked at in this census."]
    return [
        *said,
        f"Of these {needs['neither']:,} have no page swapped out either, now: not even reclaim has "
        "come to a page by them that is still away. What was shared, or was swapped out and came "
        "back, the kernel does not keep.",
    ]
