# SPDX-License-Identifier: GPL-2.0-only
"""The census: which VMAs are bare, of what kind, and what is in them.

An *anonymous VMA* has ``vma->vm_ops == NULL``; that is all ``vma_is_anonymous()``
(include/linux/mm.h) tests. It gets an ``anon_vma`` when it first needs a page of its
own. A *bare VMA* is anonymous and has none. On kernels 6.4 to 6.9
``lock_vma_under_rcu()`` (mm/memory.c) refused a bare VMA, so that every page fault on it
took mmap_lock, not only the first.

Why a VMA is bare is its class:

guard
    No access is permitted, so it cannot fault.
untouched
    It could be accessed, but no page is in it.
zero-page
    It has been read: ``do_anonymous_page()`` answers a read fault with the shared zero
    page and returns before ``vmf_anon_prepare()``. Read as often as you like, it stays bare; only
    a huge page makes an anon_vma for a read, too (``do_huge_pmd_anonymous_page()``).
other
    Anything else; the column ``note`` names it.

Functions take a frame as `read` gives it (or a run's ``census`` table) and return a table
with named columns; each ``plot_x`` draws the table of ``x``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from anonvma.base.axes import own, plot_counts, plot_shares
from anonvma.base.section import Whole
from anonvma.probe.census_file import LOSSES as LOSSES
from anonvma.probe.census_file import Census as Census
from anonvma.probe.census_file import read as read
from anonvma.probe.vma_kinds import NOTES as NOTES
from anonvma.probe.vma_kinds import ORIGINS as ORIGINS
from anonvma.run.runs import Run
from anonvma.run.vocabulary import CLASSES as CLASSES
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colour-blind safe (test_address_map.py), and in order of interest: the zero page is the
# answer to the mail.
COLOURS = {
    "zero-page": "#d55e00",
    "untouched": "#56b4e9",
    "guard": "#999999",
    "other": "#332288",
    "anon_vma": "#009e73",
}


def last(run: Run) -> pd.DataFrame:
    """Return the census of a run's last repeat, one row per VMA.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> len(last(runs.find("small-allocs-mt")))
    20495
    """
    vmas = run.table("census")
    rows: pd.DataFrame = vmas[vmas["repeat"] == vmas["repeat"].max()].drop(columns="repeat")
    return rows


def bare(vmas: pd.DataFrame) -> pd.DataFrame:
    """Return only the bare VMAs."""
    return vmas[vmas["bare"]]


def _measures(vmas: pd.DataFrame, key: str) -> pd.DataFrame:
    """Counts, bytes and pages of the VMAs of each value of `key`."""
    groups = vmas.groupby(key, observed=False)
    return pd.DataFrame(
        {
            "vmas": groups.size(),
            "bytes": groups["bytes"].sum(),
            "present": groups["present"].sum().astype("int64"),
            "zero": groups["zero"].sum().astype("int64"),
        }
    )


def by_class(vmas: pd.DataFrame) -> pd.DataFrame:
    """Bare VMAs by class.

    Returns
    -------
    DataFrame
        Index: the four classes in the order of `CLASSES`, absent ones with zeros. Columns:
        vmas (count), bytes, present and zero (pages; of VMAs whose pages were looked at).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> vmas = last(runs.find("small-allocs-mt"))
    >>> by_class(vmas)["vmas"].to_dict()
    {'guard': 2, 'untouched': 0, 'zero-page': 20480, 'other': 0}
    """
    return _measures(bare(vmas), "class").reindex(CLASSES, fill_value=0).rename_axis("class")


def by_repeat(vmas: pd.DataFrame) -> pd.DataFrame:
    """Bare VMAs by class, in each repeat of a run.

    Parameters
    ----------
    vmas : DataFrame
        The table ``census`` of a run, all of its repeats.

    Returns
    -------
    DataFrame
        Index: repeat. Columns: the classes, each with its count of VMAs.
    """
    rows = bare(vmas)
    counts = pd.crosstab(rows["repeat"], rows["class"].astype("object"))
    return counts.reindex(columns=CLASSES, fill_value=0).rename_axis(columns=None)


def plot_by_class(vmas: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the counts of `by_class` as bars, the number at the end of each."""
    from matplotlib.ticker import EngFormatter

    ax = own(ax, 7, 2.4)
    table = by_class(vmas).reset_index()
    plot_counts(table, "vmas", "class", COLOURS, ax)
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.set(xlabel="bare VMAs", ylabel="", title="Bare VMAs by class")
    return ax


def by_origin(vmas: pd.DataFrame) -> pd.DataFrame:
    """Anonymous VMAs by how they came to be, and whether and why they are bare.

    Returns
    -------
    DataFrame
        Index: origin, the one with most bare VMAs first. Columns: vmas (count), anon_vma
        (how many have one), then a column per class, zero (pages).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> vmas = last(runs.find("small-allocs-mt"))
    >>> by_origin(vmas).loc["private /dev/zero", ["vmas", "anon_vma", "zero-page"]].tolist()
    [20480, 0, 20480]
    """
    anonymous = vmas[vmas["anonymous"]]
    state = anonymous["class"].astype("object").fillna("anon_vma")
    table = pd.crosstab(anonymous["origin"].astype("object"), state)
    table = table.reindex(columns=["anon_vma", *CLASSES], fill_value=0)
    table.insert(0, "vmas", table.sum(axis=1))
    zero = anonymous.groupby(anonymous["origin"].astype("object"))["zero"].sum()
    table["zero"] = zero.astype("int64")
    order = (table["vmas"] - table["anon_vma"]).sort_values(ascending=False, kind="stable")
    return table.loc[order.index].rename_axis(index="origin", columns=None)


