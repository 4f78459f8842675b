/* SPDX-License-Identifier: GPL-2.0-only */
/* Where the time of tasks goes: shared by time.bpf.c and time.c. */
#ifndef TIME_H
#define TIME_H

#include <linux/types.h>
#include "traced.h"

/* What a task is about. */
enum {
	IN_UNKNOWN,		/* it was followed in the midst of something */
	IN_USER,
	IN_FAULT,		/* a page fault of user mode */
	IN_KERNEL_FAULT,	/* one of kernel mode: copying to or from user memory */
	IN_MMAP,
	IN_MUNMAP,
	IN_BRK,
	IN_MPROTECT,
	IN_MREMAP,
	IN_MADVISE,
	IN_FORK,
	IN_EXEC,
	IN_EXIT,
	IN_OTHER,		/* another system call */
	TIME_CONTEXTS,
};

/* Its part in mmap_lock. */
enum {
	LOCK_NONE,
	LOCK_WAITING,		/* from asking for it to the answer */
	LOCK_READING,
	LOCK_WRITING,
	TIME_LOCKS,
};

/* Whether it has a CPU; of what waits for one, that during which its CPU ran untraced tasks. */
enum {
	CPU_RUNNING,
	CPU_SLEEPING,
	CPU_WOKEN,		/* runnable after it slept */
	CPU_WOKEN_BEHIND,
	CPU_PREEMPTED,		/* runnable, and another has its CPU */
	CPU_PREEMPTED_BEHIND,
	TIME_STATES,
};

#define TIME_CELLS	(TIME_CONTEXTS * TIME_LOCKS * TIME_STATES)
#define TIME_CELL(context, lock, cpu)	(((context) * TIME_LOCKS + (lock)) * TIME_STATES + (cpu))

/* Sums over tasks, beside the cells; from TIME_EXEC on by the scheduler's own accounts. */
enum {
	TIME_TASKS,
	TIME_BEFORE,		/* ns from the start of the workload's clock to the task's mark */
	TIME_TRACER,		/* ns in our own programs, by their first and last instructions */
	TIME_FAULTS_BEGUN,
	TIME_FAULTS_ENDED,
	TIME_EXEC,		/* ns, se.sum_exec_runtime: to the last tick */
	TIME_QUEUED,		/* ns, sched_info.run_delay */
	TIME_USER,		/* ns, utime and stime: by ticks, where the kernel has it so */
	TIME_SYSTEM,
	TIME_VOLUNTARY,		/* context switches */
	TIME_INVOLUNTARY,
	TIME_FAULTS,		/* min_flt + maj_flt */
	TIME_SUMS,
};

#define TIME_OWN_ACCOUNTS	TIME_EXEC

struct time_value {
	__u64 ns[TIME_CELLS];
	__u64 entries[TIME_CONTEXTS];	/* how often each began */
	__u64 sums[TIME_SUMS];
};

#define TIME_NUMBERS	(sizeof(struct time_value) / sizeof(__u64))

struct time_key {
	__u32 process;		/* traced_process.id */
	__u32 in_window;	/* between the marks of analysis/workload/window.h */
};

#define MAX_TIME_GROUPS	4096
#define MAX_CPUS	8192
#define KNOWN_SYSCALLS	512

/* Who had a CPU. */
enum {
	CPU_OF_TRACED,
	CPU_OF_OTHERS,
	CPU_IDLE,
	CPU_USERS,
};

struct cpu_clock {
	__u64 since;		/* 0: it has not switched tasks yet */
	__u64 ns[CPU_USERS];	/* in the window, if there is one */
	__u64 others;		/* since the tracing began */
	__u32 user;
	__u32 window;
};

/* Shared through .bss. */
struct time_counts {
	__u64 clock_started_ns;
	__u64 window_begun_ns, window_ended_ns;
	__u64 inside;		/* tasks between their marks */
	__u64 lost;		/* tasks for whose sums there was no room */
	__u32 window;		/* 1 once a task has marked its beginning */
	__u32 reserved;
};

#endif
