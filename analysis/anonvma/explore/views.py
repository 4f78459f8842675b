# SPDX-License-Identifier: GPL-2.0-only
"""What the explorer shows of a selection: each view as words, tables and figures, without widgets.

A `View` is shown twice: by `anonvma.explore.explorer` inside its controls, and as its *static
twin*, the output of a notebook's cell (`display`), so that an exported notebook loses no answer.
What is not there is said, with the reason and the remedy, in the view where one would look for it.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.numerals import percent
from anonvma.base.text import printable
from anonvma.explore import address_map
from anonvma.explore.address_map import STATE_COLOURS
from anonvma.explore.live import Watch
from anonvma.explore.selection import STATES, Filter, Selection, Vmas, flag_names, repeats_of, size
from anonvma.report import sections
from anonvma.run.runs import Run
from anonvma.tables import census, faults
from anonvma.tables.census import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["VIEWS", "Shown", "Source", "View", "as_html", "display", "live", "source_of_run"]

_MOST = 12  # rows of a table, unless it says otherwise
_EACH = 4000  # faults that are drawn one by one at most


@dataclasses.dataclass(frozen=True)
class View:
    """What is to be seen.

    Attributes
    ----------
    title : str
    words : list of str
        Sentences, plain text.
    tables : list of DataFrame
    figures : list of (Figure, str)
        Each with what it says to whom cannot see it.
    """

    title: str
    words: list[str]
    tables: list[pd.DataFrame] = dataclasses.field(default_factory=list)
    figures: list[tuple[Figure, str]] = dataclasses.field(default_factory=list)


class Source:
    """What is explored: the VMAs of a run's repeat, or of a census of a machine that lives.

    Attributes
    ----------
    name : str
        What it is called in the notebook.
    where : str
        What the census was of, fit for a mail.
    vmas : Vmas
    run : Run or None
    """

    def __init__(
        self,
        name: str,
        where: str,
        vmas: Vmas,
        run: Run | None = None,
        tables: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.name, self.where, self.vmas, self.run = name, where, vmas, run
        self._tables = dict(tables or {})

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table beside the census, or None where there is none."""
        if name not in self._tables and self.run and name in self.run.manifest.tables:
            self._tables[name] = self.run.table(name)
        return self._tables.get(name)

    def why_not(self, name: str) -> str:
        """Say why there is no such table, and what would bring it."""
        if self.run is None:
            return "Choose a process in the filter, then press 'Trace its faults'."
        for lacking in self.run.manifest.unobserved:
            if _TOLD_AS.get(name, "-") in lacking.what:
                return f"{lacking.reason}. Remedy: {lacking.remedy}."
        return (
            f"It was collected by anonvma {self.run.manifest.anonvma} without them: collect it "
            "anew with tracing ('make report', or notebooks/01-collect.ipynb)."
        )

    @cached_property
    def every_repeat(self) -> tuple[Vmas, npt.NDArray[np.int32]]:
        """The VMAs of all repeats, and of each VMA the repeat."""
        known = [1] if self.run is None else repeats_of(self.run)
        if self.run is None or len(known) == 1:
            return self.vmas, np.full(len(self.vmas), known[0], np.int32)
        frame = self.run.table("census")
        return Vmas(frame, self.vmas.page_size), frame["repeat"].to_numpy(np.int32)


_TOLD_AS = {"fault_events": "page fault", "faults": "page fault", "call_paths": "call paths"}


def source_of_run(run: Run, repeat: int | None = None) -> Source:
    """Return a run as what is explored: one repeat of it, the last by default.

    Raises
    ------
    SelectionError
        When it has no census, or none of that repeat.
    """
    known = repeats_of(run)
    number = known[-1] if repeat is None else repeat
    where = sections.title(run).removeprefix("anonvma: ")
    if len(known) > 1:
        where += f", repeat {number} of {len(known)}"
    return Source(run.id, where, Vmas.of_run(run, number), run)


