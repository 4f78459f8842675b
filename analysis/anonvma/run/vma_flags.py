# SPDX-License-Identifier: GPL-2.0-only
"""The bits of ``vm_flags`` by their names."""

from __future__ import annotations

# include/linux/mm.h; the lower 32 bits, which have kept their meaning since 4.x. Bits above are
# an architecture's or have moved, so they go by their number.
FLAGS = {
    "READ": 0,
    "WRITE": 1,
    "EXEC": 2,
    "SHARED": 3,
    "MAYREAD": 4,
    "MAYWRITE": 5,
    "MAYEXEC": 6,
    "MAYSHARE": 7,
    "GROWSDOWN": 8,
    "UFFD_MISSING": 9,
    "PFNMAP": 10,
    "UFFD_WP": 12,
    "LOCKED": 13,
    "IO": 14,
    "SEQ_READ": 15,
    "RAND_READ": 16,
    "DONTCOPY": 17,
    "DONTEXPAND": 18,
    "LOCKONFAULT": 19,
    "ACCOUNT": 20,
    "NORESERVE": 21,
    "HUGETLB": 22,
    "SYNC": 23,
    "WIPEONFORK": 25,
    "DONTDUMP": 26,
    "SOFTDIRTY": 27,
    "MIXEDMAP": 28,
    "HUGEPAGE": 29,
    "NOHUGEPAGE": 30,
    "MERGEABLE": 31,
}
"""Names of the bits of ``vm_flags``, without ``VM_``."""


def flag_names(flags: int) -> list[str]:
    """Return the names of the bits that are set, lowest first; ``bit N`` where there is none.

    Examples
    --------
    >>> flag_names(0x75)
    ['READ', 'EXEC', 'MAYREAD', 'MAYWRITE', 'MAYEXEC']
    """
    known = {number: name for name, number in FLAGS.items()}
    return [known.get(n, f"bit {n}") for n in range(64) if flags >> n & 1]
