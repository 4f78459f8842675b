/* SPDX-License-Identifier: GPL-2.0-only */
/* Looking at the VMA of a fault, and finding it. */
#ifndef FAULT_VMA_BPF_H
#define FAULT_VMA_BPF_H

#include "maple_tree.bpf.h"
#include "vma_kind.bpf.h"

#define ATTEMPTS	4

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
		describe_inode(&key, BPF_CORE_READ(file, f_inode));
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