@dataclasses.dataclass
class Shown:
    """All that the views depend on.

    Attributes
    ----------
    source : Source
    selection : Selection
        Of the source's VMAs.
    chosen : int or None
        The place of the VMA that is looked at, among all of them.
    other : Source or None
        What it is compared with.
    compressed : bool
        The axis of the address space.
    key, descending : str, bool
        The order of the list of VMAs.
    """

    source: Source
    selection: Selection
    chosen: int | None = None
    other: Source | None = None
    compressed: bool = True
    key: str = "start"
    descending: bool = False

    @property
    def nothing(self) -> list[str]:
        """Say it if nothing is selected."""
        return [] if len(self.selection) else [self.source.vmas.why_nothing(self.selection.filter)]

    def chosen_row(self) -> pd.Series[Any]:
        """Return the VMA that is looked at."""
        assert self.chosen is not None
        row: pd.Series[Any] = self.source.vmas.frame.iloc[self.chosen]
        return row

    def chosen_said(self) -> str:
        """Name the VMA that is looked at."""
        row = self.chosen_row()
        state = STATES[self.source.vmas.state[self.chosen]]
        return (
            f"VMA {int(row['start']):x}-{int(row['end']):x} of process {row['tgid']} "
            f"({size(int(row['bytes']))}, {row['prot']}, {row['origin']}, {state})"
        )


def summary(shown: Shown) -> str:
    """Say in a sentence what is selected."""
    if shown.nothing:
        return shown.nothing[0]
    selection = shown.selection
    kinds = ", ".join(f"{row.vmas:,} {row.state}" for row in selection.states().itertuples())
    asked = selection.filter.said() or "all"
    return (
        f"{len(selection):,} of {len(selection.vmas):,} VMAs ({asked}): {kinds}; they span "
        f"{size(selection.total('bytes'))}."
    )


# ---- processes and origins ----


def overview(shown: Shown) -> View:
    """Processes and origins at a glance."""
    from matplotlib.figure import Figure

    selection = shown.selection
    words = [f"Shown: {shown.source.where}.", summary(shown)]
    if shown.nothing:
        return View("At a glance", words)
    processes, origins = selection.processes(), selection.origins()
    if len(processes) > _MOST:
        words.append(f"The {_MOST} of {len(processes):,} processes with most of them are shown.")
    tables = [_trimmed(processes.head(_MOST)), _trimmed(origins)]
    figure = Figure(figsize=(7.5, 0.7 + 0.32 * (len(origins) + 1)), layout="constrained")
    _plot_shares(origins, "origin", figure.subplots())
    told = "; ".join(f"{row.origin} {row.vmas:,}" for row in origins.head(6).itertuples())
    return View("At a glance", words, tables, [(figure, f"Bars of VMAs by origin: {told}.")])


