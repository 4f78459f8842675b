# SPDX-License-Identifier: GPL-2.0-only
"""Reference: the figures that the mail quotes, beside ours, row by row and by the same name.

``data/reference/mail.csv`` holds them; `beside` sets each beside the same row of a comparison, and
says whether the direction agrees and how the sizes compare. Nothing else stands in for a row that
is not measured: it says why it is missing, and where it could be had.

A row of a profile is the same call path whatever event was sampled: theirs is ``cycles-pp``, and a
guest without hardware counters has ``cpu-clock``. Two things keep a path from being seen there:

- a function that the compiler put into its caller has no frame; the path without it is the same
  samples, unless it is the innermost, whose samples are then its caller's;
- a clock samples from a timer's interrupt, so nothing that runs with interrupts off is sampled,
  such as spinning for a ``raw_spin_lock_irq()``. A PMU samples from an NMI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.base.numerals import percent
from anonvma.compare import changes
from anonvma.perf import counters
from anonvma.perf import profile as perf_profile
from anonvma.run.runs import Run
from anonvma.tables import metrics

MAIL = ("vm-scalability.throughput", 3.0)
"""The mail's primary result: "over 3x throughput improvement", without figures."""

_COLUMNS = ["metric", "base", "base_sd_percent", "change", "head", "head_sd_percent"]
_TRACE = "perf-profile.calltrace.cycles-pp."
_IRQS_OFF = ("_raw_spin_lock_irq", "native_queued_spin_lock_slowpath")
_STATIC = ("rwsem_optimistic_spin",)
"""Functions of the mail's paths that have one caller, so that a compiler may inline them."""
_PMU = "a machine, or a virtual machine, that exposes its hardware counters, has it"


def mail(file: Path | None = None) -> pd.DataFrame:
    """Return the mail's rows.

    Returns
    -------
    DataFrame
        One row per quoted row, in the mail's order: metric, base, base_sd_percent, change (str, as
        quoted; empty for the throughput), head, head_sd_percent, absolute (bool: change is a
        difference).

    Raises
    ------
    RunError
        When the file is missing or damaged.

    Examples
    --------
    >>> mail().loc[1, ["metric", "change"]].tolist()
    ['perf-stat.overall.cycles-between-cache-misses', '+565.6%']
    """
    file = file or paths.root() / "data" / "reference" / "mail.csv"
    words = {"change": "str", "metric": "str"}
    try:
        table = pd.read_csv(file, dtype=words)
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, UnicodeError):
        raise RunError(f"{file} is damaged: it is not the table that it should be.") from None
    if list(table.columns) != _COLUMNS:
        raise RunError(f"{file} is damaged: it has other columns than it should.")
    table = table.fillna({name: "" for name in words})
    return table.assign(absolute=[changes.is_absolute(name) for name in table["metric"]])


def beside(
    conditions: Mapping[str, Sequence[Run]],
    head: str | None = None,
    profiled: Mapping[str, Sequence[Run]] | None = None,
) -> pd.DataFrame:
    """Set the mail's rows beside ours of the same name.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The first is the base.
    head : str, optional
        Which other one; the last by default.
    profiled : mapping of str to sequence of Run, optional
        Of the same conditions, the runs that perf observed, where others are the ones for
        throughput and times.

    Returns
    -------
    DataFrame
        As `beside_values`.
    """
    base = next(iter(conditions))
    head = head or list(conditions)[-1]
    names = mail()["metric"]
    by_perf = names.str.startswith("perf-")
    if profiled is None:
        values, labels, notes = _values((base, head), conditions, names)
        return beside_values(values, labels, notes)
    parts = [
        _values((base, head), conditions, names[~by_perf]),
        _values((base, head), profiled, names[by_perf]),
    ]
    values = pd.concat([part[0] for part in parts], ignore_index=True)
    return beside_values(values, parts[0][1] + parts[1][1], parts[0][2] | parts[1][2])


def _values(
    sides: tuple[str, str], conditions: Mapping[str, Sequence[Run]], names: Iterable[str]
) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Return some of the mail's metrics, one row per run; the runs' conditions; and the notes."""
    runs = [run for side in sides for run in conditions[side]]
    labels = [side for side in sides for _ in conditions[side]]
    values = metrics.matrix(runs).reindex(columns=list(names))
    paths = _Paths(runs)
    notes: dict[str, str] = {}
    for name in map(str, values.columns):
        if name.startswith(_TRACE):
            path = name.removeprefix(_TRACE).split(".")
            values[name], notes[name] = paths.shares(path)
        elif values[name].isna().all():
            notes[name] = _why_absent(name, runs)
    return values, labels, notes


def beside_values(
    values: pd.DataFrame, labels: Sequence[str], notes: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Do what `beside` does, from the runs' metrics.

    Parameters
    ----------
    values : DataFrame, float64
        One row per run and one column per metric by the mail's name; what is missing is not
        measured.
    labels : sequence of str
        The condition of each run.
    notes : mapping, optional
        By metric, what to know of the row.

    Returns
    -------
    DataFrame
        One row per row of the mail: metric; theirs (its change as quoted); base, head (ours);
        change (ours: per cent, or the difference); n; verdict; direction (``same``, ``other``, ``no
        change`` or ``not measured``); size (our ratio over theirs; of a share our difference over
        theirs); note. Verdicts are corrected for these rows.
    """
    theirs = mail()
    # Looked at are these rows and no others: they were chosen by the mail.
    ours = changes.of_matrix(values.reindex(columns=theirs["metric"]), labels).set_index("metric")
    known = notes or {}
    return pd.DataFrame(
        [
            _beside(row, ours, known.get(row["metric"], ""))
            for row in theirs.to_dict(orient="records")
        ]
    )


