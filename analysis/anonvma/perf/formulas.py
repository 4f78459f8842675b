# SPDX-License-Identifier: GPL-2.0-only
"""Ratios of perf's counts, such as cycles per instruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from anonvma.perf.event_names import counter


class Formula(NamedTuple):
    """A ratio of counts.

    Attributes
    ----------
    words : str
        As a person would write it.
    above, below : tuple of str
        The events that are summed above and below the line.
    factor : float
        What it is multiplied by.
    """

    words: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    factor: float = 1

    @property
    def needed(self) -> tuple[str, ...]:
        """The events without which it cannot be."""
        return tuple(dict.fromkeys((*self.above, *self.below)))


def _rate(stem: str) -> Formula:
    misses, all_ = f"{stem}-misses", f"{stem}s"
    return Formula(f"100 * {misses} / ({all_} + {misses})", (misses,), (all_, misses), 100)


FORMULAS: Mapping[str, Formula] = {
    "cpi": Formula("cycles / instructions", ("cycles",), ("instructions",)),
    "ipc": Formula("instructions / cycles", ("instructions",), ("cycles",)),
    "MPKI": Formula(
        "1000 * cache-misses / instructions", ("cache-misses",), ("instructions",), 1000
    ),
    "cycles-between-cache-misses": Formula("cycles / cache-misses", ("cycles",), ("cache-misses",)),
    "cache-miss-rate%": Formula(
        "100 * cache-misses / cache-references", ("cache-misses",), ("cache-references",), 100
    ),
    "branch-miss-rate%": Formula(
        "100 * branch-misses / branches", ("branch-misses",), ("branches",), 100
    ),
    "instructions-per-iTLB-miss": Formula(
        "instructions / iTLB-load-misses", ("instructions",), ("iTLB-load-misses",)
    ),
    **{
        f"{stem}-miss-rate%": _rate(stem)
        for stem in (
            "dTLB-load",
            "dTLB-store",
            "iTLB-load",
            "L1-dcache-load",
            "LLC-load",
            "LLC-store",
            "node-load",
            "node-store",
        )
    },
}
"""By the end of its name, how a row comes about."""


def derived(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the ratios of `FORMULAS` that counts allow; nothing is divided by 0.

    Only counters that belong together are divided: of the same modes of the processor, which are
    then part of the ratio's name (``ipc:u``), and of the same cores. On a processor with several
    kinds of cores each event is summed up over them, where all of a ratio's are counted on the
    same ones.

    Parameters
    ----------
    counts : mapping
        Event to count.
    """
    found: dict[str, float] = {}
    for mode, known in _together(counts).items():
        for name, formula in FORMULAS.items():
            found |= {limited(name, mode): ratio for ratio in _ratio(formula, known)}
    return found


def _together(counts: Mapping[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """Return counts by mode, name and kind of core; of two names for one thing the first."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for event, value in counts.items():
        name, mode, pmu = counter(event)
        found.setdefault(mode, {}).setdefault(name, {}).setdefault(pmu, value)
    return found


def _ratio(formula: Formula, known: Mapping[str, Mapping[str, float]]) -> Iterator[float]:
    """Yield the ratio, if there is one."""
    each = [known.get(event, {}) for event in formula.needed]
    if all("" in counts for counts in each):
        cores = {""}
    else:
        cores = set(each[0])
        if not cores or any(set(counts) != cores for counts in each):
            return
    above, below = (
        sum(known[event][core] for event in events for core in cores)
        for events in (formula.above, formula.below)
    )
    if below:
        yield formula.factor * above / below


def limited(name: str, mode: str) -> str:
    """Return a ratio's name with the modes that it is of; per cent stay at its end."""
    if not mode:
        return name
    return f"{name.removesuffix('%')}:{mode}{'%' if name.endswith('%') else ''}"