def _trimmed(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the states that do not occur, and say bytes as a person does.

    A process's number is a name: no commas in it.
    """
    if "tgid" in table:
        table = table.astype({"tgid": "str"})
    found = table.drop(columns=[s for s in STATES if s in table and not table[s].any()])
    for name in ("bytes", "span", "mapped"):
        if name in found:
            found[name] = [size(int(value)) for value in found[name]]
    return found


def _plot_shares(table: pd.DataFrame, key: str, ax: Axes) -> None:
    """Draw how much of each row's VMAs is in which state; the number stands beside it."""
    import seaborn as sns

    states = [state for state in STATES if table[state].any()]
    shares = table.set_index(key)[states].div(table["vmas"].to_numpy(), axis=0) * 100
    shares.plot.barh(
        stacked=True, width=0.75, ax=ax, color=[STATE_COLOURS[state] for state in states]
    )
    for place, count in enumerate(table["vmas"]):
        ax.text(101, place, f"{count:,}", va="center", fontsize="small")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of the selected VMAs, per cent", ylabel="")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    sns.despine(ax=ax)


# ---- the VMAs ----


def vmas(shown: Shown) -> View:
    """The selected VMAs, one by one."""
    words = shown.nothing or [
        f"The first {min(_MOST, len(shown.selection))} of {len(shown.selection):,} by {shown.key}, "
        f"{'largest' if shown.descending else 'smallest'} first."
    ]
    if shown.chosen is not None:
        row = shown.chosen_row()
        words.append(f"Looked at: {shown.chosen_said()}.")
        words.append(f"Its flags: {', '.join(flag_names(int(row['flags'])))}.")
    rows = shown.selection.rows(shown.key, shown.descending, count=_MOST)
    table = rows[["tgid", "comm", "prot", "origin", "state", "present", "zero", "path", "name"]]
    table.insert(2, "start", [f"{int(value):x}" for value in rows["start"]])
    table.insert(3, "size", [size(int(value)) for value in rows["bytes"]])
    table = table.astype({"tgid": "str"})  # a name, not a number: no comma in it
    return View("VMAs", words, [table] if len(table) else [])


# ---- the address space ----


def address_spaces(shown: Shown) -> View:
    """The picture of the address spaces with most of the selected VMAs, and their regions."""
    words = list(shown.nothing)
    found = address_map.spaces(shown.selection, first=shown.chosen)
    if not found:
        return View("Address space", words)
    axis = (
        "VMAs as wide as the logarithm of their size, gaps narrower"
        if shown.compressed
        else "to scale"
    )
    words.append(
        f"Addresses grow to the right; {axis}. What a pixel holds shows in it, however little."
    )
    count = int((shown.selection.processes()["vmas"] > 0).sum()) if len(shown.selection) else 0
    if count > len(found):
        words.append(f"The {len(found)} of {count:,} with most selected VMAs are drawn.")
    if shown.chosen is not None:
        words.append(f"The arrow points at {shown.chosen_said()}.")
    figure = address_map.plot(shown.selection, found, shown.compressed, shown.chosen)
    table = address_map.regions(found[0], shown.selection)
    words.append(
        f"The table: regions of process {found[0].tgid}, parted where nothing is mapped for more "
        "than 1 GiB."
    )
    if len(table) > _MOST:
        words.append(f"Of {len(table):,} regions, the {_MOST} with most VMAs.")
        table = table.sort_values("vmas", ascending=False, kind="stable").head(_MOST).sort_index()
    told = f"{len(found)} strips of coloured VMAs; the regions of the first are in the table."
    return View("Address space", words, [_trimmed(table)], [(figure, told)])


# ---- the pages ----

_PAGES = {
    "zero page": STATE_COLOURS["zero-page"],
    "other page": STATE_COLOURS["anon_vma"],
    "swapped": "#0072b2",
    "absent": "#d9d9d9",
}


def _page_counts(selection: Selection) -> pd.DataFrame:
    """The pages of the selected VMAs that were looked at, by origin."""
    frame = selection.vmas.frame
    known = selection.positions[frame["present"].notna().to_numpy()[selection.positions]]
    numbers = selection.vmas.numbers
    found = pd.DataFrame(
        {
            "of": frame["origin"].iloc[known].astype("object").to_numpy(),
            "vmas": 1,
            "pages": numbers("bytes")[known] // np.uint64(selection.vmas.page_size),
            "zero page": numbers("zero")[known],
            "other page": numbers("present")[known] - numbers("zero")[known],
            "swapped": numbers("swapped")[known],
        }
    )
    table = found.groupby("of", sort=False).sum().reset_index()
    absent = table["pages"].astype("int64") - table[["zero page", "other page", "swapped"]].sum(
        axis=1
    ).astype("int64")
    return table.assign(absent=absent.clip(lower=0)).sort_values(
        "vmas", ascending=False, kind="stable", ignore_index=True
    )


def pages(shown: Shown) -> View:
    """What is in the selected VMAs: zero pages, other pages, nothing."""
    import seaborn as sns
    from matplotlib.figure import Figure

    selection = shown.selection
    words = list(shown.nothing)
    table = _page_counts(selection)
    looked = int(table["vmas"].sum())
    if shown.chosen is not None:
        own = np.zeros(len(selection.vmas), bool)
        own[shown.chosen] = True
        one = _page_counts(Selection(selection.vmas, Filter(), own)).assign(of="the VMA looked at")
        words.append(_pages_of_chosen(shown, one))
        table = pd.concat([one, table], ignore_index=True)
    if len(selection) > looked:
        words.append(
            f"Pages were looked at in {looked:,} of the {len(selection):,} selected VMAs: in the "
            f"bare ones ({', '.join(CLASSES)}), whose answer depends on them."
        )
    if table.empty:
        return View("Pages", words)
    figure = Figure(figsize=(7.5, 0.9 + 0.34 * len(table)), layout="constrained")
    ax = figure.subplots()
    kinds = [kind for kind in _PAGES if table[kind].any()]
    shares = table.set_index("of")[kinds].div(table["pages"].to_numpy(), axis=0) * 100
    shares.plot.barh(stacked=True, width=0.75, ax=ax, color=[_PAGES[kind] for kind in kinds])
    for place, count in enumerate(table["pages"]):
        ax.text(101, place, f"{count:,}", va="center", fontsize="small")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of pages, per cent (their number on the right)", ylabel="")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    sns.despine(ax=ax)
    return View("Pages", words, [table], [(figure, "Bars of pages by what they are.")])


def _pages_of_chosen(shown: Shown, one: pd.DataFrame) -> str:
    if one.empty:
        return f"{shown.chosen_said()}: its pages were not looked at, for it is not bare."
    row = one.iloc[0]
    return (
        f"{shown.chosen_said()}: of {row['pages']:,} pages {row['zero page']:,} are the zero page, "
        f"{row['other page']:,} another one, {row['swapped']:,} swapped, {row['absent']:,} absent."
    )


# ---- the faults ----


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
        f"it is{why}: {report_list(origins) or 'no origin'}."
    )
    return _Found(found, basis)


