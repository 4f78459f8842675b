# SPDX-License-Identifier: GPL-2.0-only
"""/proc/vmstat: what the whole kernel counted while a workload ran.

These counts are of the machine, not of the workload alone: on a machine that does nothing else,
such as a guest, they are nearly its own. ``vma_lock_*`` (``CONFIG_PER_VMA_LOCK_STATS``) are among
them: faults that got by with their VMA's own lock, and those that did not, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anonvma.target.target import Target

_ALWAYS = "vma_lock_"  # kept when nothing changed, too: that is the finding then


def counters(target: Target) -> dict[str, int]:
    """Return the target's counters, by name."""
    lines = target.read("/proc/vmstat").decode().splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return rows of the table for what changed, and for ``vma_lock_*`` in any case."""
    return [
        {
            "counter": name,
            "before": before[name],
            "after": value,
            "difference": value - before[name],
        }
        for name, value in after.items()
        if name in before and (value != before[name] or name.startswith(_ALWAYS))
    ]
