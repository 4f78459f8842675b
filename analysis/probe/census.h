/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The census: what the iterator hands to the probe, and what the probe writes.
 *
 * A census file is, in this order and in the machine's byte order:
 *
 *	struct census_header
 *	struct vma_record	[header.vmas]
 *	struct mm_entry		[header.mms]
 *	struct process_entry	[header.processes]
 *	struct ops_entry	[header.ops]
 *	struct chain_link	[header.links]
 *	struct string_entry, its bytes	[header.strings]
 *
 * anonvma.probe.census_file reads it. A change of layout is a new CENSUS_FORMAT.
 */
#ifndef CENSUS_H
#define CENSUS_H

#include <linux/types.h>

#define CENSUS_MAGIC	"VMACENS"
#define CENSUS_FORMAT	3
#define TASK_COMM_LEN	16
#define ANON_NAME_MAX	80	/* ANON_VMA_NAME_MAX_LEN of include/uapi/linux/prctl.h */
#define PATH_LEN_MAX	4096	/* PATH_MAX */
#define MAX_OPS		1024	/* distinct vm_operations_struct of one kernel */
#define MAX_PATHS	65536
#define MAX_NAMES	65536
#define MAX_MMS		1048576
#define MAX_LINKS	512	/* of one VMA: they must fit the iterator's buffer */

#define PAGES_UNKNOWN	(~0ULL)

/* vma_record.bits */
enum {
	VMA_HAS_OPS	= 1 << 0,	/* vm_ops != NULL: not an anonymous VMA */
	VMA_HAS_ANON	= 1 << 1,	/* anon_vma != NULL */
	VMA_HAS_FILE	= 1 << 2,	/* vm_file != NULL */
	VMA_HEAP	= 1 << 3,	/* vma_is_initial_heap() */
	VMA_STACK	= 1 << 4,	/* vma_is_initial_stack() */
	VMA_SPECIAL	= 1 << 5,	/* name_id names a special mapping: [vdso], [vvar], ... */
	VMA_PATH_LOST	= 1 << 6,	/* the path is longer than PATH_LEN_MAX */
	VMA_INTERNAL_MOUNT = 1 << 7,	/* the file lies on a mount of no namespace */
};

/* vma_record.prot */
enum {
	VMA_PROT_READ	= 1 << 0,
	VMA_PROT_WRITE	= 1 << 1,
	VMA_PROT_EXEC	= 1 << 2,
	VMA_PROT_SHARED	= 1 << 3,	/* VM_MAYSHARE: the 's' of /proc/PID/maps */
};

/* vma_record.apart: the tests of the kernel's that the VMA and the one right below it fail. */
enum {
	APART_SPECIAL	= 1 << 0,	/* VM_SPECIAL: never merged */
	APART_POLICY	= 1 << 1,	/* mpol_equal() */
	APART_FLAGS	= 1 << 2,	/* vm_flags */
	APART_FILE	= 1 << 3,	/* vm_file */
	APART_CLOSE_EARLY = 1 << 4,	/* vm_ops->close, where it is asked for here: before 6.12 */
	APART_USERFAULTFD = 1 << 5,	/* vm_userfaultfd_ctx */
	APART_NAME	= 1 << 6,	/* anon_vma_name() */
	APART_ANON_VMA	= 1 << 7,	/* both have one, and not the same */
	APART_FORK_CHILD = 1 << 8,	/* one has none, the other's has more than one link */
	APART_OFFSET	= 1 << 9,	/* vm_pgoff */
	APART_ANON_OFFSET = 1 << 10,	/* that of anonymous pages, from 7.3 */
	APART_CLOSE	= 1 << 11,	/* vm_ops->close: can_merge_remove_vma(), from 6.12 */
	APART_ADJACENT	= 1 << 15,	/* one lies right below it: without any other, nothing forbids */
};

struct vma_record {
	__u64 start;
	__u64 end;
	__u64 pgoff;			/* vm_pgoff, in pages */
	__u64 flags;			/* vm_flags */
	__u64 ino;
	/*
	 * Pages found in a bare VMA; PAGES_UNKNOWN in any other, but for what is swapped out of one
	 * with an anon_vma, and where nothing could look.
	 */
	__u64 present;
	__u64 zero;
	__u64 swapped;
	__u64 huge;
	__u64 guard;
	__u32 mm;			/* opaque id of the mm_struct in this census */
	__u32 tgid;
	__u32 tid;			/* the task through which the mm was read */
	__u32 dev;			/* s_dev: major << 20 | minor */
	__u32 path;			/* string id, 0: none */
	__u32 name;			/* string id, 0: none */
	__u16 ops;			/* ops_entry.id, 0: vm_ops is NULL */
	__u8 prot;
	__u8 bits;
	__u16 apart;
	__u16 reserved;
	char comm[TASK_COMM_LEN];	/* of the thread group's leader */
};

/* One anon_vma_chain: a VMA that an anon_vma may have pages in. */
struct chain_link {
	__u64 vma;			/* the record's place in this file, from 0; LINK_MARK till then */
	__u64 anon_vma;			/* opaque ids: opaque.c */
	__u64 root;
	__u64 parent;
	__u32 num_children;		/* LINK_UNKNOWN where the kernel has no such field */
	__u32 num_active_vmas;
	__u32 own;			/* it is the VMA's vma->anon_vma */
	__u32 reserved;
};

