/* SPDX-License-Identifier: GPL-2.0-only */
/* One BPF program, attached. */
#ifndef ATTACH_H
#define ATTACH_H

#include <linux/types.h>
#include <stdbool.h>
#include <string.h>

struct bpf_link;
struct bpf_program;

#define UNKNOWN_MISSES	(~0ULL)

static inline bool has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Of a tracepoint, called as any perf event's program is, not by its arguments' types. */
bool is_plain(const struct bpf_program *program);
/* Of many functions at once, by ftrace. */
bool is_multi(const struct bpf_program *program);
/* Whether this kernel has no links of that kind. */
bool multi_is_refused(void);
/* Whether kprobes one by one do where the kernel has no kprobe.multi. */
bool single_kprobes_serve(void);
/* Attaches a program of any section; NULL, and errno, where that fails. */
struct bpf_link *attach_program(const struct bpf_program *program);
/* By a kprobe's link alone; UNKNOWN_MISSES where the kernel does not tell. */
__u64 missed_by_link(const struct bpf_program *program, const struct bpf_link *link);

#endif
