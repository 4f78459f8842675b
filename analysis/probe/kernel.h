/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few kernel structures the programs look into, each with only the members
 * they use. preserve_access_index makes libbpf find every member at load time
 * in the running kernel's BTF, wherever that kernel keeps it; a member that may
 * be missing is asked for with bpf_core_field_exists(), never by version.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdbool.h>

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL_TYPE;

struct upid {
	int nr;
} KERNEL_TYPE;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} KERNEL_TYPE;

typedef struct {
	__u64 ctx_id;		/* x86: never reused, arch/x86/include/asm/mmu.h */
} KERNEL_TYPE mm_context_t;

/* Begins with an unsigned long; bits is an array of them. */
struct cpumask {
	unsigned long bits[1];
} KERNEL_TYPE;

/* include/linux/maple_tree.h: the tree of an mm's VMAs, from 6.1. */
struct maple_tree {
	void *ma_root;
} KERNEL_TYPE;

enum maple_type {
	maple_dense,
	maple_leaf_64,
	maple_range_64,
	maple_arange_64,
};

struct maple_range_64 {
	unsigned long pivot[15];
	void *slot[16];
} KERNEL_TYPE;

struct maple_arange_64 {
	unsigned long pivot[9];
	void *slot[10];
} KERNEL_TYPE;

typedef struct {
	int counter;
} KERNEL_TYPE atomic_t;

/* Locks, of which no more is needed than where they are. */
struct spinlock {
	unsigned int any;
} KERNEL_TYPE;

/* Of a kernel with PREEMPT_RT it is another one, without count. */
typedef struct {
	long counter;
} KERNEL_TYPE atomic64_t;

struct rw_semaphore {
	atomic64_t count;
	atomic64_t owner;	/* a task, and bits that tell readers from writers */
} KERNEL_TYPE;

struct mm_struct {
	atomic_t mm_users;
	struct maple_tree mm_mt;
	struct spinlock page_table_lock;
	struct rw_semaphore mmap_lock;
	unsigned long start_brk, brk, start_stack;
	mm_context_t context;
} KERNEL_TYPE;

/* mm_lock_seq, which every mmap_write_lock() moves on: an int from 6.4, ... */
struct mm_struct___int {
	int mm_lock_seq;
} KERNEL_TYPE;

/* ... a seqcount_t from 6.13 (eb449bd96954, "mm: convert mm_lock_seq to a proper seqcount"). */
typedef struct {
	unsigned int sequence;
} KERNEL_TYPE seqcount_t;

struct mm_struct___seqcount {
	seqcount_t mm_lock_seq;
} KERNEL_TYPE;

struct thread_info {
	unsigned int status;	/* x86 */
} KERNEL_TYPE;

struct sched_entity {
	__u64 sum_exec_runtime;
} KERNEL_TYPE;

/* With CONFIG_SCHED_INFO. */
struct sched_info {
	unsigned long long run_delay;
} KERNEL_TYPE;

struct sighand_struct {
	struct spinlock siglock;
} KERNEL_TYPE;

struct page {
	struct spinlock ptl;		/* before 6.6; of struct ptdesc since */
	unsigned int page_type;
} KERNEL_TYPE;

struct ptdesc {
	struct spinlock ptl;
} KERNEL_TYPE;

/* What page_type holds in its first byte, from 6.11; before, a bit of it is 0. */
enum pagetype {
	PGTY_table = 0xf2,
};

/* With CONFIG_VMAP_STACK. */
struct vm_struct {
	struct page **pages;
} KERNEL_TYPE;

struct pglist_data;

struct zone {
	struct spinlock lock;
	struct pglist_data *zone_pgdat;
} KERNEL_TYPE;

struct lruvec {
	struct spinlock lru_lock;
} KERNEL_TYPE;

struct pglist_data {
	struct zone node_zones[1];
	struct lruvec __lruvec;
} KERNEL_TYPE;

/* With CONFIG_MEMCG. */
struct lruvec___memcg {
	struct pglist_data *pgdat;
} KERNEL_TYPE;

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	/* With CONFIG_SMP; the first an int, and u8 from 7.2: what has no sign may be of either size. */
	unsigned int on_cpu, wake_cpu;
	struct sched_entity se;
	struct sched_info sched_info;
	__u64 utime, stime;
	unsigned long nvcsw, nivcsw;
	int pid;
	int tgid;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	unsigned long min_flt, maj_flt;
	int pagefault_disabled;
	void *stack;
	struct vm_struct *stack_vm_area;
	struct sighand_struct *sighand;
	char comm[16];
} KERNEL_TYPE;

struct super_block {
	__u32 s_dev;
} KERNEL_TYPE;

struct address_space;

struct hlist_node {
	struct hlist_node *next;
} KERNEL_TYPE;

struct hlist_head {
	struct hlist_node *first;
} KERNEL_TYPE;

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_rdev;
	__u16 i_mode;
	struct address_space *i_mapping;
	struct rw_semaphore i_rwsem;
	struct hlist_head i_dentry;
} KERNEL_TYPE;

struct address_space {
	struct inode *host;
	struct rw_semaphore i_mmap_rwsem;
} KERNEL_TYPE;

struct mnt_namespace;

struct vfsmount {
	int mnt_flags;
} KERNEL_TYPE;

struct mount {
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
} KERNEL_TYPE;

struct qstr {
	const unsigned char *name;
} KERNEL_TYPE;

struct dentry {
	struct qstr d_name;
	struct hlist_node d_alias;
} KERNEL_TYPE;

/* Before 7.1 the union has a name. */
struct dentry___union {
	union {
		struct hlist_node d_alias;
	} d_u;
} KERNEL_TYPE;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} KERNEL_TYPE;

