# SPDX-License-Identifier: GPL-2.0-only
"""The regime of a kernel: which lock its page faults take, found by taking some.

Two workloads of a few thousand pages each, on two threads:

- *reading* through many small mappings: every fault is on a bare VMA, and leaves it bare;
- *writing* through small mappings: only the first fault of each VMA is on a bare one.

The regime follows from how many of the faults took mmap_lock. A kernel without per-VMA locks takes
it for all of both; one with the early check for all of the reading ones and one of each VMA
written; one with the delayed check for none of the reading ones and, by trying, one of each VMA
written. A version says none of this: distributions backport.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from anonvma.base import paths
from anonvma.probe.vmaprobe import Vmaprobe, own_sentence
from anonvma.target.local import Local
from anonvma.target.target import Target

_TASKS = 2
_PAGES = 1024  # of each task, whatever the size of a page is there
# The latter below a huge page, so that none is used; of its 16 pages the first alone needs an
# anon_vma.
_EXPERIMENTS = {
    "reading": ["--case", "small-allocs-mt"],
    "writing": ["--case", "anon-w-seq-mt", "--unit", "16p"],
}
# The share of faults under mmap_lock above which it is "all", and below which it is "hardly any".
# Between lie 1/16 for the first fault of each VMA written, and the faults of starting a program.
_ALL, _HARDLY_ANY = 0.8, 0.2

_SHARES = {
    # reading, writing
    (True, True): "none",
    (True, False): "early",
    (False, False): "delayed",
}


class Regime(NamedTuple):
    """Which lock page faults take.

    Attributes
    ----------
    name : str or None
        ``none`` (no per-VMA locks), ``early``, ``delayed``; None where it could not be observed.
    evidence : str
        What was counted; or why nothing could be, and what would enable it.
    """

    name: str | None
    evidence: str


NO_PRIVILEGE = Regime(
    None, "not observed: counting needs privilege; run as root, or with sudo without a password"
)


class _Counts(NamedTuple):
    """What was counted while one of the workloads ran."""

    faults: int
    under_mmap_lock: int | None  # None: the tracepoint is not there
    aborts: int | None  # None: the kernel has no vma_lock_abort
    successes: int | None


_observed: weakref.WeakKeyDictionary[Target | type[Local], Regime] = weakref.WeakKeyDictionary()


def of(target: Target) -> Regime:
    """Return the regime of a target's kernel, which stays the same while the target is there.

    This machine is there as long as we are, however often it becomes a target. What could not be
    observed is tried again.
    """
    key = Local if type(target) is Local else target
    found = _observed.get(key) or observe(target)
    if found.name is not None:
        _observed[key] = found
    return found


def observe(target: Target) -> Regime:
    """Return the regime of a target's kernel.

    Takes about a second, ten times that under TCG; needs privilege.

    Raises
    ------
    TargetError
        When the programs cannot be run there at all.
    """
    probe = Vmaprobe(target)
    vmload = target.push(paths.program("vmload", target.programs))
    counts: dict[str, _Counts] = {}
    for name, options in _EXPERIMENTS.items():
        command = [vmload, *options, "-t", str(_TASKS), f"{_PAGES}p"]
        found = _count(target, probe, command)
        if isinstance(found, str):
            return Regime(None, f"not observed: {found}")
        counts[name] = found
    return _judge(counts)


def _count(target: Target, probe: Vmaprobe, command: Sequence[str]) -> _Counts | str:
    """Run one workload and count; or return why that is not possible."""
    before = _vma_locks(target)
    words = [*target.as_caller(), *command]
    done = probe.run("locks", "--", *words, timeout=120)
    after = _vma_locks(target)
    aborts = successes = None
    if after:
        aborts, successes = (
            after[name] - before[name] for name in ("vma_lock_abort", "vma_lock_success")
        )
    if done.returncode == 0:
        told = json.loads(done.stdout)
        return _Counts(told["minor_faults"], told["mmap_lock_read"], aborts, successes)
    if not after:
        lacking = own_sentence(done.stderr)
        if lacking is None:  # nothing that the kernel lacks: what ran was killed, or failed
            return f"{_ended(done.returncode)} while its acquisitions of mmap_lock were counted"
        return f"{lacking}; a kernel with CONFIG_PER_VMA_LOCK_STATS=y would do as well"
    return _count_without_tracepoint(target, command, before)


def _count_without_tracepoint(
    target: Target, command: Sequence[str], before: dict[str, int]
) -> _Counts | str:
    """Count by the kernel's statistics, which are of the whole machine."""
    done = target.run([*target.as_caller(), *command], timeout=120)
    if done.returncode:
        return f"{_ended(done.returncode)} while the kernel counted"
    after = _vma_locks(target)
    faults = _TASKS * _PAGES
    abort, success = (after[n] - before[n] for n in ("vma_lock_abort", "vma_lock_success"))
    return _Counts(faults, None, abort, success)


def _ended(status: int) -> str:
    """Return how a workload, or the vmaprobe around it, ended that did not succeed."""
    if status < 0:
        return f"vmaprobe was killed by signal {-status}"
    if status > 128:  # as a shell ends, and vmaprobe
        return f"vmload was killed by signal {status - 128}"
    return f"vmload failed with exit status {status}"


def _vma_locks(target: Target) -> dict[str, int]:
    """Return the kernel's own statistics of per-VMA locks; empty where it keeps none."""
    lines = target.read("/proc/vmstat").decode().splitlines()
    pairs = (line.split() for line in lines if line.startswith("vma_lock_"))
    return {name: int(value) for name, value in pairs}


def _judge(counts: dict[str, _Counts]) -> Regime:
    evidence = "; ".join(_sentence(name, count) for name, count in counts.items())
    many = [_is_all(count) for count in counts.values()]
    if None in many:
        return Regime(None, f"not observed, the counts are mixed: {evidence}")
    name = _SHARES.get((bool(many[0]), bool(many[1])))
    if name is None:
        return Regime(None, f"not observed, the counts fit no regime that is known: {evidence}")
    return Regime(name, evidence)


def _is_all(count: _Counts) -> bool | None:
    """Tell whether nearly all faults took mmap_lock, or hardly any (False); None if neither."""
    locked = count.aborts if count.under_mmap_lock is None else count.under_mmap_lock
    assert locked is not None
    share = locked / max(count.faults, 1)
    return True if share > _ALL else False if share < _HARDLY_ANY else None


def _sentence(name: str, count: _Counts) -> str:
    parts = []
    if count.under_mmap_lock is not None:
        parts.append(f"mmap_lock was taken for reading {count.under_mmap_lock:,} times")
    if count.aborts is not None:
        parts.append(
            f"on the whole machine vma_lock_abort +{count.aborts:,} and vma_lock_success "
            f"+{count.successes:,}"
        )
    what = {"reading": "reading bare VMAs", "writing": "writing"}[name]
    return f"{what}, {count.faults:,} faults: {', '.join(parts)}"
