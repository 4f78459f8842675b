// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of kinds. To add one, add a row: its steps are in specimen_steps.c.
 *
 * Each row names the kernel function that decides whether this mapping, touched this way, gets an
 * anon_vma. That is the path, as the source of Linux 6.12 has it; what comes of it is for the
 * census to observe. Before 6.10 anon_vma_prepare() stood where vmf_anon_prepare() is named.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "specimens.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08	/* Linux 6.11 */
#endif

#define U  (1U << UNTOUCHED)
#define R  (1U << READ)
#define W  (1U << WRITTEN)
#define RW (1U << READ_WRITTEN)

#define RDONLY PROT_READ
#define RDWR   (PROT_READ | PROT_WRITE)
#define ANON   (MAP_PRIVATE | MAP_ANONYMOUS)

/* The same sentence whatever the touch. */
#define ALWAYS(text) ((const char *const[NR_TOUCHES]){ text, text, text, text })

/* ---- the paths that many kinds share ---- */

#define NO_FAULT \
	"mmap_region() gives a new mapping no anon_vma, and neither a fault nor anything else " \
	"that would prepare one has come since"
#define ZERO_PAGE \
	"do_anonymous_page() maps the zero page for a read fault and returns before " \
	"vmf_anon_prepare()"
#define FRESH_PAGE \
	"do_anonymous_page() calls vmf_anon_prepare() before it allocates the page for a write " \
	"fault"
#define COPY_ZERO \
	"do_wp_page() finds the zero page under the write, and wp_page_copy() calls " \
	"vmf_anon_prepare() before it makes the copy"

static const char *const anonymous[NR_TOUCHES] = {
	[UNTOUCHED] = NO_FAULT,
	[READ] = ZERO_PAGE,
	[WRITTEN] = FRESH_PAGE,
	[READ_WRITTEN] = COPY_ZERO,
};

static const char *const shared[NR_TOUCHES] = {
	[UNTOUCHED] = "the mmap of a shared mapping sets vm_ops, and no fault has come since",
	[READ] = ("do_read_fault() maps the page of the file or of shmem itself and needs no "
		 "anon_vma"),
	[WRITTEN] = ("do_shared_fault() maps the page of the file or of shmem itself and needs no "
		 "anon_vma"),
	[READ_WRITTEN] = ("do_read_fault() maps the page itself, and a write to a shared mapping "
		 "ends in wp_page_shared() at most: neither needs an anon_vma"),
};

static const char *const private_file[NR_TOUCHES] = {
	[UNTOUCHED] = ("the file's mmap operation sets vm_ops; an anon_vma waits for the first "
		 "copy of a page"),
	[READ] = "do_read_fault() maps the page of the page cache read-only and needs no anon_vma",
	[WRITTEN] = ("do_cow_fault() calls vmf_anon_prepare() before it copies the page of the "
		 "page cache"),
	[READ_WRITTEN] = ("do_wp_page() finds the page of the page cache under the write, and "
		 "wp_page_copy() calls vmf_anon_prepare() before it makes the copy"),
};

#define HUGE_FAULT \
	"do_huge_pmd_anonymous_page() calls vmf_anon_prepare() before it asks whether the " \
	"fault reads, so even the huge zero page comes with an anon_vma"

static const char *const huge[NR_TOUCHES] = {
	[UNTOUCHED] = "hugepage_madvise() only sets VM_HUGEPAGE; no fault has come since",
	[READ] = HUGE_FAULT,
	[WRITTEN] = HUGE_FAULT,
	[READ_WRITTEN] = HUGE_FAULT,
};

#define UFFD_PREPARES \
	"uffd_lock_vma() calls anon_vma_prepare() for the destination of every fill, before " \
	"the ioctl decides between the zero page and a copy"

static const char *const protected_none[NR_TOUCHES] = {
	[UNTOUCHED] = ("mprotect_fixup() changes protection and leaves anon_vma alone: there was "
		 "none"),
	[READ] = ("mprotect_fixup() changes protection and leaves anon_vma alone: "
		 "do_anonymous_page() had mapped zero pages without one, and they stay mapped "
		 "though nobody may read them"),
	[WRITTEN] = ("mprotect_fixup() changes protection and leaves anon_vma alone: the write "
		 "fault had prepared one"),
};

static const char *const split[NR_TOUCHES] = {
	[UNTOUCHED] = ("__split_vma() calls anon_vma_clone() for the new piece, and the whole had "
		 "no anon_vma"),
	[READ] = ("__split_vma() calls anon_vma_clone() for the new piece, and the whole had only "
		 "zero pages and no anon_vma"),
	[WRITTEN] = ("__split_vma() calls anon_vma_clone(): each piece of a VMA with an anon_vma "
		 "has it too"),
};

static const char *const after_fork[NR_TOUCHES] = {
	[UNTOUCHED] = "anon_vma_fork() returns at once when the parent's VMA has no anon_vma",
	[READ] = ("anon_vma_fork() returns at once when the parent's VMA has no anon_vma, and "
		 "vma_needs_copy() then skips the page tables: the parent's zero pages do not "
		 "reach the child"),
	[WRITTEN] = ("anon_vma_fork() gives the child's VMA an anon_vma of its own below the "
		 "parent's"),
};

static const char *const wiped[NR_TOUCHES] = {
	[READ] = "dup_mmap() sets anon_vma to NULL for VM_WIPEONFORK and copies no page tables",
	[WRITTEN] = ("dup_mmap() sets anon_vma to NULL for VM_WIPEONFORK and copies no page "
		 "tables, whatever the parent had"),
};

