// SPDX-License-Identifier: GPL-2.0-only
/* The least that an iterator can say of a VMA and still answer the question; see bare_iterator.c. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "kernel.h"

struct record {
	__u64 start, end, flags;
	__u32 has_ops, has_anon_vma;
};

_Static_assert(sizeof(struct record) == RECORD_SIZE, "what bare_iterator.c counts in");

SEC("iter/task_vma")
int bare_read(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *area = ctx->vma;
	struct record record;

	if (!ctx->task || !area)
		return 0;
	record.start = area->vm_start;
	record.end = area->vm_end;
	record.flags = area->vm_flags;
	record.has_ops = area->vm_ops != NULL;
	record.has_anon_vma = area->anon_vma != NULL;
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