def report_list(words: list[str], most: int = 4) -> str:
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
    """Draw faults over time; where there are few, each by its place."""
    import seaborn as sns
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    ax = figure.subplots()
    if len(events) > _EACH:
        faults.plot_over_time(events, ax=ax)
        return figure
    change = events["before"].astype(str) + " -> " + events["after"].astype(str)
    # Pages in the order of their addresses, without what lies between them.
    _, order = np.unique(
        events["address"].to_numpy(np.uint64) >> np.uint64(12), return_inverse=True
    )
    table = pd.DataFrame(
        {
            "ms": (events["time_ns"].to_numpy(np.int64) - events["time_ns"].min()) / 1e6,
            "page": order + 1,
            "change": change.to_numpy(),
            "access": events["access"].astype(str).to_numpy(),
        }
    )
    colours = dict(zip(table["change"].unique(), sns.color_palette("colorblind"), strict=False))
    marks = {access: _MARKERS.get(access, "x") for access in table["access"].unique()}
    for change, colour in colours.items():
        for access, mark in marks.items():
            points = table[(table["change"] == change) & (table["access"] == access)]
            ax.scatter(points["ms"], points["page"], s=30, color=colour, marker=mark)
    ax.set(xlabel="ms since the first of them", ylabel="pages that faulted, by address")
    ax.set_title(f"{len(events):,} page faults, each where it was")
    _legend_apart(ax, colours, marks)
    sns.despine(ax=ax)
    return figure


_MARKERS = {"read": "o", "write": "^", "exec": "s"}


