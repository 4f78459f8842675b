/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The lock of a single VMA: who locks it for writing, and waits for its readers to leave; and
 * which readers, page faults, fail for its writer.
 *
 * From 6.4 to 6.14 it is a semaphore, and contention_begin tells of a wait. From 6.15 it is a
 * count of readers, of which no tracepoint tells: the writer sets a bit of it and sleeps. Either
 * way the writer holds mmap_lock for writing, so its VMAs stay as they are, and can be searched.
 */
#ifndef VMA_LOCKS_BPF_H
#define VMA_LOCKS_BPF_H

#include "entry.bpf.h"

#define MAX_SEARCHED	4096
#define DEEP		16
/* VMA_LOCK_OFFSET, VM_REFCNT_EXCLUDE_READERS_FLAG: include/linux/mm_types.h */
#define READERS_KEPT_OUT	(1U << 30)
/* include/linux/sched.h */
#define TASK_UNINTERRUPTIBLE	0x02
#define TASK_DEAD		0x80

/*
 * Of a VMA as it is now: it is another thing when it has an anon_vma, or when another file is mapped
 * in its place. Not static: the verifier then looks at it once, not at each call.
 */
__noinline int vma_id(__u64 address)
{
	struct vm_area_struct *area = (void *)address;
	struct mm_struct *mm = BPF_CORE_READ(area, vm_mm);
	struct thing_key key = { .name = LOCK_VMA };
	struct thing thing = {}, *known;
	__u64 fault = 0;

	thing.start = BPF_CORE_READ(area, vm_start);
	thing.found = FOUND_VMA | (BPF_CORE_READ(area, vm_ops) ? 0 : FOUND_ANON) |
		      (BPF_CORE_READ(area, anon_vma) ? FOUND_ANON_VMA : 0);
	key.address = (__u64)mm;
	key.stamp = thing.start;
	key.kind = (__u32)(__u64)BPF_CORE_READ(area, vm_file) | thing.found;
	known = bpf_map_lookup_elem(&things, &key);
	if (known)
		return known->id;
	thing.mm = mm_id(mm, false);
	thing.end = BPF_CORE_READ(area, vm_end);
	describe_vma(&thing.kind, area);
	if (thing.kind.vm_ops)
		thing.ops = ops_id((void *)thing.kind.vm_ops, &fault);
	if (thing.kind.bits & VMA_HAS_FILE)
		bpf_probe_read_kernel_str(thing.file, sizeof(thing.file),
					  BPF_CORE_READ(area, vm_file, f_path.dentry, d_name.name));
	return thing_id(&key, &thing);
}

/* ---- which VMA ---- */

static bool keeps_readers_out(__u64 area)
{
	struct vm_area_struct___count *count = (void *)area;

	return HAS(struct vm_area_struct___count, vm_refcnt) &&
	       PEEK(struct vm_area_struct___count, count, vm_refcnt.refs.counter) & READERS_KEPT_OUT;
}

static bool has_lock(__u64 area, __u64 lock)
{
	struct vm_area_struct___lock *of = (void *)area;

	return HAS(struct vm_area_struct___lock, vm_lock) &&
	       PEEK(struct vm_area_struct___lock, of, vm_lock) +
	       bpf_core_field_offset(struct vma_lock, lock) == lock;
}

struct search {
	__u64 mm, address, lock, area, last;
};

/* The VMA at the search's address, if any, and the last address that this is true of. */
__noinline int look_at_tree(struct search *search)
{
	__u64 last = ~0ULL;

	if (!search)
		return 0;
	search->area = find_in_tree(search->mm, search->address, &last);
	search->last = last;
	return 0;
}

static long look_at_next(__u32 index, void *arg)
{
	struct search *search = arg;

	(void)index;
	look_at_tree(search);
	if (search->area == DEAD)
		return 1;
	if (search->area && (search->lock ? has_lock(search->area, search->lock) :
					    keeps_readers_out(search->area)))
		return 1;
	search->area = 0;
	search->address = search->last + 1;
	return (__s64)search->last < 0;
}

/* The VMA of a lock; where LOCK is 0, that which keeps readers out. 0 where none is found. */
static __u64 search_vma(__u64 mm, __u64 lock)
{
	struct search search = { .mm = mm, .lock = lock };

	bpf_loop(MAX_SEARCHED, look_at_next, &search, 0);
	if (search.area > DEAD)
		return search.area;
	__sync_fetch_and_add(&contended_totals.unnamed_vmas, 1);
	return 0;
}

/* Whether the task holds the mmap_lock of an mm for writing. */
static bool holds_for_writing(struct task_struct *task, __u64 mm)
{
	__u64 owner;

	if (!mm)
		return false;
	owner = BPF_CORE_READ((struct mm_struct *)mm, mmap_lock.owner.counter);
	return (owner & ~7ULL) == (__u64)task;
}

/* ---- writers ---- */

/* Inline: with all its callers vma_id() has 512 bytes of stack, and clang 19 needs 544 else. */
static __always_inline bool is_vma_lock(struct task_struct *task, __u64 lock,
					struct contended_key *key)
{
	struct task_state *state = state_of(task);
	__u64 area;

