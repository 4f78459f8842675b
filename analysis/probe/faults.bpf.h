/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What both sources of page faults share: the state of a traced task, the tables that its
 * faults are counted in, and its accounts.
 *
 * Every task's faults are reckoned up against its own min_flt and maj_flt, which
 * getrusage() adds up: what those have grown by and no program has seen is told as such.
 *
 * Whoever includes this defines settle().
 */
#ifndef FAULTS_BPF_H
#define FAULTS_BPF_H

#include "vma.bpf.h"
#include "faults.h"

enum {
	IDLE,
	BEGUN,		/* by a tracepoint */
	HANDLED,	/* handle_mm_fault() has been called */
	REPEATED,	/* it said VM_FAULT_RETRY */
};

#define NO_FILE		(~0ULL)

/* What is read of a VMA. Not its struct file: one that was freed is soon used again. */
struct view {
	__u64 start, end, flags, mm, vm_ops, anon_vma;
	__u64 ino;			/* or NO_FILE */
	__u64 origin;			/* the file's inode, or else the name */
};

struct task_state {
	struct traced who;
	__u64 address, start_ns;
	__u64 sp;			/* in user mode, else 0 */
	__u64 vma;			/* of the last fault, ... */
	struct view view;		/* ... as it was when last looked at */
	struct view found;		/* by resolve(): the stack has no room for it */
	__u32 kind;
	__u8 pending, mode, access, before, path, repeats, on_stack, exiting;
	__u8 taking_stacks;
	__u8 tried;			/* FAULT_FLAG_TRIED */
	__u8 reason;			/* REASON_* */
	__u8 refused_by;		/* REASON_*: who said VM_FAULT_RETRY last */
	__u32 lock_seq;			/* of the mm, when the fault began */
	__u64 asked_ns, wait_ns;	/* mmap_lock: when; how long in all */
	__s32 user_stack, kernel_stack;
	/* Faults like the last one, not yet in the map. */
	struct group_key like;
	__u64 alike;
};

#include "traced.bpf.h"

struct fault_counts counts SEC(".bss.counts");

const volatile struct fault_constants constants = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_KINDS);
	__type(key, struct kind_key);
	__type(value, struct fault_kind);
} kinds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_GROUPS);
	__type(key, struct group_key);
	__type(value, struct group_value);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, MAX_STACKS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

/* Ends what is pending, if it has ended; the task's own counts tell. */
static void settle(struct task_state *state, struct task_struct *task);

#include "fault_vma.bpf.h"

/* ---- a fault that has ended ---- */

static __u32 bucket_of(__u64 ns)
{
	__u32 bucket = 0, value = ns >> 32 ? ~0U : ns;

	for (int shift = 16; shift; shift /= 2)
		if (value >> shift) {
			value >>= shift;
			bucket += shift;
		}
	return bucket;
}

/* Not on the stack, of which programs have 512 bytes for all their calls. */
static const struct group_value no_faults;

static struct group_value *group_of(const struct group_key *key, __u64 faults)
{
	struct group_value *value = bpf_map_lookup_elem(&groups, key);

	if (value)
		return value;
	bpf_map_update_elem(&groups, key, &no_faults, BPF_NOEXIST);
	value = bpf_map_lookup_elem(&groups, key);
	if (!value)
		__sync_fetch_and_add(&counts.faults_lost, faults);
	return value;
}

static bool same_group(const struct group_key *a, const struct group_key *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/* Not static, as resolve(). */
__noinline int flush(struct task_state *state)
{
	struct group_value *value;
	struct group_key key;

	if (!state || !state->alike)
		return 0;
	key = state->like;	/* 6.1's verifier wants a key on the stack */
	value = group_of(&key, state->alike);
	if (value)
		value->count += state->alike;
	state->alike = 0;
	return 0;
}

/* Mostly a fault is like the task's last one: then it is only counted. */
static void count(struct task_state *state, const struct group_key *key)
{
	if (!same_group(&state->like, key)) {
		flush(state);
		state->like = *key;
	}
	state->alike++;
	if (state->exiting)
		flush(state);
}

static void count_timed(const struct group_key *key, __u64 ns, __u64 wait_ns)
{
	struct group_value *value = group_of(key, 1);

	if (!value)
		return;
	value->count++;
	value->time_ns += ns;
	value->wait_ns += wait_ns;
	value->buckets[bucket_of(ns) & (FAULT_BUCKETS - 1)]++;
}

static void write_event(const struct task_state *state, const struct group_key *key, __u64 ns)
{
	struct fault_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&counts.events_lost, 1);
		return;
	}
	event->start_ns = state->start_ns;
	event->address = state->address;
	event->vm_start = state->view.start;
	event->duration_ns = ns >> 32 ? ~0U : ns;
	event->process = key->process;
	event->tid = state->who.tid;
	event->kind = key->kind;
	event->mode = key->mode;
	event->access = key->access;
	event->before = key->before;
	event->after = key->after;
	event->path = key->path;
	event->result = key->result;
	event->reason = key->reason;
	event->reserved = 0;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Of a fault that acquired mmap_lock there always is one, if only that none is told. */
