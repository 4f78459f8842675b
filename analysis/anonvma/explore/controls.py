# SPDX-License-Identifier: GPL-2.0-only
"""The controls of the explorer: which there are, where they stand, and what they offer.

Only the browser's own: lists, sliders, text and buttons, so that all of it is reached by Tab and
changed by the arrow keys, and a list of VMAs is a list box whose lines are text. What they do is
in `anonvma.explore.explorer`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from anonvma.base.errors import SelectionError
from anonvma.base.text import printable
from anonvma.collect.preflight import LIVE as LIVE
from anonvma.explore.filter import STATES, Filter, size
from anonvma.explore.selection import Vmas

NONE = "(none)"
FOLD, UNFOLD = "Hide the filter", "Show the filter"
ROWS = 200
"""VMAs in the list at a time: a browser is slow with more."""
SIZES = [1 << shift for shift in range(12, 48)]
"""From the smallest page to 128 TiB."""
TABS = {
    "overview": "At a glance",
    "vmas": "VMAs",
    "map": "Address space",
    "pages": "Pages",
    "faults": "Faults",
    "call paths": "Call paths",
    "differs": "What differs",
    "live": "Live",
    "export": "Export",
}
KEYS = {"address": "start", "size": "bytes", "zero pages": "zero", "pages present": "present"}
LINKS = {
    "vmas": "The list of VMAs",
    "map": "Its address space",
    "pages": "Its pages",
    "faults": "Its faults",
    "call paths": "Its call paths",
}
"""Buttons that lead from the VMA looked at to another view of it."""

Controls = dict[str, Any]
_STYLE = Path(__file__).with_name("controls.css").read_text(encoding="utf-8")
# In command mode JupyterLab takes the arrow keys, and letters, even from a list that has the focus,
# unless that very element has an attribute; and a widget has no other way to give it one.
_KEYS_ARE_OURS = """<img alt="" src="data:," hidden onerror="(function ours(image) {
  const all = image.closest('.anonvma');
  if (!all) return setTimeout(ours, 100, image);
  all.addEventListener('focusin',
    (event) => event.target.setAttribute('data-lm-suppress-shortcuts', 'true'));
  image.remove();
})(this)">"""
_TOOLTIPS = {
    "run": "the run that is explored, or the live machine",
    "directory": "the directory of a run",
    "repeat": "which repeat of the run",
    "other": "a second run, to see what differs",
    "process": "only VMAs of these processes",
    "origin": "only VMAs of these origins",
    "state": "only VMAs in these states",
    "size": "only VMAs of these sizes",
    "having": "only VMAs with all of these flags",
    "lacking": "only VMAs with none of these flags",
    "fold": "more room for the views",
    "row": "the selected VMAs; the one chosen is looked at in the other views",
    "key": "what the list is sorted by",
    "page": f"which {ROWS} of the list",
    "axis": "how addresses become places",
    "from": "only VMAs from this address on",
    "to": "only VMAs up to this address",
    "every": "seconds from one census to the next",
    "pids": "numbers of processes, or nothing for all",
    "variable": "name of the DataFrame in this notebook",
    "name": "what the files are called",
    "into": "the directory they go to, in that of your runs",
}


# ---- making them ----


def make(known_runs: list[str]) -> Controls:
    """Return the controls by name, as they are before anything is open."""
    found = {**_of_source(known_runs), **_of_filter(), **_of_views()}
    for name, control in found.items():
        # So that a screen reader, and a test, can tell them apart.
        control.tooltip = _TOOLTIPS.get(name, name)
        control.add_class("anonvma-" + name.replace(" ", "-"))
    return found


def _wide() -> ipywidgets.Layout:
    return ipywidgets.Layout(width="98%")


def _of_source(known_runs: list[str]) -> Controls:
    dropdown = ipywidgets.Dropdown
    return {
        "run": dropdown(options=[NONE, *known_runs, LIVE], value=NONE, layout=_wide()),
        "directory": ipywidgets.Text(
            placeholder="or a run's directory", continuous_update=False, layout=_wide()
        ),
        "repeat": dropdown(options=[], layout=_wide()),
        "other": dropdown(options=[NONE, *known_runs], value=NONE, layout=_wide()),
    }


