# SPDX-License-Identifier: GPL-2.0-only
"""Why are these two VMAs not one: the kernel's first test that two adjacent ones fail.

The census asks what ``can_vma_merge_before()`` (mm/vma.c; mm/mmap.c before 6.12) would, of the same
fields and in its order, for each VMA and the one right below it. ``nothing`` means that no test
fails: the kernel asks only when one of the two is made or changed, and nobody did since they became
equal, as in a child whose parent had locked one of them. Functions take a table ``census`` of a run
or of a target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.base.axes import own
from anonvma.base.tabular import LACKING
from anonvma.run.vma_flags import flag_names
from anonvma.run.vocabulary import APART
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_OBSERVED = (
    "Not observed: the run was made before a census told why VMAs are not one. Collect it anew to "
    "have it."
)

_IGNORED = 0x08000000 | 0x800  # VM_SOFTDIRTY, VM_MAYBE_GUARD


def _pairs(vmas: pd.DataFrame) -> pd.DataFrame:
    """The VMAs that have one right below them, or none and why."""
    rows = vmas[vmas["apart"].notna()]
    if rows.empty and len(vmas):
        rows.attrs[LACKING] = NOT_OBSERVED
    return rows


def by_reason(vmas: pd.DataFrame) -> pd.DataFrame:
    """Return one row per reason, in the order in which the kernel asks.

    Returns
    -------
    DataFrame
        Index: reason. Columns: pairs (adjacent VMAs that first fail this test), alone (of these
        those that fail no other), left (VMAs there would be, were it not for these alone).
    """
    rows = _pairs(vmas)
    groups = rows.groupby(rows["apart"].astype("object"))["apart_alone"]
    table = pd.DataFrame({"pairs": groups.size(), "alone": groups.sum().astype("int64")})
    table["left"] = len(vmas) - table["alone"]
    table = table.reindex([name for name in dict.fromkeys(APART) if name in table.index])
    table.attrs = rows.attrs
    return table.rename_axis("reason")


def by_process(vmas: pd.DataFrame, most: int | None = None) -> pd.DataFrame:
    """Return one row per process and reason, those with most pairs that fail it alone first.

    Returns
    -------
    DataFrame
        Columns: tgid, comm, vmas (of the process), reason, pairs, alone, left (as in `by_reason`).
    """
    rows = _pairs(vmas)
    keys = [rows["tgid"], rows["apart"].astype("object").rename("reason")]
    table = rows.groupby(keys).agg(
        comm=("comm", "first"), pairs=("apart", "size"), alone=("apart_alone", "sum")
    )
    table = table.reset_index().astype({"alone": "int64"})
    table.insert(2, "vmas", table["tgid"].map(vmas.groupby("tgid").size()))
    table["left"] = table["vmas"] - table["alone"]
    table = table[["tgid", "comm", "vmas", "reason", "pairs", "alone", "left"]]
    table = table.sort_values(["alone", "pairs"], ascending=False, kind="stable", ignore_index=True)
    table = table.head(most or len(table))
    table.attrs = rows.attrs
    return table


def flags_apart(vmas: pd.DataFrame) -> list[int]:
    """Return for each VMA the bits of ``vm_flags`` in which it and the one before it differ."""
    flags = vmas["flags"].to_numpy("uint64")
    differ = np.append(np.uint64(0), flags[1:] ^ flags[:-1]) & ~np.uint64(_IGNORED)
    found: list[int] = differ.tolist()
    return found


def by_flag(vmas: pd.DataFrame, most: int | None = None) -> pd.DataFrame:
    """Return one row per set of flags in which adjacent VMAs differ: pairs, alone."""
    rows = vmas[["apart", "apart_alone"]].assign(differ=flags_apart(vmas))
    rows = rows[rows["apart"].eq("flags").fillna(False).astype(bool)]
    groups = rows.groupby("differ")["apart_alone"]
    table = pd.DataFrame({"pairs": groups.size(), "alone": groups.sum().astype("int64")})
    names = [" ".join(f"VM_{name}" for name in flag_names(bits)) for bits in table.index]
    table.index = pd.Index(names, name="flags")
    table = table.sort_values("pairs", ascending=False, kind="stable").head(most or len(table))
    table.attrs = _pairs(vmas).attrs
    return table


def plot_by_reason(vmas: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw `by_reason`: pairs that fail this test alone, and those that fail others too."""
    from anonvma.base.drawing import sns

    table = by_reason(vmas)
    ax = own(ax, 7, 0.3 * len(table) + 1.4)
    title = "Why adjacent VMAs are not one"
    if table.empty:
        return blank(ax, title, str(table.attrs.get(LACKING, "no two VMAs are adjacent")))
    bars = pd.DataFrame(
        {"this test alone": table["alone"], "others too": table["pairs"] - table["alone"]}
    )
    ax = bars.plot.barh(stacked=True, ax=ax, width=0.75, color=["#d55e00", "#bbbbbb"])
    for place, (pairs, alone) in enumerate(table[["pairs", "alone"]].to_numpy()):
        ax.text(pairs, place, f"  {alone:,} of {pairs:,}", va="center", fontsize="small")
    ax.invert_yaxis()
    ax.margins(x=0.2)
    ax.set(xlabel="pairs of adjacent VMAs", ylabel="", title=title)
    ax.legend(frameon=False, loc="lower right")
    sns.despine(ax=ax)
    return ax
