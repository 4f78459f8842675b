// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that do nothing: whether each can be loaded and attached is the
 * question. Features are tried, never inferred from a version.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("fentry/handle_mm_fault")
int try_fentry(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("fexit/handle_mm_fault")
int try_fexit(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("kprobe.multi/handle_mm_fault")
int try_kprobe_multi(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("kretprobe.multi/handle_mm_fault")
int try_kretprobe_multi(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("kprobe/handle_mm_fault")
int try_kprobe(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("kretprobe/handle_mm_fault")
int try_kretprobe(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("tp_btf/mmap_lock_acquire_returned")
int try_mmap_lock(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("tp_btf/page_fault_user")
int try_page_fault_user(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("tp_btf/page_fault_kernel")
int try_page_fault_kernel(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("iter/task_vma")
int try_iterator(void *ctx)
{
	(void)ctx;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
