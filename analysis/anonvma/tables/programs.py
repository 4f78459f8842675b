# SPDX-License-Identifier: GPL-2.0-only
"""Programs side by side: which of them read memory that they never write, and what that costs.

Functions take runs by the name of their program, and return one row per program. Those come first
of which most page faults left a bare VMA bare: the mail's early check is felt there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from anonvma.base.axes import own
from anonvma.base.numerals import number, percent
from anonvma.run.runs import Run
from anonvma.run.vocabulary import PAGE_FAULT
from anonvma.tables import anon_vmas, census, faults, locks
from anonvma.tables.empty_figure import blank
from anonvma.tables.faults.groups import TRANSITION_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDED = ("anon_vma_chains", "census", "faults", "locks", "tracing")
"""The tables without which a run is of no use here."""
_OTHER = "other"


def survey(programs: Mapping[str, Run], missing: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What each program maps, what its page faults find and leave, and how it acquires mmap_lock.

    Parameters
    ----------
    programs : mapping of str to Run
    missing : mapping of str to str, optional
        Programs without a run, and why: they have rows without numbers, at the end.

    Returns
    -------
    DataFrame
        Index: program. Columns, each the mean of one repeat: vmas and bare (at the end of each of
        its processes); zero-page (bare VMAs of this class) and zero (pages in them); faults; found
        bare and left bare (shares of them, 0 to 1); acquired (acquisitions of mmap_lock per
        thousand faults), by faults (of these, those of page faults), waits (acquisitions that found
        it taken, per thousand) and wait_ms; early adds (acquisitions that an early check would
        add, per thousand faults, as `anonvma.tables.faults.counterfactual` has it); anon_vmas, and
        unshared (share of them that no census of a process saw with more than one VMA).

    Examples
    --------
    >>> from anonvma.run import runs
    >>> found = survey({"git": runs.find("programs-git")})
    >>> found["zero-page"].tolist()
    [0.0]
    """
    rows = {name: _row(run) for name, run in programs.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=_COLUMNS).astype("float64")
    order = ["left bare", "zero", "found bare"]
    table = table.sort_values(order, ascending=False, kind="stable")
    return table.reindex([*table.index, *sorted(missing or {})]).rename_axis("program")


_COLUMNS = [
    *("vmas", "bare", "zero-page", "zero", "faults", "found bare", "left bare", "acquired"),
    *("by faults", "waits", "wait_ms", "early adds", "anon_vmas", "unshared"),
]


def _row(run: Run) -> dict[str, float]:
    vmas, traced = census.last(run), faults.traced(run)
    classes = census.by_class(vmas).loc["zero-page"]
    count, changed = _count(traced), _changes(run)
    spared = faults.counterfactual(traced).iloc[-1]["spared"]
    callers = locks.callers(locks.of_workload(run.table("locks")))
    chains = anon_vmas.last(run)
    shared = anon_vmas.by_sharing(chains)["anon_vmas"]
    per_thousand = 1000 / count if count else np.nan
    return {
        "vmas": len(vmas),
        "bare": int(vmas["bare"].sum()),
        "zero-page": classes["vmas"],
        "zero": classes["zero"],
        "faults": count,
        "found bare": _share(changed, "bare -> bare", "bare -> anon_vma"),
        "left bare": _share(changed, "bare -> bare"),
        "acquired": callers["taken"].sum() * per_thousand,
        "by faults": callers.loc[callers["asked_by"] == PAGE_FAULT, "taken"].sum() * per_thousand,
        "waits": callers["contended"].sum() * per_thousand,
        "wait_ms": callers["wait_ms"].sum(),
        "early adds": spared * per_thousand,
        "anon_vmas": shared.sum(),
        "unshared": shared["unshared"] / shared.sum() if shared.sum() else np.nan,
    }


def _changes(run: Run) -> pd.Series[float]:
    """How many faults of a run made each change; those of no interest here are ``other``."""
    handled = faults.handled(faults.traced(run))
    change = faults.transition(handled)
    change = change.where(change.isin(list(TRANSITION_COLOURS)), _OTHER)
    counts = handled["count"].groupby(change).sum() / faults.repeats(faults.traced(run))
    return counts.reindex(list(TRANSITION_COLOURS), fill_value=0.0)


def _share(changed: pd.Series[float], *names: str) -> float:
    total = float(changed.sum())
    return float(changed[list(names)].sum()) / total if total else np.nan


