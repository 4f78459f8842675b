/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long traced tasks wait for locks that they find taken, and which these are.
 *
 * A task sleeps for one lock at a time; a lock that spins is waited for with preemption off, and
 * an interrupt may come upon another meanwhile. So the latter are kept by CPU.
 */
#ifndef CONTENDED_BPF_H
#define CONTENDED_BPF_H

#include "lock_names.bpf.h"

struct spins {
	struct lock_wait waits[SPINS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct spins);
} spinning SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_CONTENDED);
	__type(key, struct contended_key);
	__type(value, struct lock_value);
} contended SEC(".maps");

/* Of a mutex it begins anew when the task no longer spins for it. */
static bool is_spinning(__u32 flags)
{
	return (flags & (LCB_F_SPIN | LCB_F_MUTEX)) == LCB_F_SPIN;
}

/* The wait of this CPU for LOCK, or its first place for one where LOCK is 0. */
static struct lock_wait *spin_of(__u64 lock)
{
	__u32 zero = 0;
	struct spins *here = bpf_map_lookup_elem(&spinning, &zero);

	for (int i = 0; here && i < SPINS; i++)
		if (here->waits[i].lock == lock)
			return &here->waits[i];
	return NULL;
}

static void wait_begins(struct task_state *state, __u64 lock, __u32 flags)
{
	struct lock_wait *wait = is_spinning(flags) ? spin_of(0) : &state->wait;

	if (!wait || (wait->lock && wait->lock != lock))
		__sync_fetch_and_add(&contended_totals.unended, 1);
	if (!wait || wait->lock == lock)
		return;
	wait->lock = lock;
	wait->since = bpf_ktime_get_ns();
	wait->flags = flags;
}

static struct lock_value *contended_value(const struct contended_key *key)
{
	struct lock_value *value = bpf_map_lookup_elem(&contended, key);

	if (value)
		return value;
	bpf_map_update_elem(&contended, key, &nothing, BPF_NOEXIST);
	value = bpf_map_lookup_elem(&contended, key);
	if (!value)
		__sync_fetch_and_add(&contended_totals.lost, 1);
	return value;
}

static void count_wait(const struct contended_key *key, __u64 waited)
{
	struct lock_value *value = contended_value(key);

	if (!value)
		return;
	value->count++;
	add_wait(value, waited, true);
}

/* Of acquisitions that did not wait. */
static void count_free(const struct contended_key *key, __s64 count)
{
	struct lock_value *value = contended_value(key);

	if (value)
		value->count += count;	/* of all CPUs together it is not below 0 */
}

static void wait_ends(void *ctx, struct task_struct *task, struct task_state *state, __u64 lock,
		      bool failed)
{
	struct contended_key key = { .process = state->who.process, .failed = failed };
	struct lock_wait *wait = state->wait.lock == lock ? &state->wait : spin_of(lock);
	__u64 waited;

	if (!wait)
		return;		/* it began before the task was followed */
	waited = bpf_ktime_get_ns() - wait->since;
	key.flags = wait->flags;
	wait->lock = 0;
	name_lock(task, state->asked, lock, &key);
	key.stack = kernel_stack_id(ctx, &stacks);
	count_wait(&key, waited);
}

#endif