def plot_by_origin(vmas: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw `by_origin` as stacked bars: how much of each origin is bare, and why."""
    ax = own(ax, 7, 3.2)
    table, title = by_origin(vmas), "Anonymous VMAs by origin"
    if table.empty:
        return blank(ax, title, "no anonymous VMA")
    plot_shares(table, "vmas", COLOURS, "anonymous VMAs", ax, title)
    return ax


def by_process(vmas: pd.DataFrame, most: int | None = None) -> pd.DataFrame:
    """VMAs by address space.

    Parameters
    ----------
    vmas : DataFrame
    most : int, optional
        Only so many, those with most bare VMAs.

    Returns
    -------
    DataFrame
        Index: tgid, the process with most bare VMAs first. Columns: comm, vmas, anonymous,
        bare, a column per class, zero (pages).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = by_process(last(runs.find("early-small-allocs-mt-1")), 1)
    >>> found[["comm", "zero"]].to_numpy().tolist()
    [['vmload', 65536]]
    """
    groups = vmas.groupby("tgid")
    table = groups.agg(
        comm=("comm", "first"),
        vmas=("start", "size"),
        anonymous=("anonymous", "sum"),
        bare=("bare", "sum"),
    )
    classes = pd.crosstab(vmas["tgid"], vmas["class"].astype("object"))
    table = table.join(classes.reindex(index=table.index, columns=CLASSES, fill_value=0))
    table["zero"] = groups["zero"].sum().astype("int64")
    return table.sort_values("bare", ascending=False, kind="stable").head(most or len(table))


def wholes(vmas: pd.DataFrame, most: int | None = None) -> dict[str, Whole]:
    """What the rows of `by_class`, `by_origin` and `by_process` add up to."""
    all_bare = int(vmas["bare"].sum())
    others = vmas["tgid"].nunique() - most if most else 0
    rest = f"{others:,} other process{'es' * (others > 1)}" if others > 0 else ""
    return {
        "by_class": Whole("vmas", all_bare, "bare VMAs"),
        "by_origin": Whole("vmas", int(vmas["anonymous"].sum()), "anonymous VMAs"),
        "by_process": Whole("bare", all_bare, "bare VMAs", rest),
    }


def zero_pages_per_vma(vmas: pd.DataFrame, page_size: int) -> pd.DataFrame:
    """How many zero pages the bare VMAs of class ``zero-page`` hold, each.

    Parameters
    ----------
    vmas : DataFrame
    page_size : int
        Bytes of a page where the census was taken.

    Returns
    -------
    DataFrame
        Columns: origin, zero (pages in one VMA), pages (in it altogether), vmas (how many
        are like that), most frequent first. ``zero == pages`` means that every page of the
        VMA has been read and none was written.
    """
    read_only = vmas[vmas["class"] == "zero-page"]
    pages = (read_only["bytes"] // page_size).rename("pages")
    table = (
        read_only.groupby([read_only["origin"].astype("object"), "zero", pages])
        .size()
        .rename("vmas")
        .reset_index()
    )
    return table.sort_values("vmas", ascending=False, kind="stable", ignore_index=True)


_DRIVERS_PAGES = 0x4000 | 0x400 | 0x10000000  # VM_IO, VM_PFNMAP, VM_MIXEDMAP


class Alarm(NamedTuple):
    """Bare VMAs with pages of their own, and how many such pages."""

    vmas: int
    pages: int


def alarm(vmas: pd.DataFrame) -> Alarm | None:
    """Find what no kernel known to us leaves behind: bare VMAs with pages of their own.

    A page of its own belongs to an anon_vma: do_anonymous_page(), wp_page_copy() and the huge
    paths prepare one first. A kernel on which this is not so makes them later (a lazy anon_vma) or
    does without (as with a COW context), and then NULL no longer means what is said of it here.
    What a driver has put into its mapping is no such page.
    """
    wrong = bare(vmas)
    wrong = wrong[wrong["note"] == "pages that are not the zero page"]
    wrong = wrong[(wrong["flags"].to_numpy("uint64") & np.uint64(_DRIVERS_PAGES)) == 0]
    return Alarm(len(wrong), int((wrong["present"] - wrong["zero"]).sum())) if len(wrong) else None


def losses(counts: dict[str, int]) -> pd.DataFrame:
    """What changed or vanished while the census was taken.

    Parameters
    ----------
    counts : dict
        `Census.losses`, or the same summed over the censuses of a run.

    Returns
    -------
    DataFrame
        Columns: lost (what), count.
    """
    # A run of an earlier anonvma does not know all of them.
    rows = [(words, counts.get(name, 0)) for name, words in LOSSES.items()]
    return pd.DataFrame(rows, columns=["lost", "count"])
