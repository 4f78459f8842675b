/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs that look at VMAs share: which vm_ops it has, and who is asking. */
#ifndef VMA_BPF_H
#define VMA_BPF_H

#include <linux/bpf.h>
#include <linux/errno.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "kernel.h"
#include "census.h"

#define HAS(type, member)	bpf_core_field_exists(((type *)0)->member)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_OPS);
	__type(key, __u64);
	__type(value, struct ops_functions);
} ops SEC(".maps");

__u32 next_ops SEC(".bss.ops");

/* The pid of a task at a level of pid namespaces; 0 where it has none. */
static inline __u32 pid_at_level(struct task_struct *task, unsigned int level)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid *upid;
	int nr = 0;

	upid = (void *)__builtin_preserve_access_index(&pid->numbers[0]);
	upid = (void *)upid + level * bpf_core_type_size(struct upid);
	bpf_core_read(&nr, sizeof(nr), &upid->nr);
	return nr;
}

/* The level of the pid namespace that the current task is in. */
static inline unsigned int current_level(void)
{
	struct task_struct *reader = (void *)bpf_get_current_task();

	return BPF_CORE_READ(reader, thread_pid, level);
}

/* The number of a vm_operations_struct, from 1, and its fault handler; 0 when there are too many. */
static inline __u16 ops_id(const struct vm_operations_struct *vm_ops, __u64 *fault)
{
	struct ops_functions entry = {}, *known;
	__u64 key = (__u64)vm_ops;

	known = bpf_map_lookup_elem(&ops, &key);
	if (known) {
		*fault = known->fault;
		return known->id;
	}
	entry.id = __sync_fetch_and_add(&next_ops, 1) + 1;
	entry.fault = (__u64)BPF_CORE_READ(vm_ops, fault);
	entry.callbacks[0] = (__u64)BPF_CORE_READ(vm_ops, map_pages);
	entry.callbacks[1] = (__u64)BPF_CORE_READ(vm_ops, huge_fault);
	entry.callbacks[2] = (__u64)BPF_CORE_READ(vm_ops, page_mkwrite);
	entry.callbacks[3] = (__u64)BPF_CORE_READ(vm_ops, open);
	entry.callbacks[4] = (__u64)BPF_CORE_READ(vm_ops, close);
	entry.callbacks[5] = (__u64)BPF_CORE_READ(vm_ops, access);
	*fault = entry.fault;
	if (!bpf_map_update_elem(&ops, &key, &entry, BPF_NOEXIST))
		return entry.id;
	known = bpf_map_lookup_elem(&ops, &key);	/* another CPU was first, or the map is full */
	return known ? known->id : 0;
}

/* Where a VMA's chain begins and ends: the list's head, inside of it. */
static inline struct list_head *chain_head(struct vm_area_struct *area)
{
	return (void *)area + bpf_core_field_offset(area->anon_vma_chain);
}

static inline __u8 protection(__u64 flags)
{
	return (flags & VM_READ ? VMA_PROT_READ : 0) | (flags & VM_WRITE ? VMA_PROT_WRITE : 0) |
	       (flags & VM_EXEC ? VMA_PROT_EXEC : 0) | (flags & VM_MAYSHARE ? VMA_PROT_SHARED : 0);
}

#endif
