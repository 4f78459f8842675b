/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fork: dup_mmap() holds mmap_lock of the parent's mm, locks every VMA of it for writing and
 * copies its page tables, but those of a bare VMA, whose pages the child faults again
 * (vma_needs_copy()).
 *
 * copy_page_range() is called for each VMA that is copied. Where its calls cannot be seen, the
 * last time that the parent held the lock before its child appeared is all that is told.
 */
#ifndef FORKS_BPF_H
#define FORKS_BPF_H

#include "forks.h"

struct fork_totals fork_totals SEC(".bss.forks");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FORKS);
	__type(key, __u32);
	__type(value, struct fork_record);
} forks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FORKING);
	__type(key, __u64);
	__type(value, struct fork_hold);
} fork_holds SEC(".maps");

static __u32 next_fork(void)
{
	return __sync_fetch_and_add(&fork_totals.next, 1) + 1;
}

static void record_fork(struct task_state *state, __u32 id)
{
	state->fork.process = state->who.process;
	if (bpf_map_update_elem(&forks, &id, &state->fork, BPF_ANY))
		__sync_fetch_and_add(&fork_totals.lost, 1);
	state->bore = id;
}

/* ---- the copy ---- */

/* vma_needs_copy() looks at these flags, too: include/linux/mm.h */
#define VM_PFNMAP	0x00000400
#define VM_MIXEDMAP	0x10000000

static int copies_page_tables(__u64 source)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	struct fork_hold hold = {};
	__u64 mm = PEEK(struct vm_area_struct, source, vm_mm);

	if (!state || !state->who.process || state->held != mm)
		return 0;
	if (!state->forking) {
		__builtin_memset(&state->fork, 0, sizeof(state->fork));
		hold.id = state->forking = next_fork();
		hold.begin = state->held_since;
		bpf_map_update_elem(&fork_holds, &mm, &hold, BPF_ANY);
	}
	state->fork.vmas++;
	state->fork.locked += is_write_locked(source, mm);
	state->fork.skipped += !PEEK(struct vm_area_struct, source, vm_ops) &&
			       !PEEK(struct vm_area_struct, source, anon_vma) &&
			       !(PEEK(struct vm_area_struct, source, vm_flags) &
				 (VM_PFNMAP | VM_MIXEDMAP));
	return 0;
}

static void lets_go(struct task_state *state, __u64 mm)
{
	__u64 now = bpf_ktime_get_ns();
	struct fork_hold *hold;

	state->held = 0;
	state->held_ns = now - state->held_since;
	if (!state->forking)
		return;
	state->fork.held_ns = state->held_ns;
	record_fork(state, state->forking);
	hold = bpf_map_lookup_elem(&fork_holds, &mm);
	if (hold && hold->id == state->forking)
		hold->end = now;
	state->forking = 0;
}

/* A reader that found mmap_lock taken has it: for how much of its wait was it a fork's? */
static void was_shut_out(__u64 mm, __u64 asked, __u64 now)
{
	struct fork_hold *hold = bpf_map_lookup_elem(&fork_holds, &mm);
	struct fork_record *record;
	__u64 begin, end;
	__u32 id;

	if (!hold)
		return;
	id = hold->id;
	begin = hold->begin > asked ? hold->begin : asked;
	end = hold->end && hold->end < now ? hold->end : now;
	record = end > begin ? bpf_map_lookup_elem(&forks, &id) : NULL;
	if (!record)
		return;
	__sync_fetch_and_add(&record->shut_out, 1);
	__sync_fetch_and_add(&record->shut_out_ns, end - begin);
	if (end - begin > record->longest_ns)
		record->longest_ns = end - begin;
}

/* ---- the child ---- */

static void is_born(struct task_struct *child, struct task_state *state)
{
	struct task_state *parent = state_of(bpf_get_current_task_btf());
	struct task_struct *task = bpf_get_current_task_btf();
	struct fork_record *record;

	if (!parent || !state || parent == state)
		return;
	if (child->pid != child->tgid) {
		state->born_of = parent->born_of;	/* a thread of the child */
		return;
	}
	if (child->mm == task->mm)
		return;					/* vfork() */
	if (!parent->bore) {
		__builtin_memset(&parent->fork, 0, sizeof(parent->fork));
		parent->fork.held_ns = parent->held_ns;
		record_fork(parent, next_fork());
	}
	state->born_of = parent->bore;
	parent->bore = 0;
	record = bpf_map_lookup_elem(&forks, &state->born_of);
	if (record)
		record->child = state->who.process;
}

/* It ends, or executes another program, whose faults are not those of a copy. */
static void settle_child(struct task_struct *task, struct task_state *state)
{
	struct fork_record *record;
	__u32 id = state->born_of;

	record = id ? bpf_map_lookup_elem(&forks, &id) : NULL;
	if (record)
		__sync_fetch_and_add(&record->child_faults, task->min_flt + task->maj_flt -
				     state->who.minor - state->who.major);
	state->born_of = 0;
}

#endif
