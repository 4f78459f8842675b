# SPDX-License-Identifier: GPL-2.0-only
"""Sources: the files that a section's numbers come from."""

from __future__ import annotations

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
    return "; ".join(f"{', '.join(same)}: {names}" for names, same in alike.items())
