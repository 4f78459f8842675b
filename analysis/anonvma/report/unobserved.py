# SPDX-License-Identifier: GPL-2.0-only
"""What could not be observed: each thing with its reason and what would enable it."""

from __future__ import annotations

from collections.abc import Sequence

from anonvma.base.section import Key, Section
from anonvma.run.runs import Run


def section(opened: Sequence[Run]) -> Section:
    """Say what some runs could not observe, once where they agree."""
    words = [
        f"{lack.what}: {lack.reason}. Remedy: {lack.remedy}."
        for run in opened
        for lack in run.manifest.unobserved
    ]
    return Section(
        "What could not be observed",
        list(dict.fromkeys(words)) or ["Nothing that was asked for."],
        sources=tuple(f"{run.id}/manifest.json" for run in opened),
        key=Key.UNOBSERVED,
    )
