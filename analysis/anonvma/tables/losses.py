# SPDX-License-Identifier: GPL-2.0-only
"""What tracing missed, and how far its numbers may be off for that.

Where something was lost a number is a lower bound, and this says by how much. What an older run did
not record is unknown, not 0.

Functions take a run's table ``tracing``, one row per traced run of the workload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from anonvma.base.numerals import number, percent
from anonvma.run.runs import Run
from anonvma.run.vocabulary import TRACING_LOSSES

_OF_FAULTS = ("faults", "events")


def _of_faults(tracing: pd.DataFrame) -> pd.DataFrame:
    return tracing[tracing["traced"].isin(_OF_FAULTS)]


def losses(tracing: pd.DataFrame) -> pd.DataFrame:
    """What the tracers lost, summed.

    Returns
    -------
    DataFrame
        Columns: lost (what), count (null where no traced run tells).
    """
    counts = pd.Series(summed(tracing), dtype="Int64")
    return pd.DataFrame({"lost": list(TRACING_LOSSES.values()), "count": counts.array})


def summed(tracing: pd.DataFrame) -> dict[str, int | None]:
    """By their names, what was lost in all; None where no run tells."""
    found = {}
    for name in TRACING_LOSSES:
        known = tracing[name].dropna()
        found[name] = int(known.sum()) if len(known) else None
    return found


def lost_said(counts: Mapping[str, int | None], unseen: float = 0) -> str:
    """Say what was lost, and what is not known of it.

    Parameters
    ----------
    counts : mapping
        By names of `anonvma.run.vocabulary.TRACING_LOSSES`; None is unknown.
    unseen : float
        Faults of get_user_pages() that the source does not show.
    """
    lost = [f"{count:,} {TRACING_LOSSES[name]}" for name, count in counts.items() if count]
    said = f"Lost: {'; '.join(lost) or 'nothing'}."
    if unseen > 0:
        said = (
            f"Counted, not shown: {number(unseen)} of get_user_pages() (execve(), MAP_POPULATE, "
            "mlock(), madvise()), whose faults are no exceptions and are taken under mmap_lock. "
            f"Else lost: {'; '.join(lost) or 'nothing'}."
        )
    if counts.get("misses", 0) is None:
        said += " How often the kernel did not run a program of the tracer was not recorded."
    return said


def unseen_gup(tracing: pd.DataFrame) -> float:
    """Return the faults of get_user_pages() that the source does not show, mean of a repeat."""
    known = _of_faults(tracing)["unseen_gup"].astype("float64").fillna(0)
    return float(known.mean()) if len(known) else 0.0


def attribution(tracing: pd.DataFrame) -> pd.DataFrame:
    """The faults that were traced beside those that the kernel charged to the workload.

    Returns
    -------
    DataFrame
        One row per repeat: repeat, source, traced, charged (by getrusage(); null for a process
        only watched), gup (faults of get_user_pages() that the source does not show), share
        (traced of charged, less those; null where more was traced than charged).
    """
    found = _of_faults(tracing)
    charged = found["used"].astype("float64")
    gup = found["unseen_gup"].astype("float64").fillna(0)
    traced = found["counted"].astype("float64")
    share = traced / (charged - gup)
    table = pd.DataFrame(
        {
            "repeat": found["repeat"],
            "source": found["source"],
            "traced": traced,
            "charged": charged,
            "gup": gup,
            # getrusage() does not know of children that nobody waited for: then it is no share.
            "share": share.where((charged - gup > 0) & (share <= 1)),
        }
    )
    return table.reset_index(drop=True)


def attribution_said(tracing: pd.DataFrame) -> str:
    """Say in a few sentences how many of the faults charged were traced, and what was lost."""
    found = _of_faults(tracing)
    said = [
        _charged_said(attribution(tracing).dropna(subset="charged")),
        lost_said(summed(tracing), unseen_gup(tracing)),
        refused_said(found["refused"].astype("float64").mean()),
    ]
    return " ".join(each for each in said if each)


def _charged_said(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    traced, charged = table["traced"].sum(), (table["charged"] - table["gup"]).sum()
    of = "the faults that getrusage() charged to the workload while it was traced, those of"
    if traced > charged:
        return (
            f"{number(traced)} faults were traced (n = {len(table)}), more than {of} "
            f"get_user_pages() aside: {number(max(charged, 0))}. Children that nobody waited for "
            "are not charged."
        )
    share = traced / charged if charged else 1.0
    return f"Of {of} get_user_pages() aside, {percent(share)} were traced (n = {len(table)})."


def witness_said(found: Mapping[str, Any]) -> str:
    """Say what a histogram of the same tracepoint has, from a header of counts of mmap_lock."""
    witness = found["witness"]
    if witness is None:
        return f"There is no second count of acquisitions: {found['why_no_witness']}."
    other = (
        "A histogram that the kernel made of the same tracepoint has, of the "
        f"{witness['tasks']:,} tasks that have ended, {witness['read']:,} acquisitions for reading "
        f"and {witness['write']:,} for writing"
    )
    if witness["dropped"]:
        return f"{other}, and has dropped {witness['dropped']:,}: it proves nothing."
    if all(witness[mode] == witness[f"traced_{mode}"] for mode in ("read", "write")):
        return f"{other}, as were traced."
    return f"{other}; traced were {witness['traced_read']:,} and {witness['traced_write']:,}."


def refused_said(count: float) -> str:
    """Say how many exceptions were no page faults; empty if none were."""
    if not count > 0:
        return ""
    return (
        f"No faults, and not counted: {count:,.0f} exceptions that the kernel refused itself, for "
        "it had page faults disabled."
    )


# ---- how far a number may be off ----


def unknown(tracing: pd.DataFrame) -> tuple[float, float]:
    """How many faults may be of any kind, in one repeat.

    Returns
    -------
    tuple of float
        Those that were counted, though nothing else is known of them, and those that were not even
        counted; means of the repeats.
    """
    found = _of_faults(tracing)
    if found.empty:
        return 0.0, 0.0
    missed = ["faults_lost", "faults_missed", "unaccounted"]
    of_each = found[["half_seen", *missed]].astype("float64").fillna(0).mean()
    return float(of_each["half_seen"]), float(of_each[missed].sum())


def bounds_said(part: float, total: float, half_seen: float, missed: float) -> str:
    """Say between which bounds a share of the faults lies; nothing where all is known.

    Parameters
    ----------
    part, total : float
        Those found to have left a bare VMA bare, and all that were counted, in one repeat.
    half_seen, missed : float
        As `unknown` has them.
    """
    if not half_seen + missed:
        return ""
    low, high = part / (total + missed), (part + half_seen + missed) / (total + missed)
    return (
        f"These numbers are lower bounds: of {number(half_seen + missed)} faults in a repeat "
        "nothing but that they happened is known. The share that left a bare VMA bare is between "
        f"{percent(low)} and {percent(high)}."
    )


# ---- the source ----


def counted_said(found: Mapping[str, object]) -> str:
    """Say which source was used, and why none that has more, from a header of counts."""
    said = f"Source: {found['source']}{_not_used(found)}."
    lacks = found.get("why_no_lock_paths")
    return f"{said} Lock paths are not known: {lacks}." if lacks else said


def _not_used(found: Mapping[str, object] | pd.Series[Any]) -> str:
    """Why the sources that have times were not used, in parentheses; or nothing."""
    why = {name: found.get(f"why_not_{name}") for name in ("fentry", "kprobe")}
    known = [f"{name}: {reason}" for name, reason in why.items() if isinstance(reason, str)]
    return f" ({'; '.join(known)})" if known else ""


def source_said(run: Run) -> str:
    """Say how the faults of a run were traced, and what that way does not show."""
    found = _of_faults(run.table("tracing"))
    if found.empty:
        return "No faults were traced."
    first = found.iloc[0]
    if first["source"] in _TIMED:
        return f"{_TIMED[first['source']]} {_missed_said(found)}"
    lacks = first["why_no_lock_paths"]
    paths = (
        f"the lock paths are not known, for {lacks}"
        if isinstance(lacks, str)
        else "one repeated under mmap_lock shows as retry only where a busy mmap_lock was the "
        "reason, else as mmap"
    )
    return (
        "Source: the tracepoints page_fault_user and page_fault_kernel, called with interrupts "
        "off, so that none is missed; each VMA is found in the maple tree without a lock. Neither "
        f"fentry nor kprobe.multi, which give times, was used{_not_used(first)}. So a fault has no "
        f"time; {paths}; and faults of get_user_pages() are counted, not shown. For times, use a "
        "kernel with CONFIG_FPROBE=y, such as a guest's (-p target guest:IMAGE), or fentry on "
        "one that is not preemptible."
    )


_TIMED = {
    "fentry": "Source: fentry and fexit of handle_mm_fault(), which give each fault its time.",
    "kprobe": "Source: kprobe.multi and kretprobe.multi of handle_mm_fault(), which are called "
    "with preemption off and give each fault its time.",
}


def _missed_said(found: pd.DataFrame) -> str:
    misses = found["misses"].dropna()
    if misses.empty and found["source"].iloc[0] == "kprobe":
        return "This kernel does not count how often it did not call them (6.7 or later does)."
    if misses.empty:
        return (
            "On a preemptible kernel they miss faults; whether they did here was not recorded "
            "when this run was made."
        )
    if not misses.sum():
        return "The kernel ran them for every fault."
    return (
        f"The kernel did not run a program {int(misses.sum()):,} times; what that hides is told "
        "as lost."
    )
