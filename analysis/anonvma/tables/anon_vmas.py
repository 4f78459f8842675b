# SPDX-License-Identifier: GPL-2.0-only
"""The census of anon_vma: how many there are, who shares them, and what fork made of them.

``anon_vma_prepare()`` (mm/rmap.c) gives a VMA its own anon_vma, or a neighbour's, when it first
needs a page; that one is the root of a tree. ``anon_vma_fork()`` links the child's VMA to all of
the parent's anon_vmas and gives it one of its own below them, unless ``anon_vma_clone()`` found one
to use again that no VMA has for its own any more. Each link is an ``anon_vma_chain``. What is
shared or swapped out is so at the time of the census: whether it ever was, the kernel does not
keep.

Functions take a run's table ``anon_vma_chains``, one repeat of it (`last`), or `Census.chains`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from anonvma.base.axes import own, plot_counts
from anonvma.base.tabular import LACKING
from anonvma.probe.vma_kinds import categorical
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARING = ("unshared", "VMAs of one process", "processes")
_COLOURS = {"unshared": "#56b4e9", "VMAs of one process": "#009e73", "processes": "#d55e00"}
NEEDS = ("processes share it", "its pages are swapped out", "neither", "not known")
_NEED_COLOURS = dict(zip(NEEDS, ("#d55e00", "#0072b2", "#56b4e9", "#bbbbbb"), strict=True))


def last(run: Run, table: str = "anon_vma_chains") -> pd.DataFrame:
    """Return a run's last census of them; of a run from before there was one no rows, and why."""
    if table not in run.manifest.tables:
        nothing: pd.DataFrame = SCHEMAS[table].empty_table().to_pandas().drop(columns="repeat")
        nothing.attrs[LACKING] = (
            "Not observed: the run was made before a census told of the chains of an anon_vma. "
            "Collect it anew to have them."
        )
        return nothing
    rows = run.table(table)
    found: pd.DataFrame = rows[rows["repeat"] == rows["repeat"].max()].drop(columns="repeat")
    return found


def anon_vmas(chains: pd.DataFrame) -> pd.DataFrame:
    """Return one row per anon_vma that a VMA is linked to.

    Returns
    -------
    DataFrame
        Index: anon_vma. Columns: root, parent, depth (forks below the root, null where an
        ancestor is in no chain), links (anon_vma_chains), vmas (whose own it is), processes,
        children (of num_children those that are not itself), num_active_vmas, sharing: linked to
        one VMA only (``unshared``), to several VMAs of one process, or of several processes.
    """
    groups = chains.groupby("anon_vma")
    table = groups.agg(
        root=("root", "first"),
        parent=("parent", "first"),
        links=("own", "size"),
        vmas=("own", "sum"),
        processes=("mm", "nunique"),
        children=("num_children", "first"),
        num_active_vmas=("num_active_vmas", "first"),
    )
    table["children"] -= (table.index == table["root"]).astype("int64")
    table.insert(2, "depth", _depths(table))
    sharing = np.where(table["processes"] > 1, 2, np.where(table["links"] > 1, 1, 0))
    table["sharing"] = categorical(sharing, SHARING)
    return table


def _depths(table: pd.DataFrame) -> pd.Series[int]:
    """How many forks each is below its root, generation by generation."""
    depths = pd.Series(pd.NA, table.index, dtype="Int64")
    depths[table.index == table["root"]] = 0
    while True:
        below = table["parent"].map(depths) + 1
        fresh = depths.isna() & below.notna()
        if not fresh.any():
            return depths
        depths[fresh] = below[fresh]


class Total(NamedTuple):
    """What a census counted of them; ``of_one_process``: that no other process shares."""

    vmas: int
    anon_vmas: int
    chains: int
    families: int
    of_one_process: int
    longest: int


def total(chains: pd.DataFrame) -> Total:
    """Count the VMAs with an anon_vma of their own, the anon_vmas and their chains."""
    table = anon_vmas(chains)
    return Total(
        vmas=int(chains["own"].sum()),
        anon_vmas=len(table),
        chains=len(chains),
        families=int(table["root"].nunique()),
        of_one_process=int((table["processes"] == 1).sum()),
        longest=int(chains.groupby(["mm", "start"]).size().max()) if len(chains) else 0,
    )