struct file {
	struct path f_path;
	struct inode *f_inode;
} KERNEL_TYPE;

struct vm_operations_struct {
	void *fault, *map_pages, *huge_fault, *page_mkwrite, *open, *close, *access;
} KERNEL_TYPE;

struct anon_vma_name {
	char name[1];
} KERNEL_TYPE;

struct vm_special_mapping {
	const char *name;
} KERNEL_TYPE;

struct list_head {
	struct list_head *next;
} KERNEL_TYPE;

/* mm/rmap.h, include/linux/rmap.h: num_active_vmas from 6.0 (2555283eb40d). */
struct anon_vma {
	struct anon_vma *root, *parent;
	struct rw_semaphore rwsem;
	atomic_t refcount;
	unsigned long num_children, num_active_vmas;
} KERNEL_TYPE;

struct anon_vma_chain {
	struct anon_vma *anon_vma;
	struct list_head same_vma;
} KERNEL_TYPE;

typedef struct {
	unsigned long bits[1];
} KERNEL_TYPE nodemask_t;

struct mempolicy {
	unsigned short mode, flags;
	int home_node;
	nodemask_t nodes;
} KERNEL_TYPE;

struct vm_userfaultfd_ctx {
	void *ctx;
} KERNEL_TYPE;

struct vma_interval {
	unsigned long rb_subtree_last;
} KERNEL_TYPE;

struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_pgoff, vm_flags;
	struct mm_struct *vm_mm;
	struct anon_vma *anon_vma;
	struct list_head anon_vma_chain;
	const struct vm_operations_struct *vm_ops;
	struct file *vm_file;
	void *vm_private_data;
	struct anon_vma_name *anon_name;
	struct vma_interval shared;
	struct mempolicy *vm_policy;
	struct vm_userfaultfd_ctx vm_userfaultfd_ctx;
} KERNEL_TYPE;

/* From 6.12, as merging has been since. */
struct vma_merge_struct {
	struct vm_area_struct *prev;
} KERNEL_TYPE;

struct vm_area_struct___offset {
	unsigned int __vm_anon_pgoff_lo, __vm_anon_pgoff_hi;
} KERNEL_TYPE;

/* A VMA's own lock, from 6.4; what a writer leaves in vm_lock_seq is mm_lock_seq's of then. */
struct vm_area_struct___seq {
	unsigned int vm_lock_seq;
} KERNEL_TYPE;

struct vma_lock {
	struct rw_semaphore lock;
} KERNEL_TYPE;

struct vm_area_struct___lock {
	struct vma_lock *vm_lock;	/* to 6.14 */
} KERNEL_TYPE;

/* Whether a VMA is out of its tree: from 6.4, ... */
struct vm_area_struct___flag {
	bool detached;
} KERNEL_TYPE;

/* ... and from 6.15 by a count of 0 ("mm: replace vm_lock and detached flag with a reference count"). */
typedef struct {
	atomic_t refs;
} KERNEL_TYPE refcount_t;

struct vm_area_struct___count {
	refcount_t vm_refcnt;
} KERNEL_TYPE;

struct pt_regs___stack {
	unsigned long sp;
} KERNEL_TYPE;

struct pt_regs___x86 {
	unsigned long orig_ax;	/* of a system call its number, in any other entry -1 */
	unsigned long cs;
} KERNEL_TYPE;

struct pt_regs___entry {
	__u64 pstate;
	int syscallno;		/* -1 in any other entry than a system call's */
} KERNEL_TYPE;

/* As large as a kernel's stack. */
union thread_union {
	unsigned long stack[1];
} KERNEL_TYPE;

/* What the tracepoints hand to programs of type "tp": include/trace/events/. */
struct trace_event_raw_sched_process_fork {
	int child_pid;		/* in the first pid namespace */
} KERNEL_TYPE;

struct trace_event_raw_sys_enter {
	long id;
} KERNEL_TYPE;

struct trace_event_raw_contention_begin {
	void *lock_addr;
	unsigned int flags;
} KERNEL_TYPE;

struct trace_event_raw_contention_end {
	void *lock_addr;
	int ret;
} KERNEL_TYPE;

struct trace_event_raw_mmap_lock {
	struct mm_struct *mm;
} KERNEL_TYPE;

struct trace_event_raw_mmap_lock_acquire_returned {
	struct mm_struct *mm;
	bool write, success;
} KERNEL_TYPE;

/* Contexts are laid out by the verifier, not by the kernel's BTF. */
struct bpf_iter__task {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct task_struct *, task);
};

struct bpf_iter__task_vma {
	__bpf_md_ptr(struct bpf_iter_meta *, meta);
	__bpf_md_ptr(struct task_struct *, task);
	__bpf_md_ptr(struct vm_area_struct *, vma);
};

/* include/linux/mm.h; macros are not in BTF. */
#define VM_READ		0x00000001
#define VM_WRITE	0x00000002
#define VM_EXEC		0x00000004
#define VM_SHARED	0x00000008
#define VM_MAYWRITE	0x00000020
#define VM_MAYSHARE	0x00000080
#define VM_GROWSDOWN	0x00000100
#define VM_PFNMAP	0x00000400
#define VM_MAYBE_GUARD	0x00000800
#define VM_IO		0x00004000
#define VM_DONTEXPAND	0x00040000
#define VM_HUGETLB	0x00400000
#define VM_SOFTDIRTY	0x08000000
#define VM_MIXEDMAP	0x10000000

/* include/uapi/linux/stat.h, include/linux/kdev_t.h, Documentation/admin-guide/devices.txt */
#define S_IFMT		0170000
#define S_IFCHR		0020000
#define DEV_ZERO	(1 << 20 | 5)

#endif
