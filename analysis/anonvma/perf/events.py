# SPDX-License-Identifier: GPL-2.0-only
"""Events that perf counts, by who counts them."""

from __future__ import annotations

SOFTWARE_EVENTS = (
    "task-clock",
    "page-faults",
    "minor-faults",
    "major-faults",
    "context-switches",
    "cpu-migrations",
)
"""Counted by the kernel itself, on every machine."""

TIME_EVENTS = ("user_time", "system_time", "duration_time")
"""The command's times in ns, as perf's own wait4() and clock tell them (perf 5.17 on)."""

HARDWARE_EVENTS = (
    "cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branches",
    "branch-misses",
)
"""Counted by the processor; many virtual machines do not hand its counters on."""