def by_sharing(chains: pd.DataFrame) -> pd.DataFrame:
    """Return one row per kind of sharing: anon_vmas, chains (links), vmas (whose own they are).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = by_sharing(last(runs.find("small-allocs-mt")))
    >>> list(found.index)
    ['unshared', 'VMAs of one process', 'processes']
    """
    groups = anon_vmas(chains).groupby("sharing", observed=False)
    table = groups.agg(anon_vmas=("links", "size"), chains=("links", "sum"), vmas=("vmas", "sum"))
    table = table.reindex(SHARING) if len(chains) else table.head(0)
    table.attrs = chains.attrs
    return table.rename_axis("shared by")


def by_need(chains: pd.DataFrame, vmas: pd.DataFrame) -> pd.DataFrame:
    """Tell which of them a lazy scheme would have made: one that waits for a fork or for reclaim.

    Parameters
    ----------
    chains, vmas : DataFrame
        Of one census: ``anon_vma_chains`` and ``census``.

    Returns
    -------
    DataFrame
        One row per need, of `NEEDS`: anon_vmas, chains, vmas (whose own they are). ``neither``: no
        other process has a VMA that is linked to it, and no VMA of its own a page swapped out.
        ``not known``: unshared, but what is swapped out was not looked at.
    """
    keys, table = ["mm", "start"], anon_vmas(chains)
    own = chains.loc[chains["own"], [*keys, "anon_vma"]].merge(vmas[[*keys, "swapped"]], "left")
    swapped = own.assign(swapped=own["swapped"].astype("Int64")).groupby("anon_vma")["swapped"]
    some = swapped.max().reindex(table.index).fillna(0) > 0
    looked = (swapped.count() == swapped.size()).reindex(table.index, fill_value=True)
    table["need"] = categorical(
        np.select([table["processes"] > 1, some, ~looked], [0, 1, 3], 2), NEEDS
    )
    found = table.groupby("need", observed=False)
    counts = found.agg(anon_vmas=("links", "size"), chains=("links", "sum"), vmas=("vmas", "sum"))
    counts = counts.reindex(NEEDS) if len(chains) else counts.head(0)
    counts.attrs = chains.attrs
    return counts.rename_axis("needed, for")


def families(chains: pd.DataFrame) -> pd.DataFrame:
    """Return one row per family: the anon_vmas of one root, which forks made.

    Returns
    -------
    DataFrame
        Index: root. Columns: comm (of a process that has it), anon_vmas, chains, processes, depth
        (generations below the root), fan_out (most children of one anon_vma), largest first.
    """
    table = anon_vmas(chains)
    groups = table.groupby("root")
    found = groups.agg(
        anon_vmas=("links", "size"),
        chains=("links", "sum"),
        depth=("depth", "max"),
        fan_out=("children", "max"),
    )
    who = chains.groupby("root").agg(comm=("comm", "first"), processes=("mm", "nunique"))
    found.insert(0, "comm", who["comm"].astype("object"))
    found.insert(3, "processes", who["processes"])
    found.attrs = chains.attrs
    return found.sort_values(["anon_vmas", "chains"], ascending=False, kind="stable")


def family_shapes(chains: pd.DataFrame) -> pd.DataFrame:
    """Return one row per depth and fan_out of `families`: how many are so, and their anon_vmas."""
    groups = families(chains).groupby(["depth", "fan_out"])
    table = groups.agg(families=("anon_vmas", "size"), anon_vmas=("anon_vmas", "sum"))
    return table.reset_index()


