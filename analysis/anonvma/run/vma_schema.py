# SPDX-License-Identifier: GPL-2.0-only
"""The schemas of the tables of VMAs: specimens, the census, anon_vmas, and what bareness costs."""

from __future__ import annotations

import pyarrow as pa

from anonvma.run import vocabulary
from anonvma.run.fields import TEXT, WORD, count, field, string, table, text

VMA_SCHEMAS: dict[str, pa.Schema] = {
    "specimens": table(
        "One row per specimen: a mapping made and touched in one way, as its maker tells it.",
        string("kind", "what kind of mapping"),
        string("touch", "untouched, read, written, or read-written"),
        field("pid", pa.uint32(), "pid", "process it is in; null when missing"),
        field("start", pa.uint64(), "address", "of what was touched; null when missing"),
        field("end", pa.uint64(), "address", "first byte after it; null when missing"),
        string("made_by", "the call that made it"),
        string("explain", "what in the kernel decides about its anon_vma"),
        string("origin_note", "how the mapping came to be"),
        string("missing", "why it could not be made, else null"),
    ),
    "census": table(
        "One row per VMA, as the census found it.",
        field("mm", pa.uint32(), "id", "the mm_struct, numbered within this census"),
        field("tgid", pa.uint32(), "pid", "process through which the mm was read"),
        field("tid", pa.uint32(), "pid", "thread through which it was read"),
        text("comm", "name of the thread group's leader"),
        field("start", pa.uint64(), "address", "vm_start"),
        field("end", pa.uint64(), "address", "vm_end, first byte after it"),
        field("bytes", pa.uint64(), "bytes", "end - start"),
        field("flags", pa.uint64(), "bits", "vm_flags"),
        text("prot", "rwx and s(hared) or p(rivate), as /proc/PID/maps has it"),
        field("anonymous", pa.bool_(), "", "vm_ops == NULL"),
        field("vm_ops", TEXT, "symbol", "what identifies vm_ops, null when vm_ops is NULL"),
        field("anon_vma", pa.bool_(), "", "anon_vma != NULL"),
        field("bare", pa.bool_(), "", "anonymous and without anon_vma"),
        text("class", "why it is bare: " + ", ".join(vocabulary.CLASSES) + "; else null"),
        text("note", "what made the class 'other', else null"),
        text("origin", "how the mapping came to be"),
        field("device", TEXT, "major:minor", "of the file, as /proc/PID/maps has it"),
        field("inode", pa.uint64(), "", "of the file, 0 without one"),
        text("path", "of the file, null without one"),
        field("offset", pa.uint64(), "bytes", "vm_pgoff in bytes"),
        text("name", "PR_SET_VMA_ANON_NAME, or the special mapping's"),
        field("present", pa.uint64(), "pages", "pages mapped; null unless bare and looked at"),
        field("zero", pa.uint64(), "pages", "of these, the zero page"),
        field("swapped", pa.uint64(), "pages", "pages swapped out; of a VMA with an anon_vma, too"),
        field("huge", pa.uint64(), "pages", "present pages that are part of a huge one"),
        field(
            "guard", pa.uint64(), "pages", "guard markers (MADV_GUARD_INSTALL); null before 6.15"
        ),
        field(
            "apart",
            WORD,
            "",
            "why it is not one with the VMA right below it: the kernel's first test that fails, of "
            f"{', '.join(dict.fromkeys(vocabulary.APART))}; null where none lies there, or unknown",
            later=True,
        ),
        field("apart_alone", pa.bool_(), "", "whether no other test fails", later=True),
    ),
    "anon_vma_chains": table(
        "One row per anon_vma_chain in the census: a VMA that an anon_vma may have pages in.",
        field("mm", pa.uint32(), "id", "as in census"),
        field("tgid", pa.uint32(), "pid", "as in census"),
        text("comm", "as in census"),
        field("start", pa.uint64(), "address", "vm_start, by which census has the VMA"),
        field("anon_vma", pa.uint32(), "id", "the anon_vma, numbered within this census"),
        field("root", pa.uint32(), "id", "the anon_vma at the root of its tree"),
        field("parent", pa.uint32(), "id", "its parent, a root its own"),
        field("own", pa.bool_(), "", "whether it is the VMA's own, vma->anon_vma"),
        count("num_children", "of the anon_vma; a root counts itself; null if unknown"),
        count("num_active_vmas", "VMAs whose own it is, by the kernel's count; null likewise"),
    ),
    "slabs": table(
        "One row per slab cache of theirs: the line of /proc/slabinfo, of the whole machine.",
        string("cache", "anon_vma or anon_vma_chain"),
        count("active", "objects in use, or free in a slab of a processor's own"),
        count("objects", "objects there is room for"),
        field("object_size", pa.int64(), "bytes", "of one, with what lies between two"),
        count("slabs", "of the cache"),
        field("slab_size", pa.int64(), "bytes", "of one"),
    ),
    "consequences": table(
        "One row per operation on a VMA that is bare, or that differs from such a one in this "
        "alone: a page of it was written, and given back; for swap-out and KSM, all were written.",
        string("operation", "what was done to it"),
        field("bare", pa.bool_(), "", "whether it had no anon_vma"),
        count("trials", "how often, each on a VMA of its own; 0 where it could not be tried"),
        field("median_ns", pa.int64(), "ns", "of one operation"),
        field("reads", pa.float64(), "", "mmap_lock acquired for reading, per operation"),
        field("writes", pa.float64(), "", "and for writing; null where nothing could count them"),
        field("faults", pa.float64(), "", "page faults within one operation"),
        field("faults_after", pa.float64(), "", "and when each page was read afterwards"),
        count(
            "child_faults",
            "of the child of fork, reading each page, the fewest of all trials; else null",
        ),
        field("dumped", pa.int64(), "bytes", "of it in a core dump; else null"),
        count("pages", "of it swapped out, or merged by KSM; else null", later=True),
        count("vmas", "VMAs in its place afterwards"),
        field("anon_vma", pa.bool_(), "", "whether it, or the first of them, has an anon_vma then"),
        string(
            "error",
            "errno of the operation; where there was no trial, also what it lacks; else null",
        ),
    ),
}
