/* SPDX-License-Identifier: GPL-2.0-only */
/* The chain of a VMA: every anon_vma that may have pages of it, its own and its ancestors'. */
#ifndef CHAIN_BPF_H
#define CHAIN_BPF_H

#include "vma.bpf.h"

#define LONGEST_CHAIN	(1 << 20)

struct chain_walk {
	struct seq_file *seq;
	__u64 own, head, next;
	__u32 lost;
	bool full;			/* the iterator's buffer */
};

static void describe_link(struct chain_link *link, struct anon_vma *anon_vma, __u64 own)
{
	link->anon_vma = (__u64)anon_vma;
	link->own = link->anon_vma == own;
	link->root = (__u64)BPF_CORE_READ(anon_vma, root);
	link->parent = (__u64)BPF_CORE_READ(anon_vma, parent);
	link->num_children = link->num_active_vmas = LINK_UNKNOWN;
	if (bpf_core_field_exists(anon_vma->num_children))
		link->num_children = BPF_CORE_READ(anon_vma, num_children);
	if (bpf_core_field_exists(anon_vma->num_active_vmas))
		link->num_active_vmas = BPF_CORE_READ(anon_vma, num_active_vmas);
}

static long walk_link(__u32 index, void *context)
{
	struct chain_walk *walk = context;
	struct list_head *here = (void *)walk->next;
	struct anon_vma_chain *avc;
	struct chain_link link = { .vma = LINK_MARK };

	if (walk->next == walk->head || !walk->next)
		return 1;
	avc = (void *)walk->next - bpf_core_field_offset(struct anon_vma_chain, same_vma);
	walk->next = (__u64)BPF_CORE_READ(here, next);
	if (index >= MAX_LINKS) {
		walk->lost++;
		return 0;
	}
	describe_link(&link, BPF_CORE_READ(avc, anon_vma), walk->own);
	if (bpf_seq_write(walk->seq, &link, sizeof(link))) {
		walk->full = true;
		return 1;
	}
	return 0;
}

/*
 * Of a VMA with one link, which is that of its own anon_vma: nearly all of them. Read without a
 * helper, which is half the cost.
 */
static bool write_only_link(struct seq_file *seq, struct anon_vma *anon_vma)
{
	struct chain_link link = { .vma = LINK_MARK, .anon_vma = (__u64)anon_vma, .own = 1 };

	if (!anon_vma)
		return true;
	link.root = (__u64)anon_vma->root;
	link.parent = (__u64)anon_vma->parent;
	link.num_children = link.num_active_vmas = LINK_UNKNOWN;
	if (bpf_core_field_exists(anon_vma->num_children))
		link.num_children = anon_vma->num_children;
	if (bpf_core_field_exists(anon_vma->num_active_vmas))
		link.num_active_vmas = anon_vma->num_active_vmas;
	return !bpf_seq_write(seq, &link, sizeof(link));
}

/* False when the iterator's buffer is full. */
static bool write_links(struct seq_file *seq, struct vm_area_struct *area)
{
	struct list_head *head = chain_head(area);
	struct chain_walk walk = {
		.seq = seq,
		.own = (__u64)area->anon_vma,
		.head = (__u64)head,
		.next = (__u64)head->next,
	};

	if (walk.next == walk.head || settings.no_chains)
		return true;
	if ((__u64)head->next->next == walk.head)
		return write_only_link(seq, area->anon_vma);
	bpf_loop(LONGEST_CHAIN, walk_link, &walk, 0);
	if (!walk.full)
		state.links_lost += walk.lost;
	return !walk.full;
}

#endif
