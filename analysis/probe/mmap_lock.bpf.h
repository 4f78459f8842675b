/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracepoints of mmap_lock in each form that kernels have: each macro makes the programs
 * for one of them, of which the probe loads the one that fits (see traced.bpf.h).
 */
#ifndef MMAP_LOCK_BPF_H
#define MMAP_LOCK_BPF_H

/* HANDLER(mm): it is asked for. */
#define ON_MMAP_LOCK_START_LOCKING(handler)						\
SEC("tp_btf/mmap_lock_start_locking")							\
int asks_btf(__u64 *ctx)								\
{											\
	return handler(ctx[0]);								\
}											\
											\
SEC("tp/mmap_lock/mmap_lock_start_locking")						\
int asks_tp(struct trace_event_raw_mmap_lock *ctx)					\
{											\
	return handler((__u64)ctx->mm);							\
}

/*
 * HANDLER(ctx, mm, write, success): it was got, or not. With the memory cgroup's path from
 * 5.11, later without: the tracepoint looks it up itself.
 */
#define ON_MMAP_LOCK_ACQUIRE_RETURNED(handler)						\
SEC("tp_btf/mmap_lock_acquire_returned")						\
int answered_with_path(__u64 *ctx)							\
{											\
	return handler(ctx, ctx[0], ctx[2], ctx[3]);					\
}											\
											\
SEC("tp_btf/mmap_lock_acquire_returned")						\
int answered_plain(__u64 *ctx)								\
{											\
	return handler(ctx, ctx[0], ctx[1], ctx[2]);					\
}											\
											\
SEC("tp/mmap_lock/mmap_lock_acquire_returned")						\
int answered_tp(struct trace_event_raw_mmap_lock_acquire_returned *ctx)			\
{											\
	return handler(ctx, (__u64)ctx->mm, ctx->write, ctx->success);			\
}

/* HANDLER(mm): it is let go. */
#define ON_MMAP_LOCK_RELEASED(handler)							\
SEC("tp_btf/mmap_lock_released")							\
int releases_btf(__u64 *ctx)								\
{											\
	return handler(ctx[0]);								\
}											\
											\
SEC("tp/mmap_lock/mmap_lock_released")							\
int releases_tp(struct trace_event_raw_mmap_lock *ctx)					\
{											\
	return handler((__u64)ctx->mm);							\
}

#endif
