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

struct lock_key {
	__u32 process;		/* traced_process.id; 0: of a task that is not traced */
	__s32 stack;		/* negative: it could not be taken */
	__u8 write, waited_for, success, foreign;	/* waited_for 0: only tried */
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
};

#endif