def _legend_apart(ax: Axes, colours: Mapping[str, Any], marks: Mapping[str, str]) -> None:
    """Explain colours and marks in a list each: one is what changed, the other how."""
    from matplotlib.lines import Line2D

    found = [Line2D([], [], ls="", marker="s", color=colour) for colour in colours.values()]
    access = [Line2D([], [], ls="", marker=mark, color="#555555") for mark in marks.values()]
    first = ax.legend(
        found,
        list(colours),
        title="found and left",
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
    )
    ax.add_artist(first)
    ax.legend(
        access,
        list(marks),
        title="access",
        loc="lower left",
        bbox_to_anchor=(1.01, 0),
        frameon=False,
    )


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
    if len(grouped) > _MOST:
        words.append(f"The {_MOST} of {len(grouped):,} with most faults.")
    words.append(
        "From the outermost function to the one that faulted; the user's are told by frame "
        "pointers, so some are missing or unknown."
    )
    shown_columns = ["count", "share %", "access", "change", "call_path"]
    return View("Call paths", words, [grouped.head(_MOST)[shown_columns]])


# ---- two runs ----


def differs(shown: Shown) -> View:
    """What differs between two runs, in what the filter leaves of either."""
    from matplotlib.figure import Figure

    other = shown.other
    if other is None:
        return View("What differs", ["Choose a second run under 'compared with'."])
    wanted = dataclasses.replace(shown.selection.filter, processes=(), within=None)
    words = [f"A is {shown.source.where}. B is {other.where}."]
    if wanted != shown.selection.filter:
        words.append("Processes and addresses of one run mean nothing in the other: left out here.")
    environment = _environment(shown.source, other)
    careful = [name for name in environment["what"] if name.startswith(("workload", "parameter"))]
    if careful:
        words.append(f"Beware: not the same work in both ({', '.join(careful)}).")
    table = _side_by_side(shown.source, other, wanted)
    if not len(table):
        return View("What differs", [*words, "The filter leaves nothing of either."], [environment])
    words.append(
        "VMAs in one repeat: mean, and lowest and highest of the repeats (n); ratio is B over A."
    )
    tables = [table]
    tables += [environment] if len(environment) else []
    transitions = _transitions(shown.source, other, wanted)
    if transitions is not None:
        words.append(
            "And the page faults in one repeat, on VMAs of these origins whatever their state: by "
            "what they found and left, and the lock they were taken under."
        )
        tables.insert(1, transitions)
    figure = Figure(figsize=(7.5, 0.9 + 0.4 * len(table)), layout="constrained")
    _plot_side_by_side(table, figure.subplots())
    return View("What differs", words, tables, [(figure, "Points: VMAs in A and in B.")])


def _per_repeat(source: Source, wanted: Filter) -> pd.DataFrame:
    """The selected VMAs of each repeat (a row): a column a state and origin."""
    every, repeat = source.every_repeat
    selection = every.select(wanted)
    frame = every.frame
    origin = frame["origin"].iloc[selection.positions].astype("object").fillna("unknown")
    state = np.array(STATES, object)[every.state[selection.positions]]
    found = pd.crosstab(repeat[selection.positions], [state, origin.to_numpy()])
    return found.reindex(np.unique(repeat), fill_value=0)


def _side_by_side(a: Source, b: Source, wanted: Filter) -> pd.DataFrame:
    """Set the two side by side, the largest difference first."""
    counts = {"A": _per_repeat(a, wanted), "B": _per_repeat(b, wanted)}
    keys = sorted(set(counts["A"].columns) | set(counts["B"].columns))
    rows = []
    for key in keys:
        row: dict[str, object] = {"state": key[0], "origin": key[1]}
        means = {}
        for name, table in counts.items():
            values = table[key] if key in table else pd.Series(np.zeros(len(table)))
            means[name] = float(values.mean())
            row[name] = means[name]
            row[f"{name} range"] = f"{values.min():,.0f}-{values.max():,.0f} ({len(values)})"
        row["difference"] = means["B"] - means["A"]
        row["ratio"] = means["B"] / means["A"] if means["A"] else float("nan")
        rows.append(row)
    columns = ["state", "origin", "A", "A range", "B", "B range", "difference", "ratio"]
    table = pd.DataFrame(rows, columns=columns)
    return _most_different(table)


