// SPDX-License-Identifier: GPL-2.0-only
/*
 * mmap_lock: who takes it, for reading or for writing, and how long each waits.
 *
 * Counted are the traced tasks, and others when they take the mmap_lock of an
 * mm that a traced task has used: readers of /proc, tracers, this project's own
 * census. A page fault that does not get by with its VMA's own lock takes it
 * for reading.
 */
#include <linux/ptrace.h>
#include "vma.bpf.h"
#include "mmap_lock.bpf.h"
#include "contended.h"
#include "forks.h"
#include <bpf/bpf_tracing.h>

struct task_state {
	struct traced who;
	__u64 asked_ns;		/* 0: not asking for it */
	__u64 asked;		/* the mm whose lock it asked for last */
	__u64 mm;		/* the last one of its own that was noted */
	__u32 contended;
	__u32 exiting;
	struct lock_tally tally;
	struct lock_wait wait;	/* for a lock that sleeps */
	struct lock_wait vma_wait;	/* for the readers of a VMA's lock that is a count */
	__u64 locking;		/* the VMA that it locks for writing, or has */
	__u64 held;		/* the mm whose lock it holds for writing, */
	__u64 held_since, held_ns;	/* since when; how long it held it the last time */
	__s32 held_stack;
	__u32 forking;		/* fork_record's number while it copies its mm, */
	__u32 bore;		/* of its last child, until that appears, */
	__u32 born_of;		/* and of the fork that it comes from */
	struct fork_record fork;
};

#include "traced.bpf.h"

struct lock_totals totals SEC(".bss.totals");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_LOCK_GROUPS);
	__type(key, struct lock_key);
	__type(value, struct lock_value);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_LOCK_MMS);
	__type(key, __u64);
	__type(value, __u32);
} mms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, LOCK_STACKS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, LOCK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

/* By task_struct.pid, whatever our namespace: a histogram of the tracepoint has it so. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_LOCK_TASKS);
	__type(key, __u32);
	__type(value, struct lock_tally);
} tallies SEC(".maps");

static const struct lock_value nothing;

/* Adds the task's tally to that of its number: threads that exec change theirs. */
static void keep_tally(struct task_struct *task, struct task_state *state, bool alive)
{
	struct lock_tally fresh = {}, *tally;
	__u32 pid = task->pid;

	tally = bpf_map_lookup_elem(&tallies, &pid);
	if (!tally) {
		bpf_map_update_elem(&tallies, &pid, &fresh, BPF_NOEXIST);
		tally = bpf_map_lookup_elem(&tallies, &pid);
	}
	if (!tally) {
		__sync_fetch_and_add(&totals.tallies_lost, 1);
		return;
	}
	if (!state)
		return;
	tally->read += state->tally.read;
	tally->write += state->tally.write;
	tally->alive |= alive;
	state->tally.read = state->tally.write = 0;
}

static void is_born(struct task_struct *child, struct task_state *state);
static void settle_child(struct task_struct *task, struct task_state *state);

static void task_followed(struct task_struct *task)
{
	keep_tally(task, NULL, false);
	is_born(task, state_of(task));
}

/* A task has another mm than before: exec gave it one, unless it is new. */
static void note(struct task_struct *task, struct task_state *state, __u64 mm)
{
	bool borrowed = mm == (__u64)BPF_CORE_READ(task, real_parent, mm);	/* vfork() */
	__u32 *user = bpf_map_lookup_elem(&mms, &state->mm), tgid = task->tgid;

	if (user && *user == tgid)
		bpf_map_delete_elem(&mms, &state->mm);
	bpf_map_update_elem(&mms, &mm, &tgid, borrowed ? BPF_NOEXIST : BPF_ANY);
	if (state->mm)
		settle_child(task, state);
	state->mm = mm;
}

/*
 * The state of a task whose taking of MM's lock counts, made where it has none. Where
 * the mm noted is gone, and its place is that of another process's, that one is seen
 * to take the lock of its own.
 */
static struct task_state *concerned(struct task_struct *task, __u64 mm)
{
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);
	__u32 *user;

	if (state && state->who.over)
		return NULL;
	if (state && state->who.process && state->mm != mm && mm == (__u64)task->mm)
		note(task, state, mm);
	if (state && state->who.process)
		return state;
	user = bpf_map_lookup_elem(&mms, &mm);
	if (!user)
		return NULL;
	if (mm == (__u64)task->mm && *user != (__u32)task->tgid) {
		bpf_map_delete_elem(&mms, &mm);
		return NULL;
	}
	return bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

static __u32 bucket_of(__u64 ns)
{
	__u32 bucket = 0;

	for (int shift = 32; shift; shift /= 2)
		if (ns >> shift) {
			ns >>= shift;
			bucket += shift;
		}
	return bucket < LOCK_BUCKETS ? bucket : LOCK_BUCKETS - 1;
}

static void add_wait(struct lock_value *value, __u64 ns, bool contended)
{
	value->contended += contended;
	value->wait_ns += ns;
	if (ns > value->longest_ns)
		value->longest_ns = ns;
	value->buckets[bucket_of(ns)]++;
}

#include "contended.bpf.h"
#include "forks.bpf.h"

static int asks(__u64 mm)
{
	struct task_state *state = concerned(bpf_get_current_task_btf(), mm);

	if (!state)
		return 0;
	state->contended = 0;
	state->asked = mm;
	state->asked_ns = bpf_ktime_get_ns();
	return 0;
}

ON_MMAP_LOCK_START_LOCKING(asks)

