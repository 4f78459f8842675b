// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the time of tasks goes: at any moment a traced task is in one context (user mode,
 * a page fault, mmap(), ...), has one part in mmap_lock, and runs, sleeps or waits for a
 * CPU. At each event the time since the last one is added to the cell that these make, so
 * that all cells add up to the time the task was followed.
 *
 * A page fault begins with page_fault_user or page_fault_kernel, called with interrupts
 * off, and ends with perf's software event of it, which mm_account_fault() fires with
 * preemption off, or when it then releases mmap_lock. So none of these programs is turned
 * away, preemptible kernel or not; what is missed for another reason shows as faults that
 * have begun and not ended, and by the task's own counts.
 *
 * Interrupts count as what they interrupt. Each program takes the time first and last:
 * what lies between is the tracer's, and in no cell.
 */
#include "vma.bpf.h"
#include "time.h"
#include "../workload/window.h"

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

/* By the number of a system call: what a task in it is about. */
const volatile __u8 contexts[KNOWN_SYSCALLS] = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_TIME_GROUPS);
	__type(key, struct time_key);
	__type(value, struct time_value);
} times SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__type(key, __u32);
	__type(value, struct cpu_clock);
} cpus SEC(".maps");

/* New sums begin as this: a stack has no room for it. */
static const struct time_value nothing;

/* ---- the time of a task ---- */

static void charge(struct task_state *state, __u64 now)
{
	__u32 cell = TIME_CELL(state->context, state->lock, state->cpu);

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
	barrier_var(slot);	/* the verifier is to see the very number that is checked */
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

/* ---- CPUs ---- */

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

/*
 * (task), in the context of whoever wakes it: a fault that has released mmap_lock may still
 * be busy with that.
 */
SEC("tp_btf/sched_waking")
int wakes(__u64 *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_state *state = wake((void *)ctx[0], now), *waker;

	if (!state || state->lock != LOCK_WAITING)
		return 0;
	waker = state_of(bpf_get_current_task_btf());
	if (!waker || !waker->released || waker->cpu != CPU_RUNNING)
		return 0;
	waker->context = IN_FAULT;
	charge(waker, now);
	waker->context = waker->outer;
	resume(waker);
	return 0;
}

/* (task), which is in the queue of a CPU now */
SEC("tp_btf/sched_wakeup")
int is_awake(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u64 now = bpf_ktime_get_ns();
	struct task_state *state = wake(task, now);

	if (state && bpf_core_field_exists(task->wake_cpu))
		begin_to_wait(state, task->wake_cpu, now);
	return 0;
}

/* ---- system calls ---- */

/* arch/x86/include/asm/thread_info.h: a system call of 32 bits, which are numbered otherwise */
#define TS_COMPAT	0x0002

static __u8 context_of(struct task_struct *task, __s64 number)
{
	if (bpf_core_field_exists(task->thread_info.status) && task->thread_info.status & TS_COMPAT)
		return IN_OTHER;
	return number >= 0 && number < KNOWN_SYSCALLS ? contexts[number] : IN_OTHER;
}

static void mark(struct task_struct *task, struct task_state *state, __s64 number)
{
	if (number == CLOCK_STARTS) {
		counts.clock_started_ns = state->since;
	} else if (number == WINDOW_BEGINS && !state->in_window) {
		flush(state, task);
		state->in_window = 1;
		if (counts.clock_started_ns)
			state->value.sums[TIME_BEFORE] = state->since - counts.clock_started_ns;
		if (!counts.window)
			counts.window_begun_ns = state->since;
		counts.window = 1;
		__sync_fetch_and_add(&counts.inside, 1);
	} else if (number == WINDOW_ENDS) {
		flush(state, task);
		leave_window(state, state->since);
	}
}

/* (regs, number): with preemption off, though it may fault (6.13) */
SEC("tp_btf/sys_enter")
int call_begins(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = charge_current();
	__s64 number = ctx[1];
	__u8 context;

	if (!state)
		return 0;
	context = context_of(task, number);
	if (number >= CLOCK_STARTS && number <= WINDOW_ENDS)
		mark(task, state, number);
	else if (context == IN_EXEC)	/* another program, and another process to us */
		flush(state, task);
	enter(state, context);
	resume(state);
	return 0;
}

/* (regs, result); of a child it is the first that is seen */
SEC("tp_btf/sys_exit")
int call_ends(__u64 *ctx)
{
	struct task_state *state = charge_current();

	(void)ctx;
	if (!state)
		return 0;
	state->context = IN_USER;
	resume(state);
	return 0;
}

/* ---- page faults ---- */

static bool in_fault(const struct task_state *state)
{
	return state->context == IN_FAULT || state->context == IN_KERNEL_FAULT;
}

static int fault_begins(__u64 address, bool user)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state;

	/* Of the kernel's own addresses, or with page faults disabled, it is none. */
	if ((__s64)address < 0 || (!user && task->pagefault_disabled))
		return 0;
	state = charge_current();
	if (!state)
		return 0;
	if (user)
		state->outer = IN_USER;
	else if (!in_fault(state))
		state->outer = state->context;
	state->handled = 0;
	state->value.sums[TIME_FAULTS_BEGUN]++;
	enter(state, user ? IN_FAULT : IN_KERNEL_FAULT);
	resume(state);
	return 0;
}

