# SPDX-License-Identifier: GPL-2.0-only
"""What bareness costs beside page faults: operations on a VMA that is bare, and on one that is not.

The two differ in that alone: a page of the other was written and given back, so that it has an
anon_vma, and since then the same zero pages as the bare one. Only swap-out and KSM meet pages of
its own in the other, of which a bare one can have none. Functions take the table ``consequences``
of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from anonvma.base.axes import own
from anonvma.base.tabular import LACKING
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Decision(NamedTuple):
    """The kernel function that asks whether there is an anon_vma, and since which release so."""

    function: str
    since: str


DECISIONS = {
    "MADV_GUARD_INSTALL": Decision(
        "madvise_guard_install(): anon_vma_prepare(); from 6.19 under mmap_lock only for a bare "
        "one, is_vma_lock_sufficient()",
        "6.13",
    ),
    "MADV_DONTNEED": Decision("none: zap_page_range_single() asks the page tables", ""),
    "MADV_FREE": Decision("none: madvise_free_pte_range() asks the page tables", ""),
    "MADV_PAGEOUT": Decision("none: it asks vma_is_anonymous()", ""),
    "MADV_COLLAPSE": Decision("hugepage_vma_revalidate(), thp_vma_allowable_order()", "6.1"),
    "MADV_POPULATE_READ": Decision("do_anonymous_page(): the zero page needs none", ""),
    "MADV_POPULATE_WRITE": Decision("do_anonymous_page(): anon_vma_prepare()", ""),
    "MADV_MERGEABLE": Decision("scan_get_next_rmap_item(), later: ksmd skips a bare one", ""),
    "mprotect of a part": Decision("__split_vma(): anon_vma_clone() of what there is", ""),
    "mprotect of it, back": Decision("is_mergeable_anon_vma()", ""),
    "mremap, grow": Decision("is_mergeable_anon_vma(), of what is beside it", ""),
    "mremap, move": Decision("copy_vma(): only a bare one gets the offset of its address", ""),
    "mremap, MREMAP_DONTUNMAP": Decision("move_vma(): unlink_anon_vmas()", "5.13"),
    "munmap of a part": Decision("__split_vma(): anon_vma_clone() of what there is", ""),
    "mlock": Decision("do_anonymous_page(): it populates by writing", ""),
    "fork": Decision("vma_needs_copy(): no page table of a bare one is copied", ""),
    "UFFDIO_COPY": Decision("uffd_lock_vma(): anon_vma_prepare() under mmap_lock", "6.9"),
    "UFFDIO_ZEROPAGE": Decision("uffd_lock_vma(): anon_vma_prepare() under mmap_lock", "6.9"),
    "UFFDIO_MOVE": Decision("uffd_move_lock(): anon_vma_prepare() under mmap_lock", "6.8"),
    "swap-out": Decision("none: a page of its own, which takes an anon_vma, is on an LRU list", ""),
    "KSM": Decision("scan_get_next_rmap_item(): ksmd goes past a bare one", ""),
    "core dump": Decision("vma_dump_size(): a bare one is left out", ""),
    "/proc/PID/smaps": Decision("none", ""),
}
_DONE = {"swap-out": "swapped out", "KSM": "merged"}


def last(run: Run) -> pd.DataFrame:
    """Return a run's consequences, or no rows and why."""
    if "consequences" in run.manifest.tables:
        return run.table("consequences")
    nothing: pd.DataFrame = SCHEMAS["consequences"].empty_table().to_pandas()
    nothing.attrs[LACKING] = (
        "Not observed: the run is none of the specimens, or was made before they were tried. "
        "Collect the specimens anew to have them."
    )
    return nothing