static __u8 reason_of(const struct task_state *state)
{
	bool acquired = state->path == PATH_MMAP || state->path == PATH_RETRY;

	return acquired && !state->reason ? REASON_NOT_TOLD : state->reason;
}

static void ended(struct task_state *state, __u8 after, __u8 result, __u64 ns, bool timed)
{
	struct group_key key = { .process = state->who.process, .kind = state->kind,
				 .mode = state->mode, .access = state->access,
				 .before = state->before, .after = after, .path = state->path,
				 .result = result, .reason = reason_of(state), .user_stack = -1,
				 .kernel_stack = -1 };

	state->pending = IDLE;
	state->who.counted += result == RESULT_MINOR || result == RESULT_MAJOR;
	if (constants.want_stacks) {
		key.user_stack = state->user_stack;
		key.kernel_stack = state->kernel_stack;
	}
	if (timed)
		count_timed(&key, ns, state->wait_ns);
	else
		count(state, &key);
	if (constants.want_events)
		write_event(state, &key, ns);
}

/* ---- a fault that begins ---- */

static void begin(struct task_state *state, __u64 address, __u8 mode, __u8 access)
{
	state->address = address;
	state->mode = mode;
	state->access = access;
	state->before = NOT_LOOKED_AT;
	state->path = PATH_UNKNOWN;
	state->repeats = 0;
	state->reason = REASON_NONE;
	state->asked_ns = state->wait_ns = 0;
	if (constants.want_events || constants.timed)
		state->start_ns = bpf_ktime_get_ns();
}

/* arch/x86/include/asm/trap_pf.h */
static __u8 access_of(__u64 error_code)
{
	return error_code & 1 << 4 ? ACCESS_EXEC : error_code & 1 << 1 ? ACCESS_WRITE : ACCESS_READ;
}

static void take_stacks(void *ctx, struct task_state *state)
{
	if (!constants.want_stacks)
		return;
	/* Following frame pointers into memory that is not there faults, too; that is ours. */
	state->taking_stacks = 1;
	state->user_stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	state->kernel_stack = kernel_stack_id(ctx, &stacks);
	state->taking_stacks = 0;
}

/*
 * An exception that the kernel refuses before it is a fault, for page faults are disabled:
 * faulthandler_disabled(). rseq's area is written so first, and what write(2) copies.
 */
static bool is_refused(struct task_struct *task, __u8 mode)
{
	if (mode != MODE_KERNEL || !task->pagefault_disabled)
		return false;
	__sync_fetch_and_add(&counts.refused, 1);
	return true;
}

/* ---- a task's accounts ---- */

static __u64 grown(const struct task_state *state, struct task_struct *task)
{
	return task->min_flt - state->who.minor + task->maj_flt - state->who.major;
}

/* What the task's own counts have grown by, of which SEEN is known. */
static void account(struct task_state *state, struct task_struct *task, __u64 seen)
{
	struct traced *who = &state->who;
	__u64 charged = grown(state, task);

	if (charged > seen) {
		__sync_fetch_and_add(&counts.unseen, charged - seen);
		who->counted += charged - seen;
	}
	who->charged += charged;
	who->minor = task->min_flt;
	who->major = task->maj_flt;
}

/* By the task's own counts; mm_account_fault() leaves a fault that failed out of both. */
static __u8 result_of(struct task_state *state, struct task_struct *task)
{
	__u8 result = task->maj_flt != state->who.major ? RESULT_MAJOR :
		      task->min_flt != state->who.minor ? RESULT_MINOR : RESULT_ERROR;

	account(state, task, 1);
	return result;
}

/* All that is known of a task goes into the tables. */
static void close_accounts(struct task_state *state, struct task_struct *task)
{
	account(state, task, 0);
	flush(state);
	__sync_fetch_and_add(&counts.charged, state->who.charged);
	if (state->who.charged != state->who.counted)
		__sync_fetch_and_add(&counts.tasks_differ, 1);
	state->who.charged = state->who.counted = 0;
}

static void task_followed(struct task_struct *task)
{
	(void)task;
}

/*
 * From 6.16 exit_mm() comes later, and clearing the task's number in user memory may fault:
 * what is counted from here on goes into the tables at once.
 */
static void task_exits(struct task_struct *task, struct task_state *state)
{
	settle(state, task);
	close_accounts(state, task);
	state->exiting = 1;
}

/*
 * Read once, at the end: what tasks that live on have not yet put into the table. From
 * here on nothing of them counts, though they go on.
 */
SEC("iter/task")
int flush_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state = task ? state_of(task) : NULL;

	if (!state)
		return 0;
	state->who.over = 1;
	/* One that the task has not counted may be going on. */
	if (grown(state, task))
		settle(state, task);
	else if (state->pending != IDLE)
		__sync_fetch_and_add(&counts.pending, 1);
	close_accounts(state, task);
	return 0;
}

#endif
