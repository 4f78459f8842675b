# SPDX-License-Identifier: GPL-2.0-only
"""Views of VMAs: at a glance, one by one, where they lie, and what is in them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from anonvma.base.axes import plot_shares
from anonvma.explore import address_map
from anonvma.explore.address_map import STATE_COLOURS
from anonvma.explore.filter import Filter, size
from anonvma.explore.selection import Selection
from anonvma.explore.view import MOST, Shown, View, summary, trimmed
from anonvma.run.vma_flags import flag_names
from anonvma.tables import apart
from anonvma.tables.census import CLASSES


def overview(shown: Shown) -> View:
    """Processes and origins at a glance."""
    from matplotlib.figure import Figure

    selection = shown.selection
    words = [f"Shown: {shown.source.where}.", summary(shown)]
    if shown.nothing:
        return View("At a glance", words)
    processes, origins = selection.processes(), selection.origins()
    if len(processes) > MOST:
        words.append(f"The {MOST} of {len(processes):,} processes with most of them are shown.")
    tables = [trimmed(processes.head(MOST)), trimmed(origins)]
    figure = Figure(figsize=(7.5, 0.7 + 0.32 * (len(origins) + 1)), layout="constrained")
    plot_shares(
        origins.set_index("origin"), "vmas", STATE_COLOURS, "the selected VMAs", figure.subplots()
    )
    told = "; ".join(f"{row.origin} {row.vmas:,}" for row in origins.head(6).itertuples())
    return View("At a glance", words, tables, [(figure, f"Bars of VMAs by origin: {told}.")])


def vmas(shown: Shown) -> View:
    """The selected VMAs, one by one."""
    words = shown.nothing or [
        f"The first {min(MOST, len(shown.selection))} of {len(shown.selection):,} by {shown.key}, "
        f"{'largest' if shown.descending else 'smallest'} first."
    ]
    if shown.chosen is not None:
        row = shown.chosen_row()
        words.append(f"Looked at: {shown.chosen_said()}.")
        words.append(f"Its flags: {', '.join(flag_names(int(row['flags'])))}.")
        words.append(_apart_said(shown, shown.chosen))
    rows = shown.selection.rows(shown.key, shown.descending, count=MOST)
    table = rows[["tgid", "comm", "prot", "origin", "state", "present", "zero", "path", "name"]]
    table.insert(2, "start", [f"{int(value):x}" for value in rows["start"]])
    table.insert(3, "size", [size(int(value)) for value in rows["bytes"]])
    table = table.astype({"tgid": "str"})  # a name, not a number: no comma in it
    return View("VMAs", words, [table] if len(table) else [])


def _apart_said(shown: Shown, place: int) -> str:
    """Say why a VMA is not one with the VMA right below it."""
    frame = shown.source.vmas.frame
    if "apart" not in frame:
        return apart.NOT_OBSERVED
    row = frame.iloc[place]
    if pd.isna(row["apart"]):
        return "No VMA lies right below it."
    if row["apart"] == "nothing":
        return (
            "Nothing forbids that it be one with the VMA right below it: the kernel asks only when "
            "one of the two is changed."
        )
    differ = apart.flags_apart(frame.iloc[place - 1 : place + 1])[1]
    which = f" ({', '.join(flag_names(differ))})" if row["apart"] == "flags" else ""
    others = "no other test fails" if row["apart_alone"] else "others fail, too"
    return (
        "Why it is not one with the VMA right below it: the kernel's first test that fails is "
        f"that of {row['apart']}{which}; {others}."
    )


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
    if len(table) > MOST:
        words.append(f"Of {len(table):,} regions, the {MOST} with most VMAs.")
        table = table.sort_values("vmas", ascending=False, kind="stable").head(MOST).sort_index()
    told = f"{len(found)} strips of coloured VMAs; the regions of the first are in the table."
    return View("Address space", words, [trimmed(table)], [(figure, told)])


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
    of = "pages (their number on the right)"
    plot_shares(table.set_index("of"), "pages", _PAGES, of, figure.subplots())
    return View("Pages", words, [table], [(figure, "Bars of pages by what they are.")])


def _pages_of_chosen(shown: Shown, one: pd.DataFrame) -> str:
    if one.empty:
        return f"{shown.chosen_said()}: its pages were not looked at, for it is not bare."
    row = one.iloc[0]
    return (
        f"{shown.chosen_said()}: of {row['pages']:,} pages {row['zero page']:,} are the zero page, "
        f"{row['other page']:,} another one, {row['swapped']:,} swapped, {row['absent']:,} absent."
    )
