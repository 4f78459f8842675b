# SPDX-License-Identifier: GPL-2.0-only
"""Sources: the files that a section's numbers come from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from anonvma.base.section import Section
from anonvma.run.runs import Run


def drawn_from(run: Run, *tables: str) -> tuple[str, ...]:
    """Name the files of a run that numbers come from, of those tables that it has."""
    held = run.manifest.tables
    return tuple(f"{run.id}/{held[name].file}" for name in tables if name in held)


def sources_said(part: Section) -> str:
    """Say where a section's numbers come from, run by run; empty where it has none."""
    files: dict[str, list[str]] = {}
    for source in part.sources:
        run, _, file = source.rpartition("/")
        files.setdefault(run, []).append(file)
    alike: dict[str, list[str]] = {}
    for run, names in files.items():
        alike.setdefault(", ".join(names), []).append(run)
    return "; ".join(f"{_together(same)}: {names}" for names, same in alike.items())


def _together(runs: Iterable[str]) -> str:
    """List runs, those that are numbered one after the other by the first and the last."""
    numbers: dict[str, list[int]] = {}
    for run in runs:
        match = re.fullmatch(r"(.*-)([1-9][0-9]{0,3})", run)
        numbers.setdefault(match[1] if match else run, []).extend([int(match[2])] if match else [])
    said = []
    for stem, found in numbers.items():
        # What is one more than the one before it has the same distance from its place.
        alike = itertools.groupby(enumerate(sorted(found)), lambda each: each[1] - each[0])
        spans = [[number for _, number in group] for _, group in alike]
        parts = [
            f"-{span[0]}" if len(span) == 1 else f"-{span[0]} to -{span[-1]}" for span in spans
        ]
        said.append(stem.removesuffix("-") + ", ".join(parts) if parts else stem)
    return ", ".join(said)
