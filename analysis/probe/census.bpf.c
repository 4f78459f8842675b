// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two iterators: which tasks use which mm, and what every VMA of one mm is.
 *
 * The VMA iterator holds mmap_lock for read while it fills a buffer of a few
 * hundred records and drops it in between. mm_lock_seq, which every writer
 * moves on, tells whether anything was changed in such a gap.
 *
 * A program is run again for the same element when its output no longer fitted
 * the buffer, so nothing may be remembered before bpf_seq_write() succeeded.
 */
#include "apart.bpf.h"

struct census_state state;

#include "chain.bpf.h"

/* What is the same for every VMA of the mm that is being read. */
struct {
	__u64 task;
	__u64 mm_struct;
	__u32 mm;
	__u32 tgid;
	__u32 tid;
	char comm[TASK_COMM_LEN];
	struct neighbour below, here;
} reading SEC(".bss.reading");

/* A freed mm_struct is soon used again; where the kernel numbers them, the number tells them apart. */
struct mm_key {
	__u64 mm;
	__u64 ctx_id;
};

struct path_key {
	__u64 mnt;
	__u64 dentry;
	__u64 ino;
	__u64 dev;
};

struct name_key {
	char name[ANON_NAME_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_MMS);
	__type(key, struct mm_key);
	__type(value, __u32);
} mms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PATHS);
	__type(key, struct path_key);
	__type(value, __u32);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_NAMES);
	__type(key, struct name_key);
	__type(value, __u32);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct vma_item);
} scratch SEC(".maps");

/* The pid as the reader of this iterator sees it, whatever pid namespace that is. */
static __u32 pid_as_seen_here(struct task_struct *task)
{
	return pid_at_level(task, current_level());
}

static __u32 mm_id(struct mm_struct *mm)
{
	struct mm_key key = { .mm = (__u64)mm };
	__u32 *known, id;

	if (bpf_core_field_exists(mm->context.ctx_id))
		key.ctx_id = BPF_CORE_READ(mm, context.ctx_id);
	known = bpf_map_lookup_elem(&mms, &key);
	if (known)
		return *known;
	id = state.next_mm + 1;
	if (bpf_map_update_elem(&mms, &key, &id, BPF_NOEXIST))
		return 0;
	state.next_mm = id;
	return id;
}

SEC("iter/task")
int list_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task, *leader;
	struct task_item item = {};
	struct mm_struct *mm;

	if (!task)
		return 0;
	mm = task->mm;
	/* Kernel threads have none of their own; an exited leader has given its up. */
	if (!mm || BPF_CORE_READ(task, thread_pid) == NULL)
		return 0;
	leader = task->group_leader;
	item.tid = pid_as_seen_here(task);
	item.tgid = pid_as_seen_here(leader);
	item.leader_gone = BPF_CORE_READ(leader, mm) == NULL;
	item.mm = mm_id(mm);
	BPF_CORE_READ_STR_INTO(&item.comm, leader, comm);
	bpf_seq_write(ctx->meta->seq, &item, sizeof(item));
	return 0;
}

/* Asked anew for each attempt, and when the task has exec'ed in between. */
static void look_at_task(struct task_struct *task, struct mm_struct *mm)
{
	if (!state.fresh && reading.task == (__u64)task && reading.mm_struct == (__u64)mm)
		return;
	reading.task = (__u64)task;
	reading.mm_struct = (__u64)mm;
	reading.tid = pid_as_seen_here(task);
	reading.tgid = pid_as_seen_here(task->group_leader);
	reading.mm = mm_id(mm);
	__builtin_memset(reading.comm, 0, TASK_COMM_LEN);	/* the last name may have been longer */
	BPF_CORE_READ_STR_INTO(&reading.comm, task, group_leader, comm);
	state.fresh = 0;
}

static void note_lock_seq(struct mm_struct *mm)
{
	struct mm_struct___seqcount *with_seqcount = (void *)mm;
	struct mm_struct___int *with_int = (void *)mm;
	__u32 seq = 0;

	if (bpf_core_field_exists(with_seqcount->mm_lock_seq.sequence))
		seq = with_seqcount->mm_lock_seq.sequence;
	else if (bpf_core_field_exists(with_int->mm_lock_seq))
		seq = BPF_CORE_READ(with_int, mm_lock_seq);
	else
		return;
	if (!state.seq_known)
		state.seq_first = seq;
	state.seq_known = 1;
	state.seq_last = seq;
}

/*
 * Of a file opened through overlayfs, vm_file is the file of the layer below, on
 * a clone of its mount that belongs to no namespace (clone_private_mount()). The
 * kernel's own mounts (memfd, shmem) are so too.
 */
static bool on_internal_mount(struct file *file)
{
	struct vfsmount *mnt = BPF_CORE_READ(file, f_path.mnt);
	struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);

	return (long)BPF_CORE_READ(mount, mnt_ns) == -EINVAL;	/* MNT_NS_INTERNAL */
}

static void describe_file(struct vma_item *item, struct file *file, struct path_key *key)
{
	struct vma_record *vma = &item->vma;
	struct inode *inode = file->f_inode;
	__u32 *known;
	long len;

	vma->bits |= VMA_HAS_FILE;
	vma->ino = inode->i_ino;
	vma->dev = inode->i_sb->s_dev;
	if (on_internal_mount(file))
		vma->bits |= VMA_INTERNAL_MOUNT;

	key->mnt = (__u64)BPF_CORE_READ(file, f_path.mnt);
	key->dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	key->ino = vma->ino;
	key->dev = vma->dev;
	known = bpf_map_lookup_elem(&paths, key);
	if (known) {
		vma->path = *known;
		return;
	}
	len = bpf_d_path(&file->f_path, item->path, sizeof(item->path));
	if (len <= 0)
		vma->bits |= VMA_PATH_LOST;
	else
		item->path_len = len;
}

