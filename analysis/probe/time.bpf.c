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
 * Interrupts count as what they interrupt, and the way into the kernel and out of it, before
 * the first event and after the last, as user mode.
 */
#include "time_cpus.bpf.h"
#include "mmap_lock.bpf.h"
#include "../workload/window.h"

/* By the number of a system call: what a task in it is about. */
const volatile __u8 contexts[KNOWN_SYSCALLS] = {};

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

static int call_begins(__s64 number)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = charge_current();
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

static int call_ends(void)
{
	struct task_state *state = charge_current();

	if (!state)
		return 0;
	state->context = IN_USER;
	resume(state);
	return 0;
}

/* (regs, number) */
SEC("tp_btf/sys_enter")
int call_begins_btf(__u64 *ctx)
{
	return call_begins(ctx[1]);
}

SEC("tp/raw_syscalls/sys_enter")
int call_begins_tp(struct trace_event_raw_sys_enter *ctx)
{
	return call_begins(ctx->id);
}

/* (regs, result); of a child it is the first that is seen */
SEC("tp_btf/sys_exit")
int call_ends_btf(void *ctx)
{
	(void)ctx;
	return call_ends();
}

SEC("tp/raw_syscalls/sys_exit")
int call_ends_tp(void *ctx)
{
	(void)ctx;
	return call_ends();
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
static int asks(__u64 mm)
{
	struct task_state *state = charge_current();

	(void)mm;
	if (!state)
		return 0;
	if (!state->held)
		state->lock = LOCK_WAITING;
	resume(state);
	return 0;
}

static int answered(void *ctx, __u64 mm, bool write, bool success)
{
	struct task_state *state = charge_current();

	(void)ctx;
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

ON_MMAP_LOCK_START_LOCKING(asks)
ON_MMAP_LOCK_ACQUIRE_RETURNED(answered)

ON_MMAP_LOCK_RELEASED(releases)

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
