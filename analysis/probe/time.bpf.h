/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The time of a task: which state it is in, since when, and how much it has spent in each.
 *
 * Each program takes the time first and last: what lies between is the tracer's, and in
 * no cell.
 */
#ifndef TIME_BPF_H
#define TIME_BPF_H

#include "vma.bpf.h"
#include "time.h"

struct task_state {
	struct traced who;
	__u64 since;
	__u64 held;		/* the mm whose mmap_lock it holds */
	__u64 others;		/* cpu_clock.others of its CPU when it began to wait for one */
	__u32 cpu_number;
	__u8 context, outer, lock, cpu;
	__u8 handled;		/* the fault, which is to release mmap_lock yet */
	__u8 released;		/* and has, which may be waking those who wait */
	__u8 in_window, reserved;
	__u64 accounts[TIME_SUMS];	/* its own, at the last flush */
	struct time_value value;
};

#include "traced.bpf.h"

struct time_counts counts SEC(".bss.counts");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TIME_GROUPS);
	__type(key, struct time_key);
	__type(value, struct time_value);
} times SEC(".maps");

/* New sums begin as this: a stack has no room for it. */
static const struct time_value nothing;

/* ---- the time of a task ---- */

static void charge(struct task_state *state, __u64 now)
{
	__u32 cell = TIME_CELL(state->context, state->lock, state->cpu);

	barrier_var(cell);	/* the verifier is to see the very number that is checked */
	if (cell < TIME_CELLS && now > state->since)
		state->value.ns[cell] += now - state->since;
	state->since = now;
}

/* From here on it is the task's time again, not ours. */
static void resume(struct task_state *state)
{
	__u64 now = bpf_ktime_get_ns();

	if (now > state->since)
		state->value.sums[TIME_TRACER] += now - state->since;
	state->since = now;
}

static struct task_state *charge_current(void)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_state *state = state_of(bpf_get_current_task_btf());

	if (state)
		charge(state, now);
	return state;
}

static void enter(struct task_state *state, __u8 context)
{
	__u64 slot = context;

	state->context = context;
	state->released = 0;
	barrier_var(slot);	/* likewise */
	if (slot < TIME_CONTEXTS)
		state->value.entries[slot]++;
}

/* ---- sums ---- */

static void read_accounts(struct task_struct *task, __u64 *accounts)
{
	accounts[TIME_EXEC] = task->se.sum_exec_runtime;
	if (bpf_core_field_exists(task->sched_info.run_delay))
		accounts[TIME_QUEUED] = task->sched_info.run_delay;
	accounts[TIME_USER] = task->utime;
	accounts[TIME_SYSTEM] = task->stime;
	accounts[TIME_VOLUNTARY] = task->nvcsw;
	accounts[TIME_INVOLUNTARY] = task->nivcsw;
	accounts[TIME_FAULTS] = task->min_flt + task->maj_flt;
}

/* Adds all that is known of a task to the sums of its process. */
static __noinline int flush(struct task_state *state, struct task_struct *task)
{
	struct time_key key = { state->who.process, state->in_window };
	struct time_value *value;

	for (int i = TIME_OWN_ACCOUNTS; i < TIME_SUMS; i++)
		state->value.sums[i] = -state->accounts[i];
	read_accounts(task, state->accounts);
	for (int i = TIME_OWN_ACCOUNTS; i < TIME_SUMS; i++)
		state->value.sums[i] += state->accounts[i];
	state->value.sums[TIME_TASKS] = 1;
	value = bpf_map_lookup_elem(&times, &key);
	if (!value) {
		bpf_map_update_elem(&times, &key, &nothing, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&times, &key);
	}
	if (!value) {
		__sync_fetch_and_add(&counts.lost, 1);
		return 0;
	}
	for (int i = 0; i < TIME_CELLS; i++) {
		__sync_fetch_and_add(&value->ns[i], state->value.ns[i]);
		state->value.ns[i] = 0;
	}
	for (int i = 0; i < TIME_CONTEXTS; i++) {
		__sync_fetch_and_add(&value->entries[i], state->value.entries[i]);
		state->value.entries[i] = 0;
	}
	for (int i = 0; i < TIME_SUMS; i++) {
		__sync_fetch_and_add(&value->sums[i], state->value.sums[i]);
		state->value.sums[i] = 0;
	}
	return 0;
}

static void leave_window(struct task_state *state, __u64 now)
{
	if (!state->in_window)
		return;
	state->in_window = 0;
	if (__sync_fetch_and_add(&counts.inside, -1) == 1)
		counts.window_ended_ns = now;
}

#endif
