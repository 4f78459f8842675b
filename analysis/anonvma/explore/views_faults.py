# SPDX-License-Identifier: GPL-2.0-only
"""Views of page faults: what they found and left over time, and by which call paths they came."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.explore.filter import STATES
from anonvma.explore.view import MOST, Shown, View
from anonvma.tables import faults
from anonvma.tables.census import CLASSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What the last fault left of a VMA in this state; only mremap(MREMAP_DONTUNMAP) takes an anon_vma
# away again.
_LEFT = {
    **dict.fromkeys(CLASSES, ("bare",)),
    "anon_vma": ("bare", "anon_vma"),
    "vm_ops": ("vm_ops", "vm_ops and anon_vma"),
}


@dataclasses.dataclass(frozen=True)
class _Found:
    """Faults of a selection, and how they were told to be its."""

    table: pd.DataFrame
    basis: str


def _of_selection(shown: Shown, table: pd.DataFrame) -> _Found:
    """Find the faults (with addresses or without) on the VMAs looked at.

    By process and address where the census is of the very processes that were traced, else by
    origin: a run traces further executions of its workload, whose addresses differ.
    """
    census = shown.source.vmas
    same = np.isin(np.unique(census.numbers("tgid")), table["tgid"].unique()).any()
    if "address" in table and same:
        return _Found(*_by_address(shown, table))
    places = shown.selection.positions if shown.chosen is None else np.array([shown.chosen])
    origins = census.frame["origin"].iloc[places].astype("object").dropna().unique().tolist()
    left = {name for state in np.unique(census.state[places]) for name in _LEFT[STATES[state]]}
    found = table[
        table["origin"].astype("object").isin(origins)
        & table["after"].astype("object").isin(left)
        & (table["result"] != "error")
    ]
    if same:
        tgids = np.unique(census.numbers("tgid")[places])
        found = found[found["tgid"].isin(tgids)]
    whose = "by process and origin" if same else "by origin alone"
    why = (
        ""
        if same
        else (
            "; the traced execution of the workload is not the one of which the census was taken, "
            "so process ids and addresses differ"
        )
    )
    what = "the VMA looked at" if shown.chosen is not None else "the selection"
    basis = (
        f"Matched with {what} {whose}, and by what a fault must have left for the VMA to be what "
        f"it is{why}: {_few(origins) or 'no origin'}."
    )
    return _Found(found, basis)


def _few(words: list[str], most: int = 4) -> str:
    """Name some words, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more


def _by_address(shown: Shown, events: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    census = shown.source.vmas
    places = shown.selection.positions if shown.chosen is None else np.array([shown.chosen])
    address = events["address"].to_numpy(np.uint64)
    tgid = events["tgid"].to_numpy()
    start, end = census.numbers("start")[places], census.numbers("end")[places]
    owners = census.numbers("tgid")[places]
    hit = np.zeros(len(events), bool)
    for owner in np.unique(owners):
        mine = np.flatnonzero(owners == owner)
        mine = mine[np.argsort(start[mine], kind="stable")]
        theirs = np.flatnonzero(tgid == owner)
        below = np.searchsorted(start[mine], address[theirs], side="right") - 1
        inside = (below >= 0) & (address[theirs] < end[mine][np.maximum(below, 0)])
        hit[theirs[inside]] = True
    what = "the VMA looked at" if shown.chosen is not None else "the selected VMAs"
    return events[hit], f"Matched by process and address: those in {what}."


def fault_view(shown: Shown) -> View:
    """The page faults of what is selected, over time and by what they found and left."""
    events = shown.source.table("fault_events")
    if events is None:
        why = shown.source.why_not("fault_events")
        return View("Faults", [f"No page faults were traced here. {why}"])
    if shown.nothing:
        return View("Faults", shown.nothing)
    found = _of_selection(shown, events)
    words = [f"{len(found.table):,} of {len(events):,} traced page faults. {found.basis}"]
    if shown.chosen is not None:
        words.insert(0, f"{shown.chosen_said()}.")
    if found.table.empty:
        words.append("None is on what is selected: select more, or another state or origin.")
        return View("Faults", words)
    failed = int((found.table["result"] == "error").sum())
    if failed:
        words.append(f"{failed:,} of them ended in an error, and are in the first table alone.")
    like = ["repeat", "mode", "access", "before", "after", "path", "result"]
    counted = found.table.groupby(like, observed=True).size().rename("count").reset_index()
    # Means over repeats elsewhere, and so not whole; events are of one repeat.
    tables = [_whole(faults.transitions(counted)), _whole(faults.lock_paths(counted))]
    figures = [(_over_time(found.table), "Page faults over time, by what they found and left.")]
    return View("Faults", words, [table for table in tables if len(table)], figures)


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({name: "int64" for name in table.select_dtypes("number")})


def _over_time(events: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    faults.plot_over_time(events, ax=figure.subplots())
    return figure


def call_paths(shown: Shown) -> View:
    """The functions through which the faults of what is selected came."""
    table = shown.source.table("call_paths")
    if table is None:
        why = shown.source.why_not("call_paths")
        return View("Call paths", [f"No call paths of page faults were recorded here. {why}"])
    if shown.nothing:
        return View("Call paths", shown.nothing)
    found = _of_selection(shown, table)
    total = int(found.table["count"].sum())
    words = [f"{total:,} page faults with a call path. {found.basis}"]
    if not total:
        return View("Call paths", words)
    left = found.table["before"].astype(str) + " -> " + found.table["after"].astype(str)
    grouped = (
        found.table.assign(change=left)
        .groupby(["call_path", "access", "change"], observed=True, sort=False)["count"]
        .sum()
        .sort_values(ascending=False, kind="stable")
        .reset_index()
    )
    grouped.insert(0, "share %", grouped["count"] * 100 / total)
    grouped["call_path"] = grouped["call_path"].astype(str).str.replace(";", " → ")
    if len(grouped) > MOST:
        words.append(f"The {MOST} of {len(grouped):,} with most faults.")
    words.append(
        "From the outermost function to the one that faulted; the user's are told by frame "
        "pointers, so some are missing or unknown."
    )
    shown_columns = ["count", "share %", "access", "change", "call_path"]
    return View("Call paths", words, [grouped.head(MOST)[shown_columns]])