def _of_filter() -> Controls:
    def several(*options: str) -> ipywidgets.SelectMultiple:
        return ipywidgets.SelectMultiple(options=options, rows=5, layout=_wide())

    def hexadecimal(name: str) -> ipywidgets.Text:
        layout = ipywidgets.Layout(width="20em")
        return ipywidgets.Text(
            placeholder="hexadecimal", description=name, continuous_update=False, layout=layout
        )

    return {
        "process": several(),
        "origin": several(),
        "state": several(*STATES),
        "size": ipywidgets.SelectionRangeSlider(
            options=[(size(value), value) for value in SIZES],
            index=(0, len(SIZES) - 1),
            continuous_update=False,
            layout=_wide(),
        ),
        "having": several(),
        "lacking": several(),
        "from": hexadecimal("from"),
        "to": hexadecimal("to"),
        "clear": ipywidgets.Button(description="Clear the filter", layout=_wide()),
        "fold": ipywidgets.ToggleButton(description=FOLD, layout=ipywidgets.Layout(width="9em")),
    }


def _of_views() -> Controls:
    def number(value: float, low: float, high: float, words: str) -> ipywidgets.BoundedFloatText:
        layout = ipywidgets.Layout(width="12em")
        return ipywidgets.BoundedFloatText(
            value=value, min=low, max=high, description=words, layout=layout
        )

    def text(words: str, value: str, **more: str) -> ipywidgets.Text:
        # Sent once, when it is left: a letter at a time, the last ones may come after the button.
        return ipywidgets.Text(value=value, description=words, continuous_update=False, **more)

    links = {f"to {tab}": ipywidgets.Button(description=words) for tab, words in LINKS.items()}
    return {
        "key": ipywidgets.Dropdown(options=list(KEYS), description="in order of"),
        "descending": ipywidgets.Checkbox(description="largest first", indent=False),
        "page": ipywidgets.BoundedIntText(value=1, min=1, max=1, description="part"),
        "row": ipywidgets.Select(options=[], rows=14, layout=_wide()),
        **links,
        "none": ipywidgets.Button(description="Look at none"),
        "axis": ipywidgets.Dropdown(options=["compressed", "to scale"], description="axis"),
        "trace seconds": number(3, 0.1, 600, "seconds"),
        "trace": ipywidgets.Button(description="Trace its faults"),
        "pids": text("watch", "", placeholder="all processes, or pids"),
        "every": number(3, 0.5, 3600, "every, s"),
        "start": ipywidgets.Button(description="Start"),
        "stop": ipywidgets.Button(description="Stop", disabled=True),
        "variable": text("DataFrame", "selection"),
        "name": text("files", "selection"),
        "into": text("directory", "exports"),
        "export": ipywidgets.Button(description="Export"),
    }


# ---- where they stand ----


def tabs(c: Controls, views: Mapping[str, ipywidgets.Widget]) -> ipywidgets.Tab:
    """Return the views as tabs, each with its own controls above it."""
    row = ipywidgets.HBox
    links = [c[f"to {tab}"] for tab in LINKS if tab != "vmas"]
    above = {
        "vmas": [row([c["key"], c["descending"], c["page"]]), _rows(c), row([*links, c["none"]])],
        "map": [row([c["axis"], c["from"], c["to"], c["to vmas"]])],
        "faults": [row([c["trace seconds"], c["trace"]])],
        "live": [row([c["pids"], c["every"], c["start"], c["stop"]])],
        "export": [row([c["variable"], c["name"], c["into"], c["export"]])],
    }
    for controls in above.values():
        for control in controls:
            if isinstance(control, ipywidgets.HBox):
                control.layout.flex_flow = "row wrap"
    return ipywidgets.Tab(
        [ipywidgets.VBox([*above.get(name, []), views[name]]) for name in TABS],
        titles=tuple(TABS.values()),
        layout=ipywidgets.Layout(flex="1 1 auto", width="auto", min_width="0"),
    )


def _rows(c: Controls) -> ipywidgets.Widget:
    """Return the list of VMAs below what its columns are; both scroll together."""
    heads = ipywidgets.HTML(f"<pre>{html.escape(ROW_HEADS)}</pre>")
    heads.add_class("anonvma-heads")
    box = ipywidgets.VBox([heads, c["row"]])
    box.add_class("anonvma-rows")
    return box