def side_by_side(rows: pd.DataFrame) -> pd.DataFrame:
    """Set the bare VMA beside the other, one row per operation.

    Returns
    -------
    DataFrame
        Index: operation. Columns, each for a bare VMA and for one with an anon_vma: locks
        (acquisitions of mmap_lock per operation, r for reading and w for writing), ns (median),
        faults (per operation, when each page is read afterwards; of fork those of the child),
        became (what the VMA was then); then decided_by and since (the kernel function, and the
        release that made it so; empty where it always was).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = side_by_side(last(runs.find("specimens")))
    >>> found.loc["MADV_FREE", ["became, bare", "became, anon_vma"]].tolist()
    ['bare', 'anon_vma']
    """
    if rows.empty:
        table = pd.DataFrame(columns=["operation", "decided_by", "since"]).set_index("operation")
        table.attrs = rows.attrs
        return table
    told = rows.assign(
        locks=pd.Series([_locks(row) for row in rows.itertuples()], rows.index, dtype="object"),
        ns=rows["median_ns"],
        faults=_faults(rows),
        became=[_became(row) for row in rows.itertuples()],
    )
    sides = {
        side: told[told["bare"] == bare].set_index("operation")
        for side, bare in (("bare", True), ("anon_vma", False))
    }
    table = pd.DataFrame(
        {
            f"{name}, {side}": sides[side][name]
            for name in ("locks", "ns", "faults", "became")
            for side in sides
        },
        index=pd.Index(dict.fromkeys(rows["operation"]), name="operation"),
    )
    decisions = [DECISIONS.get(name, Decision("", "")) for name in table.index]
    table["decided_by"] = [each.function for each in decisions]
    table["since"] = [each.since for each in decisions]
    return table


def _faults(rows: pd.DataFrame) -> pd.Series[Any]:
    """Return the faults that follow an operation, without what a task takes now and then."""
    found = rows["child_faults"].astype("Float64").fillna(rows["faults_after"]).round(1)
    return found.astype("Int64") if (found.dropna() % 1 == 0).all() else found


def _locks(row: object) -> str | None:
    """Say how often mmap_lock was acquired by one operation; None where it was not counted."""
    reads, writes, trials = (getattr(row, name) for name in ("reads", "writes", "trials"))
    if pd.isna(reads) or not trials:
        return None
    counts = [(round(reads, 1), "r"), (round(writes, 1), "w")]
    # Whatever else a task does now and then is not the operation's.
    return " ".join(f"{count:g}{mode}" for count, mode in counts if count >= 0.1) or "0"


def _became(row: object) -> str:
    """Name what became of the VMA."""
    error, vmas, dumped, pages = (
        getattr(row, name) for name in ("error", "vmas", "dumped", "pages")
    )
    if isinstance(error, str):
        return error if getattr(row, "trials") else f"not tried: no {error}"  # noqa: B009
    if not pd.isna(dumped):
        return f"{int(dumped):,} bytes dumped"
    state = "anon_vma" if getattr(row, "anon_vma") is True else "bare"  # noqa: B009
    if not pd.isna(pages):
        return f"{state}, {int(pages)} pages {_DONE[getattr(row, 'operation')]}"  # noqa: B009
    return state if vmas == 1 else f"{state}, {vmas} VMAs"


def differing(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `side_by_side` where the locks, the faults or the outcome differ."""
    table = side_by_side(rows)
    if table.empty:
        return table
    differs = pd.Series(False, table.index)
    for name in ("locks", "faults"):
        bare, other = (table[f"{name}, {side}"].astype("object") for side in ("bare", "anon_vma"))
        differs |= bare.fillna("") != other.fillna("")
    failed = rows[rows["error"].notna()].groupby("operation").size()
    gained = rows[rows["bare"] & rows["anon_vma"].eq(True).fillna(False)]["operation"]
    for names in (
        failed.index[failed == 1],
        *(
            rows.groupby("operation")[name].nunique().loc[lambda count: count > 1].index
            for name in ("dumped", "pages")
        ),
        gained,
    ):
        differs |= table.index.isin(names)
    found: pd.DataFrame = table[differs]
    return found


def plot_times(rows: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how long each operation took on the bare VMA, over the other."""
    from matplotlib.ticker import NullFormatter

    from anonvma.base.drawing import sns

    title = "Time of an operation on a bare VMA, over one with an anon_vma"
    good = rows[rows["error"].isna()] if len(rows) else rows
    times = good.pivot_table("median_ns", "operation", "bare", "median", sort=False, observed=True)
    times = times.dropna() if {True, False} <= set(times.columns) else times.head(0)
    ax = own(ax, 7, 0.28 * len(times) + 1.2)
    if times.empty:
        return blank(ax, title, str(rows.attrs.get(LACKING, "no operation")))
    ratio = (times[True] / times[False]).astype("float64").sort_values()
    colours = ["#d55e00" if value > 1 else "#56b4e9" for value in ratio]
    ax.barh(ratio.index, ratio - 1, left=1, color=colours)
    for place, value in enumerate(ratio):
        ax.text(max(value, 1), place, f" {value:.2f}", va="center", fontsize="small")
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set(xscale="log", xlabel="times as long", ylabel="", title=title)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.15)
    sns.despine(ax=ax)
    return ax