def _most_different(table: pd.DataFrame) -> pd.DataFrame:
    """Put the largest difference first, and where there is none what is largest."""
    by = pd.DataFrame({"difference": table["difference"].abs(), "A": table["A"]})
    order = by.sort_values(["difference", "A"], ascending=False, kind="stable").index
    return table.loc[order].head(_MOST).reset_index(drop=True)


def _transitions(a: Source, b: Source, wanted: Filter) -> pd.DataFrame | None:
    """Page faults in one repeat of either, by what they found and left, and their lock."""
    keys = ["before", "after", "path"]
    parts = {}
    for name, source in (("A", a), ("B", b)):
        table = source.table("faults")
        if table is None:
            return None
        if wanted.origins:
            table = table[table["origin"].astype("object").isin(wanted.origins)]
        found = table[table["result"] != "error"].astype({key: "str" for key in keys})
        total = found.groupby(keys)["count"].sum().astype("float64")
        parts[name] = total / max(int(table["repeat"].nunique()), 1)
    both = pd.DataFrame(parts).fillna(0.0)
    both["difference"] = both["B"] - both["A"]
    return _most_different(both.rename_axis(keys).reset_index())


def _plot_side_by_side(table: pd.DataFrame, ax: Axes) -> None:
    """Draw both means of each row, joined by a line."""
    import seaborn as sns

    labels = table["state"] + ", " + table["origin"]
    places = np.arange(len(table))
    ax.hlines(places, table["A"], table["B"], color="#bbbbbb", zorder=1)
    ax.scatter(table["A"], places, color="#0072b2", marker="o", label="A", zorder=2)
    ax.scatter(table["B"], places, color="#d55e00", marker="D", label="B", zorder=3)
    ax.set_xscale("symlog", linthresh=10)
    ax.set_yticks(places, list(labels))
    ax.invert_yaxis()
    ax.set(xlabel="VMAs in one repeat", xlim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    sns.despine(ax=ax)


def _environment(a: Source, b: Source) -> pd.DataFrame:
    """What differs between two runs besides their results: what, A, B."""
    facts = [_facts(source) for source in (a, b)]
    names = list(dict.fromkeys([*facts[0], *facts[1]]))
    rows = [
        {"what": name, "A": str(facts[0].get(name, "-")), "B": str(facts[1].get(name, "-"))}
        for name in names
        if facts[0].get(name) != facts[1].get(name)
    ]
    return pd.DataFrame(rows, columns=["what", "A", "B"])


def _facts(source: Source) -> dict[str, object]:
    if source.run is None:
        return {"kind": "live", "page_size": source.vmas.page_size}
    manifest = source.run.manifest
    facts = {name: value for name, value in manifest.target.items() if name != "perf_version"}
    facts["regime"] = manifest.features.get("regime", {}).get("name")
    facts["repeats"] = manifest.repeats
    facts["workload"] = manifest.workload.name
    given = {f"parameter {name}": value for name, value in manifest.parameters.items()}
    return facts | {name: value for name, value in given.items() if name != "parameter workload"}


# ---- live ----


def live(watch: Watch) -> View:
    """What a watch has seen: how it goes on, what changed, and what watching costs."""
    words = [watch.trouble] if watch.trouble else []
    if not watch.steps:
        return View("Live", words or ["The first census is being taken."])
    last = watch.steps[-1]
    how = "Watching" if watch.running else "Not watching any more"
    words.append(
        f"{how}: {len(watch.steps)} censuses, one every {watch.every:g} s. The last found "
        f"{last.vmas:,} VMAs, {sum(last.states[name] for name in CLASSES):,} of them bare with "
        f"{last.zero:,} zero pages."
    )
    words.append(
        f"Cost: the last census took {last.seconds:.2f} s and {last.cpu:.2f} s of a CPU; at this "
        f"pace that is {percent(last.share)} of one CPU."
    )
    if watch.census is not None and any(watch.census.losses.values()):
        lost = census.losses(watch.census.losses)
        lost = lost[lost["count"] > 0]
        told = "; ".join(f"{row.count} {row.lost}" for row in lost.itertuples(index=False))
        words.append(f"Lost while reading: {told}.")
    tables = []
    if watch.changed is None:
        words.append("There is nothing to compare the first census with yet.")
    elif watch.changed.empty:
        words.append("Since the census before nothing changed.")
    else:
        words.append(
            f"Since the census before {watch.changed['vmas'].sum():,} VMAs changed; the "
            f"{min(_MOST, len(watch.changed))} largest of {len(watch.changed)} kinds of change:"
        )
        table = watch.changed.head(_MOST)
        tables.append(table.assign(bytes=[_signed(int(value)) for value in table["bytes"]]))
    figures = []
    if len(watch.steps) > 1:
        figures.append((_plot_history(watch.history()), "Bare VMAs by class over time."))
    return View("Live", words, [_trimmed_ids(table) for table in tables], figures)


def _signed(count: int) -> str:
    return f"{'-' if count < 0 else '+'}{size(abs(count))}"


def _trimmed_ids(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({"tgid": "str"})


def _plot_history(history: pd.DataFrame) -> Figure:
    """Draw how many bare VMAs of each class there were, census by census."""
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    ax = figure.subplots()
    styles = dict(zip(CLASSES, ("--", ":", "-", "-."), strict=True))
    for name in CLASSES:
        if history[name].any():
            colour = STATE_COLOURS[name]
            ax.plot(history["at"], history[name], styles[name], color=colour, label=name)
    ax.set(xlabel="s since watching began", ylabel="bare VMAs")
    ax.yaxis.set_major_formatter(EngFormatter())
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    sns.despine(ax=ax)
    return figure


VIEWS: dict[str, Callable[[Shown], View]] = {
    "overview": overview,
    "vmas": vmas,
    "map": address_spaces,
    "pages": pages,
    "faults": fault_view,
    "call paths": call_paths,
    "differs": differs,
}
"""By the name that `anonvma.explore.explorer.Explorer.twin` takes."""


# ---- showing one ----


def _tables(view: View) -> list[pd.DataFrame]:
    """Its tables, without what a name could do to a terminal or a page."""
    tables = []
    for table in view.tables:
        clean = table.copy()
        for name in clean:
            if not pd.api.types.is_numeric_dtype(clean[name]):
                text = clean[name].astype("object")
                clean[name] = text.map(lambda v: printable(v) if isinstance(v, str) else v)
        tables.append(clean)
    return tables


def _png(figure: Figure) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120, metadata={"Software": None})
    return drawn.getvalue()


def as_html(view: View) -> str:
    """Return a view as a fragment of HTML: nothing in it comes from outside."""
    parts = [f"<p>{html.escape(printable(words))}</p>" for words in view.words]
    for figure, told in view.figures:
        data = base64.b64encode(_png(figure)).decode()
        parts.append(
            f'<img alt="{html.escape(told)}" style="max-width:100%;background:#fff" '
            f'src="data:image/png;base64,{data}">'
        )
    for table in _tables(view):
        parts.append(f'<div class="anonvma-table">{sections.styled(table).data}</div>')
    return "\n".join(parts)


def display(view: View) -> None:
    """Show a view as the output of a notebook's cell: its static twin."""
    from IPython.display import Markdown
    from IPython.display import display as show

    said = "\n\n".join(_markdown(words) for words in view.words)
    show(Markdown(said))  # type: ignore[no-untyped-call]
    for figure, told in view.figures:
        data = {"image/png": base64.b64encode(_png(figure)).decode(), "text/plain": told}
        show(data, raw=True, metadata={"image/png": {"alt": told}})  # type: ignore[no-untyped-call]
    for table in _tables(view):
        show(sections.styled(table))  # type: ignore[no-untyped-call]


def _markdown(words: str) -> str:
    """Plain words as Markdown: what would be markup in them is none."""
    words = printable(words)
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~$" else c for c in words)