#define LINK_UNKNOWN	(~0U)
#define LINK_MARK	(~0ULL)	/* where a VMA has its start: from the iterator come both */

/* A line of /proc/slabinfo; slabs is 0 where it has no such line. */
struct slab_entry {
	__u64 active;			/* objects in use, or free in a CPU's own slab */
	__u64 objects;
	__u64 object_size;
	__u64 slabs;
	__u64 slab_size;		/* bytes of one */
};

/* mm_entry.bits */
enum {
	MM_CHANGED	= 1 << 0,	/* written to (mm_lock_seq) in every attempt to read it */
	MM_UNWATCHED	= 1 << 1,	/* the kernel has no mm_lock_seq: changes cannot be seen */
	MM_LEADER_GONE	= 1 << 2,	/* read through a thread whose leader has exited */
};

struct mm_entry {
	__u32 mm;
	__u32 tgid;
	__u32 tid;
	__u32 tasks;			/* how many tasks share it */
	__u32 bits;
	__u32 attempts;
	__u64 vmas;
	char comm[TASK_COMM_LEN];
};

struct process_entry {
	__u32 tgid;
	__u32 mm;
	char comm[TASK_COMM_LEN];
};

/* How an ops_entry got its name. */
enum {
	OPS_UNNAMED	= 0,
	OPS_OWN_NAME	= 1,		/* the structure's symbol (kernels with KALLSYMS_ALL) */
	OPS_FAULT	= 2,		/* its fault handler */
	OPS_CALLBACK	= 3,		/* another function in it, for it has no fault handler */
	OPS_EMPTY	= 4,		/* no function in it: vma_dummy_vm_ops and its like */
};

struct ops_entry {
	__u32 id;
	__u32 how;
	__u32 name;			/* string id, 0 when unnamed */
	__u32 reserved;
};

struct string_entry {
	__u32 id;
	__u32 length;			/* bytes that follow, no terminator */
};

/* census_header.pages_how */
enum {
	PAGES_NOT_LOOKED = 0,
	PAGES_SCAN	= 1,		/* ioctl(PAGEMAP_SCAN), 6.7 on */
	PAGES_PAGEMAP	= 2,		/* /proc/PID/pagemap and /proc/kpageflags */
};

struct census_header {
	char magic[8];
	__u32 format;
	__u32 byte_order;		/* 0x01020304 as the writing machine stores it */
	__u32 header_size;
	__u32 record_size;
	__u32 page_size;
	__u32 pages_how;
	__u64 start_ns;			/* CLOCK_REALTIME */
	__u64 end_ns;
	__u64 start_monotonic_ns;	/* CLOCK_MONOTONIC */
	__u64 end_monotonic_ns;
	__u64 vmas;
	__u32 mms;
	__u32 processes;
	__u32 ops;
	__u32 strings;
	/* What was lost or moved under our feet; all zero in a perfect census. */
	__u32 mms_changed;		/* see MM_CHANGED */
	__u32 mms_vanished;		/* listed, gone before their VMAs were read */
	__u32 mms_late;			/* still appearing after the last round of reading */
	__u32 paths_lost;
	__u32 scans_failed;		/* VMAs whose pages could not be looked at */
	__u32 mms_unwatched;		/* see MM_UNWATCHED */
	__u32 went_on;			/* processes that the command followed left running */
	__u32 links_lost;		/* of VMAs with more than MAX_LINKS */
	__u64 links;
	struct slab_entry anon_vma_slab, anon_vma_chain_slab;
	char release[64];
	char boot_id[40];
	char arch[16];
};

/* ---- between the BPF programs and the probe only; never written to a file ---- */

struct task_item {
	__u32 tgid;
	__u32 tid;
	__u32 mm;
	__u32 leader_gone;
	char comm[TASK_COMM_LEN];
};

/*
 * One VMA from the iterator; name and path follow only when they are new, the path padded. Then
 * come its links, with the addresses that the probe makes opaque.
 */
#define VMA_PATH_ROOM(length)	(((length) + 7) & (2 * PATH_LEN_MAX - 8))

struct vma_item {
	struct vma_record vma;
	__u32 name_len;
	__u32 path_len;
	char name[ANON_NAME_MAX];
	char path[PATH_LEN_MAX];
};

/* Kernel addresses, kept in a BPF map until the probe has turned them into names. */
struct ops_functions {
	__u32 id;
	__u32 reserved;
	__u64 fault;
	__u64 callbacks[6];		/* map_pages, huge_fault, page_mkwrite, open, close, access */
};

/* Set by the probe before it loads the programs. */
struct census_settings {
	__u64 special_mapping_fault;	/* address of the function; 0 when it could not be read */
	__u32 page_shift;
	__u32 no_chains;		/* leave the links of the VMAs out */
};

/* Shared through .bss; reset by the probe before each mm. */
struct census_state {
	__u32 want_tid;			/* take the VMAs of this task only */
	__u32 seq_known;		/* the kernel has mm_lock_seq */
	__u32 seq_first;
	__u32 seq_last;
	__u64 vmas;
	__u32 next_mm;
	__u32 next_string;
	__u32 fresh;			/* set for each attempt: look at the task again */
	__u32 links_lost;
};

#endif
