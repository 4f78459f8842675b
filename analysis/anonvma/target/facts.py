# SPDX-License-Identifier: GPL-2.0-only
"""What a target tells of itself that matters to a measurement, naming neither it nor its user."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from anonvma.base.errors import TargetError
from anonvma.target import kernel_config
from anonvma.target.target import Target


def facts_of(target: Target, kind: str) -> dict[str, Any]:
    """Describe a target by what matters to a measurement.

    Neither a host name nor a user, path, address or boot id is among it: a run is to be shared.

    Parameters
    ----------
    target : Target
        Where to look, through nothing but its `read`: a guest has no programs to ask.
    kind : str
        What kind of target it is.

    Returns
    -------
    dict
        ``kind``, ``kernel_release``, ``architecture``, ``cpus`` (online), ``cpu_model``,
        ``memory_bytes``, ``page_size`` (bytes), ``thp`` (the chosen word of transparent huge
        pages), ``overcommit_memory``, ``max_map_count``, ``config_sha256`` (of the kernel's
        configuration, the text of /proc/config.gz), ``config`` (those of its options that matter
        here, such as ``PER_VMA_LOCK``, "n" where unset); None where the target does not tell.
    """
    cpuinfo = _fields(target.read("/proc/cpuinfo"))
    memory = _fields(target.read("/proc/meminfo"))
    mapping = _fields(target.read("/proc/self/smaps"))  # the first one, of the reader's program
    return {
        "kind": kind,
        "kernel_release": target.read("/proc/sys/kernel/osrelease").decode().strip(),
        "architecture": _text(target, "/proc/sys/kernel/arch"),
        "cpus": _count(target.read("/sys/devices/system/cpu/online")),
        "cpu_model": _model(cpuinfo),
        "memory_bytes": int(memory["MemTotal"].split()[0]) * 1024,
        "page_size": int(mapping["KernelPageSize"].split()[0]) * 1024,
        "thp": _chosen(target, "/sys/kernel/mm/transparent_hugepage/enabled"),
        "overcommit_memory": int(target.read("/proc/sys/vm/overcommit_memory")),
        "max_map_count": int(target.read("/proc/sys/vm/max_map_count")),
        **_configuration(target),
    }


def _model(cpuinfo: Mapping[str, str]) -> str | None:
    """Return what a processor is called, or of arm64 its numbers: that has no names."""
    named = cpuinfo.get("model name") or cpuinfo.get("cpu") or cpuinfo.get("uarch")
    part = cpuinfo.get("CPU part")
    if named or part is None:
        return named
    return f"implementer {cpuinfo.get('CPU implementer')}, part {part}"


# What changes the ways of a page fault, or what each costs.
_OPTIONS = (
    "PER_VMA_LOCK",
    "PER_VMA_LOCK_STATS",
    "TRANSPARENT_HUGEPAGE",
    "ANON_VMA_NAME",
    "USERFAULTFD",
    "KSM",
    "MEMCG",
    "NUMA",
    "PREEMPT",
    "PREEMPT_DYNAMIC",  # then it is chosen at boot, and PREEMPT tells little
    "PREEMPT_LAZY",
    "PREEMPT_NONE",
    "PREEMPT_RT",
    "PREEMPT_VOLUNTARY",
    "DEBUG_VM",
    "PROVE_LOCKING",
    "KASAN",
)


def _configuration(target: Target) -> dict[str, Any]:
    """Describe the configuration that the target's kernel was built with, where it tells."""
    text = kernel_config.of_running(target)
    if text is None:
        return {"config_sha256": None, "config": None}
    found = kernel_config.options(text)
    chosen = {name: found.get(name, "n") for name in _OPTIONS}
    return {"config_sha256": hashlib.sha256(text).hexdigest(), "config": chosen}


def _fields(text: bytes) -> Mapping[str, str]:
    """Return the first value of each ``name : value`` line."""
    found: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _text(target: Target, path: str) -> str | None:
    try:
        return target.read(path).decode(errors="replace").strip()
    except TargetError:  # a kernel without it
        return None


def _count(ranges: bytes) -> int:
    """Return how many numbers a list such as ``0-3,8`` has."""
    edges = [part.split(b"-") for part in ranges.strip().split(b",")]
    return sum(int(edge[-1]) - int(edge[0]) + 1 for edge in edges)


def _chosen(target: Target, path: str) -> str | None:
    """Return the bracketed word of a file such as ``always [madvise] never``."""
    match = re.search(r"\[(\w+)\]", _text(target, path) or "")
    return match and match[1]