static const char *anon_name(struct vm_area_struct *area)
{
	struct anon_vma_name *name;

	if (!bpf_core_field_exists(area->anon_name))
		return NULL;
	/* Before 6.2 it shared a union with the file's interval tree node. */
	if (area->vm_file && bpf_core_field_offset(area->anon_name) ==
			     bpf_core_field_offset(area->shared))
		return NULL;
	name = area->anon_name;
	return name ? (void *)__builtin_preserve_access_index(&name->name[0]) : NULL;
}

/* PR_SET_VMA_ANON_NAME, or the name of a special mapping such as the vdso. */
static void describe_name(struct vma_item *item, struct vm_area_struct *area, __u64 fault,
			  struct name_key *key)
{
	const char *name = NULL;
	__u32 *known;
	long len;

	if (fault && fault == settings.special_mapping_fault) {
		struct vm_special_mapping *special = area->vm_private_data;

		name = BPF_CORE_READ(special, name);
		item->vma.bits |= VMA_SPECIAL;
	} else {
		name = anon_name(area);
	}
	if (!name)
		return;
	len = bpf_probe_read_kernel_str(key->name, sizeof(key->name), name);
	if (len <= 0)
		return;
	known = bpf_map_lookup_elem(&names, key);
	if (known) {
		item->vma.name = *known;
		return;
	}
	__builtin_memcpy(item->name, key->name, sizeof(item->name));
	item->name_len = len;
}

static void describe_area(struct vma_record *vma, struct vm_area_struct *area,
			  struct mm_struct *mm)
{
	vma->start = area->vm_start;
	vma->end = area->vm_end;
	vma->pgoff = area->vm_pgoff;
	vma->flags = area->vm_flags;
	vma->prot = protection(vma->flags);
	if (area->anon_vma)
		vma->bits |= VMA_HAS_ANON;
	if (vma->start <= mm->brk && vma->end >= mm->start_brk)
		vma->bits |= VMA_HEAP;
	if (vma->start <= mm->start_stack && vma->end >= mm->start_stack)
		vma->bits |= VMA_STACK;
	vma->present = vma->zero = vma->swapped = vma->huge = vma->guard = PAGES_UNKNOWN;
}

SEC("iter/task_vma")
int list_vmas(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *area = ctx->vma;
	struct task_struct *task = ctx->task;
	struct path_key path_key = {};
	struct name_key name_key = {};
	const struct vm_operations_struct *vm_ops;
	struct vma_item *item;
	struct mm_struct *mm;
	struct file *file;
	__u64 size, fault = 0;
	__u32 zero = 0;

	if (!task || !area)
		return 0;
	mm = area->vm_mm;
	look_at_task(task, mm);
	if (reading.tid != state.want_tid)
		return 0;
	item = bpf_map_lookup_elem(&scratch, &zero);
	if (!item)
		return 0;
	__builtin_memset(item, 0, offsetof(struct vma_item, name));
	describe_area(&item->vma, area, mm);
	item->vma.mm = reading.mm;
	item->vma.tid = reading.tid;
	item->vma.tgid = reading.tgid;
	__builtin_memcpy(item->vma.comm, reading.comm, TASK_COMM_LEN);

	vm_ops = area->vm_ops;
	if (vm_ops) {
		item->vma.bits |= VMA_HAS_OPS;
		item->vma.ops = ops_id(vm_ops, &fault);
	}
	file = area->vm_file;
	if (file)
		describe_file(item, file, &path_key);
	describe_name(item, area, fault, &name_key);

	/* An id of the name that is not known yet, as none below it has; special ones are no anon_name. */
	describe_neighbour(&reading.here, area,
			   item->vma.bits & VMA_SPECIAL ? 0 : item->name_len ? ~0U : item->vma.name);
	item->vma.apart = apart(&reading.below, &reading.here, area->vm_start);
	if (item->path_len)
		item->vma.path = state.next_string + 1;
	if (item->name_len)
		item->vma.name = state.next_string + 1 + !!item->path_len;
	size = offsetof(struct vma_item, name);
	if (item->path_len)
		size = offsetof(struct vma_item, path) + VMA_PATH_ROOM(item->path_len);
	else if (item->name_len)
		size = offsetof(struct vma_item, path);
	/* Compared as it is used: 6.1's verifier does not relate it to the length it was made from. */
	barrier_var(size);
	if (size > sizeof(*item))
		size = sizeof(*item);
	if (bpf_seq_write(ctx->meta->seq, item, size) || !write_links(ctx->meta->seq, area))
		return 0;

	if (item->name_len && !(item->vma.bits & VMA_SPECIAL))
		reading.here.name = item->vma.name;
	reading.below = reading.here;
	/* Written: now remember. A full map costs a repeated string, never a wrong one. */
	state.next_string += !!item->path_len + !!item->name_len;
	if (item->path_len)
		bpf_map_update_elem(&paths, &path_key, &item->vma.path, BPF_ANY);
	if (item->name_len)
		bpf_map_update_elem(&names, &name_key, &item->vma.name, BPF_ANY);
	state.vmas++;
	note_lock_seq(mm);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
