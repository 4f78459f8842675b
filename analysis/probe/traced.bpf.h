/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Following tasks: a traced task has a struct task_state in its task storage,
 * which goes with it; its children, processes and threads, get one each.
 *
 * Whoever includes this has defined struct task_state, whose first member is a
 * struct traced, and defines task_exits(). Nothing is looked up by number, so
 * numbers may be used again.
 *
 * A program that is preempted turns away the other tasks of its CPU meanwhile
 * (__bpf_trace_run(): one at a time on each CPU). So each of the tracepoints that are
 * not called with interrupts off has a program of type "tp_btf", for kernels whose
 * tracepoints keep preemption off, and one of type "tp", for those of 7.0 on, where
 * only the latter is run so (include/trace/perf.h). The probe loads one of the two.
 */
#ifndef TRACED_BPF_H
#define TRACED_BPF_H

#include "vma.bpf.h"
#include "traced.h"

struct tracing tracing SEC(".bss.tracing");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TRACED);
	__type(key, __u32);
	__type(value, struct traced_process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WANTED);
	__type(key, __u32);
	__type(value, __u32);
} wanted SEC(".maps");

/* From 6.2; programs of type "tp" may call them from 6.12 on. */
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

static void task_exits(struct task_struct *task, struct task_state *state);
static void task_followed(struct task_struct *task);

/*
 * Of the kernel's stack, in a map of stacks. Where another stack has its place, without
 * its innermost frame, which is the program's own.
 */
static inline int kernel_stack_id(void *ctx, void *stacks)
{
	int id = bpf_get_stackid(ctx, stacks, 0);

	return id == -EEXIST ? bpf_get_stackid(ctx, stacks, 1) : id;
}

static struct task_state *state_of(struct task_struct *task)
{
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);

	return state && !state->who.over ? state : NULL;
}

static __u32 new_process(struct task_struct *leader, __u32 tgid, __u32 parent, __u32 how)
{
	struct traced_process process = { .tgid = tgid, .parent = parent, .how = how };

	process.id = __sync_fetch_and_add(&tracing.next_process, 1) + 1;
	BPF_CORE_READ_STR_INTO(&process.comm, leader, comm);
	if (!bpf_map_update_elem(&processes, &process.id, &process, BPF_ANY))
		return process.id;
	__sync_fetch_and_add(&tracing.processes_lost, 1);
	return 0;
}

static void follow(struct task_struct *task, __u32 process, __u32 tgid)
{
	struct task_state *state;

	state = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!state) {
		__sync_fetch_and_add(&tracing.tasks_lost, 1);
		return;
	}
	state->who.process = process;
	state->who.tgid = tgid;
	state->who.tid = pid_at_level(task, tracing.level);
	state->who.minor = task->min_flt;
	state->who.major = task->maj_flt;
	task_followed(task);
}

/* The probe runs this itself: levels are then right whatever pid namespace it is in. */
SEC("syscall")
int know_the_probe(void *ctx)
{
	(void)ctx;
	tracing.level = current_level();
	return 0;
}

/* Read once, with the numbers of the processes to trace in "wanted". */
SEC("iter/task")
int follow_wanted(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 tgid, *process, id;

	if (!task || !task->mm)
		return 0;
	tgid = pid_at_level(task->group_leader, tracing.level);
	process = bpf_map_lookup_elem(&wanted, &tgid);
	if (!process || state_of(task))
		return 0;
	id = *process;
	if (!id) {
		id = new_process(task->group_leader, tgid, 0, TRACED_NAMED);
		*process = id;
	}
	follow(task, id, tgid);
	__sync_fetch_and_add(&tracing.faults_before, task->min_flt + task->maj_flt);
	return 0;
}

static struct task_state *parent_followed(void)
{
	struct task_state *parent = state_of(bpf_get_current_task_btf());

	return parent && parent->who.tgid ? parent : NULL;
}

static void follow_child(struct task_state *parent, struct task_struct *child)
{
	__u32 process = parent->who.process, tgid = parent->who.tgid;

	if (child->pid == child->tgid) {
		tgid = pid_at_level(child, tracing.level);
		process = new_process(child, tgid, process, TRACED_FORKED);
	}
	follow(child, process, tgid);
}

/* (parent, child) */
SEC("tp_btf/sched_process_fork")
int follow_fork(__u64 *ctx)
{
	struct task_state *parent = parent_followed();

	if (parent)
		follow_child(parent, (void *)ctx[1]);
	return 0;
}

SEC("tp/sched/sched_process_fork")
int follow_fork_tp(struct trace_event_raw_sched_process_fork *ctx)
{
	struct task_state *parent = parent_followed();
	struct task_struct *child;

	if (!parent)
		return 0;
	child = bpf_task_from_pid ? bpf_task_from_pid(ctx->child_pid) : NULL;
	if (!child) {
		__sync_fetch_and_add(&tracing.tasks_lost, 1);
		return 0;
	}
	follow_child(parent, child);
	bpf_task_release(child);
	return 0;
}

static int task_execs(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);

	if (!state || !state->who.tgid)
		return 0;
	state->who.process = new_process(task, state->who.tgid, state->who.process, TRACED_EXECED);
	state->who.tid = state->who.tgid;	/* de_thread(): it is the leader now */
	return 0;
}

/* (task, old pid, bprm) */
SEC("tp_btf/sched_process_exec")
int follow_exec(void *ctx)
{
	(void)ctx;
	return task_execs();
}

SEC("tp/sched/sched_process_exec")
int follow_exec_tp(void *ctx)
{
	(void)ctx;
	return task_execs();
}

static int current_exits(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);

	if (state)
		task_exits(task, state);
	return 0;
}

/* (task, ...) */
SEC("tp_btf/sched_process_exit")
int follow_exit(void *ctx)
{
	(void)ctx;
	return current_exits();
}

SEC("tp/sched/sched_process_exit")
int follow_exit_tp(void *ctx)
{
	(void)ctx;
	return current_exits();
}

#endif
