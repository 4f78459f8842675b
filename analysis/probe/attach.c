// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a BPF program is attached, by what its section says it is; and how often the kernel did not
 * come to call it.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "attach.h"
#include "btf.h"
#include "tracefs.h"

bool is_plain(const struct bpf_program *program)
{
	return has_prefix(bpf_program__section_name(program), "tp/");
}

/* Any CPU's event serves: its programs run on all of them (perf_trace_run_bpf_submit()). */
static struct bpf_link *attach_plain(const struct bpf_program *program)
{
	struct perf_event_attr attr = { .size = sizeof(attr), .type = PERF_TYPE_TRACEPOINT,
					.sample_period = 1, .wakeup_events = 1 };
	int tracefs = tracefs_open(), fd = -1;
	struct bpf_link *link = NULL;
	char path[128], *id;

	snprintf(path, sizeof(path), "events/%s/id", bpf_program__section_name(program) + 3);
	id = tracefs >= 0 ? read_file_at(tracefs, path) : NULL;
	if (id) {
		attr.config = strtoull(id, NULL, 10);
		fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	}
	if (fd >= 0)
		link = bpf_program__attach_perf_event(program, fd);
	if (fd >= 0 && !link)
		close(fd);
	if (tracefs >= 0)
		close(tracefs);
	free(id);
	return link;
}

/* Where there are tracepoints of page faults, as on x86 and riscv, these cost less and miss nothing. */
bool single_kprobes_serve(void)
{
	return !tracepoint_arguments("page_fault_user");
}

static bool is_of_kprobe(const struct bpf_program *program)
{
	return bpf_program__type(program) == BPF_PROG_TYPE_KPROBE;
}

bool is_multi(const struct bpf_program *program)
{
	return bpf_program__expected_attach_type(program) == BPF_TRACE_KPROBE_MULTI;
}

/*
 * By its function's name, as kprobe.multi (5.18), for which libbpf would look for patterns of
 * names, or as a kprobe of perf, which the kernel has without CONFIG_FPROBE; arm64 has that from
 * 6.14. Either is called with preemption off.
 */
static struct bpf_link *attach_kprobe(const struct bpf_program *program)
{
	const char *section = bpf_program__section_name(program);
	const char *function = strchr(section, '/') + 1;
	bool retprobe = has_prefix(section, "kretprobe");
	LIBBPF_OPTS(bpf_kprobe_multi_opts, opts, .syms = &function, .cnt = 1, .retprobe = retprobe);

	return is_multi(program) ? bpf_program__attach_kprobe_multi_opts(program, NULL, &opts) :
				   bpf_program__attach_kprobe(program, retprobe, function);
}

struct bpf_link *attach_program(const struct bpf_program *program)
{
	return is_plain(program) ? attach_plain(program) :
	       is_of_kprobe(program) ? attach_kprobe(program) : bpf_program__attach(program);
}

/*
 * kernel/trace/bpf_trace.c: without CONFIG_FPROBE no such link is made. To no function at all
 * none is anywhere, but for another reason, so this tells before all else has been verified.
 */
bool multi_is_refused(void)
{
	static const struct bpf_insn nothing[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_KPROBE_MULTI);
	LIBBPF_OPTS(bpf_link_create_opts, nowhere);
	int program = bpf_prog_load(BPF_PROG_TYPE_KPROBE, NULL, "GPL", nothing, 2, &opts), error;

	if (program < 0)
		return false;
	error = bpf_link_create(program, 0, BPF_TRACE_KPROBE_MULTI, &nowhere);
	close(program);
	return error == -EOPNOTSUPP;
}

/* include/uapi/linux/bpf.h: struct bpf_link_info of a link of type kprobe.multi, from 6.7 with MISSED */
struct multi_info {
	__u32 type, id, prog_id, reserved;
	__u64 addrs;
	__u32 count, flags;
	__u64 missed;
};

/* The same of a link to a kprobe of perf. */
struct single_info {
	__u32 type, id, prog_id, reserved;
	__u32 perf_type, unused;
	__u64 func_name;
	__u32 name_len, offset;
	__u64 addr, missed;
};

/*
 * How often ftrace, or the kprobe, did not come to call it, as where more faults are asleep than
 * it has places to return from. The kernel leaves what it does not know as it is.
 */
__u64 missed_by_link(const struct bpf_program *program, const struct bpf_link *link)
{
	struct multi_info multi = { .missed = UNKNOWN_MISSES };
	struct single_info single = { .missed = UNKNOWN_MISSES };
	bool is_single = !is_multi(program);
	__u32 size = is_single ? sizeof(single) : sizeof(multi);

	if (!is_of_kprobe(program))
		return 0;
	if (bpf_obj_get_info_by_fd(bpf_link__fd(link),
				   is_single ? (void *)&single : &multi, &size))
		return UNKNOWN_MISSES;
	return is_single ? single.missed : multi.missed;
}