static const char *const old_of_mremap[NR_TOUCHES] = {
	[UNTOUCHED] = ("copy_vma() has no anon_vma to clone for the new VMA, and the old one stays "
		 "as it was"),
	[READ] = ("copy_vma() has no anon_vma to clone for the new VMA, and move_page_tables() "
		 "takes the zero pages away from the old one"),
	[WRITTEN] = ("move_vma() calls unlink_anon_vmas() on the old VMA once all its page tables "
		 "have moved, so that a VMA that had an anon_vma has none again"),
};

static const char *const new_of_mremap[NR_TOUCHES] = {
	[UNTOUCHED] = "copy_vma() has no anon_vma to clone for the new VMA",
	[READ] = ("copy_vma() has no anon_vma to clone for the new VMA, and move_page_tables() "
		 "brings the zero pages across"),
	[WRITTEN] = "copy_vma() calls anon_vma_clone() for the new VMA",
};

static const char *const resized[NR_TOUCHES] = {
	[UNTOUCHED] = ("vma_merge_extend() stretches the VMA and leaves anon_vma alone: there was "
		 "none"),
	[READ] = ("vma_merge_extend() stretches the VMA and leaves anon_vma alone: reads had "
		 "prepared none"),
	[WRITTEN] = ("vma_merge_extend() stretches the VMA and leaves anon_vma alone: the write "
		 "fault had prepared one"),
};

static const char *const dropped[NR_TOUCHES] = {
	[READ] = "zap_page_range_single() removes the zero pages; reads had prepared no anon_vma",
	[WRITTEN] = ("zap_page_range_single() removes the pages, but only unmapping takes an "
		 "anon_vma away"),
};

static const char *const freed[NR_TOUCHES] = {
	[READ] = ("madvise_free_single_vma() leaves zero pages alone; reads had prepared no "
		 "anon_vma"),
	[WRITTEN] = ("madvise_free_single_vma() only marks the pages as lazily free and leaves "
		 "anon_vma alone"),
};

static const char *const filled_by_uffd[NR_TOUCHES] = {
	[UNTOUCHED] = UFFD_PREPARES,
	[READ] = UFFD_PREPARES,
	[WRITTEN] = UFFD_PREPARES,
};

static const char *const write_protected[NR_TOUCHES] = {
	[UNTOUCHED] = ("change_protection() leaves write-protect markers in the page tables and "
		 "prepares no anon_vma"),
	[READ] = ("do_anonymous_page() maps the zero page over the marker and returns before "
		 "vmf_anon_prepare()"),
};

static const char *const grown_heap[NR_TOUCHES] = {
	[UNTOUCHED] = ("do_brk_flags() extends the heap's VMA by vma_merge_new_range(), and the C "
		 "library has written to it"),
	[READ] = ("do_brk_flags() extends the heap's VMA by vma_merge_new_range(), and the C "
		 "library has written to it; the read itself maps the zero page"),
};

static const char *const heap[NR_TOUCHES] = {
	[UNTOUCHED] = ("is_mergeable_anon_vma() refuses a VMA whose anon_vma_chain came through "
		 "fork, so do_brk_flags() makes a new one beside the inherited heap, without an "
		 "anon_vma"),
	[READ] = ZERO_PAGE,
	[WRITTEN] = FRESH_PAGE,
	[READ_WRITTEN] = COPY_ZERO,
};

static const char *const locked_on_fault[NR_TOUCHES] = {
	[UNTOUCHED] = "populate_vma_page_range() does nothing for VM_LOCKONFAULT",
	[READ] = ZERO_PAGE,
	[WRITTEN] = FRESH_PAGE,
};

static const char *const mergeable[NR_TOUCHES] = {
	[UNTOUCHED] = "ksm_madvise() only sets VM_MERGEABLE; no fault has come since",
	[READ] = ZERO_PAGE,
	[WRITTEN] = FRESH_PAGE,
};

static const char *const expanded[NR_TOUCHES] = {
	[READ] = ("expand_downwards() calls anon_vma_prepare() before it moves vm_start, even for "
		 "a read"),
	[WRITTEN] = ("expand_downwards() calls anon_vma_prepare() before it moves vm_start, before "
		 "the fault itself would"),
};

#define POPULATE_WRITES \
	"populate_vma_page_range() takes write faults (FOLL_WRITE) in a writable private " \
	"mapping"
#define POPULATE_READS \
	"populate_vma_page_range() takes read faults where it may not write, and " \
	"do_anonymous_page() answers them with the zero page"

static const char *const merged_with_written[NR_TOUCHES] = {
	[UNTOUCHED] = ("vma_merge_new_range() extends the neighbour's VMA, since "
		 "is_mergeable_anon_vma() accepts one anon_vma of two"),
	[READ] = ("vma_merge_new_range() extends the neighbour's VMA, anon_vma and all; the read "
		 "then maps the zero page"),
};

static const char *const merged_with_read[NR_TOUCHES] = {
	[UNTOUCHED] = ("vma_merge_new_range() extends the neighbour's VMA, in which reads had "
		 "mapped zero pages and prepared no anon_vma"),
};

static const char *const merged_by_mprotect[NR_TOUCHES] = {
	[UNTOUCHED] = ("vma_merge_existing_range() joins the two VMAs, and dup_anon_vma() or the "
		 "neighbour's own gives the anon_vma to the whole"),
	[READ] = ZERO_PAGE ", in a VMA that has one from its neighbour",
};

