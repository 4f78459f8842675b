/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Why lock_vma_under_rcu() gave a fault no VMA: its tests, repeated in its order as the fault
 * goes on to lock_mm_and_find_vma() and has not asked for mmap_lock yet.
 */
#ifndef FAULT_REASON_BPF_H
#define FAULT_REASON_BPF_H

/* include/linux/mm_types.h: what a writer adds to vm_refcnt, be it that it still waits for readers. */
#define VMA_WRITER	(1 << 30)
/* kernel/locking/rwsem.c: RWSEM_WRITER_LOCKED, RWSEM_FLAG_WAITERS, RWSEM_FLAG_HANDOFF */
#define RWSEM_WRITER	7

/*
 * Whether it has been write-locked at any time since the fault began, or a writer waits for it:
 * the one who has gone meanwhile is seen by vm_lock_seq.
 */
static bool was_write_locked(__u64 area, __u32 since)
{
	struct vm_area_struct___count *count = (void *)area;
	struct vm_area_struct___lock *lock = (void *)area;
	struct vm_area_struct___seq *seq = (void *)area;
	__u64 semaphore;

	if ((int)((__u32)PEEK(struct vm_area_struct___seq, seq, vm_lock_seq) - since) >= 0)
		return true;
	if (bpf_core_field_exists(count->vm_refcnt))
		return PEEK(struct vm_area_struct___count, count, vm_refcnt.refs.counter) & VMA_WRITER;
	if (!bpf_core_field_exists(lock->vm_lock) ||
	    !bpf_core_field_exists(((struct rw_semaphore *)0)->count))
		return false;
	semaphore = PEEK(struct vm_area_struct___lock, lock, vm_lock) +
		    bpf_core_field_offset(struct vma_lock, lock);
	return PEEK(struct rw_semaphore, semaphore, count.counter) & RWSEM_WRITER;
}

/* The VMA at the fault's address: that of the last fault, else the one in the tree; FOUND_*. */
static int look_for(struct task_state *state, __u64 mm)
{
	if (state->vma && state->view.mm == mm && is_unchanged(state, &state->found) &&
	    is_around(&state->found, mm, state->address) && is_attached(state->vma))
		return found(&state->found);
	return resolve(state, mm);
}

/* Not static, as resolve(). */
__noinline int why_not_locked(struct task_state *state, __u64 mm)
{
	int seen;

	if (!state)
		return REASON_NOT_TOLD;
	if (!constants.has_vma_locks)
		return REASON_NO_VMA_LOCKS;
	seen = look_for(state, mm);
	if (seen == FOUND_NOTHING)
		return REASON_NOTHING_MAPPED;
	if (!(seen & FOUND_VMA))
		return REASON_NOT_TOLD;
	if (was_write_locked(state->vma, state->lock_seq))
		return REASON_WRITE_LOCKED;
	if (!is_attached(state->vma))
		return REASON_DETACHED;
	return seen == (FOUND_VMA | FOUND_ANON) && !counts.bare_locked ? REASON_BARE : REASON_OTHER;
}

#endif
