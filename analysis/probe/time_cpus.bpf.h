/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who has the CPUs: whether a task runs, sleeps or waits for one, and what its CPU does
 * meanwhile. All of these programs run with interrupts off, on any kernel.
 */
#ifndef TIME_CPUS_BPF_H
#define TIME_CPUS_BPF_H

#include "time.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__type(key, __u32);
	__type(value, struct cpu_clock);
} cpus SEC(".maps");

static void charge_cpu(struct cpu_clock *clock, __u64 now)
{
	__u64 from = clock->since, begun = counts.window_begun_ns;
	__u64 until = counts.window && !counts.inside ? counts.window_ended_ns : now;

	if (clock->window != counts.window) {
		clock->window = counts.window;
		for (int i = 0; i < CPU_USERS; i++)
			clock->ns[i] = 0;
	}
	clock->since = now;
	if (!from)
		return;
	if (clock->user == CPU_OF_OTHERS && now > from)
		clock->others += now - from;
	if (from < begun)
		from = begun;
	if (until > from && clock->user < CPU_USERS)
		clock->ns[clock->user] += until - from;
}

static __u64 others_of(__u32 number, __u64 now)
{
	struct cpu_clock *clock = bpf_map_lookup_elem(&cpus, &number);

	if (!clock)
		return 0;
	return clock->others + (clock->user == CPU_OF_OTHERS && now > clock->since ?
				now - clock->since : 0);
}

static void begin_to_wait(struct task_state *state, __u32 number, __u64 now)
{
	state->cpu_number = number;
	state->others = others_of(number, now);
}

/* It has waited for a CPU, and some of that time its CPU ran untraced tasks. */
static void charge_queued(struct task_state *state, __u64 now)
{
	__u64 waited = now - state->since, behind = others_of(state->cpu_number, now) - state->others;
	__u32 cell = TIME_CELL(state->context, state->lock, state->cpu);

	if (state->cpu != CPU_WOKEN && state->cpu != CPU_PREEMPTED) {
		charge(state, now);
		return;
	}
	if (behind > waited)
		behind = waited;
	barrier_var(cell);	/* as in charge() */
	if (cell < TIME_CELLS - 1) {
		state->value.ns[cell] += waited - behind;
		state->value.ns[cell + 1] += behind;
	}
	state->since = now;
}

/* include/linux/sched.h: of a task that will not run again */
#define TASK_DEAD	0x80

/* (preempt, prev, next, prev_state): the last from 5.18 */
SEC("tp_btf/sched_switch")
int switches(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	__u64 now = bpf_ktime_get_ns();
	__u32 number = bpf_get_smp_processor_id(), prev_state = ctx[3];
	struct task_state *from = state_of(prev), *to = state_of(next);
	struct cpu_clock *clock = bpf_map_lookup_elem(&cpus, &number);

	if (clock) {
		clock->user = !prev->pid ? CPU_IDLE : from ? CPU_OF_TRACED : CPU_OF_OTHERS;
		charge_cpu(clock, now);
		clock->user = !next->pid ? CPU_IDLE : to ? CPU_OF_TRACED : CPU_OF_OTHERS;
	}
	if (from) {
		charge(from, now);
		from->cpu = ctx[0] || !prev_state ? CPU_PREEMPTED : CPU_SLEEPING;
		begin_to_wait(from, number, now);
		if (prev_state & TASK_DEAD) {
			flush(from, prev);
			leave_window(from, now);
			from->who.over = 1;
		}
	}
	if (to) {
		charge_queued(to, now);
		to->cpu = CPU_RUNNING;
		resume(to);
	}
	return 0;
}

static struct task_state *wake(struct task_struct *task, __u64 now)
{
	struct task_state *state = state_of(task);

	if (state && state->cpu == CPU_SLEEPING) {
		charge(state, now);
		state->cpu = CPU_WOKEN;
	}
	return state;
}

/* A fault that has released mmap_lock is still busy with that while it wakes who waits for it. */
static void charge_waker(const struct task_state *woken, __u64 now)
{
	struct task_state *waker = state_of(bpf_get_current_task_btf());

	if (woken->lock != LOCK_WAITING || !waker || !waker->released ||
	    waker->cpu != CPU_RUNNING)
		return;
	waker->context = IN_FAULT;
	charge(waker, now);
	waker->context = waker->outer;
	resume(waker);
}

/* (task), in the context of whoever wakes it */
SEC("tp_btf/sched_waking")
int wakes(__u64 *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_state *state = wake((void *)ctx[0], now);

	if (state)
		charge_waker(state, now);
	return 0;
}

/* (task), which is in the queue of a CPU now; mostly in the same context */
SEC("tp_btf/sched_wakeup")
int is_awake(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u64 now = bpf_ktime_get_ns();
	struct task_state *state = wake(task, now);

	if (!state)
		return 0;
	if (bpf_core_field_exists(task->wake_cpu))
		begin_to_wait(state, task->wake_cpu, now);
	charge_waker(state, now);
	return 0;
}

#endif