def by_process(chains: pd.DataFrame, most: int | None = None) -> pd.DataFrame:
    """Return one row per address space, those with most chains first.

    Returns
    -------
    DataFrame
        Index: tgid. Columns: comm, vmas (with an anon_vma), anon_vmas (of these VMAs), chains,
        longest (chain of one VMA), unshared (anon_vmas linked to one VMA of this process only).
    """
    table = anon_vmas(chains)
    unshared = chains["anon_vma"].map(table["sharing"] == "unshared")
    rows = chains.assign(unshared=unshared)
    groups = rows.groupby("tgid")
    found = groups.agg(
        comm=("comm", "first"),
        vmas=("own", "sum"),
        chains=("own", "size"),
        unshared=("unshared", "sum"),
    )
    owned = rows[rows["own"]].groupby("tgid")["anon_vma"].nunique()
    found.insert(2, "anon_vmas", owned.reindex(found.index, fill_value=0))
    longest = rows.groupby(["tgid", "start"]).size().groupby("tgid").max()
    found.insert(4, "longest", longest)
    found.attrs = chains.attrs
    found = found.sort_values("chains", ascending=False, kind="stable")
    return found.head(most or len(found))


def longest_chains(chains: pd.DataFrame) -> pd.DataFrame:
    """Return one row per length of a VMA's chain: vmas (of that length), and whose the most are."""
    sizes = chains.groupby(["mm", "start"]).agg(length=("own", "size"), comm=("comm", "first"))
    groups = sizes.astype({"comm": "object"}).groupby("length")
    table = groups.agg(vmas=("comm", "size"), comm=("comm", lambda names: names.mode().iloc[0]))
    table.attrs = chains.attrs
    return table.sort_index(ascending=False)


def slabs(table: pd.DataFrame, chains: pd.DataFrame) -> pd.DataFrame:
    """Set what the census reached beside what /proc/slabinfo says of the machine.

    Returns
    -------
    DataFrame
        Index: cache. Columns: reached (by the census), active (objects in use, or free in a slab
        of a processor's own), bytes (of all its slabs).
    """
    reached = {"anon_vma": chains["anon_vma"].nunique(), "anon_vma_chain": len(chains)}
    found = table.set_index("cache")
    found["reached"] = pd.Series(reached, dtype="int64")
    found["bytes"] = found["slabs"] * found["slab_size"]
    return found[["reached", "active", "bytes"]]


def plot_by_sharing(chains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the anon_vmas of `by_sharing` as bars, the number at the end of each."""
    title = "Who shares an anon_vma at the time of the census"
    return _plot_bars(by_sharing(chains), _COLOURS, title, ax)


def plot_by_need(chains: pd.DataFrame, vmas: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the anon_vmas of `by_need` likewise."""
    title = "What needs an anon_vma at the time of the census"
    return _plot_bars(by_need(chains, vmas), _NEED_COLOURS, title, ax)


def _plot_bars(table: pd.DataFrame, colours: dict[str, str], title: str, ax: Axes | None) -> Axes:
    ax = own(ax, 7, 2)
    if table.empty:
        return blank(ax, title, table.attrs.get(LACKING, "no anon_vma"))
    plot_counts(table.reset_index(), "anon_vmas", str(table.index.name), colours, ax)
    ax.set(xlabel="anon_vmas", ylabel="", title=title)
    return ax


def plot_family_shapes(chains: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw `family_shapes`: a point a shape, its size and number that of the families."""
    from anonvma.base.drawing import sns

    ax = own(ax, 7, 3)
    title = "Families of anon_vmas over forks"
    table = family_shapes(chains)
    if table.empty:
        return blank(ax, title, chains.attrs.get(LACKING, "no anon_vma"))
    sizes = 20 + 60 * np.log10(table["families"].astype("float64"))
    ax.scatter(table["depth"], table["fan_out"], s=sizes, color=_COLOURS["processes"], alpha=0.6)
    for depth, fan_out, count in table[["depth", "fan_out", "families"]].to_numpy():
        ax.annotate(f"{count:,}", (depth, fan_out), (7, 4), textcoords="offset points")
    ax.set(
        xlabel="depth: generations below the root",
        ylabel="fan-out: most children of one",
        title=f"{title} (their number beside each)",
    )
    ax.margins(0.12)
    ax.locator_params(integer=True)
    sns.despine(ax=ax)
    return ax
