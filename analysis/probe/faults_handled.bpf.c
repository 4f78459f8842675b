// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults of traced tasks by the calls of handle_mm_fault() and its returns: it is given
 * the VMA and says by FAULT_FLAG_VMA_LOCK which lock is held; and how long each took.
 *
 * By fentry and fexit, or by kprobe.multi and kretprobe.multi, of which the probe loads one
 * pair. The former are preemptible, and one that is preempted turns away every other task of
 * its CPU (__bpf_prog_enter_recur()). The latter are called with preemption off
 * (kprobe_multi_link_prog_run()), so they miss nothing on a preemptible kernel either; nor do
 * kprobes of perf, which they are attached as where the kernel has no kprobe.multi.
 *
 * What is missed all the same has to be found otherwise: page_fault_user and
 * page_fault_kernel, which are called with interrupts off, tell that a fault began, and
 * the task's own counts, at its next one, that it was handled. Of such a fault no more is
 * known. One of get_user_pages(), which has no exception, is counted as unseen.
 *
 * Why one acquired mmap_lock is told by the functions that decide it, none of which a fault
 * under its VMA's lock comes to, but for those that a page is read or copied by.
 */
#include <linux/ptrace.h>
#include "faults.bpf.h"
#include "fault_reason.bpf.h"
#include "entry.bpf.h"
#include <bpf/bpf_tracing.h>

/* ---- the kernel's flags ---- */

enum fault_flag { FAULT_FLAG_WRITE, FAULT_FLAG_USER, FAULT_FLAG_INSTRUCTION, FAULT_FLAG_VMA_LOCK,
		  FAULT_FLAG_TRIED };
enum vm_fault_reason { VM_FAULT_OOM, VM_FAULT_SIGBUS, VM_FAULT_MAJOR, VM_FAULT_HWPOISON,
		       VM_FAULT_HWPOISON_LARGE, VM_FAULT_SIGSEGV, VM_FAULT_RETRY,
		       VM_FAULT_FALLBACK, VM_FAULT_COMPLETED };

#define FLAG(name)	(bpf_core_enum_value_exists(enum fault_flag, name) ?		\
			 bpf_core_enum_value(enum fault_flag, name) : 0)
#define REASON(name)	(bpf_core_enum_value_exists(enum vm_fault_reason, name) ?	\
			 bpf_core_enum_value(enum vm_fault_reason, name) : 0)
/* include/linux/mm_types.h: VM_FAULT_ERROR */
#define ERRORS		(REASON(VM_FAULT_OOM) | REASON(VM_FAULT_SIGBUS) | REASON(VM_FAULT_SIGSEGV) | \
			 REASON(VM_FAULT_HWPOISON) | REASON(VM_FAULT_HWPOISON_LARGE) |		\
			 REASON(VM_FAULT_FALLBACK))

/* Ends a fault that has had its time, though its end, and maybe more of it, was missed. */
static void settle(struct task_state *state, struct task_struct *task)
{
	struct view view;
	__u8 after = NOT_LOOKED_AT, result;

	if (state->pending == IDLE) {
		account(state, task, 0);
		return;
	}
	result = result_of(state, task);
	if (state->pending == BEGUN) {
		forget(state);		/* of its VMA nothing is known, or that there was none */
		if (state->reason == REASON_NOTHING_MAPPED && result == RESULT_ERROR)
			state->before = after = FOUND_NOTHING;
	} else if (is_intact(state, task, &view)) {
		after = found(&view);
	}
	if (state->pending == REPEATED && state->path == PATH_VMA && result != RESULT_ERROR)
		state->path = PATH_RETRY;
	ended(state, after, result, 0, false);
}

/* Only the time: what is known better is known later. */
static int exception_begins(__u64 *ctx, __u8 mode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	__u64 address = ctx[0];

	if (!state || state->taking_stacks || (__s64)address < 0 || is_refused(task, mode))
		return 0;
	settle(state, task);
	begin(state, address, mode, access_of(ctx[2]));
	state->pending = BEGUN;
	state->lock_seq = lock_seq_of((__u64)BPF_CORE_READ(task, mm));
	state->user_stack = state->kernel_stack = -1;
	return 0;
}

