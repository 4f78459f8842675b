// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults of traced tasks by page_fault_user and page_fault_kernel, which tell of a
 * fault as it begins. They are called with interrupts off, so none is missed.
 *
 * It has ended when the task's next one begins, or when the task takes mmap_lock for
 * anything else; then its VMA is looked at again. Programs here run inside page faults:
 * they must be short.
 */
#include "faults.bpf.h"
#include "mmap_lock.bpf.h"

#define FRAMES		8

static bool lacks_anon_vma(__u8 seen)
{
	return seen & FOUND_VMA && !(seen & FOUND_ANON_VMA);
}

/* Why mmap_lock was acquired, as far as what was found and left tells; the rest is not told. */
static __u8 reason_told(const struct task_state *state, __u8 after)
{
	if (state->path != PATH_MMAP && state->path != PATH_RETRY)
		return REASON_NONE;
	if (state->mode == MODE_KERNEL)
		return REASON_KERNEL;
	if (!constants.has_vma_locks)
		return REASON_NO_VMA_LOCKS;
	if (state->path == PATH_RETRY)
		return REASON_ANON_VMA;	/* lock_taken() */
	if (state->before != FOUND_NOTHING)
		return REASON_NOT_TOLD;
	return after == FOUND_NOTHING ? REASON_NOTHING_MAPPED :
	       after & FOUND_VMA && state->view.flags & VM_GROWSDOWN ? REASON_STACK : REASON_NOT_TOLD;
}

/* The fault that began last has ended by now; VIEW is its VMA's, if that is intact. */
static void finish(struct task_state *state, struct task_struct *task, const struct view *view)
{
	bool was_there = state->kind;
	__u8 after = NOT_LOOKED_AT;
	__u64 mm;

	if (view) {
		after = found(view);
		state->reason = reason_told(state, after);
	} else {
		mm = (__u64)BPF_CORE_READ(task, mm);	/* a number, for a call verified apart */
		if (mm && (!was_there || state->view.mm == mm))
			after = resolve(state, mm);
		/* Another thread took it away, or is about to change the tree: as it was left. */
		if (!(after & FOUND_VMA) && was_there && is_unchanged(state, &state->found))
			after = found(&state->found);
		state->reason = reason_told(state, after);
		/*
		 * The stack has grown into the place; the VMA was there before, as it is now. Or
		 * the way to it led through a node that another thread was just replacing (in
		 * 6.1, mat_add() says that it is dead before there is another); what has no
		 * anon_vma now had none then.
		 */
		if (!was_there && (state->before == FOUND_NOTHING ||
				   (state->before == NOT_LOOKED_AT && lacks_anon_vma(after))))
			state->before = after;
	}
	/* One of kernel mode never tries the VMA's own: FAULT_FLAG_USER. */
	if (state->path == PATH_UNKNOWN && state->mode == MODE_USER && constants.has_lock_events &&
	    constants.has_vma_locks)
		state->path = PATH_VMA;
	ended(state, after, result_of(state, task), 0, false);
}

static void settle(struct task_state *state, struct task_struct *task)
{
	struct view view;

	if (state->pending == BEGUN)
		finish(state, task, is_intact(state, task, &view) ? &view : NULL);
}

static int tracepoint_begins(__u64 *ctx, __u8 mode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	struct pt_regs___stack *regs = (void *)ctx[1];
	__u64 address = ctx[0];
	struct view view;
	bool intact;

	if (!state || state->taking_stacks || (__s64)address < 0 || !task->mm ||
	    is_refused(task, mode))
		return 0;
	intact = is_intact(state, task, &view);
	if (state->pending == BEGUN)
		finish(state, task, intact ? &view : NULL);
	begin(state, address, mode, access_of(ctx[2]));
	state->sp = mode == MODE_USER ? regs->sp : 0;
	state->pending = BEGUN;
	account(state, task, 0);
	take_stacks(ctx, state);
	if (intact && view.start <= address && address < view.end &&
	    state->on_stack == is_own_stack(&view, state->sp)) {
		state->view = view;
		state->before = found(&view);
	} else {
		state->before = resolve(state, (__u64)BPF_CORE_READ(task, mm));
		if (!(state->before & FOUND_VMA))
			forget(state);
	}
	return 0;
}

/* (address, regs, error_code) */
SEC("tp_btf/page_fault_user")
int user_fault_begins(__u64 *ctx)
{
	return tracepoint_begins(ctx, MODE_USER);
}

SEC("tp_btf/page_fault_kernel")
int kernel_fault_begins(__u64 *ctx)
{
	return tracepoint_begins(ctx, MODE_KERNEL);
}

struct frames {
	__u64 address[FRAMES];
};

enum {
	TAKEN_FOR_FAULT	  = 1,
	TRIED_FOR_PREPARE = 2,
};

static __u32 lies_in(__u64 address, const volatile __u64 function[2])
{
	return address - function[0] < function[1] - function[0];
}

/* Which of the functions that a fault takes mmap_lock in is on the stack. */
__noinline int taken_for(struct frames *frames)
{
	__u32 fault = 0, prepare = 0;

	if (!frames)
		return 0;
	for (int i = 0; i < FRAMES; i++) {
		__u64 address = frames->address[i];

		prepare |= lies_in(address, constants.prepare_caller);
		for (int f = 0; f < 3; f++)
			fault |= lies_in(address, constants.fault_callers[f]);
	}
	return prepare ? TRIED_FOR_PREPARE : fault ? TAKEN_FOR_FAULT : 0;
}

/* A fault of user mode is over when the task is in a system call: that is seen without a stack. */
static bool is_in_system_call(struct task_struct *task)
{
	struct pt_regs___x86 *regs = (void *)bpf_task_pt_regs(task);

	return bpf_core_field_exists(regs->orig_ax) && (__s64)BPF_CORE_READ(regs, orig_ax) >= 0;
}

/* A function of its own, lest its frames lie on the stack with all that settle() needs: 512 bytes. */
static __noinline int why_taken(void *ctx)
{
	struct frames frames = {};

	bpf_get_stack(ctx, &frames, sizeof(frames), 0);
	return taken_for(&frames);
}

static int lock_taken(void *ctx, __u64 mm, bool write, bool success)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	int why = 0;

	(void)mm, (void)write;
	if (!state || state->pending != BEGUN)
		return 0;
	if (state->mode != MODE_USER || !is_in_system_call(task))
		why = why_taken(ctx);
	if (!why)
		settle(state, task);
	else if (why == TRIED_FOR_PREPARE && !success)
		state->repeats++;	/* __vmf_anon_prepare() then says VM_FAULT_RETRY */
	else if (why == TAKEN_FOR_FAULT && success)
		state->path = state->repeats ? PATH_RETRY : PATH_MMAP;
	return 0;
}

ON_MMAP_LOCK_ACQUIRE_RETURNED(lock_taken)

char LICENSE[] SEC("license") = "GPL";
