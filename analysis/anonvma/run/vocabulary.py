# SPDX-License-Identifier: GPL-2.0-only
"""The words that columns of a run's tables have, in the order in which vmaprobe numbers them."""

from __future__ import annotations

CLASSES = ("guard", "untouched", "zero-page", "other")
"""Why a VMA is bare."""

APART = (
    *("special", "policy", "flags", "file", "close", "userfaultfd", "name", "anon_vma"),
    *("fork child", "offset", "anonymous offset", "close", "nothing"),
)
"""Why two adjacent VMAs are not one: the kernel's tests, in their order (enum APART of census.h).

It asks for ``vm_ops->close`` in one of two places. ``nothing`` forbids it where no test fails: the
kernel asks only when one of the two is changed.
"""

STATES = ("no VMA", "bare", "anon_vma", "vm_ops", "vm_ops and anon_vma", "not looked at")
"""What a VMA is to a fault: the second is the object of the study, the third what it may become.

Of the last it is not known whether there was one: nothing was there to look at it in time.
"""
NOT_TOLD = "not told"
REASONS = (
    *(NOT_TOLD, "get_user_pages()", "access by the kernel", "no per-VMA locks", "nothing mapped"),
    *("stack growth", "VMA replaced", "VMA write-locked", "VMA detached", "bare VMA"),
    *("anon_vma, mmap_lock busy", "I/O", "userfaultfd", "vm_ops without map_pages", "other"),
)
"""Why a fault acquired mmap_lock, by the kernel's own tests; the first where none is shown.

A specimen takes exactly so many faults of each, but for two. ``VMA detached``: the kernel, which
finds a VMA detached, searches again (lock_vma_under_rcu()), so one that goes to mmap_lock was
detached after that, and no program can make it so. ``other`` is what none of these explains.
"""

CONTEXTS = (
    *("unknown", "user", "fault", "kernel fault", "mmap", "munmap", "brk", "mprotect"),
    *("mremap", "madvise", "fork", "exec", "exit", "other call"),
)
"""What a task is about, to the tracing of time."""

QUEUED = ("woken", "woken, behind others", "preempted", "preempted, behind others")
CPUS = ("running", "sleeping", *QUEUED)
"""What a task has of a processor, to the tracing of time; those in `QUEUED` wait for one."""

PAGE_FAULT = "page fault"
"""Who acquires mmap_lock, where that is a page fault: the word of locks.h for this caller."""

MMAP_LOCK, VMA_LOCK = "mmap_lock", "VMA lock"
LOCKS = (
    *(MMAP_LOCK, VMA_LOCK, "i_mmap_rwsem", "i_rwsem", "anon_vma", "page table"),
    *("page_table_lock", "zone", "lru_lock", "siglock", "other"),
)
"""What a contended lock is, by its address; anon_vma: the root of a family of them."""

TRACING_LOSSES = {
    "faults_lost": "faults for whose group the kernel's table had no room",
    "events_lost": "events that the ring buffer had no room for",
    "kinds_lost": "faults on VMAs of more kinds than there is room for",
    "tasks_lost": "tasks that could not be followed",
    "processes_lost": "programs more than can be told apart",
    "lost": "acquisitions of mmap_lock for whose group there was no room",
    "times_lost": "tasks for whose times there was no room",
    "waits_lost": "waits for locks by name of which the begin or the end was not seen",
    "forks_lost": "forks for which there was no room",
    "tallies_lost": "tasks whose acquisitions of mmap_lock no second count has",
    "faults_missed": "faults that the kernel charged to traced tasks and that no program saw",
    "half_seen": "faults that were counted, but of which nothing else was seen",
    "pending": "faults that had begun, and not ended, when the tracing did",
    "tasks_differ": "tasks with other faults counted than the kernel charged to them",
    "unaccounted": "faults by getrusage() that no task followed accounts for",
    "misses": "times that the kernel did not run a program of the tracer",
    "witness_differs": "acquisitions by which a histogram of the same tracepoint differs",
}
"""What a tracing may lose, in the order it is told."""

RECORDED_FROM_THE_FIRST = (
    "faults_lost",
    "events_lost",
    "kinds_lost",
    "tasks_lost",
    "processes_lost",
    "lost",
)
"""Those that runs of the first format have; of the others they say nothing, not 0."""