/* (address, regs, error_code) */
SEC("tp_btf/page_fault_user")
int user_exception_begins(__u64 *ctx)
{
	return exception_begins(ctx, MODE_USER);
}

SEC("tp_btf/page_fault_kernel")
int kernel_exception_begins(__u64 *ctx)
{
	return exception_begins(ctx, MODE_KERNEL);
}

/* ---- why it goes to mmap_lock ---- */

/* lock_vma_under_rcu() has failed, or the handler, or neither was asked. */
static int asks_mmap_lock(__u64 address, __u64 regs)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	__u64 mm;

	if (!state || state->taking_stacks)
		return 0;
	mm = (__u64)BPF_CORE_READ(task, mm);
	/* Where no tracepoint tells of exceptions, one that has asked already found no VMA. */
	if (state->pending != REPEATED && (state->pending != BEGUN || state->asked_ns)) {
		settle(state, task);
		begin(state, address, is_of_user_mode(regs) ? MODE_USER : MODE_KERNEL, 0);
		state->pending = BEGUN;
		state->lock_seq = lock_seq_of(mm);
	}
	if (state->pending == BEGUN) {
		state->path = PATH_MMAP;
		state->reason = state->mode == MODE_KERNEL ? REASON_KERNEL :
				why_not_locked(state, mm);
	}
	state->asked_ns = bpf_ktime_get_ns();
	return 0;
}

static void has_mmap_lock(struct task_state *state)
{
	if (state->asked_ns)
		state->wait_ns += bpf_ktime_get_ns() - state->asked_ns;
	state->asked_ns = 0;
}

/* Of a fault that comes to be handled under mmap_lock, in VIEW. */
static __u8 reason_to_begin(const struct task_state *state, const struct view *view)
{
	if (state->mode == MODE_GUP)
		return REASON_GUP;
	if (state->mode == MODE_KERNEL)
		return REASON_KERNEL;
	if (!constants.has_vma_locks)
		return REASON_NO_VMA_LOCKS;
	if (state->reason == REASON_NOTHING_MAPPED)
		return view->flags & VM_GROWSDOWN ? REASON_STACK : REASON_REPLACED;
	return state->reason;
}

/* Of one whose handler said VM_FAULT_RETRY under the VMA's lock. */
static __u8 reason_to_repeat(const struct task_state *state)
{
	__u64 vm_ops = state->view.vm_ops;

	if (state->refused_by)
		return state->refused_by;
	if (!constants.sees_retries)
		return REASON_NOT_TOLD;
	return vm_ops && !PEEK(struct vm_operations_struct, vm_ops, map_pages) ? REASON_OPERATION :
									       REASON_OTHER;
}

/* One of the functions that may say it, and what it returns. */
static int refuses(__u32 returned, __u8 reason)
{
	struct task_state *state;

	if (!(returned & REASON(VM_FAULT_RETRY)))
		return 0;
	state = state_of(bpf_get_current_task_btf());
	if (state && state->pending == HANDLED)
		state->refused_by = reason;
	return 0;
}

/* ---- handle_mm_fault() ---- */

static bool same_page(const struct task_state *state, __u64 address)
{
	return (state->address ^ address) < constants.page_size;
}

static int enters(void *ctx, __u64 area, __u64 address, __u32 flags, __u64 regs)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	bool under_vma_lock = flags & FLAG(FAULT_FLAG_VMA_LOCK);
	struct view view;

	if (!state)
		return 0;
	state->tried = (flags & FLAG(FAULT_FLAG_TRIED)) != 0;
	state->refused_by = REASON_NONE;
	/* Repeated, be it under mmap_lock or under the VMA's own: it is one fault. */
	if (state->pending >= HANDLED && same_page(state, address) &&
	    !regs == (state->mode == MODE_GUP) && !grown(state, task)) {
		if (state->path == PATH_VMA && !under_vma_lock)
			state->path = PATH_RETRY;
		has_mmap_lock(state);
		state->pending = HANDLED;
		state->vma = area;	/* it may have been looked up again */
		return 0;
	}
	if (state->pending != BEGUN || !same_page(state, address) || !regs) {
		settle(state, task);
		begin(state, address, 0, 0);
	}
	state->mode = !regs ? MODE_GUP : flags & FLAG(FAULT_FLAG_USER) ? MODE_USER : MODE_KERNEL;
	state->access = flags & FLAG(FAULT_FLAG_INSTRUCTION) ? ACCESS_EXEC :
			flags & FLAG(FAULT_FLAG_WRITE) ? ACCESS_WRITE : ACCESS_READ;
	state->path = under_vma_lock ? PATH_VMA : PATH_MMAP;
	state->pending = HANDLED;
	state->sp = state->mode == MODE_USER ? PEEK(struct pt_regs___stack, regs, sp) : 0;
	take_stacks(ctx, state);
	look_at(area, &view);
	remember(state, area, &view);
	state->before = found(&view);
	if (!under_vma_lock)
		state->reason = reason_to_begin(state, &view);
	else if (state->before == (FOUND_VMA | FOUND_ANON) && !counts.bare_locked)
		counts.bare_locked = 1;
	has_mmap_lock(state);
	return 0;
}

