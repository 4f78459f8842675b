/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Looking at a VMA, and finding it: in the maple tree, without a lock, where a node that is
 * replaced meanwhile is seen as dead. bpf_find_vma() would take mmap_lock and, where that is
 * contended, fail.
 */
#ifndef FAULT_VMA_BPF_H
#define FAULT_VMA_BPF_H

#define MAX_HEIGHT	12
#define ATTEMPTS	4
#define MAX_PIVOTS	16

/*
 * Reading kernel memory by a number: where bpf_rdonly_cast() is (6.2), by a plain
 * load that reads 0 where nothing is, else by a call of a helper. Declared as libbpf
 * 1.3 and later does, so that either may come first.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define PEEK(type, address, member)							\
	(bpf_rdonly_cast ? (__u64)((type *)bpf_rdonly_cast((void *)(address),		\
				   bpf_core_type_id_kernel(type)))->member :		\
			   (__u64)BPF_CORE_READ((type *)(address), member))

static __u64 word_at(__u64 address)
{
	__u64 word = 0;

	if (bpf_rdonly_cast)
		return ((struct cpumask *)bpf_rdonly_cast(
			(void *)address, bpf_core_type_id_kernel(struct cpumask)))->bits[0];
	bpf_probe_read_kernel(&word, sizeof(word), (void *)address);
	return word;
}

static void look_at(__u64 area, struct view *view)
{
	__u64 file, inode;		/* numbers, lest libbpf looks for a struct view in the kernel */

	view->start = PEEK(struct vm_area_struct, area, vm_start);
	view->end = PEEK(struct vm_area_struct, area, vm_end);
	view->flags = PEEK(struct vm_area_struct, area, vm_flags);
	view->mm = PEEK(struct vm_area_struct, area, vm_mm);
	view->vm_ops = PEEK(struct vm_area_struct, area, vm_ops);
	view->anon_vma = PEEK(struct vm_area_struct, area, anon_vma);
	view->ino = NO_FILE;
	view->origin = 0;
	file = PEEK(struct vm_area_struct, area, vm_file);
	if (file) {
		view->origin = inode = PEEK(struct file, file, f_inode);
		view->ino = PEEK(struct inode, inode, i_ino);
	} else if (bpf_core_field_exists(((struct vm_area_struct *)0)->anon_name)) {
		view->origin = PEEK(struct vm_area_struct, area, anon_name);
	}
}

static __u8 found(const struct view *view)
{
	return FOUND_VMA | (view->vm_ops ? 0 : FOUND_ANON) | (view->anon_vma ? FOUND_ANON_VMA : 0);
}

#define ORIGIN_FLAGS	(VM_GROWSDOWN | VM_HUGETLB)

static void describe_file(struct kind_key *key, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	key->bits |= VMA_HAS_FILE;
	key->ino = BPF_CORE_READ(inode, i_ino);
	key->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFCHR)
		key->bits |= BPF_CORE_READ(inode, i_rdev) == DEV_ZERO ? KIND_DEV_ZERO : KIND_DEVICE;
}

static __u32 kind_of(const struct task_state *state)
{
	const struct view *view = &state->view;
	struct mm_struct *mm = (void *)view->mm;
	struct vm_area_struct *area = (void *)state->vma;
	struct file *file = view->ino == NO_FILE ? NULL : BPF_CORE_READ(area, vm_file);
	__u64 start = view->start, end = view->end, vm_ops = view->vm_ops, fault = 0;
	struct kind_key key = { .vm_ops = vm_ops, .flags = view->flags & ORIGIN_FLAGS,
				.prot = protection(view->flags) };
	struct fault_kind kind = {}, *known;

	if (vm_ops)
		key.bits |= VMA_HAS_OPS;
	if (start <= BPF_CORE_READ(mm, brk) && end >= BPF_CORE_READ(mm, start_brk))
		key.bits |= VMA_HEAP;
	if (start <= BPF_CORE_READ(mm, start_stack) && end >= BPF_CORE_READ(mm, start_stack))
		key.bits |= VMA_STACK;
	else if (state->on_stack)
		key.bits |= KIND_OWN_STACK;
	if (file)
		describe_file(&key, file);
	else if (view->origin)
		key.bits |= KIND_NAMED;
	known = bpf_map_lookup_elem(&kinds, &key);
	if (known)
		return known->id;
	if (vm_ops)
		kind.ops = ops_id((void *)vm_ops, &fault);
	if (file)
		bpf_probe_read_kernel_str(kind.file, sizeof(kind.file),
					  BPF_CORE_READ(file, f_path.dentry, d_name.name));
	kind.id = __sync_fetch_and_add(&counts.next_kind, 1) + 1;
	if (!bpf_map_update_elem(&kinds, &key, &kind, BPF_NOEXIST))
		return kind.id;
	known = bpf_map_lookup_elem(&kinds, &key);	/* another CPU was first, or it is full */
	if (!known)
		__sync_fetch_and_add(&counts.kinds_lost, 1);
	return known ? known->id : 0;
}

static bool is_own_stack(const struct view *view, __u64 sp)
{
	return view->start <= sp && sp < view->end;
}

/* Whether two views are of VMAs of the same kind, as far as a view shows it. */
static bool is_alike(const struct view *a, const struct view *b)
{
	return a->flags == b->flags && a->vm_ops == b->vm_ops && a->ino == b->ino &&
	       a->origin == b->origin && a->mm == b->mm;
}

