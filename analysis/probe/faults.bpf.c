// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults of traced tasks: what each found, what it left, under which lock.
 *
 * Two sources, one of which the probe loads:
 *
 *	fentry, fexit	on handle_mm_fault(), which is given the VMA and says by
 *			FAULT_FLAG_VMA_LOCK which lock is held. A fault that is
 *			repeated after VM_FAULT_RETRY is one fault.
 *	tracepoint	page_fault_user and page_fault_kernel tell of a fault as it
 *			begins. Its VMA is looked up in the maple tree, without a
 *			lock: a node that is replaced meanwhile is seen as dead.
 *			It has ended when the task's next one begins, or when the
 *			task takes mmap_lock for anything else; then the same VMA
 *			is looked at again. bpf_find_vma() would take mmap_lock
 *			and, where that is contended, fail.
 *
 * Programs here run inside page faults: they must be short.
 */
#include "vma.bpf.h"
#include "faults.h"

enum {
	IDLE,
	BEGUN,		/* by a tracepoint */
	HANDLED,	/* handle_mm_fault() has been called */
	REPEATED,	/* it said VM_FAULT_RETRY */
};

#define MAX_HEIGHT	12
#define ATTEMPTS	4
#define MAX_PIVOTS	16
#define FRAMES		8

#define NO_FILE		(~0ULL)

/* What is read of a VMA. Not its struct file: one that was freed is soon used again. */
struct view {
	__u64 start, end, flags, mm, vm_ops, anon_vma;
	__u64 ino;			/* or NO_FILE */
	__u64 origin;			/* the file's inode, or else the name */
};

struct task_state {
	struct traced who;
	__u64 address, start_ns;
	__u64 sp;			/* in user mode, else 0 */
	__u64 vma;			/* of the last fault, ... */
	struct view view;		/* ... as it was when last looked at */
	struct view found;		/* by resolve(): the stack has no room for it */
	__u32 kind;
	__u8 pending, mode, access, before, path, repeats, on_stack, exiting;
	__u8 taking_stacks;
	__s32 user_stack, kernel_stack;
	/* Faults like the last one, not yet in the map. */
	struct group_key like;
	__u64 alike;
};

#include "traced.bpf.h"

struct fault_counts counts SEC(".bss.counts");

const volatile struct fault_constants constants = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_KINDS);
	__type(key, struct kind_key);
	__type(value, struct fault_kind);
} kinds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_GROUPS);
	__type(key, struct group_key);
	__type(value, struct group_value);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, MAX_STACKS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

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

/* ---- the VMA ---- */

/*
 * Reading kernel memory by a number: where bpf_rdonly_cast() is (6.2), by a plain
 * load that reads 0 where nothing is, else by a call of a helper.
 */
extern void *bpf_rdonly_cast(void *object, __u32 btf_id) __ksym __weak;

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

/* mtree_lookup_walk() of lib/maple_tree.c, without the RCU read lock's promise: see is_around(). */
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
			return 0;	/* ma_dead_node(): its parent is itself */
		if (type <= leaf_type)
			return entry > 4096 ? entry : 0;
	}
	return 0;
}

/*
 * Finds the VMA of the fault, and returns what is found of it: FOUND_*. Where that is
 * nothing, what was remembered stays.
 * Not static: the verifier then looks at it once, not at each call.
 */
__noinline int resolve(struct task_state *state, __u64 mm)
{
	__u64 area;

	if (!state)
		return FOUND_NOTHING;
	/* Where it is not found, another thread may just be replacing a node. */
	for (int i = 0; i < ATTEMPTS; i++) {
		area = find_vma(mm, state->address);
		if (!area)
			continue;
		look_at(area, &state->found);
		if (is_around(&state->found, mm, state->address)) {
			remember(state, area, &state->found);
			return found(&state->found);
		}
	}
	return FOUND_NOTHING;
}

/* ---- a fault that has ended ---- */

