# SPDX-License-Identifier: GPL-2.0-only
"""The layout of a census file: that of analysis/probe/census.h, as NumPy structured dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"VMACENS\0"
FORMAT = 3
BYTE_ORDER = 0x01020304

SLAB = np.dtype(
    [
        ("active", "u8"),
        ("objects", "u8"),
        ("object_size", "u8"),
        ("slabs", "u8"),
        ("slab_size", "u8"),
    ]
)
HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("format", "u4"),
        ("byte_order", "u4"),
        ("header_size", "u4"),
        ("record_size", "u4"),
        ("page_size", "u4"),
        ("pages_how", "u4"),
        ("start_ns", "u8"),
        ("end_ns", "u8"),
        ("start_monotonic_ns", "u8"),
        ("end_monotonic_ns", "u8"),
        ("vmas", "u8"),
        ("mms", "u4"),
        ("processes", "u4"),
        ("ops", "u4"),
        ("strings", "u4"),
        ("mms_changed", "u4"),
        ("mms_vanished", "u4"),
        ("mms_late", "u4"),
        ("paths_lost", "u4"),
        ("scans_failed", "u4"),
        ("mms_unwatched", "u4"),
        ("went_on", "u4"),
        ("links_lost", "u4"),
        ("links", "u8"),
        ("anon_vma_slab", SLAB),
        ("anon_vma_chain_slab", SLAB),
        ("release", "S64"),
        ("boot_id", "S40"),
        ("arch", "S16"),
    ]
)
PAGE_COUNTS = ("present", "zero", "swapped", "huge", "guard")
RECORD = np.dtype(
    [
        ("start", "u8"),
        ("end", "u8"),
        ("pgoff", "u8"),
        ("flags", "u8"),
        ("ino", "u8"),
        *((name, "u8") for name in PAGE_COUNTS),
        ("mm", "u4"),
        ("tgid", "u4"),
        ("tid", "u4"),
        ("dev", "u4"),
        ("path", "u4"),
        ("name", "u4"),
        ("ops", "u2"),
        ("prot", "u1"),
        ("bits", "u1"),
        ("apart", "u2"),
        ("reserved", "u2"),
        ("comm", "S16"),
    ]
)
MM = np.dtype(
    [
        ("mm", "u4"),
        ("tgid", "u4"),
        ("tid", "u4"),
        ("tasks", "u4"),
        ("bits", "u4"),
        ("attempts", "u4"),
        ("vmas", "u8"),
        ("comm", "S16"),
    ]
)
PROCESS = np.dtype([("tgid", "u4"), ("mm", "u4"), ("comm", "S16")])
OPS = np.dtype([("id", "u4"), ("how", "u4"), ("name", "u4"), ("reserved", "u4")])
LINK = np.dtype(
    [
        ("vma", "u8"),
        ("anon_vma", "u8"),
        ("root", "u8"),
        ("parent", "u8"),
        ("num_children", "u4"),
        ("num_active_vmas", "u4"),
        ("own", "u4"),
        ("reserved", "u4"),
    ]
)
STRING = np.dtype([("id", "u4"), ("length", "u4")])

HAS_OPS, HAS_ANON, HAS_FILE, HEAP, STACK, SPECIAL, PATH_LOST, INTERNAL_MOUNT = (
    1 << i for i in range(8)
)
MM_CHANGED, MM_UNWATCHED, MM_LEADER_GONE = 1, 2, 4
OPS_EMPTY = 4
PAGES_HOW = ("not looked at", "PAGEMAP_SCAN", "pagemap and kpageflags")
VM_HUGETLB = 0x400000
UNKNOWN = np.uint64(0xFFFFFFFFFFFFFFFF)
LINK_UNKNOWN = np.uint32(0xFFFFFFFF)

Columns = dict[str, npt.NDArray[Any]]
