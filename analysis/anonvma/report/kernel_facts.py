# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel does to anonymous memory, in sentences, each with the function that does it.

Checked against the sources of Linux 6.1.176, 6.12.117 and 7.3.4, and against the specimens, which
show the same on the kernel at hand. Where releases differ the release decides what is said; for
one that is not known (a run of another kernel's data), what holds for all.
"""

from __future__ import annotations

import re

EARLY_CHECK = (
    "On Linux 6.4 to 6.9 lock_vma_under_rcu() (mm/memory.c) turned away any bare VMA, so each page "
    "fault on one took mmap_lock, not only the first; since 6.10 vmf_anon_prepare() asks, and only "
    "where an anon_vma is needed."
)
"""The check that the mail deletes, and what took its place."""

REGIMES = {
    "none": "has no locks for VMAs: each page fault takes mmap_lock",
    "early": "checks early: lock_vma_under_rcu() turns away any bare VMA, and its page faults take "
    "mmap_lock",
    "delayed": "checks late: vmf_anon_prepare() asks, and only where an anon_vma is needed",
}
"""What a kernel of each regime does about bare VMAs, after its name."""

DEV_ZERO_WITHOUT_FILE = (
    "This kernel keeps no file for such a mapping: vm_file is NULL and the offset is that of the "
    "address, so nothing in a VMA tells it from memory mapped with MAP_ANONYMOUS, and neighbours "
    "merge. What is called private anonymous here has these mappings among it."
)
"""Of private /dev/zero, as was queued for the kernel in autumn 2026."""

PAGES_OF_ITS_OWN = (
    "A kernel of 6.1 to 7.3 prepares an anon_vma before it maps such a page; this one makes them "
    "later or does without, so that a NULL anon_vma does not say of it what is said here."
)
"""Of pages in a bare VMA that are not the zero page."""


def zero_page(release: str) -> str:
    """Say why reading leaves a VMA bare, and when it does not.

    Parameters
    ----------
    release : str
        Of the kernel, as uname(2) has it.
    """
    prepare = f"{_prepare(release)}()"
    return (
        "Why: do_anonymous_page() (mm/memory.c) answers a read fault with the shared zero page and "
        f"returns before {prepare}, so vma->anon_vma stays NULL however many pages are read. A "
        "write needs a page of its own and makes one. So does a read that is answered with a huge "
        f"page: do_huge_pmd_anonymous_page() (mm/huge_memory.c) calls {prepare} before it "
        "considers the huge zero page."
    )


def dev_zero(release: str) -> str:
    """Say why a private mapping of /dev/zero is anonymous although it is one of a file."""
    known = _version(release)
    if known is None or (6, 18) < known < (7, 3):  # converted to mmap_prepare on the way
        how = "drivers/char/mem.c leaves its vm_ops NULL"
    elif known <= (6, 18):
        how = "mmap_zero() (drivers/char/mem.c) calls vma_set_anonymous(), which clears vm_ops"
    else:
        how = "mmap_zero_prepare() (drivers/char/mem.c) calls vma_desc_set_anonymous()"
    return f"A private mapping of /dev/zero is such memory: {how}."


def _prepare(release: str) -> str:
    """Name what do_anonymous_page() gives a VMA its anon_vma by."""
    known = _version(release)
    return "anon_vma_prepare" if known is not None and known < (6, 10) else "vmf_anon_prepare"


def _version(release: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else None
