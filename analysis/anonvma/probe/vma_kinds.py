# SPDX-License-Identifier: GPL-2.0-only
"""What a VMA is: its origin, by how it came to be, and why it is bare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.probe import census_layout
from anonvma.run.vocabulary import APART, CLASSES

_THREAD_STACK_GUARD_MAX = 1 << 20
_THREAD_STACK_MIN = 16384  # PTHREAD_STACK_MIN: smaller ones with a guard are signal stacks

ORIGINS = (
    "private anonymous",
    "private /dev/zero",
    "heap",
    "stack",
    "thread stack",
    "stack guard",
    "named anonymous",
    "driver without vm_ops",
    "vdso and vvar",
    "hugetlb",
    "shared anonymous",
    "memfd",
    "SysV shm",
    "anonymous inode",
    "private file",
    "shared file",
    "driver",
)
_ORIGIN = {name: code for code, name in enumerate(ORIGINS)}

# What makes a bare VMA "other", in the order in which it is asked.
NOTES = (
    "pages not looked at",
    "guard markers",
    "swap entries or markers",
    "pages that are not the zero page",
)


def categorical(codes: npt.NDArray[Any], names: Iterable[str]) -> pd.Categorical:
    """Codes may be many, names repeat: merge equal names into one category, -1 stays null."""
    codes = codes.astype(np.int32)
    merged: dict[str, int] = {}
    table = np.array([merged.setdefault(name, len(merged)) for name in names] + [-1], np.int32)
    return pd.Categorical.from_codes(table[codes], categories=pd.Index(list(merged), dtype="str"))


def classify(
    columns: census_layout.Columns, bare: npt.NDArray[np.bool_]
) -> tuple[pd.Categorical, pd.Categorical]:
    """Why a bare VMA is bare, and for `other` what was found."""
    present, zero = columns["present"], columns["zero"]
    guard, swapped = columns["guard"], columns["swapped"]
    note = np.full(len(bare), -1, np.int8)
    note[present != zero] = NOTES.index("pages that are not the zero page")
    note[swapped > 0] = NOTES.index("swap entries or markers")
    note[(guard > 0) & (guard != census_layout.UNKNOWN)] = NOTES.index("guard markers")
    note[present == census_layout.UNKNOWN] = NOTES.index("pages not looked at")
    no_access = (columns["prot"] & 7) == 0
    note[no_access | ~bare] = -1
    kind = np.full(len(bare), CLASSES.index("untouched"), np.int8)
    kind[zero > 0] = CLASSES.index("zero-page")
    kind[note >= 0] = CLASSES.index("other")
    kind[no_access] = CLASSES.index("guard")
    kind[~bare] = -1
    return categorical(kind, CLASSES), categorical(note, NOTES)


_ADJACENT = 1 << 15


def why_apart(tests: npt.NDArray[np.uint16]) -> tuple[pd.Categorical, pd.arrays.BooleanArray]:
    """Name the first test of the kernel's that a VMA and the one right below fail.

    And whether it is the only one. Null where no VMA lies right below.
    """
    adjacent = (tests & _ADJACENT) != 0
    failed = tests & np.uint16(_ADJACENT - 1)
    lowest = failed & (~failed + np.uint16(1))
    code = np.full(len(tests), len(APART) - 1, np.int8)
    code[failed != 0] = np.log2(lowest[failed != 0]).astype(np.int8)
    code[~adjacent] = -1
    return categorical(code, APART), pd.arrays.BooleanArray(failed == lowest, ~adjacent)


def origin_of_file(path: str) -> str:
    """How the private mapping of a file with vm_ops came to be, by the file's name."""
    if path == "/dev/zero (deleted)":  # shmem_zero_setup()
        return "shared anonymous"
    if path.startswith("/dev/") and not path.startswith("/dev/shm/"):
        return "driver"
    for prefix, origin in (
        ("/memfd:", "memfd"),
        ("/SYSV", "SysV shm"),
        ("anon_inode:", "anonymous inode"),
    ):
        if path.startswith(prefix):
            return origin
    return "private file"