/* (address, regs, error_code) */
SEC("tp_btf/page_fault_user")
int user_fault_begins(__u64 *ctx)
{
	return fault_begins(ctx[0], true);
}

SEC("tp_btf/page_fault_kernel")
int kernel_fault_begins(__u64 *ctx)
{
	return fault_begins(ctx[0], false);
}

/* page-faults-min and page-faults-maj: at the end of handle_mm_fault(), not of its retries */
SEC("perf_event")
int fault_is_handled(void *ctx)
{
	struct task_state *state = charge_current();

	(void)ctx;
	if (!state)
		return 0;
	state->value.sums[TIME_FAULTS_ENDED]++;
	if (in_fault(state)) {
		state->handled = state->lock == LOCK_READING;
		if (!state->handled)
			state->context = state->outer;
	}
	resume(state);
	return 0;
}

/* ---- mmap_lock ---- */

/*
 * Of one mm at a time: what a task asks for while it holds another's, as fork does,
 * is not told apart from holding that.
 */
static int asks(void)
{
	struct task_state *state = charge_current();

	if (!state)
		return 0;
	if (!state->held)
		state->lock = LOCK_WAITING;
	resume(state);
	return 0;
}

static int answered(__u64 mm, bool write, bool success)
{
	struct task_state *state = charge_current();

	if (!state)
		return 0;
	if (!state->held || state->held == mm) {	/* the latter: mmap_write_downgrade() */
		state->held = success ? mm : 0;
		state->lock = !success ? LOCK_NONE : write ? LOCK_WRITING : LOCK_READING;
	}
	resume(state);
	return 0;
}

static int releases(__u64 mm)
{
	struct task_state *state = charge_current();

	if (!state)
		return 0;
	if (state->held == mm) {
		state->held = 0;
		state->lock = LOCK_NONE;
		if (state->handled) {
			state->released = state->context == IN_FAULT;
			state->context = state->outer;
		}
		state->handled = 0;
	}
	resume(state);
	return 0;
}

SEC("tp_btf/mmap_lock_start_locking")
int asks_btf(void *ctx)
{
	(void)ctx;
	return asks();
}

SEC("tp/mmap_lock/mmap_lock_start_locking")
int asks_tp(void *ctx)
{
	(void)ctx;
	return asks();
}

/* (mm, memcg_path, write, success), from 5.11 */
SEC("tp_btf/mmap_lock_acquire_returned")
int answered_with_path(__u64 *ctx)
{
	return answered(ctx[0], ctx[2], ctx[3]);
}

/* (mm, write, success), later */
SEC("tp_btf/mmap_lock_acquire_returned")
int answered_plain(__u64 *ctx)
{
	return answered(ctx[0], ctx[1], ctx[2]);
}

SEC("tp/mmap_lock/mmap_lock_acquire_returned")
int answered_tp(struct trace_event_raw_mmap_lock_acquire_returned *ctx)
{
	return answered((__u64)ctx->mm, ctx->write, ctx->success);
}

/* (mm, ...) */
SEC("tp_btf/mmap_lock_released")
int releases_btf(__u64 *ctx)
{
	return releases(ctx[0]);
}

SEC("tp/mmap_lock/mmap_lock_released")
int releases_tp(struct trace_event_raw_mmap_lock *ctx)
{
	return releases((__u64)ctx->mm);
}

/* ---- beginning and end ---- */

/* include/linux/sched.h: of a child that has not run yet */
#define TASK_NEW	0x800

static __u8 cpu_of(struct task_struct *task)
{
	__u32 state = task->__state;

	if (state & TASK_NEW)
		return CPU_WOKEN;
	if (bpf_core_field_exists(task->on_cpu) && task->on_cpu)
		return CPU_RUNNING;
	return state ? CPU_SLEEPING : CPU_PREEMPTED;
}

/* A child is in the midst of fork(); what others are in shows when it ends. */
static void task_followed(struct task_struct *task)
{
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);

	if (!state)
		return;
	state->since = bpf_ktime_get_ns();
	state->context = task->__state & TASK_NEW ? IN_FORK : IN_UNKNOWN;
	state->cpu = cpu_of(task);
	begin_to_wait(state, bpf_get_smp_processor_id(), state->since);
	read_accounts(task, state->accounts);
}

/* It goes on: exit_mm() may be still to come. Its last switch ends it. */
static void task_exits(struct task_struct *task, struct task_state *state)
{
	(void)task;
	(void)state;
}

/* Read once, at the end; from here on nothing of a task counts. */
SEC("iter/task")
int flush_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state = task ? state_of(task) : NULL;

	if (!state)
		return 0;
	charge_queued(state, bpf_ktime_get_ns());
	state->who.over = 1;
	flush(state, task);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
