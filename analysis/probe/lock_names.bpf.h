/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a lock is, by its address: what it would lie in is looked at, and has to point back to
 * itself. What is not there, or has moved in this kernel, leaves a lock without a name.
 */
#ifndef LOCK_NAMES_BPF_H
#define LOCK_NAMES_BPF_H

#include "vma_kind.bpf.h"
#include "contended.h"

const volatile struct lock_constants constants SEC(".rodata.locks") = {};

struct contended_totals contended_totals SEC(".bss.contended");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_THINGS);
	__type(key, struct thing_key);
	__type(value, struct thing);
} things SEC(".maps");

#define AROUND(lock, type, member) \
	((type *)((lock) - bpf_core_field_offset(type, member)))

/* Numbers a thing; 0 where there are too many. */
static __u32 thing_id(const struct thing_key *key, struct thing *thing)
{
	struct thing *known = bpf_map_lookup_elem(&things, key);

	if (known)
		return known->id;
	thing->id = __sync_fetch_and_add(&contended_totals.next_thing, 1) + 1;
	if (!bpf_map_update_elem(&things, key, thing, BPF_NOEXIST))
		return thing->id;
	known = bpf_map_lookup_elem(&things, key);	/* another CPU was first, or it is full */
	if (!known)
		__sync_fetch_and_add(&contended_totals.things_lost, 1);
	return known ? known->id : 0;
}

/*
 * Whether it is one, and which: each fills in key->name and key->thing. Not static, where there is
 * much to it: the verifier then looks at it once, not at each call.
 */

/* ---- locks that sleep: of an mm, of a file, of anonymous memory ---- */

static __u32 mm_id(struct mm_struct *mm, bool foreign)
{
	struct thing_key key = { .address = (__u64)mm, .name = LOCK_MMAP };
	struct thing thing = { .foreign = foreign };

	if (HAS(struct mm_struct, context.ctx_id))
		key.stamp = BPF_CORE_READ(mm, context.ctx_id);
	return thing_id(&key, &thing);
}

/* A name of the file, by its inode's first dentry; all names of one lead to the same. */
static void name_file(struct inode *inode, char *name, __u32 size)
{
	struct dentry *dentry = NULL;
	__u64 alias;

	if (!HAS(struct inode, i_dentry))
		return;
	alias = (__u64)BPF_CORE_READ(inode, i_dentry.first);
	if (HAS(struct dentry, d_alias))
		dentry = AROUND(alias, struct dentry, d_alias);
	else if (HAS(struct dentry___union, d_u.d_alias))
		dentry = (void *)AROUND(alias, struct dentry___union, d_u.d_alias);
	if (alias && dentry)
		bpf_probe_read_kernel_str(name, size, BPF_CORE_READ(dentry, d_name.name));
}

static __u32 file_id(struct inode *inode, __u8 name)
{
	struct thing_key key = { .address = (__u64)inode, .name = name };
	struct thing thing = {};

	key.stamp = BPF_CORE_READ(inode, i_ino);
	describe_inode(&thing.kind, inode);
	name_file(inode, thing.file, sizeof(thing.file));
	return thing_id(&key, &thing);
}

__noinline int is_file_lock(__u64 lock, struct contended_key *key)
{
	struct address_space *mapping;
	struct inode *inode;

	if (!key || !HAS(struct address_space, i_mmap_rwsem) || !HAS(struct inode, i_mapping))
		return false;
	mapping = AROUND(lock, struct address_space, i_mmap_rwsem);
	inode = BPF_CORE_READ(mapping, host);
	if (inode && BPF_CORE_READ(inode, i_mapping) == mapping) {
		key->name = LOCK_I_MMAP;
		key->thing = file_id(inode, LOCK_I_MMAP);
		return true;
	}
	if (!HAS(struct inode, i_rwsem))
		return false;
	inode = AROUND(lock, struct inode, i_rwsem);
	mapping = BPF_CORE_READ(inode, i_mapping);
	if (!mapping || BPF_CORE_READ(mapping, host) != inode)
		return false;
	key->name = LOCK_INODE;
	key->thing = file_id(inode, LOCK_INODE);
	return true;
}

/* The lock of a family of anon_vmas is that of their root, which is its own. */
__noinline int is_anon_vma_lock(__u64 lock, struct contended_key *key)
{
	struct thing_key family = { .name = LOCK_ANON_VMA };
	struct thing thing = {};
	struct anon_vma *root;

	if (!key || !HAS(struct anon_vma, root) || !HAS(struct anon_vma, rwsem))
		return false;
	root = AROUND(lock, struct anon_vma, rwsem);
	if (BPF_CORE_READ(root, root) != root || BPF_CORE_READ(root, refcount.counter) <= 0)
		return false;
	family.address = (__u64)root;
	key->name = LOCK_ANON_VMA;
	key->thing = thing_id(&family, &thing);
	return true;
}

#include "vma_locks.bpf.h"

/* ---- locks that spin: of page tables, zones, signals ---- */

/* The pages of a kernel's stack tell where struct pages are: within 2^40 bytes (64 TiB). */
static bool is_in_memmap(__u64 address)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 one = 0;

	if (!HAS(struct task_struct, stack_vm_area))
		return true;
	bpf_probe_read_kernel(&one, sizeof(one), BPF_CORE_READ(task, stack_vm_area, pages));
	return one && (one > address ? one - address : address - one) < 1ULL << 40;
}

