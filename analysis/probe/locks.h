/* SPDX-License-Identifier: GPL-2.0-only */
/* mmap_lock: shared by locks.bpf.c and locks.c. */
#ifndef LOCKS_H
#define LOCKS_H

#include <linux/types.h>
#include "traced.h"

#define LOCK_BUCKETS	40	/* log2 of ns: up to 18 minutes */
#define LOCK_STACKS	16384
#define LOCK_DEPTH	32
#define MAX_LOCK_GROUPS	65536	/* at most; a command that is executed makes some thirty */
#define MAX_LOCK_MMS	16384
#define MAX_LOCK_TASKS	65536

struct lock_key {
	__u32 process;		/* traced_process.id; 0: of a task that is not traced */
	__s32 stack;		/* negative: it could not be taken */
	/* waited_for 0: it was not asked for (mmap_lock_start_locking): mmap_write_downgrade() */
	__u8 write, waited_for, success, foreign;
	__u32 reserved;
};

struct lock_value {
	__u64 count;
	__u64 contended;	/* of these, those that found it taken */
	__u64 wait_ns;
	__u64 longest_ns;
	__u32 buckets[LOCK_BUCKETS];
};

struct lock_totals {
	__u64 lost;		/* no room for their group */
	__u64 tallies_lost;	/* tasks for whose tally there was no room */
};

/* Acquisitions by one task, whoever's lock it was. */
struct lock_tally {
	__u64 read, write;
	__u32 alive;		/* it went on when the tracing ended */
	__u32 reserved;
};

/* What a histogram of the same tracepoint has of the traced tasks that have ended. */
struct lock_testimony {
	__u64 read, write;
	__u64 traced_read, traced_write;	/* by our own tallies */
	__u64 tasks, left_out;			/* that have ended, and that went on */
	__u64 dropped;				/* it had no room for them */
};

#endif