static const char *const beside_devzero[NR_TOUCHES] = {
	[UNTOUCHED] = ("can_vma_merge_after() wants file offsets that go on, and both mappings "
		 "begin at 0: two VMAs, each with its own anon_vma or none"),
	[READ] = ZERO_PAGE "; find_mergeable_anon_vma() is not asked",
};

static const char *const split_from_written[NR_TOUCHES] = {
	[UNTOUCHED] = ("__split_vma() calls anon_vma_clone(): this piece has the anon_vma of the "
		 "whole though only the other was written"),
	[READ] = ("do_anonymous_page() maps the zero page, in a piece to which __split_vma() gave "
		 "the anon_vma of the whole"),
};

static const char *const split_then_written[NR_TOUCHES] = {
	[UNTOUCHED] = ("__anon_vma_prepare() serves only the VMA that faults; this piece had been "
		 "split off before"),
	[READ] = ZERO_PAGE "; the other piece's anon_vma came after the split",
};

#define TAKES_NO_FAULT \
	"nothing can fault here: the VMA allows no access, and mmap_region() and __split_vma() " \
	"found no anon_vma to give it"

/* ---- the kinds ---- */

const struct kind kinds[] = {
	/* private memory, plainly mapped */
	{ .name = "private-anonymous", .origin_note = "private anonymous memory",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS)", .touches = U | R | W | RW, .prot = RDWR,
	  .flags = ANON,
	  .explain = anonymous },
	{ .name = "private-anonymous-readonly",
	  .origin_note = "private anonymous memory without write permission",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS)", .touches = U | R,
	  .prot = RDONLY, .flags = ANON,
	  .explain = anonymous },
	{ .name = "private-devzero", .origin_note = "private mapping of /dev/zero",
	  .made_by = "mmap(MAP_PRIVATE, fd of /dev/zero)", .touches = U | R | W | RW, .prot = RDWR,
	  .flags = MAP_PRIVATE, .file = open_devzero,
	  .explain = anonymous },
	{ .name = "private-devzero-readonly",
	  .origin_note = "private mapping of /dev/zero without write permission, as "
			"small-allocs-mt makes it",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE, fd of /dev/zero)", .touches = U | R,
	  .prot = RDONLY, .flags = MAP_PRIVATE, .file = open_devzero,
	  .explain = anonymous },
	{ .name = "map-stack", .origin_note = "private anonymous memory meant as a stack",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE)",
	  .touches = U | R | W, .prot = RDWR, .flags = ANON | MAP_STACK | MAP_NORESERVE,
	  .explain = anonymous },
	{ .name = "droppable", .origin_note = "droppable anonymous memory",
	  .made_by = "mmap(MAP_DROPPABLE | MAP_ANONYMOUS)",
	  .needs = "Linux 6.11 or later", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_DROPPABLE | MAP_ANONYMOUS,
	  .explain = anonymous },
	{ .name = "named", .origin_note = "private anonymous memory with a name",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), prctl(PR_SET_VMA_ANON_NAME)",
	  .needs = "Linux 5.17 or later with CONFIG_ANON_VMA_NAME", .touches = U | R | W,
	  .prot = RDWR, .flags = ANON, .before = set_name,
	  .explain = anonymous },
	{ .name = "ksm-mergeable", .origin_note = "private anonymous memory open to KSM",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_MERGEABLE)",
	  .needs = "a kernel with CONFIG_KSM", .touches = U | R | W, .prot = RDWR, .flags = ANON,
	  .before = mark_mergeable,
	  .explain = mergeable },

	/* the parts of a process */
	{ .name = "brk", .origin_note = "heap that a forked child adds to the one it inherited",
	  .made_by = "fork(), brk()", .touches = U | R | W | RW, .fork_point = FORK_FIRST,
	  .map = extend_brk,
	  .explain = heap },
	{ .name = "brk-grown-heap", .origin_note = "heap, grown by brk",
	  .made_by = "brk()", .touches = U | R, .map = extend_brk,
	  .explain = grown_heap },
	{ .name = "stack", .origin_note = "stack of the main thread",
	  .made_by = "execve()", .touches = W, .map = find_stack, .touch_by = touch_nothing,
	  .explain = ALWAYS("execve() writes the argument strings by get_arg_page(), whose write "
			"fault prepares an anon_vma before the program runs") },
	{ .name = "thread-stack", .origin_note = "stack of a thread",
	  .made_by = "pthread_create()", .touches = W, .map = find_thread_stack,
	  .touch_by = touch_nothing,
	  .explain = anonymous },
	{ .name = "thread-stack-guard", .origin_note = "guard below the stack of a thread",
	  .made_by = "pthread_create()",
	  .needs = "a C library that guards thread stacks by PROT_NONE", .touches = U,
	  .map = find_thread_guard, .touch_by = touch_nothing,
	  .explain = ALWAYS(TAKES_NO_FAULT) },
	{ .name = "program-bss", .origin_note = "uninitialised data of a program",
	  .made_by = "execve()", .touches = W, .map = find_bss,
	  .explain = ALWAYS("vm_brk_flags() maps .bss as anonymous memory; from there "
			"do_anonymous_page() decides") },
	{ .name = "program-data", .origin_note = "initialised data of a program",
	  .made_by = "execve()", .touches = W, .map = find_data,
	  .explain = private_file },
	{ .name = "program-text", .origin_note = "code of a program",
	  .made_by = "execve()", .touches = R, .map = find_text, .touch_by = touch_nothing,
	  .explain = private_file },
	{ .name = "vdso", .origin_note = "vDSO",
	  .made_by = "execve()",
	  .needs = "an architecture with a vDSO", .touches = R, .map = find_vdso,
	  .explain = ALWAYS("_install_special_mapping() sets special_mapping_vmops, so the VMA is "
			"not anonymous") },
	{ .name = "vvar", .origin_note = "data of the vDSO",
	  .made_by = "execve()",
	  .needs = "an architecture with a [vvar] mapping", .touches = U, .map = find_vvar,
	  .explain = ALWAYS("_install_special_mapping() sets special_mapping_vmops, so the VMA is "
			"not anonymous") },

	/* protection, splits and merges */
	{ .name = "prot-none", .origin_note = "reserved address space",
	  .made_by = "mmap(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS)", .touches = U,
	  .prot = PROT_NONE, .flags = ANON | MAP_NORESERVE, .touch_by = touch_nothing,
	  .explain = ALWAYS(TAKES_NO_FAULT) },
	{ .name = "mprotect-none",
	  .origin_note = "private anonymous memory that lost its permissions after the touch",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, mprotect(PROT_NONE)",
	  .touches = U | R | W, .prot = RDWR, .flags = ANON, .after = protect_none,
	  .explain = protected_none },
	{ .name = "mprotect-split", .origin_note = "middle of a mapping, split off after the touch",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, mprotect(PROT_READ) of the middle",
	  .touches = U | R | W, .prot = RDWR, .flags = ANON, .after = split_middle,
	  .explain = split },
	{ .name = "split-from-written",
	  .origin_note = "second half of a mapping whose first half was written",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), write to the first half, "
			"mprotect(PROT_READ) of the second",
	  .touches = U | R, .prot = RDWR, .flags = ANON, .map = map_split_from_written,
	  .explain = split_from_written },
	{ .name = "split-from-read",
	  .origin_note = "second half of a mapping whose first half was read",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), read the first half, mprotect(PROT_READ) "
			"of the second",
	  .touches = U, .prot = RDWR, .flags = ANON, .map = map_split_from_read,
	  .explain = split },
	{ .name = "split-then-written",
	  .origin_note = "second half of a mapping, split off before the first half was written",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), mprotect(PROT_READ) of the second half, "
			"write to the first",
	  .touches = U | R, .prot = RDWR, .flags = ANON, .map = map_split_then_written,
	  .explain = split_then_written },
	{ .name = "merge-with-written", .origin_note = "mapping that joined a written neighbour",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS) right behind one that was written",
	  .touches = U | R, .prot = RDWR, .flags = ANON, .map = map_beside_written,
	  .explain = merged_with_written },
	{ .name = "merge-with-read",
	  .origin_note = "mapping that joined a neighbour that was only read",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS) right behind one that was read",
	  .touches = U, .prot = RDWR, .flags = ANON, .map = map_beside_read,
	  .explain = merged_with_read },
	{ .name = "merge-by-mprotect",
	  .origin_note = "mapping that mprotect joined to a written neighbour",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS) right behind one that was "
			"written, mprotect(PROT_READ | PROT_WRITE)",
	  .touches = U | R, .prot = RDWR, .flags = ANON, .map = map_mprotected_beside_written,
	  .explain = merged_by_mprotect },
	{ .name = "devzero-beside-written",
	  .origin_note = "private mapping of /dev/zero beside a written one, both at offset 0",
	  .made_by = "mmap(MAP_PRIVATE, fd of /dev/zero) right behind one that was written",
	  .touches = U | R, .prot = RDWR, .flags = MAP_PRIVATE, .file = open_devzero,
	  .map = map_beside_written,
	  .explain = beside_devzero },
	{ .name = "devzero-merge-by-offset",
	  .origin_note = "private mapping of /dev/zero that goes on where a written neighbour's "
			"offsets end",
	  .made_by = "mmap(MAP_PRIVATE, fd of /dev/zero, offset) right behind one that was written",
	  .touches = U | R, .prot = RDWR, .flags = MAP_PRIVATE, .file = open_devzero,
	  .map = map_behind_written,
	  .explain = merged_with_written },

	/* populated or locked by the kernel, before any touch of the process */
	{ .name = "populate-readonly",
	  .origin_note = "prefaulted anonymous memory without write permission",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE)", .touches = U,
	  .prot = RDONLY, .flags = ANON | MAP_POPULATE,
	  .explain = ALWAYS(POPULATE_READS) },
	{ .name = "populate-writable", .origin_note = "prefaulted anonymous memory",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE)", .touches = U, .prot = RDWR,
	  .flags = ANON | MAP_POPULATE,
	  .explain = ALWAYS(POPULATE_WRITES) },
	{ .name = "madv-populate-read", .origin_note = "anonymous memory prefaulted for reading",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_POPULATE_READ)",
	  .needs = "Linux 5.14 or later", .touches = U, .prot = RDWR, .flags = ANON,
	  .before = populate_read,
	  .explain = ALWAYS("faultin_page_range() takes read faults, and do_anonymous_page() "
			"answers them with the zero page") },
	{ .name = "madv-populate-write", .origin_note = "anonymous memory prefaulted for writing",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_POPULATE_WRITE)",
	  .needs = "Linux 5.14 or later", .touches = U, .prot = RDWR, .flags = ANON,
	  .before = populate_write,
	  .explain = ALWAYS("faultin_page_range() takes write faults, for which "
			"do_anonymous_page() calls vmf_anon_prepare()") },
	{ .name = "map-locked", .origin_note = "locked anonymous memory",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED)",
	  .needs = "a larger RLIMIT_MEMLOCK", .touches = U, .prot = RDWR,
	  .flags = ANON | MAP_LOCKED,
	  .explain = ALWAYS(POPULATE_WRITES) },
	{ .name = "map-locked-readonly",
	  .origin_note = "locked anonymous memory without write permission",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED)",
	  .needs = "a larger RLIMIT_MEMLOCK", .touches = U, .prot = RDONLY,
	  .flags = ANON | MAP_LOCKED,
	  .explain = ALWAYS(POPULATE_READS) },
	{ .name = "mlock", .origin_note = "anonymous memory, locked later",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), mlock()",
	  .needs = "a larger RLIMIT_MEMLOCK", .touches = U, .prot = RDWR, .flags = ANON,
	  .before = lock_pages,
	  .explain = ALWAYS(POPULATE_WRITES) },
	{ .name = "mlock-readonly",
	  .origin_note = "anonymous memory without write permission, locked later",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), mlock()",
	  .needs = "a larger RLIMIT_MEMLOCK", .touches = U, .prot = RDONLY, .flags = ANON,
	  .before = lock_pages,
	  .explain = ALWAYS(POPULATE_READS) },
	{ .name = "mlock-on-fault", .origin_note = "anonymous memory, locked as it is touched",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), mlock2(MLOCK_ONFAULT)",
	  .needs = "Linux 4.4 or later and a larger RLIMIT_MEMLOCK", .touches = U | R | W,
	  .prot = RDWR, .flags = ANON, .before = lock_on_fault,
	  .explain = locked_on_fault },

	/* huge pages */
	{ .name = "thp", .origin_note = "anonymous memory, aligned for a transparent huge page",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_HUGEPAGE)",
	  .needs = "CONFIG_TRANSPARENT_HUGEPAGE, and madvise or always in "
			"/sys/kernel/mm/transparent_hugepage/enabled",
	  .touches = U | R | W | RW, .prot = RDWR, .flags = ANON, .map = map_thp,
	  .explain = huge },
	{ .name = "thp-devzero",
	  .origin_note = "private mapping of /dev/zero, aligned for a transparent huge page",
	  .made_by = "mmap(MAP_PRIVATE, fd of /dev/zero), madvise(MADV_HUGEPAGE)",
	  .needs = "CONFIG_TRANSPARENT_HUGEPAGE, and madvise or always in "
			"/sys/kernel/mm/transparent_hugepage/enabled",
	  .touches = R | W, .prot = RDWR, .flags = MAP_PRIVATE, .file = open_devzero,
	  .map = map_thp,
	  .explain = huge },
	{ .name = "hugetlb-private", .origin_note = "private huge pages",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB)",
	  .needs = "free huge pages: set vm.nr_hugepages", .touches = U | R | W, .prot = RDWR,
	  .flags = ANON | MAP_HUGETLB, .map = map_hugetlb,
	  .explain = ALWAYS("hugetlbfs sets hugetlb_vm_ops, and hugetlb_no_page() calls "
			"vmf_anon_prepare() for a private mapping whether the fault reads "
			"or writes") },
	{ .name = "hugetlb-shared", .origin_note = "shared huge pages",
	  .made_by = "mmap(MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB)",
	  .needs = "free huge pages: set vm.nr_hugepages", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, .map = map_hugetlb,
	  .explain = ALWAYS("hugetlbfs sets hugetlb_vm_ops, and hugetlb_no_page() needs no "
			"anon_vma for a shared mapping") },

	/* pages given back */
	{ .name = "madv-dontneed",
	  .origin_note = "private anonymous memory whose pages were dropped after the touch",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, madvise(MADV_DONTNEED)",
	  .touches = R | W, .prot = RDWR, .flags = ANON, .after = drop_pages,
	  .explain = dropped },
	{ .name = "madv-free",
	  .origin_note = "private anonymous memory that the kernel may take back",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, madvise(MADV_FREE)",
	  .touches = R | W, .prot = RDWR, .flags = ANON, .after = free_pages,
	  .explain = freed },

	/* moved and grown */
	{ .name = "mremap-grow",
	  .origin_note = "private anonymous memory that grew after the touch",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, mremap() to twice the size",
	  .touches = U | R | W, .prot = RDWR, .flags = ANON, .after = grow_in_place,
	  .explain = resized },
	{ .name = "mremap-move",
	  .origin_note = "private anonymous memory that moved after the touch",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, mremap(MREMAP_FIXED)",
	  .touches = U | R | W, .prot = RDWR, .flags = ANON, .after = move_away,
	  .explain = new_of_mremap },
	{ .name = "mremap-dontunmap-old",
	  .origin_note = "mapping that stayed behind when its pages moved",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, mremap(MREMAP_DONTUNMAP): the old "
			"place",
	  .needs = "Linux 5.7 or later", .touches = U | R | W, .prot = RDWR, .flags = ANON,
	  .after = leave_old_behind,
	  .explain = old_of_mremap },
	{ .name = "mremap-dontunmap-new", .origin_note = "mapping that took another's pages",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, mremap(MREMAP_DONTUNMAP): the new "
			"place",
	  .needs = "Linux 5.7 or later", .touches = U | R | W, .prot = RDWR, .flags = ANON,
	  .after = move_to_new,
	  .explain = new_of_mremap },
	{ .name = "map-growsdown", .origin_note = "mapping that can grow downwards, and has not",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN)", .touches = U | R | W,
	  .prot = RDWR, .flags = ANON | MAP_GROWSDOWN,
	  .explain = anonymous },
	{ .name = "map-growsdown-grown", .origin_note = "mapping that grew downwards, as stacks do",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN), first touch one page "
			"below",
	  .touches = R | W, .prot = RDWR, .flags = ANON | MAP_GROWSDOWN, .map = map_grown_stack,
	  .explain = expanded },

	/* fork */
	{ .name = "fork-inherited",
	  .origin_note = "inherited by a child; the parent touched it before the fork",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, fork(): the child's",
	  .touches = U | R | W, .prot = RDWR, .flags = ANON, .fork_point = FORK_AFTER_TOUCH,
	  .explain = after_fork },
	{ .name = "fork-then-touched",
	  .origin_note = "inherited by a child untouched; the child touched it after the fork",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), fork(), touch: the child's",
	  .touches = R | W, .prot = RDWR, .flags = ANON, .fork_point = FORK_BEFORE_TOUCH,
	  .explain = anonymous },
	{ .name = "fork-wiped",
	  .origin_note = "inherited by a child empty; the parent touched it before the fork",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_WIPEONFORK), touch, fork(): "
			"the child's",
	  .needs = "Linux 4.14 or later", .touches = R | W, .prot = RDWR, .flags = ANON,
	  .fork_point = FORK_AFTER_TOUCH, .before = mark_wipe_on_fork,
	  .explain = wiped },

	/* touched by the kernel on the process's behalf */
	{ .name = "kernel-reads-write2", .origin_note = "buffer that write(2) read from",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), write() to a memfd from it", .touches = R,
	  .prot = RDWR, .flags = ANON, .touch_by = touch_by_write2,
	  .explain = ALWAYS("write(2) reads the buffer by ordinary read faults in kernel mode, "
			"which handle_mm_fault() treats like the process's own: "
			"do_anonymous_page() maps the zero page") },
	{ .name = "kernel-reads-o-direct", .origin_note = "buffer that an O_DIRECT write read from",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), write() to an O_DIRECT file from it",
	  .needs = "a file system with O_DIRECT for temporary files: set TMPDIR", .touches = R,
	  .prot = RDWR, .flags = ANON, .touch_by = touch_by_o_direct,
	  .explain = ALWAYS("pin_user_pages_fast() without FOLL_WRITE takes read faults, and "
			"gup_must_unshare() lets a short pin have the zero page") },
	{ .name = "kernel-reads-process-vm",
	  .origin_note = "memory that process_vm_readv read from",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), process_vm_readv() from it", .touches = R,
	  .prot = RDWR, .flags = ANON, .touch_by = touch_by_process_vm_readv,
	  .explain = ALWAYS("process_vm_rw_single_vec() pins without FOLL_WRITE: faultin_page() "
			"takes read faults") },
	{ .name = "kernel-reads-proc-mem",
	  .origin_note = "memory that /proc/PID/mem was read at, as a debugger does",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), read of /proc/self/mem", .touches = R,
	  .prot = RDWR, .flags = ANON, .touch_by = touch_by_proc_mem_read,
	  .explain = ALWAYS("access_remote_vm() gets the pages without FOLL_WRITE: faultin_page() "
			"takes read faults") },
	{ .name = "kernel-writes-read2", .origin_note = "buffer that read(2) wrote to",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), read() from /dev/zero into it",
	  .touches = W, .prot = RDWR, .flags = ANON, .touch_by = touch_by_read2,
	  .explain = ALWAYS("read(2) fills the buffer by ordinary write faults in kernel mode, for "
			"which do_anonymous_page() calls vmf_anon_prepare()") },
	{ .name = "kernel-writes-process-vm",
	  .origin_note = "memory that process_vm_writev wrote to",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), process_vm_writev() to it", .touches = W,
	  .prot = RDWR, .flags = ANON, .touch_by = touch_by_process_vm_writev,
	  .explain = ALWAYS("process_vm_rw_single_vec() pins with FOLL_WRITE: faultin_page() takes "
			"write faults") },
	{ .name = "kernel-writes-readonly",
	  .origin_note = "memory without write permission that /proc/PID/mem wrote to, as a "
			"debugger does",
	  .made_by = "mmap(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), write to /proc/self/mem",
	  .needs = "a kernel that lets /proc/PID/mem override protection", .touches = W,
	  .prot = RDONLY, .flags = ANON, .touch_by = touch_by_proc_mem_write,
	  .explain = ALWAYS("mem_rw() uses FOLL_FORCE, check_vma_flags() lets it write where the "
			"process may not, and do_anonymous_page() sees a write fault") },
	{ .name = "futex-shared", .origin_note = "memory that a shared futex was looked up in",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), futex(FUTEX_WAKE) on its first word",
	  .touches = U, .prot = RDWR, .flags = ANON, .before = wake_shared_futex,
	  .explain = ALWAYS("get_futex_key() gets the page of a shared futex with FOLL_WRITE, "
			"though it writes nothing") },
	{ .name = "io-uring-buffer", .origin_note = "buffer registered with io_uring",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), "
			"io_uring_register(IORING_REGISTER_BUFFERS)",
	  .needs = "io_uring allowed, and a larger RLIMIT_MEMLOCK", .touches = U, .prot = RDWR,
	  .flags = ANON, .before = register_io_uring_buffer,
	  .explain = ALWAYS("io_pin_pages() pins with FOLL_WRITE | FOLL_LONGTERM: faultin_page() "
			"takes write faults") },

	/* userfaultfd and guard markers */
	{ .name = "userfaultfd-registered", .origin_note = "memory watched by userfaultfd",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), ioctl(UFFDIO_REGISTER)",
	  .needs = "userfaultfd allowed", .touches = U, .prot = RDWR, .flags = ANON,
	  .before = register_uffd,
	  .explain = ALWAYS("userfaultfd_register() only sets VM_UFFD_MISSING; no fault has come "
			"since") },
	{ .name = "userfaultfd-zeropage",
	  .origin_note = "memory that userfaultfd filled with the zero page",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), ioctl(UFFDIO_ZEROPAGE)",
	  .needs = "userfaultfd allowed", .touches = U | R | W, .prot = RDWR, .flags = ANON,
	  .before = fill_uffd_zeropage,
	  .explain = filled_by_uffd },
	{ .name = "userfaultfd-copy", .origin_note = "memory that userfaultfd filled with a copy",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), ioctl(UFFDIO_COPY)",
	  .needs = "userfaultfd allowed", .touches = U | R | W, .prot = RDWR, .flags = ANON,
	  .before = fill_uffd_copy,
	  .explain = filled_by_uffd },
	{ .name = "userfaultfd-wp",
	  .origin_note = "memory that userfaultfd protects against writes, though nothing is in it",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), ioctl(UFFDIO_WRITEPROTECT)",
	  .needs = "Linux 6.4 or later with userfaultfd write protection", .touches = U | R,
	  .prot = RDWR, .flags = ANON, .before = protect_uffd,
	  .explain = write_protected },
	{ .name = "guard-markers", .origin_note = "memory full of guard markers",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_GUARD_INSTALL)",
	  .needs = "Linux 6.13 or later", .touches = U, .prot = RDWR, .flags = ANON,
	  .before = install_guards, .touch_by = touch_nothing,
	  .explain = ALWAYS("madvise_guard_install() calls anon_vma_prepare() before it installs "
			"markers, so that fork copies them") },
	{ .name = "guard-markers-removed", .origin_note = "memory whose guard markers were removed",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), madvise(MADV_GUARD_INSTALL), "
			"madvise(MADV_GUARD_REMOVE)",
	  .needs = "Linux 6.13 or later", .touches = U | R, .prot = RDWR, .flags = ANON,
	  .before = install_and_remove_guards,
	  .explain = ALWAYS("madvise_guard_install() called anon_vma_prepare(); "
			"madvise_guard_remove() takes only the markers away") },

	/* faults that their VMA's lock will not do for */
	{ .name = "mapped-after-faults",
	  .origin_note = "memory in whose place nothing was mapped when it was touched",
	  .made_by = "munmap(), touch, mmap(MAP_PRIVATE | MAP_ANONYMOUS)", .touches = U,
	  .prot = RDWR, .flags = ANON, .before = unmap_all, .touch_by = touch_nothing_mapped,
	  .after = map_again,
	  .explain = ALWAYS("lock_vma_under_rcu() and then lock_mm_and_find_vma() find no VMA: each "
			"touch ended in a signal, and what was mapped later took no fault") },
	{ .name = "read-while-write-locked",
	  .origin_note = "memory that another thread changed the protection of as it was read",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch beside mprotect() of the same VMA",
	  .touches = R, .prot = RDWR, .flags = ANON, .map = map_for_writer,
	  .touch_by = touch_write_locked,
	  .explain = ALWAYS("vma_start_read() fails while mprotect() has the VMA write-locked, and "
			"the fault waits for mmap_lock; a write beside it had prepared the anon_vma") },
	{ .name = "written-while-mmap-locked",
	  .origin_note = "memory that was written while another thread held mmap_lock",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch beside mprotect() of another VMA",
	  .touches = W, .prot = RDWR, .flags = ANON, .touch_by = touch_beside_writer,
	  .explain = ALWAYS("__vmf_anon_prepare() asks for mmap_lock by trying, for an anon_vma, and "
			"says VM_FAULT_RETRY where that is busy") },
	{ .name = "file-not-cached",
	  .origin_note = "private mapping of a file, or a disk, that is not in the page cache",
	  .made_by = "open(), posix_fadvise(POSIX_FADV_DONTNEED), mmap(MAP_PRIVATE), "
			"madvise(MADV_RANDOM)",
	  .needs = "a disk for temporary files: set TMPDIR", .touches = R, .prot = PROT_READ,
	  .flags = MAP_PRIVATE, .file = open_uncached, .before = read_no_pages_ahead,
	  .explain = ALWAYS("filemap_fault() drops the lock to wait for the page to be read, says "
			"VM_FAULT_RETRY, and the fault is repeated under mmap_lock") },
	{ .name = "userfaultfd-answered",
	  .origin_note = "memory whose faults userfaultfd answered with the zero page",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS), touch, ioctl(UFFDIO_ZEROPAGE) for each "
			"fault",
	  .needs = "userfaultfd allowed", .touches = R, .prot = RDWR, .flags = ANON,
	  .before = register_uffd, .touch_by = touch_by_userfaultfd,
	  .explain = ALWAYS(UFFD_PREPARES) },

	/* what only some processors have */
	{ .name = "mte", .origin_note = "private anonymous memory with tags",
	  .made_by = "mmap(PROT_MTE, MAP_PRIVATE | MAP_ANONYMOUS)",
	  .needs = "arm64 with MTE, and Linux 5.10 or later", .touches = U | R | W | RW,
	  .prot = RDWR, .flags = ANON, .map = map_tagged_memory,
	  .explain = anonymous },
	{ .name = "tagged-pointer",
	  .origin_note = "private anonymous memory, touched through a pointer with a tag",
	  .made_by = "mmap(MAP_PRIVATE | MAP_ANONYMOUS)",
	  .needs = "arm64, whose MMU ignores a pointer's top byte", .touches = R | W | RW,
	  .prot = RDWR, .flags = ANON, .touch_by = touch_by_tagged_pointer,
	  .explain = anonymous },
	{ .name = "shadow-stack", .origin_note = "shadow stack",
	  .made_by = "map_shadow_stack()",
	  .needs = "x86-64 with CET and Linux 6.6, or arm64 with GCS and Linux 6.13",
	  .touches = U | R | W, .map = make_shadow_stack, .touch_by = touch_shadow_stack,
	  .explain = anonymous },

	/* not anonymous to the kernel: vm_ops is set */
	{ .name = "shared-anonymous", .origin_note = "shared anonymous memory",
	  .made_by = "mmap(MAP_SHARED | MAP_ANONYMOUS)", .touches = U | R | W | RW, .prot = RDWR,
	  .flags = MAP_SHARED | MAP_ANONYMOUS,
	  .explain = shared },
	{ .name = "shared-devzero", .origin_note = "shared mapping of /dev/zero",
	  .made_by = "mmap(MAP_SHARED, fd of /dev/zero)", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_SHARED, .file = open_devzero,
	  .explain = shared },
	{ .name = "sysv-shm", .origin_note = "System V shared memory",
	  .made_by = "shmget(), shmat()",
	  .needs = "a kernel with CONFIG_SYSVIPC", .touches = U | R | W, .map = map_sysv_shm,
	  .explain = shared },
	{ .name = "memfd-shared", .origin_note = "shared mapping of a memfd",
	  .made_by = "memfd_create(), mmap(MAP_SHARED)", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_SHARED, .file = open_memfd,
	  .explain = shared },
	{ .name = "memfd-private", .origin_note = "private mapping of a memfd",
	  .made_by = "memfd_create(), mmap(MAP_PRIVATE)", .touches = U | R | W | RW, .prot = RDWR,
	  .flags = MAP_PRIVATE, .file = open_memfd,
	  .explain = private_file },
	{ .name = "tmpfs-shared", .origin_note = "shared mapping of a file on tmpfs",
	  .made_by = "open(O_TMPFILE) on tmpfs, mmap(MAP_SHARED)",
	  .needs = "a writable tmpfs at /dev/shm", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_SHARED, .file = open_tmpfs,
	  .explain = shared },
	{ .name = "tmpfs-private", .origin_note = "private mapping of a file on tmpfs",
	  .made_by = "open(O_TMPFILE) on tmpfs, mmap(MAP_PRIVATE)",
	  .needs = "a writable tmpfs at /dev/shm", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_PRIVATE, .file = open_tmpfs,
	  .explain = private_file },
	{ .name = "file-shared", .origin_note = "shared mapping of a file on disk",
	  .made_by = "open() on disk, mmap(MAP_SHARED)",
	  .needs = "a disk for temporary files: set TMPDIR", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_SHARED, .file = open_disk_file,
	  .explain = shared },
	{ .name = "file-private", .origin_note = "private mapping of a file on disk",
	  .made_by = "open() on disk, mmap(MAP_PRIVATE)",
	  .needs = "a disk for temporary files: set TMPDIR", .touches = U | R | W | RW,
	  .prot = RDWR, .flags = MAP_PRIVATE, .file = open_disk_file,
	  .explain = private_file },
	{ .name = "secretmem", .origin_note = "secret memory",
	  .made_by = "memfd_secret(), mmap(MAP_SHARED)",
	  .needs = "Linux 5.14 or later with secretmem enabled", .touches = U | R | W, .prot = RDWR,
	  .flags = MAP_SHARED, .file = open_secret,
	  .explain = ALWAYS("secretmem_mmap() sets secretmem_vm_ops and refuses private mappings, "
			"so no page is ever copied") },
	{ .name = "perf-ring", .origin_note = "ring buffer of a perf event",
	  .made_by = "perf_event_open(), mmap(MAP_SHARED)",
	  .needs = "perf events allowed: see kernel.perf_event_paranoid", .touches = U | R,
	  .prot = RDWR, .flags = MAP_SHARED, .file = open_perf,
	  .explain = ALWAYS("perf_mmap() sets perf_mmap_vmops, so the VMA is not anonymous") },
	{ .name = "io-uring-ring", .origin_note = "ring of io_uring",
	  .made_by = "io_uring_setup(), mmap(MAP_SHARED | MAP_POPULATE)",
	  .needs = "io_uring allowed", .touches = U | R, .prot = RDWR,
	  .flags = MAP_SHARED | MAP_POPULATE, .file = open_io_uring, .map = map_io_uring_ring,
	  .explain = ALWAYS("io_uring_mmap() sets no vm_ops of its own, but vma_init() had set "
			"vma_dummy_vm_ops: not NULL, so the VMA is not anonymous") },
	{ .name = "aio-ring", .origin_note = "ring of asynchronous I/O",
	  .made_by = "io_setup()",
	  .needs = "a kernel with CONFIG_AIO", .touches = U, .map = map_aio_ring,
	  .touch_by = touch_nothing,
	  .explain = ALWAYS("aio_ring_mmap() sets aio_ring_vm_ops, so the VMA is not anonymous") },
};

const size_t nr_kinds = sizeof(kinds) / sizeof(kinds[0]);
