# SPDX-License-Identifier: GPL-2.0-only
"""The schemas of the tables of locks: who acquired them, who waited, and what a fork held."""

from __future__ import annotations

import pyarrow as pa

from anonvma.run import vocabulary
from anonvma.run.fields import BUCKETS, TEXT, WHO, choice, count, field, table, text

LOCK_SCHEMAS: dict[str, pa.Schema] = {
    "locks": table(
        "One row per group of like acquisitions of mmap_lock while the workload ran; process 0 "
        "is everything outside of the workload.",
        *WHO,
        text("asked_by", "who took it, by a function on the kernel's stack"),
        choice("mode", "read or write"),
        field(
            "waited_for",
            pa.bool_(),
            "",
            "whether it was asked for, be it by trying; false: kept of one held for writing",
        ),
        field("success", pa.bool_(), "", "whether it was got"),
        field("foreign", pa.bool_(), "", "whether it is another process's lock"),
        count("count", "how often it was so"),
        count("contended", "of these, how often it was contended"),
        field("wait_ns", pa.int64(), "ns", "from asking to the answer, summed"),
        field("longest_ns", pa.int64(), "ns", "the longest of these"),
        field("log2_ns", BUCKETS, "", "how many waited 1 ns, 2 to 3, 4 to 7, ..."),
    ),
    "contended": table(
        "One row per group of like acquisitions of one contended lock; of VMA "
        "locks for writing, where the kernel shows them, also of those that were free.",
        *WHO,
        text("asked_by", "who asked for it, by a function on the kernel's stack"),
        text("lock", "what it is, or its symbol: " + ", ".join(vocabulary.LOCKS)),
        choice("type", "perf lock's word for its type: spinlock, rwsem:R, rwsem:W, mutex, ..."),
        text("function", "that asked for it, the innermost that is not of the lock itself"),
        field(
            "owner",
            pa.uint32(),
            "id",
            "what it belongs to, numbered as they came, a VMA anew with an anon_vma; 0: unknown",
        ),
        field("foreign", pa.bool_(), "", "of mmap_lock: whether it is another process's"),
        field("device", TEXT, "major:minor", "of the file it belongs to, null without one"),
        field("inode", pa.uint64(), "", "likewise, 0 without one"),
        text("file", "likewise, last component of its name, null without one"),
        field("start", pa.uint64(), "address", "of the VMA it belongs to when first seen, or 0"),
        field("end", pa.uint64(), "address", "likewise"),
        text("origin", "how that VMA came to be, null without one"),
        choice("state", "what that VMA was then: " + ", ".join(vocabulary.STATES)),
        text("because_of", "what its holder was about; null where that is not known"),
        field("success", pa.bool_(), "", "whether it was got; false, too, of one only tried for"),
        count("count", "how often it was so"),
        count("contended", "of these, how often it was contended; all, but of VMA locks"),
        field("wait_ns", pa.int64(), "ns", "from finding it taken to having it, summed"),
        field("longest_ns", pa.int64(), "ns", "the longest of these"),
        field("log2_ns", BUCKETS, "", "how many waited 1 ns, 2 to 3, 4 to 7, ..."),
    ),
    "forks": table(
        "One row per fork of the workload: what it locked, copied and kept waiting; what cannot be "
        "seen on this kernel is null.",
        field("process", pa.uint32(), "id", "that forked"),
        field("child", pa.uint32(), "id", "its child, 0 where none came of it"),
        text("comm", "its name when it began"),
        field("held_ns", pa.int64(), "ns", "it held mmap_lock of the parent's mm"),
        count("vmas", "VMAs that were copied"),
        count("locked", "of these, seen to be locked for writing"),
        count("skipped", "of these, bare: their page tables were not copied"),
        count("shut_out", "tasks that waited meanwhile to read: page faults mostly"),
        field("shut_out_ns", pa.int64(), "ns", "they waited for it so long, summed"),
        field("longest_ns", pa.int64(), "ns", "the longest of these"),
        count("child_faults", "faults that the child was charged for, until its exec or its end"),
    ),
}
"""By the name of the table."""
