# SPDX-License-Identifier: GPL-2.0-only
"""Drift: what the machine itself was like around each repeat, and whether that differed.

Two runs that are to differ in one thing differ in others: a busy neighbour, a processor that has
become hot, a setting that somebody changed. So each repeat keeps what the target tells of itself
right before and right after, and `differences` shows what was not alike between conditions.

Nothing of it names the machine: the kernel's command line and its configuration are kept as hashes
and as the few words of them that matter to page faults.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from anonvma.base.errors import TargetError, TargetLost
from anonvma.target import kernel_config
from anonvma.target.local import Local
from anonvma.target.target import Target

Facts = dict[str, float | str]
"""What a machine tells of itself: numbers are states, words are settings."""

_THP = "/sys/kernel/mm/transparent_hugepage"
_SETTINGS = {
    "thp.enabled": f"{_THP}/enabled",
    "thp.defrag": f"{_THP}/defrag",
    "thp.use_zero_page": f"{_THP}/use_zero_page",
    "ksm.run": "/sys/kernel/mm/ksm/run",
    "lru_gen.enabled": "/sys/kernel/mm/lru_gen/enabled",
    "clocksource": "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "cpufreq.governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "cpufreq.no_turbo": "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "smt": "/sys/devices/system/cpu/smt/control",
    **{
        name: f"/proc/sys/{name.replace('.', '/')}"
        for name in (
            "vm.overcommit_memory",
            "vm.max_map_count",
            "vm.swappiness",
            "vm.nr_hugepages",
            "vm.compaction_proactiveness",
            "vm.zone_reclaim_mode",
            "kernel.numa_balancing",
            "kernel.randomize_va_space",
            "kernel.sched_autogroup_enabled",
            "kernel.nmi_watchdog",
            "kernel.timer_migration",
        )
    },
}
_CPUS = 8  # whose frequency is read: more would only take longer
_ZONES = 8  # of temperature, likewise
_TICKS = 100.0  # USER_HZ, on every architecture that still matters

# Of the command line: what tells the disk from the machine, and what changes page faults.
_IDENTITY = re.compile(r"^(BOOT_IMAGE|initrd|root|resume|UUID|rd\.|luks|ip|nfsroot|systemd\.)")
_WORDS = (
    "mitigations=off",
    "nopti",
    "nosmt",
    "nokaslr",
    "isolcpus",
    "nohz_full",
    "preempt=none",
    "preempt=voluntary",
    "preempt=full",
    "transparent_hugepage=always",
    "transparent_hugepage=never",
    "hugepages",
    "init_on_alloc=1",
    "slub_debug",
)
_OPTIONS = (
    "PER_VMA_LOCK",
    "PER_VMA_LOCK_STATS",
    "TRANSPARENT_HUGEPAGE",
    "PREEMPT",
    "PREEMPT_VOLUNTARY",
    "DEBUG_VM",
    "LOCKDEP",
    "KASAN",
    "MEMCG",
    "NUMA_BALANCING",
    "INIT_ON_ALLOC_DEFAULT_ON",
)


def snapshot(target: Target, *, constant: bool = False) -> Facts:
    """Return what a target tells of itself now.

    Parameters
    ----------
    target : Target
    constant : bool
        Whether to look at what cannot change before it boots again, too: command line and
        configuration.

    Returns
    -------
    dict
        What it does not tell is left out.

    Raises
    ------
    TargetLost
        When it has gone away.
    """
    found: Facts = {}
    for name, path in _SETTINGS.items():
        text = _read(target, path)
        if text:
            chosen = re.search(r"\[(.+?)\]", text)
            found[name] = chosen[1] if chosen else text.strip()[:80]
    found |= _states(target)
    if constant:
        found |= _command_line(_read(target, "/proc/cmdline"))
        found |= _configuration(target)
    # A guest does not see who else uses the processors that it is given.
    if target.name.startswith("guest:"):
        with Local() as here:
            found |= {f"host.{name}": value for name, value in _states(here).items()}
    return found


def _states(target: Target) -> Facts:
    found: Facts = {}
    load = _read(target, "/proc/loadavg").split()
    if len(load) >= 4:
        found |= {"load.1min": float(load[0]), "load.running": float(load[3].split("/")[0])}
    clocks = _numbers(
        target,
        (f"/sys/devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq" for n in range(_CPUS)),
    )
    if clocks:
        found["frequency.mhz"] = float(np.mean(clocks)) / 1000
    else:
        told = re.findall(r"^cpu MHz\s*: ([\d.]+)", _read(target, "/proc/cpuinfo"), re.M)
        if told:
            found["frequency.mhz"] = float(np.mean([float(mhz) for mhz in told]))
    heat = _numbers(target, (f"/sys/class/thermal/thermal_zone{n}/temp" for n in range(_ZONES)))
    if heat:
        found["temperature.max_c"] = max(heat) / 1000
    memory = re.search(r"^MemAvailable:\s+(\d+)", _read(target, "/proc/meminfo"), re.M)
    if memory:
        found["memory.available_mib"] = int(memory[1]) / 1024
    # Of the whole machine, since it booted: rows() keeps the difference.
    times = re.search(r"^cpu +(.*)$", _read(target, "/proc/stat"), re.M)
    ticks = [int(word) for word in times[1].split()] if times else []
    if len(ticks) >= 8:
        user, nice, system, _idle, _wait, irq, softirq, steal = ticks[:8]
        found["since_boot.busy_s"] = (user + nice + system + irq + softirq) / _TICKS
        found["since_boot.steal_s"] = steal / _TICKS
    return found


def _numbers(target: Target, paths: Iterable[str]) -> list[float]:
    """Return the numbers in files of one kind, numbered: the first that is missing ends them."""
    found = []
    for path in paths:
        text = _read(target, path).strip()
        if not re.fullmatch(r"-?\d+", text):
            break
        found.append(float(text))
    return found


def _read(target: Target, path: str) -> str:
    try:
        return target.read(path).decode(errors="replace")
    except TargetLost:
        raise
    except TargetError:
        return ""


def _command_line(text: str) -> Facts:
    words = [word for word in text.split() if not _IDENTITY.match(word)]
    found: Facts = {"cmdline.hash": _hash(" ".join(words))}
    for known in _WORDS:
        if any(word == known or word.startswith(f"{known}=") for word in words):
            found[f"cmdline.{known}"] = "yes"
    return found


def _configuration(target: Target) -> Facts:
    """Return the kernel's configuration as a hash, and a few of its options."""
    text = kernel_config.of_running(target) or kernel_config.installed(target) or b""
    options = kernel_config.options(text)
    if not options:
        return {}
    # The name of a build is no difference of the kernel.
    told = sorted(f"{k}={v}" for k, v in options.items() if k != "LOCALVERSION")
    found: Facts = {"config.hash": _hash("\n".join(told))}
    return found | {f"config.{name}": options.get(name, "n") for name in _OPTIONS}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def rows(repeat: int, before: Facts, after: Facts) -> list[dict[str, Any]]:
    """Return the rows of the table for one repeat."""
    during = {
        name.replace("since_boot.", "during."): float(after[name]) - float(value)
        for name, value in before.items()
        if "since_boot." in name and name in after
    }
    found = []
    for moment, facts in (("before", before), ("after", after), ("during", during)):
        for name, value in facts.items():
            if "since_boot." in name:
                continue
            number = None if isinstance(value, str) else float(value)
            word = value if isinstance(value, str) else None
            found.append(
                {"repeat": repeat, "moment": moment, "fact": name, "number": number, "word": word}
            )
    return found
