/* SPDX-License-Identifier: GPL-2.0-only */
/* Locks that traced tasks found taken, each by its name: shared by contended.bpf.h and contended.c. */
#ifndef CONTENDED_H
#define CONTENDED_H

#include <linux/types.h>
#include "faults.h"
#include "locks.h"

#define MAX_CONTENDED	16384	/* groups at most */
#define MAX_THINGS	16384	/* what locks belong to */
#define SPINS		4	/* nested on a CPU: task, softirq, hardirq, NMI */

/* What a lock is. */
enum {
	LOCK_OTHER,		/* nothing tells but its flags, and its symbol where it has one */
	LOCK_MMAP,
	LOCK_VMA,
	LOCK_I_MMAP,
	LOCK_INODE,
	LOCK_ANON_VMA,
	LOCK_PAGE_TABLE,
	LOCK_MM_PAGE_TABLE,	/* mm->page_table_lock */
	LOCK_ZONE,
	LOCK_LRU,
	LOCK_SIGHAND,
	LOCK_NAMES,
};

/* include/trace/events/lock.h */
#define LCB_F_SPIN	(1U << 0)
#define LCB_F_READ	(1U << 1)
#define LCB_F_WRITE	(1U << 2)
#define LCB_F_RT	(1U << 3)
#define LCB_F_PERCPU	(1U << 4)
#define LCB_F_MUTEX	(1U << 5)

/* A wait that has begun. */
struct lock_wait {
	__u64 lock;		/* 0: it has ended */
	__u64 since;
	__u32 flags;		/* LCB_F_* */
	__u32 reserved;
};

/* What a lock belongs to: addresses in here do not leave the probe. */
struct thing_key {
	__u64 address;
	__u64 stamp;		/* tells it from what had the address before, as far as can be */
	__u32 name;		/* LOCK_* */
	__u32 kind;		/* of a VMA: FOUND_*, and bits of its file's address */
};

struct thing {
	__u32 id;		/* from 1 */
	__u32 mm;		/* of a VMA, that of its mm */
	__u32 foreign;		/* of an mm: it was another process's when first seen */
	__u32 found;		/* of a VMA, FOUND_* */
	__u64 start, end;	/* of a VMA, when first seen so */
	struct kind_key kind;	/* of a VMA, and as far as a file has it of that */
	__u32 ops;		/* of a VMA: ops_entry.id */
	char file[FAULT_NAME_MAX];
	__u32 reserved;
};

struct contended_key {
	__u32 process;		/* traced_process.id */
	__s32 stack;
	__u32 thing;		/* thing.id, 0: it belongs to nothing that is told apart */
	__u8 name;		/* LOCK_* */
	__u8 flags;		/* LCB_F_* */
	__u8 failed;		/* it was not got: a signal came first, or it was only tried for */
	__u8 reserved;
	__u32 call;		/* system call of its holder and 1, 0: not known */
};

/* Shared through .rodata; all 0 where the kernel does not show its symbols. */
struct lock_constants {
	__u64 image[2];		/* where locks with symbols lie */
	__u64 sees_writers;	/* a program is called for each VMA that is locked for writing */
	__u64 waiters[2][2];	/* functions that wait for the readers of a VMA's lock to leave */
};

struct contended_totals {
	__u64 lost;		/* waits for whose group there was no room */
	__u64 things_lost;	/* beyond MAX_THINGS: their locks are told by kind alone */
	__u64 unended;		/* waits whose end was not seen */
	__u64 unnamed_vmas;	/* waits for the lock of a VMA that was not found */
	__u32 next_thing;
	__u32 reserved;
};

#endif
