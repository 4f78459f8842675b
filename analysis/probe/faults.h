/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Page faults: what the BPF programs hand to the probe, and what the probe writes.
 *
 * An events file is a struct fault_file followed by struct fault_event to its end,
 * in the machine's byte order. anonvma.probe.faults_file reads it. A change of layout is a
 * new FAULTS_FORMAT.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <linux/types.h>
#include "traced.h"

#define FAULTS_MAGIC	"VMAFALT"
#define FAULTS_FORMAT	3
#define FAULT_BUCKETS	32	/* log2 of ns */
#define FAULT_NAME_MAX	32
#define MAX_KINDS	16384
#define MAX_GROUPS	65536	/* at most; a command that is executed makes some twenty */
#define MAX_STACKS	16384
#define STACK_DEPTH	64

/* Who needed the page. */
enum {
	MODE_USER	= 1,	/* an instruction in user mode */
	MODE_KERNEL	= 2,	/* the kernel copying from or to user memory: an exception, too */
	MODE_GUP	= 3,	/* get_user_pages(): MAP_POPULATE, mlock(), madvise(), ptrace(); no exception */
};

enum {
	ACCESS_READ	= 1,
	ACCESS_WRITE	= 2,
	ACCESS_EXEC	= 3,
};

/* What a fault found, and what it left. */
enum {
	FOUND_NOTHING	= 0,	/* no VMA */
	FOUND_VMA	= 1 << 0,
	FOUND_ANON	= 1 << 1,	/* vm_ops == NULL */
	FOUND_ANON_VMA	= 1 << 2,	/* anon_vma != NULL */
	NOT_LOOKED_AT	= 1 << 3,	/* alone: it is not known whether there was one */
};

/* Which lock it was taken under. */
enum {
	PATH_UNKNOWN	= 0,
	PATH_VMA	= 1,	/* the VMA's own */
	PATH_MMAP	= 2,	/* mmap_lock */
	PATH_RETRY	= 3,	/* began under the VMA's, repeated under mmap_lock */
};

enum {
	RESULT_UNKNOWN	= 0,
	RESULT_MINOR	= 1,
	RESULT_MAJOR	= 2,
	RESULT_ERROR	= 3,	/* VM_FAULT_ERROR, or it did not come to handle_mm_fault(): a signal */
};

/*
 * Why it acquired mmap_lock, by the kernel's own tests in their order: first that it is not a
 * fault of user mode, then those of lock_vma_under_rcu(), then those of the handler, which
 * says VM_FAULT_RETRY under the VMA's lock.
 */
enum {
	REASON_NONE		= 0,	/* it did not */
	REASON_NOT_TOLD		= 1,	/* the source does not show it */
	REASON_GUP		= 2,	/* get_user_pages(), whose callers hold it */
	REASON_KERNEL		= 3,	/* no FAULT_FLAG_USER */
	REASON_NO_VMA_LOCKS	= 4,	/* of this kernel */
	REASON_NOTHING_MAPPED	= 5,	/* no VMA in the tree */
	REASON_STACK		= 6,	/* likewise, until the one above had grown */
	REASON_REPLACED		= 7,	/* likewise, but there is one now */
	REASON_WRITE_LOCKED	= 8,	/* vma_start_read() failed */
	REASON_DETACHED		= 9,
	REASON_BARE		= 10,	/* the early check (Linux 6.4 to 6.9) */
	REASON_ANON_VMA		= 11,	/* vmf_anon_prepare() found mmap_lock busy */
	REASON_IO		= 12,	/* the lock is dropped to wait for a page to be read */
	REASON_USERFAULTFD	= 13,
	REASON_OPERATION	= 14,	/* vmf_can_call_fault(): vm_ops without map_pages */
	REASON_OTHER		= 15,	/* none of these */
};

/* What was traced. */
enum {
	SOURCE_FENTRY	= 1,	/* fentry and fexit of handle_mm_fault() */
	SOURCE_TRACEPOINT = 2,	/* page_fault_user and page_fault_kernel */
	SOURCE_KPROBE	= 3,	/* kprobes of handle_mm_fault() and of its return */
	SOURCES,
};

/* Where the fault was: all VMAs that look alike share one. */
struct kind_key {
	__u64 vm_ops;
	__u64 ino;
	__u64 flags;		/* of vm_flags, those that tell where it comes from */
	__u32 dev;
	__u16 prot;		/* VMA_PROT_* */
	__u16 bits;		/* VMA_* of census.h, and KIND_* */
};

enum {
	KIND_OWN_STACK	= 1 << 8,	/* the faulting thread's stack pointer lies in it */
	KIND_NAMED	= 1 << 9,	/* PR_SET_VMA_ANON_NAME */
	KIND_DEV_ZERO	= 1 << 10,	/* vm_file is the character device 1:5 */
	KIND_DEVICE	= 1 << 11,	/* ... another device */
};

struct fault_kind {
	__u32 id;		/* from 1; 0 stands for no VMA, and for kinds beyond MAX_KINDS */
	__u32 ops;		/* ops_entry.id, 0: vm_ops is NULL */
	char file[FAULT_NAME_MAX];	/* last component of its name */
};

struct group_key {
	__u32 process;		/* traced_process.id */
	__u32 kind;		/* fault_kind.id */
	__u8 mode, access, before, after, path, result;
	__u8 reason;		/* REASON_* */
	__u8 reserved;
	__s32 user_stack, kernel_stack;	/* -1: not taken; other negatives: could not be */
};

struct group_value {
	__u64 count;
	__u64 time_ns;
	__u64 wait_ns;		/* of that, from asking for mmap_lock to having it */
	__u32 buckets[FAULT_BUCKETS];
};

struct fault_event {
	__u64 start_ns;		/* CLOCK_MONOTONIC */
	__u64 address;
	__u64 vm_start;		/* 0: no VMA */
	__u32 duration_ns;	/* at most 4.3 s; 0 when the source has no end */
	__u32 process;
	__u32 tid;
	__u32 kind;
	__u8 mode, access, before, after, path, result;
	__u8 reason;		/* REASON_* */
	__u8 reserved;
};

struct fault_file {
	char magic[8];
	__u32 format;
	__u32 byte_order;	/* 0x01020304 */
	__u32 header_size;
	__u32 event_size;
	__u32 page_size;
	__u32 source;
};

/* Shared through .rodata: set by the probe before the programs are loaded. */
struct fault_constants {
	__u32 want_events, want_stacks, timed, has_vma_locks, has_lock_events;
	__u32 page_size;
	__u32 sees_retries;	/* each function that may say VM_FAULT_RETRY under a VMA's lock */
	/* Where the functions begin and end that take mmap_lock for a fault ... */
	__u64 fault_callers[3][2];
	/* ... and the one that only tries to, for an anon_vma. */
	__u64 prepare_caller[2];
};

/* Shared through .bss. */
struct fault_counts {
	__u64 faults_lost;	/* there was no room for their group */
	__u64 events_lost;	/* the ring buffer was full */
	__u64 kinds_lost;
	__u64 unseen;		/* by the tasks' own counts, faults that no program has seen */
	__u64 charged;		/* by the tasks' own counts, since they were followed */
	__u64 tasks_differ;	/* whose faults counted and unseen are not those charged */
	__u64 pending;		/* that had begun, and not ended, at the end of the tracing */
	__u64 refused;		/* exceptions with page faults disabled: no faults */
	__u32 next_kind;
	__u32 bare_locked;	/* lock_vma_under_rcu() has locked a bare VMA: no early check */
};

#endif