static bool is_page_table(struct page *page)
{
	__u32 type = BPF_CORE_READ(page, page_type);

	if (bpf_core_enum_value_exists(enum pagetype, PGTY_table))
		return type >> 24 == bpf_core_enum_value(enum pagetype, PGTY_table);
	return (type & 0xf0000200) == 0xf0000000;	/* PG_table, before 6.11 */
}

__noinline int is_page_table_lock(__u64 lock, struct contended_key *key)
{
	__u64 size = bpf_core_type_size(struct page), at, room;

	if (!key || !HAS(struct page, page_type))
		return false;
	if (HAS(struct ptdesc, ptl)) {
		at = bpf_core_field_offset(struct ptdesc, ptl);
		room = bpf_core_field_size(((struct ptdesc *)0)->ptl);
	} else if (HAS(struct page, ptl)) {
		at = bpf_core_field_offset(struct page, ptl);
		room = bpf_core_field_size(((struct page *)0)->ptl);
	} else {
		return false;
	}
	/* Where it is no more than a pointer to one, it lies elsewhere: ALLOC_SPLIT_PTLOCKS. */
	if (size & (size - 1) || room == sizeof(void *) || (lock & (size - 1)) != at ||
	    !is_in_memmap(lock) || !is_page_table((void *)(lock - at)))
		return false;
	key->name = LOCK_PAGE_TABLE;
	return true;
}

static bool is_zone_of(__u64 zone, __u64 node)
{
	__u64 size = bpf_core_type_size(struct zone), at;

	at = zone - node - bpf_core_field_offset(struct pglist_data, node_zones);
	return at < 8 * size && at % size == 0;
}

__noinline int is_memory_lock(__u64 lock, struct contended_key *key)
{
	struct pglist_data *node;

	if (!key || !HAS(struct zone, lock) || !HAS(struct zone, zone_pgdat) ||
	    !HAS(struct pglist_data, node_zones))
		return false;
	node = BPF_CORE_READ(AROUND(lock, struct zone, lock), zone_pgdat);
	if (node && is_zone_of((__u64)AROUND(lock, struct zone, lock), (__u64)node)) {
		key->name = LOCK_ZONE;
		return true;
	}
	if (!HAS(struct lruvec, lru_lock) || !HAS(struct pglist_data, __lruvec))
		return false;
	if (HAS(struct lruvec___memcg, pgdat))
		node = BPF_CORE_READ((struct lruvec___memcg *)AROUND(lock, struct lruvec, lru_lock),
				     pgdat);
	else
		node = AROUND((__u64)AROUND(lock, struct lruvec, lru_lock), struct pglist_data,
			      __lruvec);
	if (!node || BPF_CORE_READ(node, node_zones[0].zone_pgdat) != node)
		return false;
	key->name = LOCK_LRU;
	return true;
}

static bool is_own_spinlock(struct task_struct *task, __u64 lock, struct contended_key *key)
{
	__u64 mm = (__u64)task->mm, sighand = (__u64)task->sighand;

	if (mm && HAS(struct mm_struct, page_table_lock) &&
	    lock == mm + bpf_core_field_offset(struct mm_struct, page_table_lock))
		key->name = LOCK_MM_PAGE_TABLE;
	else if (sighand && HAS(struct sighand_struct, siglock) &&
		 lock == sighand + bpf_core_field_offset(struct sighand_struct, siglock))
		key->name = LOCK_SIGHAND;
	return key->name != LOCK_OTHER;
}

/* ---- any ---- */

/* Of the kernel's own image: the probe finds its symbol. */
static bool is_static(__u64 lock, struct contended_key *key)
{
	struct thing_key symbol = { .address = lock };
	struct thing thing = {};

	if (lock < constants.image[0] || lock >= constants.image[1])
		return false;
	key->thing = thing_id(&symbol, &thing);
	return true;
}

static bool is_mmap_lock(__u64 lock, __u64 mm)
{
	return mm && lock == mm + bpf_core_field_offset(struct mm_struct, mmap_lock);
}

/* Fills in key->name and key->thing. ASKED is the mm whose mmap_lock the task asks for, or 0. */
static void name_lock(struct task_struct *task, __u64 asked, __u64 lock, struct contended_key *key)
{
	bool sleeps = key->flags & (LCB_F_READ | LCB_F_WRITE) &&
		      !(key->flags & (LCB_F_SPIN | LCB_F_PERCPU));
	__u64 mm = is_mmap_lock(lock, asked) ? asked : (__u64)task->mm;

	if (is_static(lock, key))
		return;
	if (!sleeps) {
		if (!is_own_spinlock(task, lock, key) && !is_page_table_lock(lock, key))
			is_memory_lock(lock, key);
		return;
	}
	if (is_mmap_lock(lock, mm)) {
		key->name = LOCK_MMAP;
		key->thing = mm_id((void *)mm, mm != (__u64)task->mm);
		return;
	}
	if (!is_file_lock(lock, key) && !is_anon_vma_lock(lock, key) && key->flags == LCB_F_WRITE)
		is_vma_lock(task, lock, key);
}

#endif