static __u32 bucket_of(__u64 ns)
{
	__u32 bucket = 0, value = ns >> 32 ? ~0U : ns;

	for (int shift = 16; shift; shift /= 2)
		if (value >> shift) {
			value >>= shift;
			bucket += shift;
		}
	return bucket;
}

/* Not on the stack, of which programs have 512 bytes for all their calls. */
static const struct group_value no_faults;

static struct group_value *group_of(const struct group_key *key, __u64 faults)
{
	struct group_value *value = bpf_map_lookup_elem(&groups, key);

	if (value)
		return value;
	bpf_map_update_elem(&groups, key, &no_faults, BPF_NOEXIST);
	value = bpf_map_lookup_elem(&groups, key);
	if (!value)
		__sync_fetch_and_add(&counts.faults_lost, faults);
	return value;
}

static bool same_group(const struct group_key *a, const struct group_key *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/* Not static, as resolve(). */
__noinline int flush(struct task_state *state)
{
	struct group_value *value;
	struct group_key key;

	if (!state || !state->alike)
		return 0;
	key = state->like;	/* 6.1's verifier wants a key on the stack */
	value = group_of(&key, state->alike);
	if (value)
		value->count += state->alike;
	state->alike = 0;
	return 0;
}

/* Mostly a fault is like the task's last one: then it is only counted. */
static void count(struct task_state *state, const struct group_key *key)
{
	if (!same_group(&state->like, key)) {
		flush(state);
		state->like = *key;
	}
	state->alike++;
	if (state->exiting)
		flush(state);
}

static void count_timed(const struct group_key *key, __u64 ns)
{
	struct group_value *value = group_of(key, 1);

	if (!value)
		return;
	value->count++;
	value->time_ns += ns;
	value->buckets[bucket_of(ns) & (FAULT_BUCKETS - 1)]++;
}

static void write_event(const struct task_state *state, const struct group_key *key, __u64 ns)
{
	struct fault_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&counts.events_lost, 1);
		return;
	}
	event->start_ns = state->start_ns;
	event->address = state->address;
	event->vm_start = state->view.start;
	event->duration_ns = ns >> 32 ? ~0U : ns;
	event->process = key->process;
	event->tid = state->who.tid;
	event->kind = key->kind;
	event->mode = key->mode;
	event->access = key->access;
	event->before = key->before;
	event->after = key->after;
	event->path = key->path;
	event->result = key->result;
	event->reserved = 0;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static void ended(struct task_state *state, __u8 after, __u8 result, __u64 ns, bool timed)
{
	struct group_key key = { .process = state->who.process, .kind = state->kind,
				 .mode = state->mode, .access = state->access,
				 .before = state->before, .after = after, .path = state->path,
				 .result = result, .user_stack = -1, .kernel_stack = -1 };

	state->pending = IDLE;
	if (constants.want_stacks) {
		key.user_stack = state->user_stack;
		key.kernel_stack = state->kernel_stack;
	}
	if (timed)
		count_timed(&key, ns);
	else
		count(state, &key);
	if (constants.want_events)
		write_event(state, &key, ns);
}

/* ---- a fault that begins ---- */

static void begin(struct task_state *state, __u64 address, __u8 mode, __u8 access)
{
	state->address = address;
	state->mode = mode;
	state->access = access;
	state->before = FOUND_NOTHING;
	state->path = PATH_UNKNOWN;
	state->repeats = 0;
	if (constants.want_events || constants.timed)
		state->start_ns = bpf_ktime_get_ns();
}

/* arch/x86/include/asm/trap_pf.h */
static __u8 access_of(__u64 error_code)
{
	return error_code & 1 << 4 ? ACCESS_EXEC : error_code & 1 << 1 ? ACCESS_WRITE : ACCESS_READ;
}

static void take_stacks(void *ctx, struct task_state *state)
{
	if (!constants.want_stacks)
		return;
	/* Following frame pointers into memory that is not there faults, too; that is ours. */
	state->taking_stacks = 1;
	state->user_stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	state->kernel_stack = kernel_stack_id(ctx, &stacks);
	state->taking_stacks = 0;
}

