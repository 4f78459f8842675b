/* SPDX-License-Identifier: GPL-2.0-only */
/* What each fork of a traced process locked, copied and kept waiting. */
#ifndef FORKS_H
#define FORKS_H

#include <linux/types.h>

#define MAX_FORKS	16384
#define MAX_FORKING	1024	/* mms that are copied at a time */

struct fork_record {
	__u32 process, child;	/* traced_process.id */
	__u64 held_ns;		/* mmap_lock of the parent's mm */
	__u64 vmas;		/* whose page tables were to be copied, */
	__u64 locked;		/* which were locked for writing then */
	__u64 skipped;		/* of the same: bare, and not copied */
	__u64 shut_out;		/* other tasks that waited for mmap_lock to read meanwhile, */
	__u64 shut_out_ns;	/* and how long, of the time that it was held */
	__u64 longest_ns;
	__u64 child_faults;	/* until its exec or its end */
};

/* A fork that holds mmap_lock, or has. */
struct fork_hold {
	__u64 begin, end;	/* 0: it still does */
	__u32 id, reserved;
};

struct fork_totals {
	__u64 lost;		/* beyond MAX_FORKS */
	__u32 next;
	__u32 reserved;
};

#endif
