// SPDX-License-Identifier: GPL-2.0-only
/*
 * mmap_lock: who takes it, for reading or for writing, and how long each waits.
 *
 * Counted are the traced tasks, and others when they take the mmap_lock of an
 * mm that a traced task has used: readers of /proc, tracers, this project's own
 * census. A page fault that does not get by with its VMA's own lock takes it
 * for reading.
 */
#include "vma.bpf.h"
#include "mmap_lock.bpf.h"
#include "locks.h"

struct task_state {
	struct traced who;
	__u64 asked_ns;		/* 0: not asking for it */
	__u64 mm;		/* the last one of its own that was noted */
	__u32 contended;
	__u32 exiting;
	struct lock_tally tally;
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

static void task_followed(struct task_struct *task)
{
	keep_tally(task, NULL, false);
}

/* A task has another mm than before: exec gave it one, unless it is new. */
static void note(struct task_struct *task, struct task_state *state, __u64 mm)
{
	bool borrowed = mm == (__u64)BPF_CORE_READ(task, real_parent, mm);	/* vfork() */
	__u32 *user = bpf_map_lookup_elem(&mms, &state->mm), tgid = task->tgid;

	if (user && *user == tgid)
		bpf_map_delete_elem(&mms, &state->mm);
	bpf_map_update_elem(&mms, &mm, &tgid, borrowed ? BPF_NOEXIST : BPF_ANY);
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

static int asks(__u64 mm)
{
	struct task_state *state = concerned(bpf_get_current_task_btf(), mm);

	if (!state)
		return 0;
	state->contended = 0;
	state->asked_ns = bpf_ktime_get_ns();
	return 0;
}

ON_MMAP_LOCK_START_LOCKING(asks)

/* Only those who find a lock taken come here: it costs the others nothing. */
static int finds_it_taken(void)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());

	if (state && state->asked_ns)
		state->contended = 1;
	return 0;
}

SEC("tp_btf/contention_begin")
int finds_it_taken_btf(void *ctx)
{
	(void)ctx;
	return finds_it_taken();
}

SEC("tp/lock/contention_begin")
int finds_it_taken_tp(void *ctx)
{
	(void)ctx;
	return finds_it_taken();
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

static int answered(void *ctx, __u64 mm, bool write, bool success)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = concerned(task, mm);
	struct lock_value *value;
	struct lock_key key = { .write = write, .success = success };
	__u64 waited = 0;

	if (!state)
		return 0;
	if (state->asked_ns)
		waited = bpf_ktime_get_ns() - state->asked_ns;
	key.waited_for = state->asked_ns != 0;
	key.process = state->who.process;
	key.foreign = mm != (__u64)task->mm;
	key.stack = kernel_stack_id(ctx, &stacks);
	state->asked_ns = 0;
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
	if (!key.waited_for)
		return 0;
	value->contended += state->contended;
	value->wait_ns += waited;
	if (waited > value->longest_ns)
		value->longest_ns = waited;
	value->buckets[bucket_of(waited)]++;
	return 0;
}

ON_MMAP_LOCK_ACQUIRE_RETURNED(answered)

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
	state->who.over = 1;
	if (state->who.process)
		keep_tally(task, state, !state->exiting);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