def origins(columns: census_layout.Columns, path: pd.Categorical) -> npt.NDArray[np.int8]:
    """How each mapping came to be: the later rule wins."""
    bits, prot = columns["bits"], columns["prot"]
    no_ops, no_file = (bits & census_layout.HAS_OPS) == 0, (bits & census_layout.HAS_FILE) == 0
    plain = no_ops & no_file
    stack, guard = _thread_stacks(columns, plain)
    # Asked once a distinct path; the last one is for VMAs without.
    by_path = np.array([_ORIGIN[origin_of_file(p)] for p in path.categories] + [-1], np.int8)
    dev_zero = np.array([p == "/dev/zero" for p in path.categories] + [False], bool)
    origin: npt.NDArray[np.int8] = by_path[path.codes]
    origin[(origin == _ORIGIN["private file"]) & ((prot & 8) != 0)] = _ORIGIN["shared file"]
    for rows, name in (
        (no_file, "driver"),
        ((columns["flags"] & np.uint64(census_layout.VM_HUGETLB)) != 0, "hugetlb"),
        (no_ops, "driver without vm_ops"),
        (no_ops & dev_zero[path.codes], "private /dev/zero"),
        (plain, "private anonymous"),
        (stack, "thread stack"),
        (guard, "stack guard"),
        (plain & (columns["name"] != 0), "named anonymous"),
        (plain & ((bits & census_layout.HEAP) != 0), "heap"),
        (plain & ((bits & census_layout.STACK) != 0), "stack"),
        ((bits & census_layout.SPECIAL) != 0, "vdso and vvar"),
    ):
        origin[rows] = _ORIGIN[name]
    return origin


def _thread_stacks(
    columns: census_layout.Columns, plain: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Anonymous memory with a small inaccessible guard right below it.

    That is how pthread_create(3) lays out a stack; the kernel keeps no note of it
    (MAP_STACK is a hint only), so this is a rule of thumb.
    """
    start, end, prot, mm = (columns[name] for name in ("start", "end", "prot", "mm"))
    size = end - start
    below = plain[:-1] & ((prot[:-1] & 7) == 0) & (size[:-1] <= _THREAD_STACK_GUARD_MAX)
    above = plain[1:] & ((prot[1:] & 3) == 3) & (size[1:] >= _THREAD_STACK_MIN)
    pair = below & above & (end[:-1] == start[1:]) & (mm[:-1] == mm[1:])
    stack, guard = np.zeros(len(plain), bool), np.zeros(len(plain), bool)
    stack[1:] = pair
    guard[:-1] = pair
    return stack, guard


# Bits of struct kind_key (analysis/probe/faults.h), which has those of census.h, too.
_OWN_STACK, _NAMED, _DEV_ZERO, _DEVICE = 1 << 8, 1 << 9, 1 << 10, 1 << 11
_SHARED = 8


def origin_of_kind(kind: Mapping[str, Any]) -> str:
    """How the VMAs of a kind came to be, by the rules of the census."""
    bits, name = kind["bits"], kind["file"] or ""
    if (kind["vm_ops"] or "").startswith("special_mapping"):
        return "vdso and vvar"
    if kind["flags"] & census_layout.VM_HUGETLB:
        return "hugetlb"
    if not bits & census_layout.HAS_OPS:
        return _anonymous_origin(bits)
    if not bits & census_layout.HAS_FILE or bits & _DEVICE:
        return "driver"
    # The whole path is not looked up inside a fault; these names tell as much.
    path = "/dev/zero (deleted)" if name == "dev/zero" else f"/{name}"
    origin = "anonymous inode" if name.startswith("[") else origin_of_file(path)
    return "shared file" if origin == "private file" and kind["prot"] & _SHARED else origin


def _anonymous_origin(bits: int) -> str:
    if bits & census_layout.HAS_FILE:
        return "private /dev/zero" if bits & _DEV_ZERO else "driver without vm_ops"
    for bit, origin in (
        (census_layout.STACK, "stack"),
        (census_layout.HEAP, "heap"),
        (_NAMED, "named anonymous"),
        (_OWN_STACK, "thread stack"),
    ):
        if bits & bit:
            return origin
    return "private anonymous"