	if (!HAS(struct vm_area_struct___lock, vm_lock) || !state ||
	    !holds_for_writing(task, state->held))
		return false;
	area = search_vma(state->held, lock);
	if (!area)
		return false;
	key->name = LOCK_VMA;
	key->thing = vma_id(area);
	return true;
}

/* Whether the stack of a task that goes to sleep leads through one of the functions that wait. */
static bool waits_for_readers(void *ctx)
{
	__u64 stack[DEEP] = {};

	bpf_get_stack(ctx, stack, sizeof(stack), 0);
	for (int i = 0; i < DEEP; i++)
		for (int f = 0; f < 2; f++)
			if (stack[i] >= constants.waiters[f][0] && stack[i] < constants.waiters[f][1])
				return true;
	return false;
}

static void goes_to_sleep(void *ctx, struct task_struct *task, struct task_state *state,
			  __u32 sleep)
{
	__u64 area;

	if (!state->held || !state->who.process || !(sleep & TASK_UNINTERRUPTIBLE) ||
	    !HAS(struct vm_area_struct___count, vm_refcnt) || !holds_for_writing(task, state->held))
		return;
	area = state->locking;
	if (!area || !keeps_readers_out(area)) {
		if (!waits_for_readers(ctx))
			return;
		area = search_vma(state->held, 0);
	}
	state->vma_wait.lock = area;
	state->vma_wait.since = bpf_ktime_get_ns();
	state->vma_wait.flags = LCB_F_WRITE;
}

static void count_wait(const struct contended_key *key, __u64 waited);
static void count_free(const struct contended_key *key, __s64 count);

static void has_slept(struct task_struct *task)
{
	struct task_state *state = state_of(task);
	struct contended_key key = { .name = LOCK_VMA, .flags = LCB_F_WRITE };

	if (!state || !state->vma_wait.flags)
		return;
	key.process = state->who.process;
	key.stack = state->held_stack;
	if (constants.sees_writers)
		count_free(&key, -1);	/* it was not */
	if (state->vma_wait.lock)
		key.thing = vma_id(state->vma_wait.lock);
	count_wait(&key, bpf_ktime_get_ns() - state->vma_wait.since);
	state->vma_wait.flags = 0;
}

/* Called for each VMA that is not yet locked: the caller is who acquired mmap_lock. */
static int locks_for_writing(__u64 area)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	struct contended_key key = { .name = LOCK_VMA, .flags = LCB_F_WRITE };

	if (!state || !state->who.process)
		return 0;
	state->locking = area;
	key.process = state->who.process;
	key.stack = state->held ? state->held_stack : -1;
	count_free(&key, 1);
	return 0;
}

/* ---- readers ---- */

static bool is_write_locked(__u64 area, __u64 mm)
{
	struct vm_area_struct___seq *seq = (void *)area;

	return HAS(struct vm_area_struct___seq, vm_lock_seq) &&
	       (__u32)PEEK(struct vm_area_struct___seq, seq, vm_lock_seq) == lock_seq_of(mm);
}

/* The system call that a task is in, and 1: its registers are at the top of its kernel's stack. */
static __u32 call_of(struct task_struct *task)
{
	__u64 top = (__u64)BPF_CORE_READ(task, stack) + bpf_core_type_size(union thread_union), regs;

	if (!bpf_core_type_exists(union thread_union))
		return 0;
	if (HAS(struct pt_regs___x86, orig_ax)) {
		regs = top - bpf_core_type_size(struct pt_regs___x86);
		return is_of_user_mode(regs) ? PEEK(struct pt_regs___x86, regs, orig_ax) + 1 : 0;
	}
	if (HAS(struct pt_regs___entry, syscallno)) {
		regs = top - bpf_core_type_size(struct pt_regs___entry);
		return is_of_user_mode(regs) ? PEEK(struct pt_regs___entry, regs, syscallno) + 1 : 0;
	}
	return 0;
}

/*
 * A fault of user mode that could not take its VMA's lock, or not handle it under that, comes to
 * lock_mm_and_find_vma(), from 6.5. One of the kernel's comes here first, and tries no VMA's lock.
 */
static int fault_falls_back(void *ctx, __u64 mm, __u64 address, __u64 regs)
{
	struct contended_key key = { .name = LOCK_VMA, .flags = LCB_F_READ, .failed = 1 };
	struct task_state *state = state_of(bpf_get_current_task_btf());
	struct search search = { .mm = mm, .address = address };
	__u64 owner;

	if (!state || !state->who.process || !is_of_user_mode(regs))
		return 0;
	look_at_tree(&search);
	if (search.area <= DEAD || !is_write_locked(search.area, mm))
		return 0;
	owner = BPF_CORE_READ((struct mm_struct *)mm, mmap_lock.owner.counter) & ~7ULL;
	key.process = state->who.process;
	key.thing = vma_id(search.area);
	key.stack = kernel_stack_id(ctx, &stacks);
	if (owner)
		key.call = call_of((void *)owner);
	count_wait(&key, 0);
	return 0;
}

#endif
