/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Why a VMA is not one with the VMA right below it: every test of the kernel's that forbids it, in
 * the order of is_mergeable_vma(), is_mergeable_anon_vma() and can_vma_merge_before(), mm/vma.c.
 *
 * Only numbers are kept of the VMA below: where mmap_lock was dropped in between, it may be gone.
 */
#ifndef APART_BPF_H
#define APART_BPF_H

#include "vma.bpf.h"

#define VM_SPECIAL	(VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP)
/* Not compared: VM_SOFTDIRTY, and from 6.19 VM_MAYBE_GUARD, whose bit no earlier kernel uses. */
#define VM_IGNORED	(VM_SOFTDIRTY | VM_MAYBE_GUARD)

struct neighbour {
	__u64 mm, end, flags, file, uffd, anon_vma, policy;
	__u64 pgoff, next_pgoff, anon_pgoff, next_anon_pgoff;
	__u32 name;
	bool close, special, fork_child;
};

/* Set by the probe. */
const volatile struct census_settings settings = {};

/* What mpol_equal() compares: of equal content is equal, be it one policy or two. */
static __u64 policy_of(struct vm_area_struct *area)
{
	struct mempolicy *policy;
	__u64 hash, word;

	if (!bpf_core_field_exists(area->vm_policy))
		return 0;
	policy = area->vm_policy;
	if (!policy)
		return 0;
	hash = 1 + ((__u64)policy->mode << 48 | (__u64)policy->flags << 32 | (__u32)policy->home_node);
	for (__u32 i = 0; i < 16 && i * 8 < bpf_core_field_size(policy->nodes); i++) {
		word = 0;
		bpf_probe_read_kernel(&word, sizeof(word), (void *)policy + i * 8 +
				      bpf_core_field_offset(struct mempolicy, nodes));
		hash = (hash ^ word) * 0x100000001b3ULL;
	}
	return hash;
}

/* From 7.3 the offset of anonymous pages, which a private mapping of a file has beside the file's. */
static void describe_anon_pgoff(struct neighbour *here, struct vm_area_struct *area, __u64 pages)
{
	struct vm_area_struct___offset *with = (void *)area;
	__u64 high = 0;

	here->anon_pgoff = here->next_anon_pgoff = 0;
	if (!bpf_core_field_exists(with->__vm_anon_pgoff_lo) || !area->vm_file ||
	    (area->vm_flags & (VM_SHARED | VM_MAYWRITE)) != VM_MAYWRITE)
		return;
	if (bpf_core_field_exists(with->__vm_anon_pgoff_hi))
		high = BPF_CORE_READ(with, __vm_anon_pgoff_hi);
	here->anon_pgoff = high << 32 | BPF_CORE_READ(with, __vm_anon_pgoff_lo);
	here->next_anon_pgoff = here->anon_pgoff + pages;
}

/* list_is_singular() of its chain is what the kernel asks; without an anon_vma it has none. */
static bool is_fork_child(struct vm_area_struct *area)
{
	struct list_head *head = chain_head(area), *first = head->next;

	return area->anon_vma && first->next != head;
}

static void describe_neighbour(struct neighbour *here, struct vm_area_struct *area, __u32 name)
{
	const struct vm_operations_struct *vm_ops = area->vm_ops;
	__u64 pages = (area->vm_end - area->vm_start) >> settings.page_shift;

	here->mm = (__u64)area->vm_mm;
	here->end = area->vm_end;
	here->flags = area->vm_flags & ~(__u64)VM_IGNORED;
	here->special = area->vm_flags & VM_SPECIAL;
	here->file = (__u64)area->vm_file;
	here->anon_vma = (__u64)area->anon_vma;
	here->pgoff = area->vm_pgoff;
	here->next_pgoff = here->pgoff + pages;
	describe_anon_pgoff(here, area, pages);
	here->policy = policy_of(area);
	here->uffd = 0;
	if (bpf_core_field_exists(area->vm_userfaultfd_ctx.ctx))
		here->uffd = (__u64)area->vm_userfaultfd_ctx.ctx;
	here->close = vm_ops && BPF_CORE_READ(vm_ops, close);
	here->fork_child = is_fork_child(area);
	here->name = name;
}

/*
 * Which tests two VMAs fail, whichever of them is the one that is changed and so asks for the merge;
 * before 6.16 (879bca0a2c4f) a bare one had to be it where only one has an anon_vma.
 */
static __u16 apart(const struct neighbour *below, const struct neighbour *here, __u64 start)
{
	struct vma_merge_struct *merge = NULL;	/* asked for, and never looked at */
	__u16 tests = APART_ADJACENT;

	if (below->mm != here->mm || below->end != start)
		return 0;
	if (below->special || here->special)
		tests |= APART_SPECIAL;
	if (below->policy != here->policy)
		tests |= APART_POLICY;
	if (below->flags != here->flags)
		tests |= APART_FLAGS;
	if (below->file != here->file)
		tests |= APART_FILE;
	if (below->close && here->close)	/* the one that would go must not have it */
		tests |= bpf_core_field_exists(merge->prev) ? APART_CLOSE : APART_CLOSE_EARLY;
	if (below->uffd != here->uffd)
		tests |= APART_USERFAULTFD;
	if (below->name != here->name)
		tests |= APART_NAME;
	if (below->anon_vma && here->anon_vma && below->anon_vma != here->anon_vma)
		tests |= APART_ANON_VMA;
	if ((!below->anon_vma && here->fork_child) || (!here->anon_vma && below->fork_child))
		tests |= APART_FORK_CHILD;
	if (below->next_pgoff != here->pgoff)
		tests |= APART_OFFSET;
	if (below->next_anon_pgoff != here->anon_pgoff)
		tests |= APART_ANON_OFFSET;
	return tests;
}

#endif