/* ---- source: tracepoints ---- */

/* What the task's own counts have grown by, of which SEEN is known. */
static void account(struct task_state *state, struct task_struct *task, __u64 seen)
{
	struct traced *who = &state->who;
	__u64 grown = task->min_flt - who->minor + task->maj_flt - who->major;

	if (grown > seen)
		__sync_fetch_and_add(&counts.unseen_gup, grown - seen);
	who->minor = task->min_flt;
	who->major = task->maj_flt;
}

/* By the task's own counts; mm_account_fault() leaves a fault that failed out of both. */
static __u8 result_of(struct task_state *state, struct task_struct *task)
{
	__u8 result = task->maj_flt != state->who.major ? RESULT_MAJOR :
		      task->min_flt != state->who.minor ? RESULT_MINOR : RESULT_ERROR;

	account(state, task, 1);
	return result;
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

/* The fault that began last has ended by now; VIEW is its VMA's, if that is intact. */
static void finish(struct task_state *state, struct task_struct *task, const struct view *view)
{
	bool grown = !state->kind;
	__u8 after = FOUND_NOTHING;
	__u64 mm;

	if (view) {
		after = found(view);
	} else {
		mm = (__u64)BPF_CORE_READ(task, mm);	/* a number, for a call verified apart */
		if (mm && (grown || state->view.mm == mm))
			after = resolve(state, mm);
		/* Another thread took it away, or is about to change the tree: as it was left. */
		if (!after && !grown && is_unchanged(state, &state->found))
			after = found(&state->found);
		/* The stack has grown into the place; the VMA was there before, as it is now. */
		if (grown)
			state->before = after;
	}
	if (state->path == PATH_UNKNOWN && constants.has_lock_events && constants.has_vma_locks)
		state->path = PATH_VMA;
	ended(state, after, result_of(state, task), 0, false);
}

static void finish_pending(struct task_state *state, struct task_struct *task)
{
	struct view view;

	if (state->pending == BEGUN)
		finish(state, task, is_intact(state, task, &view) ? &view : NULL);
}

static int tracepoint_begins(__u64 *ctx, __u8 mode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	struct pt_regs *regs = (void *)ctx[1];
	__u64 address = ctx[0];
	struct view view;
	bool intact;

	if (!state || state->taking_stacks || (__s64)address < 0 || !task->mm)
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
		if (!state->before)
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

static int lock_taken(void *ctx, bool success)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);
	struct frames frames = {};
	int why = 0;

	if (!state || state->pending != BEGUN)
		return 0;
	if (state->mode != MODE_USER || !is_in_system_call(task)) {
		bpf_get_stack(ctx, &frames, sizeof(frames), 0);
		why = taken_for(&frames);
	}
	if (!why)
		finish_pending(state, task);
	else if (why == TRIED_FOR_PREPARE && !success)
		state->repeats++;	/* __vmf_anon_prepare() then says VM_FAULT_RETRY */
	else if (why == TAKEN_FOR_FAULT && success)
		state->path = state->repeats ? PATH_RETRY : PATH_MMAP;
	return 0;
}

/* (mm, memcg_path, write, success), from 5.11 */
SEC("tp_btf/mmap_lock_acquire_returned")
int lock_taken_with_path(__u64 *ctx)
{
	return lock_taken(ctx, ctx[3]);
}

/* (mm, write, success), later: the tracepoint looks the path up itself */
SEC("tp_btf/mmap_lock_acquire_returned")
int lock_taken_plain(__u64 *ctx)
{
	return lock_taken(ctx, ctx[2]);
}

/*
 * The last fault of a task, where exit_mm() did not show it by taking mmap_lock. From
 * 6.16 exit_mm() comes later, and clearing the task's number in user memory may fault.
 */