def _beside(theirs: Mapping[Any, Any], ours: pd.DataFrame, note: str) -> dict[str, Any]:
    name = theirs["metric"]
    told = theirs["change"].replace("%", " %") or f"over {MAIL[1]:g}x"
    if name not in ours.index or not min(ours.loc[name, ["n_base", "n"]]):
        nothing = float("nan")
        return {
            "metric": name, "theirs": told, "base": nothing, "head": nothing, "change": "-", "n": 0,
            "verdict": "-", "direction": "not measured", "size": nothing,
            "note": note or "not measured in both",
        }  # fmt: skip
    mine = ours.loc[name]
    moved = mine["verdict"] in changes.CHANGED
    up = not theirs["change"].startswith("-")
    direction = "no change"
    if moved:
        direction = "same" if (mine["verdict"] == changes.Verdict.HIGHER) == up else "other"
    return {
        "metric": name,
        "theirs": told,
        "base": float(mine["base"]),
        "head": float(mine["mean"]),
        "change": _change(mine),
        "n": int(min(mine["n"], mine["n_base"])),
        "verdict": str(mine["verdict"]),
        "direction": direction,
        "size": _size(mine, theirs),
        "note": note,
    }


def _change(mine: pd.Series[Any]) -> str:
    if not np.isfinite(mine["change"]):
        return "-"
    if mine["absolute"]:
        return f"{mine['change']:+.1f}"
    return percent(mine["change"] / 100, signed=True)


def _size(mine: pd.Series[Any], theirs: Mapping[Any, Any]) -> float:
    if theirs["absolute"]:
        return float(mine["difference"]) / float(theirs["change"])
    return float(mine["ratio"]) / _ratio(theirs)


def _ratio(theirs: Mapping[Any, Any]) -> float:
    if theirs["metric"] == MAIL[0]:
        return MAIL[1]
    if not theirs["base"] or not np.isfinite(theirs["base"]):
        return float("nan")
    return float(theirs["head"] / theirs["base"])


def agreement(table: pd.DataFrame) -> str:
    """Say in a sentence how far ours agrees with theirs."""
    counts = table["direction"].value_counts()
    told = [
        f"{counts[name]} {words}"
        for name, words in (
            ("same", "went the same way"),
            ("other", "went the other way"),
            ("no change", "show no change here"),
            ("not measured", "were not measured here"),
        )
        if name in counts
    ]
    return f"Of the mail's {len(table)} rows {', '.join(told)}."


# ---- what ours are made of ----


class _Paths:
    """The call paths that were sampled in some runs."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.profiles = [
            perf_profile.of_run(run) if "samples" in run.manifest.tables else {} for run in runs
        ]
        each = [profile for found in self.profiles for profile in found.values()]
        self.functions = {
            perf_profile.without_copies(name)
            for profile in each
            for name in profile.frames["symbol"]
        }
        self.event = perf_profile.main_event(each[0]) if each else ""
        self._known: dict[tuple[int, int, int], pd.Series[float]] = {}

    def shares(self, path: Sequence[str]) -> tuple[list[float], str]:
        """Return the share of the samples with a path, one a run, and what to know of it.

        Null for a run without samples, and for all where the path cannot be seen.
        """
        nothing = [float("nan")] * len(self.profiles)
        if not self.functions:
            return nothing, "no profile was taken"
        if self.event.startswith(("cpu-clock", "task-clock")) and path[0] in _IRQS_OFF:
            return nothing, f"interrupts are off there, so {self.event} does not sample it: {_PMU}"
        inlined = [name for name in path if name in _STATIC and name not in self.functions]
        rest = [name for name in path if name not in inlined]
        if path[0] in inlined:
            return nothing, f"{path[0]}() is inlined into {rest[0]}() here: no function of its own"
        return self._at(rest), f"without {', '.join(inlined)}, inlined here" if inlined else ""

    def _at(self, path: Sequence[str]) -> list[float]:
        found = []
        for place, profiles in enumerate(self.profiles):
            each = [
                self._traces(place, repeat, len(path)).get(".".join(path), 0.0)
                for repeat in profiles
            ]
            found.append(float(np.mean(each)) if each else float("nan"))
        return found

    def _traces(self, place: int, repeat: int, levels: int) -> pd.Series[float]:
        key = (place, repeat, levels)
        if key not in self._known:
            self._known[key] = perf_profile.calltrace(self.profiles[place][repeat], levels=levels)
        return self._known[key]


def _why_absent(name: str, runs: Sequence[Run]) -> str:
    """Return why no run has a row that is no call path."""
    for run in runs:
        if "perf_stat" in run.manifest.tables:
            rows = counters.absent(run)
            rows = rows[rows["metric"] == name]
            if len(rows):
                first = rows.iloc[0]
                return f"needs {first['lacking']}; {first['reason']}: {_PMU}"
    return "perf stat counted nothing" if name.startswith("perf-stat.") else ""
