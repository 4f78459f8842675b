# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel tells of itself without the probe: enough to know what it would allow.

The probe has to be compiled, and a laptop need not have a compiler. What only it can find out, such
as which lock a page fault takes, is left out and said to be.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from typing import NamedTuple

from anonvma.base.errors import TargetError
from anonvma.target.target import Target

_LEAST = (6, 1)


class Fact(NamedTuple):
    """One thing that a kernel has, or has not."""

    name: str
    has: bool
    said: str
    """What it is good for; or what is lacking without it, and what would bring it."""


def without_probe(target: Target) -> list[Fact]:
    """Return what a target's kernel tells to whoever asks."""
    return list(_facts(target))


def _facts(target: Target) -> Iterator[Fact]:
    release = target.read("/proc/sys/kernel/osrelease").decode().strip()
    found = re.match(r"(\d+)\.(\d+)", release)
    new = found is not None and (int(found[1]), int(found[2])) >= _LEAST
    yield Fact("kernel", new, f"{release} ({platform.machine()}); the census needs 6.1 or later")
    yield Fact(
        "btf",
        target.exists("/sys/kernel/btf/vmlinux"),
        "type information, without which there is no census (CONFIG_DEBUG_INFO_BTF=y)",
    )
    counters = target.read("/proc/vmstat")
    yield Fact(
        "vma_lock_counters",
        b"vma_lock_success" in counters,
        "the kernel's own count of faults by lock (CONFIG_PER_VMA_LOCK_STATS=y, Linux 6.4)",
    )
    yield Fact(
        "tracefs",
        any(target.exists(f"{place}/events") for place in _TRACEFS) or _is_mounted(target),
        "the tracepoints of page faults and of mmap_lock (CONFIG_FTRACE=y)",
    )
    yield Fact(
        "perf_events",
        target.exists("/proc/sys/kernel/perf_event_paranoid"),
        f"counters and samples (CONFIG_PERF_EVENTS=y); perf_event_paranoid is "
        f"{_text(target, '/proc/sys/kernel/perf_event_paranoid')}",
    )
    yield Fact("perf", target.which("perf") is not None, "the program (package linux-perf)")


_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


def _is_mounted(target: Target) -> bool:
    """Tell whether there is a tracefs, which only root may look into."""
    return b" tracefs " in target.read("/proc/self/mounts")


def _text(target: Target, path: str) -> str:
    try:
        return target.read(path).decode(errors="replace").strip()
    except TargetError:
        return "not there"