SEC("tp_btf/sched_process_exit")
int task_exits(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = state_of(task);

	(void)ctx;
	if (!state)
		return 0;
	finish_pending(state, task);
	account(state, task, 0);
	flush(state);
	state->exiting = 1;
	return 0;
}

/* Read once, at the end: what tasks that live on have not yet put into the map. */
SEC("iter/task")
int flush_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state = task ? state_of(task) : NULL;

	if (!state)
		return 0;
	if (!constants.timed) {
		/* One that the task has not counted is still going on. */
		if (task->min_flt != state->who.minor || task->maj_flt != state->who.major)
			finish_pending(state, task);
		account(state, task, 0);
	}
	flush(state);
	return 0;
}

/* ---- source: fentry and fexit ---- */

/* A fault that never came to handle_mm_fault(), or was not repeated after all. */
static void abandon(struct task_state *state)
{
	if (state->pending == BEGUN)
		forget(state);
	if (state->pending != IDLE)
		ended(state, FOUND_NOTHING, RESULT_ERROR, 0, false);
}

/* Only the time: what is known better is known later. */
static int exception_begins(__u64 *ctx, __u8 mode)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	__u64 address = ctx[0];

	if (!state || state->taking_stacks || (__s64)address < 0)
		return 0;
	abandon(state);
	begin(state, address, mode, access_of(ctx[2]));
	state->pending = BEGUN;
	return 0;
}

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

/* (vma, address, flags, regs) */
SEC("fentry/handle_mm_fault")
int fault_enters(__u64 *ctx)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	struct pt_regs *regs = (void *)ctx[3];
	__u64 area = ctx[0], address = ctx[1];
	__u32 flags = ctx[2];
	bool under_vma_lock = flags & FLAG(FAULT_FLAG_VMA_LOCK);
	struct view view;

	if (!state)
		return 0;
	if (state->pending == REPEATED && (state->address ^ address) < 4096 && !under_vma_lock) {
		if (state->path == PATH_VMA)
			state->path = PATH_RETRY;
		state->pending = HANDLED;
		return 0;
	}
	if (state->pending != BEGUN || (state->address ^ address) >= 4096) {
		abandon(state);
		begin(state, address, 0, 0);
	}
	state->mode = !regs ? MODE_GUP : flags & FLAG(FAULT_FLAG_USER) ? MODE_USER : MODE_KERNEL;
	state->access = flags & FLAG(FAULT_FLAG_INSTRUCTION) ? ACCESS_EXEC :
			flags & FLAG(FAULT_FLAG_WRITE) ? ACCESS_WRITE : ACCESS_READ;
	state->path = under_vma_lock ? PATH_VMA : PATH_MMAP;
	state->pending = HANDLED;
	state->sp = state->mode == MODE_USER ? regs->sp : 0;
	take_stacks(ctx, state);
	look_at(area, &view);
	remember(state, area, &view);
	state->before = found(&view);
	return 0;
}

/* (vma, address, flags, regs), and what it returns */
SEC("fexit/handle_mm_fault")
int fault_leaves(__u64 *ctx)
{
	struct task_state *state = state_of(bpf_get_current_task_btf());
	__u32 flags = ctx[2], returned = ctx[4];
	__u8 result, after = FOUND_NOTHING;
	struct view view;

	if (!state || state->pending != HANDLED)
		return 0;
	if (returned & REASON(VM_FAULT_RETRY)) {
		state->pending = REPEATED;
		return 0;
	}
	/* mm_account_fault() */
	result = returned & ERRORS ? RESULT_ERROR :
		 returned & REASON(VM_FAULT_MAJOR) || flags & FLAG(FAULT_FLAG_TRIED) ?
		 RESULT_MAJOR : RESULT_MINOR;
	/* VM_FAULT_COMPLETED: the lock was dropped, and the VMA may be gone. */
	if (!(returned & REASON(VM_FAULT_COMPLETED))) {
		look_at(ctx[0], &view);
		after = found(&view);
	}
	ended(state, after, result, bpf_ktime_get_ns() - state->start_ns, true);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