/* Remembers a VMA as that of the task's fault; with a file it cannot be heap, stack or named. */
static void remember(struct task_state *state, __u64 area, const struct view *view)
{
	bool on_stack = is_own_stack(view, state->sp);
	bool same_kind = state->kind && state->on_stack == on_stack && is_alike(view, &state->view) &&
			 (view->ino != NO_FILE || state->view.start == view->start);

	state->vma = area;
	state->view = *view;
	state->on_stack = on_stack;
	if (!same_kind)
		state->kind = kind_of(state);
}

static void forget(struct task_state *state)
{
	state->vma = state->view.start = 0;
	state->kind = 0;
}

static bool is_around(const struct view *view, __u64 mm, __u64 address)
{
	return view->start <= address && address < view->end && view->mm == mm;
}

/* include/linux/maple_tree.h: the low byte of a pointer to a node holds its type. */
#define NODE_OF(entry)	((entry) & ~255ULL)
#define TYPE_OF(entry)	(((entry) >> 3) & 15)

struct layout {
	__u32 pivots, pivot_at, slot_at;
};

static __u64 child_of(__u64 node, __u64 address, const struct layout *layout)
{
	__u32 i;

	for (i = 0; i < MAX_PIVOTS; i++)
		if (i >= layout->pivots || word_at(node + layout->pivot_at + i * 8) >= address)
			break;
	return word_at(node + layout->slot_at + i * 8);
}

#define DEAD	1	/* the way led through a node that is no part of the tree any more */

/*
 * mtree_lookup_walk() of lib/maple_tree.c, without the RCU read lock's promise: see is_around().
 * 0 where there is no VMA, or DEAD.
 */
static __u64 find_vma(__u64 mm, __u64 address)
{
	const struct layout branch = {
		.pivots = bpf_core_field_size(((struct maple_arange_64 *)0)->pivot) / 8,
		.pivot_at = bpf_core_field_offset(struct maple_arange_64, pivot),
		.slot_at = bpf_core_field_offset(struct maple_arange_64, slot),
	}, leaf = {
		.pivots = bpf_core_field_size(((struct maple_range_64 *)0)->pivot) / 8,
		.pivot_at = bpf_core_field_offset(struct maple_range_64, pivot),
		.slot_at = bpf_core_field_offset(struct maple_range_64, slot),
	};
	__u32 leaf_type = bpf_core_enum_value(enum maple_type, maple_leaf_64);
	__u32 branch_type = bpf_core_enum_value(enum maple_type, maple_arange_64);
	__u64 entry = PEEK(struct mm_struct, mm, mm_mt.ma_root);

	if ((entry & 3) != 2 || entry <= 4096)
		return 0;		/* xa_is_node(): the root of an empty tree is no node */
	for (int level = 0; level < MAX_HEIGHT; level++) {
		__u64 node = NODE_OF(entry);
		__u32 type = TYPE_OF(entry);

		entry = child_of(node, address, type == branch_type ? &branch : &leaf);
		if (NODE_OF(word_at(node)) == node)
			return DEAD;	/* ma_dead_node(): its parent is itself */
		if (type <= leaf_type)
			return entry > 4096 ? entry : 0;
	}
	return DEAD;
}

/*
 * Finds the VMA of the fault, and returns what is found of it: FOUND_*, FOUND_NOTHING where
 * there is none, NOT_LOOKED_AT where the tree changed under our eyes each time. Unless it is
 * found, what was remembered stays.
 * Not static: the verifier then looks at it once, not at each call.
 */
__noinline int resolve(struct task_state *state, __u64 mm)
{
	int seen = NOT_LOOKED_AT;
	__u64 area;

	if (!state)
		return NOT_LOOKED_AT;
	/* Where it is not found, another thread may just be replacing a node. */
	for (int i = 0; i < ATTEMPTS; i++) {
		area = find_vma(mm, state->address);
		seen = area ? NOT_LOOKED_AT : FOUND_NOTHING;
		if (area <= DEAD)
			continue;
		look_at(area, &state->found);
		if (is_around(&state->found, mm, state->address)) {
			remember(state, area, &state->found);
			return found(&state->found);
		}
	}
	return seen;
}

/* A freed VMA looks as it did when it was taken out of its tree. */
static bool is_attached(__u64 area)
{
	struct vm_area_struct___flag *flag = (void *)area;
	struct vm_area_struct___count *count = (void *)area;

	if (bpf_core_field_exists(count->vm_refcnt))
		return PEEK(struct vm_area_struct___count, count, vm_refcnt.refs.counter);
	if (bpf_core_field_exists(flag->detached))
		return !PEEK(struct vm_area_struct___flag, flag, detached);
	return false;	/* it cannot be told, so it has to be looked up again */
}

/* Looks at the VMA of the last fault again: does it look as it did? */
static bool is_unchanged(struct task_state *state, struct view *view)
{
	look_at(state->vma, view);
	return view->start == state->view.start && is_alike(view, &state->view);
}

/* Is it still there, too? */
static bool is_intact(struct task_state *state, struct task_struct *task, struct view *view)
{
	if (!state->vma || state->view.mm != (__u64)task->mm)
		return false;
	return is_unchanged(state, view) && is_attached(state->vma);
}


#endif
