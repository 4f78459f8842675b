/* SPDX-License-Identifier: GPL-2.0-only */
/* Which tasks are traced: shared by the programs that follow them and the probe that names them. */
#ifndef TRACED_H
#define TRACED_H

#include <linux/types.h>
#include "census.h"

#define MAX_TRACED	65536	/* processes followed in one go, each exec counting anew */
#define MAX_WANTED	1024	/* processes named at the start */

/* How a process came to be traced. */
enum {
	TRACED_NAMED	= 0,	/* it was named, or is the command itself */
	TRACED_FORKED	= 1,
	TRACED_EXECED	= 2,
};

/* A program in a process: exec begins a new one. */
struct traced_process {
	__u32 id;		/* from 1 */
	__u32 tgid;		/* as the probe sees it */
	__u32 parent;		/* id of the one it comes from, 0: none */
	__u32 how;
	char comm[TASK_COMM_LEN];
};

/* What a traced task carries. */
struct traced {
	__u32 process;
	__u32 tgid;		/* 0: it is not traced, but has a state for another reason */
	__u32 tid;
	__u32 over;		/* the tracing has ended for it */
	__u64 minor, major;	/* of its own counts of faults, what is accounted for */
	__u64 charged;		/* by those counts, since it was followed */
	__u64 counted;		/* by us: in groups, or as unseen */
};

struct tracing {
	__u32 level;		/* of the probe's pid namespace */
	__u32 next_process;
	__u64 faults_before;	/* of the processes named, before they were traced */
	__u64 tasks_lost;	/* that could not be followed */
	__u64 processes_lost;	/* beyond MAX_TRACED: their events count under process 0 */
};

#endif
