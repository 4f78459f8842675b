# SPDX-License-Identifier: GPL-2.0-only
"""The view of what differs between two runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.compare import conditions
from anonvma.explore.filter import STATES, Filter
from anonvma.explore.source import Source
from anonvma.explore.view import MOST, Shown, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    careful = environment.loc[environment["aspect"].isin(["workload", "parameters"]), "fact"]
    if len(careful):
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
    """The selected VMAs of each repeat (a row): a column per state and origin."""
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
    return table.loc[order].head(MOST).reset_index(drop=True)


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
    from anonvma.base.drawing import sns

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
    """What differs between two runs besides their results; nothing where one is live."""
    if a.run is None or b.run is None:
        return pd.DataFrame(columns=["aspect", "fact", "A", "B"])
    return conditions.differences({"A": [a.run], "B": [b.run]})
