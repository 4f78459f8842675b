/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finding a VMA in the maple tree of its mm, without a lock, where a node that is replaced
 * meanwhile is seen as dead. bpf_find_vma() would take mmap_lock and, where that is contended,
 * fail.
 */
#ifndef MAPLE_TREE_BPF_H
#define MAPLE_TREE_BPF_H

#include "vma.bpf.h"

#define MAX_HEIGHT	12
#define MAX_PIVOTS	16

/*
 * Reading kernel memory by a number: where bpf_rdonly_cast() is (6.2), by a plain
 * load that reads 0 where nothing is, else by a call of a helper. Declared as libbpf
 * 1.3 and later does, so that either may come first.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define PEEK(type, address, member)							\
	(bpf_rdonly_cast ? (__u64)((type *)bpf_rdonly_cast((void *)(address),		\
				   bpf_core_type_id_kernel(type)))->member :		\
			   (__u64)BPF_CORE_READ((type *)(address), member))

static __u64 word_at(__u64 address)
{
	__u64 word = 0;

	if (bpf_rdonly_cast)
		return ((struct cpumask *)bpf_rdonly_cast(
			(void *)address, bpf_core_type_id_kernel(struct cpumask)))->bits[0];
	bpf_probe_read_kernel(&word, sizeof(word), (void *)address);
	return word;
}

/* include/linux/maple_tree.h: the low byte of a pointer to a node holds its type. */
#define NODE_OF(entry)	((entry) & ~255ULL)
#define TYPE_OF(entry)	(((entry) >> 3) & 15)

struct layout {
	__u32 pivots, pivot_at, slot_at;
};

/* LAST, unless it is NULL, becomes the last address that the child holds, where its node tells. */
static __always_inline __u64 child_of(__u64 node, __u64 address, const struct layout *layout,
				      __u64 *last)
{
	__u64 pivot = 0;
	__u32 i;

	for (i = 0; i < MAX_PIVOTS; i++) {
		if (i >= layout->pivots)
			break;
		pivot = word_at(node + layout->pivot_at + i * 8);
		if (pivot >= address)
			break;
	}
	if (last && i < layout->pivots && i < MAX_PIVOTS)
		*last = pivot;
	return word_at(node + layout->slot_at + i * 8);
}

#define DEAD	1	/* the way led through a node that is no part of the tree any more */

/*
 * mtree_lookup_walk() of lib/maple_tree.c, without the RCU read lock's promise: see is_around().
 * 0 where there is no VMA, or DEAD.
 */
static __always_inline __u64 find_in_tree(__u64 mm, __u64 address, __u64 *last)
{
	const struct layout branch = {
		.pivots = bpf_core_field_size(((struct maple_arange_64 *)0)->pivot) / 8,
		.pivot_at = bpf_core_field_offset(struct maple_arange_64, pivot),
		.slot_at = bpf_core_field_offset(struct maple_arange_64, slot),
	}, leaf = {
		.pivots = bpf_core_field_size(((struct maple_range_64 *)0)->pivot) / 8,
		.pivot_at = bpf_core_field_offset(struct maple_range_64, pivot),
		.slot_at = bpf_core_field_offset(struct maple_range_64, slot),
	};
	__u32 leaf_type = bpf_core_enum_value(enum maple_type, maple_leaf_64);
	__u32 branch_type = bpf_core_enum_value(enum maple_type, maple_arange_64);
	__u64 entry = PEEK(struct mm_struct, mm, mm_mt.ma_root);

	if ((entry & 3) != 2 || entry <= 4096)
		return 0;		/* xa_is_node(): the root of an empty tree is no node */
	for (int level = 0; level < MAX_HEIGHT; level++) {
		__u64 node = NODE_OF(entry);
		__u32 type = TYPE_OF(entry);

		entry = child_of(node, address, type == branch_type ? &branch : &leaf, last);
		if (NODE_OF(word_at(node)) == node)
			return DEAD;	/* ma_dead_node(): its parent is itself */
		if (type <= leaf_type)
			return entry > 4096 ? entry : 0;
	}
	return DEAD;
}

static inline __u64 find_vma(__u64 mm, __u64 address)
{
	return find_in_tree(mm, address, NULL);
}

/* Every writer of the mm moves it on as it unlocks, from 6.13 as it locks, too. */
static inline __u32 lock_seq_of(__u64 mm)
{
	struct mm_struct___seqcount *seqcount = (void *)mm;
	struct mm_struct___int *number = (void *)mm;

	if (bpf_core_field_exists(seqcount->mm_lock_seq.sequence))
		return PEEK(struct mm_struct___seqcount, seqcount, mm_lock_seq.sequence);
	if (bpf_core_field_exists(number->mm_lock_seq))
		return PEEK(struct mm_struct___int, number, mm_lock_seq);
	return 0;
}

#endif