def by_origin(programs: Mapping[str, Run]) -> pd.DataFrame:
    """The anonymous VMAs of each program by origin: how many are bare, and why.

    Returns
    -------
    DataFrame
        Index: program, origin. Columns as in `anonvma.tables.census.by_origin`.
    """
    tables = {name: census.by_origin(census.last(run)) for name, run in programs.items()}
    found = pd.concat(tables, names=["program", "origin"]) if tables else pd.DataFrame()
    return found[found["vmas"] > found["anon_vma"]] if len(found) else found


def reasons(programs: Mapping[str, Run]) -> pd.DataFrame:
    """Who acquired mmap_lock in each program, or why a page fault did, per thousand page faults.

    Returns
    -------
    DataFrame
        One row per program, caller and reason (null for what is no page fault, ``not told`` for
        faults whose reason the tracer did not see), most first within each program: program,
        asked_by, reason, per_thousand.
    """
    rows = []
    for name, run in programs.items():
        traced = faults.traced(run)
        callers = locks.callers(locks.of_workload(run.table("locks")))
        callers = callers[callers["asked_by"] != PAGE_FAULT].rename(columns={"taken": "faults"})
        why = faults.reasons(traced).assign(asked_by=PAGE_FAULT)
        both = pd.concat([callers.assign(reason=None), why])
        found = both.groupby(["asked_by", "reason"], dropna=False)["faults"].sum()
        table = (1000 / _count(traced) * found).rename("per_thousand").reset_index()
        table.insert(0, "program", name)
        rows.append(table.sort_values("per_thousand", ascending=False, kind="stable"))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _count(traced: pd.DataFrame) -> float:
    """How many faults were handled in one repeat."""
    return float(faults.handled(traced)["count"].sum()) / faults.repeats(traced)


def explained(
    programs: Mapping[str, Run], missing: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Say of each program of a `survey` in one sentence what sets it apart, or why it is missing.

    Returns
    -------
    DataFrame
        Index: program, in the order of the survey. Column: what.
    """
    rows = survey(programs, missing).iterrows()
    said = {
        name: _said(programs[name], row) if name in programs else (missing or {})[name]
        for name, row in ((str(name), row) for name, row in rows)
    }
    return pd.DataFrame({"what": pd.Series(said, dtype="str")}).rename_axis("program")


def _said(run: Run, row: pd.Series[Any]) -> str:
    found = faults.handled(faults.traced(run))
    bare = found[found["before"] == "bare"]
    left = bare[bare["after"] == "bare"]
    origins = (left if len(left) else bare).groupby(bare["origin"].astype("object"))["count"].sum()
    mostly = f", mostly {origins.idxmax()}" if len(origins) else ""
    whole = f"{number(row['faults'])} page faults"
    if not row["left bare"]:
        first = (
            f"None of {whole} left a VMA bare: the {percent(row['found bare'])} that found one "
            f"wrote to it{mostly}"
        )
        return f"{first}; an early check would add nothing that a delayed one does not."
    added = row["early adds"] / row["acquired"] if row["acquired"] else np.nan
    return (
        f"{percent(row['left bare'])} of {whole} read a bare VMA and left it bare{mostly}; an "
        f"early check would add {number(row['early adds'])} acquisitions of mmap_lock per thousand "
        f"faults to {number(row['acquired'])} ({percent(added, signed=True)})."
    )


def plot(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the shares of a `survey`; as points, for a logarithm has no 0."""
    title = "Which programs read memory they never write"
    names = list(table.index[table["faults"] > 0])
    if not names:
        return blank(own(ax, 7, 3), title, "no program")
    ax = own(ax, 7, 1 + 0.32 * len(names))
    places = range(len(names))
    for column, (label, what) in _DRAWN.items():
        shares = 100 * table.loc[names, column]
        colour = TRANSITION_COLOURS[what]
        ax.scatter(shares.where(shares > 0), places, s=55, color=colour, zorder=3, label=label)
    for place, share in enumerate(table.loc[names, "left bare"]):
        if share:
            ax.annotate(percent(share), (100 * share, place), (7, -3), **_BESIDE)
        else:
            ax.text(0.01, place, "none", transform=ax.get_yaxis_transform(), **_SMALL)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_yticks(list(places), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.grid(axis="y", color="#dddddd", zorder=0)
    ax.set(xlabel="share of all page faults, per cent, on a logarithmic scale", title=title)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


_DRAWN = {
    "found bare": ("found a bare VMA", "bare -> anon_vma"),
    "left bare": ("and left it bare", "bare -> bare"),
}
_SMALL: dict[str, Any] = {"va": "center", "fontsize": "small", "color": "#555555"}
_BESIDE: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small"}