def lay_out(c: Controls, status: ipywidgets.Widget, views: ipywidgets.Tab) -> ipywidgets.Widget:
    """Return all of it: what is said on top, the filter on the left, the views on the right."""
    groups = {
        "Run": ("run", "directory"),
        "Repeat": ("repeat",),
        "Compared with": ("other",),
        "Process (several: Shift or Ctrl)": ("process",),
        "Origin": ("origin",),
        "State": ("state",),
        "Size": ("size",),
        "Flags set": ("having",),
        "Flags not set": ("lacking",),
    }
    left = []
    for words, names in groups.items():
        left += [ipywidgets.HTML(f"<b>{words}</b>"), *(c[name] for name in names)]
    column = ipywidgets.VBox([*left, c["clear"]])
    column.add_class("anonvma-filter")
    columns = ipywidgets.HBox([column, views])
    columns.add_class("anonvma-columns")

    def fold(change: Mapping[str, Any]) -> None:
        column.layout.display = "none" if change["new"] else None
        c["fold"].description = UNFOLD if change["new"] else FOLD

    c["fold"].observe(fold, "value")
    style = ipywidgets.HTML(f"<style>{_STYLE}</style>" + _KEYS_ARE_OURS)
    whole = ipywidgets.VBox([style, status, c["fold"], columns])
    whole.add_class("anonvma")
    return whole


# ---- what they offer, and what is written into them ----


def offers(vmas: Vmas) -> dict[str, list[tuple[str, Any]]]:
    """Return the lines of the filter's lists, each with its value, for a census."""
    every = vmas.select(Filter())
    processes, origins = every.processes(), every.origins()
    processes["bare"] = processes[list(STATES[:4])].sum(axis=1)
    processes = processes.sort_values("bare", ascending=False, kind="stable")
    columns = (processes[name].tolist() for name in ("tgid", "comm", "vmas", "bare"))
    flags = [(name, name) for name in vmas.flags]
    return {
        "process": [
            (f"{tgid} {printable(str(comm))}: {count:,}, {bare:,} bare", int(tgid))
            for tgid, comm, count, bare in zip(*columns, strict=True)
        ],
        "origin": [
            (f"{origin}: {count:,}", origin)
            for origin, count in zip(origins["origin"], origins["vmas"].tolist(), strict=True)
        ],
        "having": flags,
        "lacking": flags,
    }


ROW_HEADS = (
    f"{'pid':>7} {'start':>12} {'size':>10} {'prot':<4} {'state':<9} {'zero':>6} {'origin':<20} "
    "path or name"
)
"""The columns of `row_options`; zero counts pages."""


def row_options(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """Return VMAs as lines of the list, each with its place in the census."""
    found = []
    zero = rows["zero"].astype("object").where(rows["zero"].notna(), "-")
    what = rows["path"].astype("object").where(rows["path"].notna(), rows["name"].astype("object"))
    for place, row, pages, name in zip(
        rows.index.tolist(), rows.itertuples(), zero, what, strict=True
    ):
        line = (
            f"{row.tgid:>7} {row.start:>12x} {size(int(str(row.bytes))):>10} {row.prot:<4} "
            f"{row.state:<9} {pages:>6} {row.origin:<20} "
            f"{printable(name) if isinstance(name, str) else ''}"
        )
        found.append((line.rstrip(), int(place)))
    return found


def address(text: str, name: str) -> int | None:
    """Return the address that was written into a control, None where it is empty.

    Raises
    ------
    SelectionError
        When it is none.
    """
    if not text.strip():
        return None
    try:
        value = int(text, 16)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise SelectionError(f"'{name}' is {text!r}: an address in hexadecimal is needed.")
    return value


def pids(text: str) -> list[int]:
    """Return the processes that were written into a control.

    Raises
    ------
    SelectionError
        When they are none.
    """
    words = text.replace(",", " ").split()
    if not all(word.isascii() and word.isdecimal() and 0 < int(word) < 1 << 31 for word in words):
        raise SelectionError(f"'watch' is {text!r}: numbers of processes are needed, or nothing.")
    return [int(word) for word in words]