static int leaves(__u32 returned)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	__u8 result, after = NOT_LOOKED_AT;
	struct view view;

	if (!state || state->pending != HANDLED)
		return 0;
	if (returned & REASON(VM_FAULT_RETRY)) {
		if (state->path == PATH_VMA && !state->reason)
			state->reason = reason_to_repeat(state);
		state->pending = REPEATED;
		return 0;
	}
	/* mm_account_fault() */
	result = returned & ERRORS ? RESULT_ERROR :
		 returned & REASON(VM_FAULT_MAJOR) || state->tried ? RESULT_MAJOR : RESULT_MINOR;
	account(state, task, result != RESULT_ERROR);
	/* VM_FAULT_COMPLETED: the lock was dropped, and the VMA may be gone. */
	if (!(returned & REASON(VM_FAULT_COMPLETED))) {
		look_at(state->vma, &view);
		after = found(&view);
	}
	ended(state, after, result, bpf_ktime_get_ns() - state->start_ns, true);
	return 0;
}

/* (vma, address, flags, regs) */
SEC("fentry/handle_mm_fault")
int fault_enters(__u64 *ctx)
{
	return enters(ctx, ctx[0], ctx[1], ctx[2], ctx[3]);
}

/* ... and what it returns */
SEC("fexit/handle_mm_fault")
int fault_leaves(__u64 *ctx)
{
	return leaves(ctx[4]);
}

SEC("kprobe.multi/handle_mm_fault")
int fault_enters_multi(struct pt_regs *ctx)
{
	return enters(ctx, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx),
		      PT_REGS_PARM4(ctx));
}

SEC("kretprobe.multi/handle_mm_fault")
int fault_leaves_multi(struct pt_regs *ctx)
{
	return leaves(PT_REGS_RC(ctx));
}

/* (mm, address, regs): from 6.5, and in stable kernels from 6.1 */
SEC("fentry/lock_mm_and_find_vma")
int lock_asked(__u64 *ctx)
{
	return asks_mmap_lock(ctx[1], ctx[2]);
}

SEC("kprobe.multi/lock_mm_and_find_vma")
int lock_asked_multi(struct pt_regs *ctx)
{
	return asks_mmap_lock(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
}

#define REFUSES(name, function, arguments, reason)					\
SEC("fexit/" function)									\
int name(__u64 *ctx)									\
{											\
	return refuses(ctx[arguments], reason);						\
}											\
SEC("kretprobe.multi/" function)							\
int name##_multi(struct pt_regs *ctx)							\
{											\
	return refuses(PT_REGS_RC(ctx), reason);					\
}

/* (vmf); the former from 6.10 on, and there with the latter around it */
REFUSES(anon_prepare, "vmf_anon_prepare", 1, REASON_ANON_VMA)
REFUSES(anon_prepared, "__vmf_anon_prepare", 1, REASON_ANON_VMA)
/* (vmf) */
REFUSES(file_fault, "filemap_fault", 1, REASON_IO)
/* (folio, vmf) */
REFUSES(folio_lock, "__folio_lock_or_retry", 2, REASON_IO)
/* (vmf, reason) */
REFUSES(userfault, "handle_userfault", 2, REASON_USERFAULTFD)

char LICENSE[] SEC("license") = "GPL";