/* Only those who find a lock taken come here: it costs the others nothing. */
static int finds_it_taken(__u64 lock, __u32 flags)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());

	if (!state)
		return 0;
	if (state->asked_ns && is_mmap_lock(lock, state->asked))
		state->contended = 1;
	if (state->who.process)
		wait_begins(state, lock, flags);
	return 0;
}

/* (lock, flags) */
SEC("tp_btf/contention_begin")
int finds_it_taken_btf(__u64 *ctx)
{
	return finds_it_taken(ctx[0], ctx[1]);
}

SEC("tp/lock/contention_begin")
int finds_it_taken_tp(struct trace_event_raw_contention_begin *ctx)
{
	return finds_it_taken((__u64)ctx->lock_addr, ctx->flags);
}

static __always_inline int gets_it(void *ctx, __u64 lock, int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);

	if (state && state->who.process)
		wait_ends(ctx, task, state, lock, result);
	return 0;
}

/* (lock, result) */
SEC("tp_btf/contention_end")
int gets_it_btf(__u64 *ctx)
{
	return gets_it(ctx, ctx[0], ctx[1]);
}

SEC("tp/lock/contention_end")
int gets_it_tp(struct trace_event_raw_contention_end *ctx)
{
	return gets_it(ctx, (__u64)ctx->lock_addr, ctx->ret);
}

static int answered(void *ctx, __u64 mm, bool write, bool success)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = concerned(task, mm);
	struct lock_value *value;
	struct lock_key key = { .write = write, .success = success };
	__u64 waited = 0, now;

	if (!state)
		return 0;
	now = bpf_ktime_get_ns();
	if (state->asked_ns)
		waited = now - state->asked_ns;
	key.waited_for = state->asked_ns != 0;
	key.process = state->who.process;
	key.foreign = mm != (__u64)task->mm;
	key.stack = kernel_stack_id(ctx, &stacks);
	if (success && write && !(state->held && holds_for_writing(task, state->held))) {
		state->held = mm;
		state->held_since = now;
		state->held_stack = key.stack;
	}
	if (success && !write && state->held == mm)
		lets_go(state, mm);	/* mmap_write_downgrade() */
	if (success && !write && state->contended)
		was_shut_out(mm, state->asked_ns, now);
	state->asked_ns = state->asked = 0;
	if (success && key.process) {
		state->tally.read += !write;
		state->tally.write += write;
		if (state->exiting)
			keep_tally(task, state, false);
	}
	value = bpf_map_lookup_elem(&groups, &key);
	if (!value) {
		bpf_map_update_elem(&groups, &key, &nothing, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&groups, &key);
	}
	if (!value) {
		__sync_fetch_and_add(&totals.lost, 1);
		return 0;
	}
	value->count++;
	if (key.waited_for)
		add_wait(value, waited, state->contended);
	return 0;
}

ON_MMAP_LOCK_ACQUIRE_RETURNED(answered)

static int releases(__u64 mm)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());

	if (state && state->held == mm)
		lets_go(state, mm);
	return 0;
}

ON_MMAP_LOCK_RELEASED(releases)

/* ---- locks of VMAs, and forks ---- */

/* Called with preemption off, whatever the kernel. (preempt, prev, next, prev_state) */
SEC("tp_btf/sched_switch")
int switches(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];

	struct task_state *state = state_of(prev);

	if (state && !ctx[0] && ctx[3]) {
		goes_to_sleep(ctx, prev, state, ctx[3]);
		if (ctx[3] & TASK_DEAD)
			settle_child(prev, state);
	}
	has_slept(next);
	return 0;
}

/*
 * The calls of functions: by fentry, or by kprobe.multi, as in faults_handled.bpf.c; of each pair
 * the probe loads one, or none.
 */
/* (vma, ...) */
SEC("fentry/__vma_start_write")
int locks_vma(__u64 *ctx)
{
	return locks_for_writing(ctx[0]);
}

SEC("kprobe.multi/__vma_start_write")
int locks_vma_multi(struct pt_regs *ctx)
{
	return locks_for_writing(PT_REGS_PARM1(ctx));
}

/* (mm, address, regs) */
SEC("fentry/lock_mm_and_find_vma")
int falls_back(__u64 *ctx)
{
	return fault_falls_back(ctx, ctx[0], ctx[1], ctx[2]);
}

SEC("kprobe.multi/lock_mm_and_find_vma")
int falls_back_multi(struct pt_regs *ctx)
{
	return fault_falls_back(ctx, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
}

/* (dst_vma, src_vma) */
SEC("fentry/copy_page_range")
int copies(__u64 *ctx)
{
	return copies_page_tables(ctx[1]);
}

SEC("kprobe.multi/copy_page_range")
int copies_multi(struct pt_regs *ctx)
{
	return copies_page_tables(PT_REGS_PARM2(ctx));
}

/*
 * exit_mm() may be still to come: what is acquired from here on is tallied at once.
 * An mm that nobody uses any more may be freed, and its place used again.
 */
static void task_exits(struct task_struct *task, struct task_state *state)
{
	struct mm_struct *mm = (void *)state->mm;
	__u64 key = (__u64)mm;

	if (state->who.process)
		keep_tally(task, state, false);
	state->exiting = 1;
	if (mm && BPF_CORE_READ(mm, mm_users.counter) <= 1)
		bpf_map_delete_elem(&mms, &key);
}

/* Read once, at the end; from here on nothing of a task counts. */
SEC("iter/task")
int flush_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state = task ? state_of(task) : NULL;

	if (!state)
		return 0;
	settle_child(task, state);
	state->who.over = 1;
	if (state->who.process)
		keep_tally(task, state, !state->exiting);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
