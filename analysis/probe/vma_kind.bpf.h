/* SPDX-License-Identifier: GPL-2.0-only */
/* What a VMA looks like, as far as its origin is told by it. */
#ifndef VMA_KIND_BPF_H
#define VMA_KIND_BPF_H

#include "vma.bpf.h"
#include "faults.h"

#define ORIGIN_FLAGS	(VM_GROWSDOWN | VM_HUGETLB)

static inline void describe_inode(struct kind_key *key, struct inode *inode)
{
	key->bits |= VMA_HAS_FILE;
	key->ino = BPF_CORE_READ(inode, i_ino);
	key->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFCHR)
		key->bits |= BPF_CORE_READ(inode, i_rdev) == DEV_ZERO ? KIND_DEV_ZERO : KIND_DEVICE;
}

/* Not whether it is a thread's own stack: that its faults tell. */
static inline void describe_vma(struct kind_key *key, struct vm_area_struct *area)
{
	__u64 start = BPF_CORE_READ(area, vm_start), end = BPF_CORE_READ(area, vm_end);
	__u64 flags = BPF_CORE_READ(area, vm_flags);
	struct file *file = BPF_CORE_READ(area, vm_file);
	struct mm_struct *mm = BPF_CORE_READ(area, vm_mm);

	key->vm_ops = (__u64)BPF_CORE_READ(area, vm_ops);
	key->flags = flags & ORIGIN_FLAGS;
	key->prot = protection(flags);
	if (key->vm_ops)
		key->bits |= VMA_HAS_OPS;
	if (start <= BPF_CORE_READ(mm, brk) && end >= BPF_CORE_READ(mm, start_brk))
		key->bits |= VMA_HEAP;
	if (start <= BPF_CORE_READ(mm, start_stack) && end >= BPF_CORE_READ(mm, start_stack))
		key->bits |= VMA_STACK;
	if (file)
		describe_inode(key, BPF_CORE_READ(file, f_inode));
	else if (HAS(struct vm_area_struct, anon_name) && BPF_CORE_READ(area, anon_name))
		key->bits |= KIND_NAMED;
}

#endif
