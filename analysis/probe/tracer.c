// SPDX-License-Identifier: GPL-2.0-only
/*
 * BPF objects that are loaded and attached to trace: which of their programs fit this
 * kernel, and how often the kernel did not run one.
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
#include "btf.h"
#include "embedded.h"
#include "json.h"
#include "kallsyms.h"
#include "tracefs.h"
#include "tracer.h"

#define UNKNOWN_MISSES	(~0ULL)

static bool has_prefix(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Run by us, or attached by whoever has it: a perf event is not named by its section. */
static bool is_not_attached(const struct bpf_program *program)
{
	const char *section = bpf_program__section_name(program);

	return !strcmp(section, "syscall") || !strcmp(section, "perf_event") ||
	       has_prefix(section, "iter/");
}

/* ---- which programs ---- */

/*
 * From 7.0 on a tracepoint's functions are called preemptibly, guarded by tracepoint_srcu, but
 * for those of type "tp". A kernel that hides its data symbols is taken for such a one: there,
 * too, these are as good, unless the kernel does not take them.
 */
static bool tracepoints_are_preemptible(void)
{
	static const char *const names[] = { "tracepoint_srcu", "init_task" };
	__u64 addresses[2];

	kallsyms_addresses(names, 2, addresses);
	return addresses[0] || !addresses[1];
}

/* The name of a program's tracepoint; NULL if it is not of one. */
static const char *tracepoint_of(const struct bpf_program *program)
{
	const char *section = bpf_program__section_name(program);

	return has_prefix(section, "tp_btf/") ? section + strlen("tp_btf/") :
	       has_prefix(section, "tp/") ? strrchr(section, '/') + 1 : NULL;
}

static bool is_plain(const struct bpf_program *program)
{
	return has_prefix(bpf_program__section_name(program), "tp/");
}

static bool has_plain(const struct bpf_object *object, const char *tracepoint)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object)
		if (is_plain(program) && !strcmp(tracepoint_of(program), tracepoint))
			return true;
	return false;
}

/* The kernel would refuse a program for a tracepoint that it has in another form. */
static bool has_form(const struct bpf_program *program, unsigned int arguments)
{
	const char *name = bpf_program__name(program);
	size_t length = strlen(name);

	if (length > 10 && !strcmp(name + length - 10, "_with_path"))
		return arguments == 4;
	return length <= 6 || strcmp(name + length - 6, "_plain") || arguments == 3;
}

static bool fits(const struct tracer *tracer, const struct bpf_program *program)
{
	const char *tracepoint = tracepoint_of(program);

	if (!tracepoint || !has_plain(tracer->object, tracepoint))
		return true;
	return is_plain(program) == tracer->plain &&
	       (tracer->plain || has_form(program, tracepoint_arguments(tracepoint)));
}

void tracer_drop(struct tracer *tracer, const char *tracepoint)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, tracer->object) {
		const char *of = tracepoint_of(program);

		if (of && !strcmp(of, tracepoint))
			bpf_program__set_autoload(program, false);
	}
}

void tracer_use(struct tracer *tracer, const char *program, bool use)
{
	bpf_program__set_autoload(bpf_object__find_program_by_name(tracer->object, program), use);
}

bool tracer_has(const struct tracer *tracer, const char *tracepoint)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, tracer->object) {
		const char *of = tracepoint_of(program);

		if (of && !strcmp(of, tracepoint) && bpf_program__autoload(program))
			return true;
	}
	return false;
}

/* ---- loading ---- */

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

static bool is_multi(const struct bpf_program *program)
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

static int attach_all(struct tracer *tracer)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, tracer->object) {
		struct bpf_link *link;

		if (!bpf_program__autoload(program) || is_not_attached(program))
			continue;
		link = attach_program(program);
		if (!link)
			return errno ? -errno : -ENOENT;
		tracer->attached[tracer->attached_count++] = (struct attached){ program, link, 0 };
	}
	return 0;
}

/*
 * kernel/trace/bpf_trace.c: without CONFIG_FPROBE no such link is made. To no function at all
 * none is anywhere, but for another reason, so this tells before all else has been verified.
 */
static bool multi_is_refused(void)
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

static bool wants_multi(const struct tracer *tracer)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, tracer->object)
		if (bpf_program__autoload(program) && is_multi(program))
			return true;
	return false;
}

static int load_as(struct tracer *tracer, const struct embedded *embedded,
		   void (*prepare)(struct tracer *tracer, void *arg), void *arg)
{
	struct bpf_program *program;
	int error;

	tracer->object = open_embedded(embedded->name, embedded->start, embedded->end);
	if (!tracer->object)
		return -errno;
	bpf_object__for_each_program(program, tracer->object) {
		bpf_program__set_autoload(program, fits(tracer, program));
		if (tracer->single && is_multi(program))
			bpf_program__set_expected_attach_type(program, 0);
	}
	prepare(tracer, arg);
	/* With types of elsewhere what is asked is how all relocates against them. */
	if (!foreign_types() && wants_multi(tracer) && multi_is_refused())
		return -EOPNOTSUPP;
	error = bpf_object__load(tracer->object);
	return error ? error : attach_all(tracer);
}

static int load_again(struct tracer *tracer, const struct embedded *embedded,
		      void (*prepare)(struct tracer *tracer, void *arg), void *arg)
{
	tracer_close(tracer);
	return load_as(tracer, embedded, prepare, arg);
}

int tracer_load(struct tracer *tracer, const struct embedded *embedded,
		void (*prepare)(struct tracer *tracer, void *arg), void *arg)
{
	int error;

	/* Of type "tp" a fork's program finds the child by its number. */
	tracer->plain = has_function("bpf_task_from_pid") && tracepoints_are_preemptible();
	tracer->single = false;
	error = load_as(tracer, embedded, prepare, arg);
	if (error == -EOPNOTSUPP && single_kprobes_serve()) {
		tracer->single = true;
		error = load_again(tracer, embedded, prepare, arg);
	}
	if (error && tracer->plain) {
		tracer->plain = false;
		error = load_again(tracer, embedded, prepare, arg);
	}
	if (error)
		tracer_close(tracer);
	return error;
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
static __u64 missed_by_link(const struct attached *attached)
{
	struct multi_info multi = { .missed = UNKNOWN_MISSES };
	struct single_info single = { .missed = UNKNOWN_MISSES };
	bool is_single = !is_multi(attached->program);
	__u32 size = is_single ? sizeof(single) : sizeof(multi);

	if (!is_of_kprobe(attached->program))
		return 0;
	if (bpf_obj_get_info_by_fd(bpf_link__fd(attached->link),
				   is_single ? (void *)&single : &multi, &size))
		return UNKNOWN_MISSES;
	return is_single ? single.missed : multi.missed;
}

void tracer_detach(struct tracer *tracer)
{
	for (size_t i = 0; i < tracer->attached_count; i++) {
		struct attached *attached = &tracer->attached[i];

		if (!attached->link)
			continue;
		attached->missed = missed_by_link(attached);
		bpf_link__destroy(attached->link);
		attached->link = NULL;
	}
}

void tracer_close(struct tracer *tracer)
{
	tracer_detach(tracer);
	tracer->attached_count = 0;
	bpf_object__close(tracer->object);
	tracer->object = NULL;
}

/* ---- what it missed ---- */

/* Whether a task may be preempted in a program of a tracepoint, and others turned away for it. */
bool tracer_is_preemptible(const struct tracer *tracer)
{
	return !tracer->plain && tracepoints_are_preemptible();
}

/*
 * A program is not run while another task, preempted in it, has not ended it on the same CPU;
 * bpf_prog_info counts that (5.12; of kprobe.multi 6.7, as the link does).
 */
static __u64 missed_by_program(const struct bpf_program *program)
{
	struct bpf_prog_info info = {};
	__u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) ||
	    size < offsetof(struct bpf_prog_info, recursion_misses) + sizeof(info.recursion_misses))
		return UNKNOWN_MISSES;
	return info.recursion_misses;
}

static __u64 misses_of(const struct tracer *tracer, const struct bpf_program *program)
{
	__u64 missed = missed_by_program(program), by_link = 0;

	for (size_t i = 0; i < tracer->attached_count; i++)
		if (tracer->attached[i].program == program)
			by_link = tracer->attached[i].missed;
	return missed == UNKNOWN_MISSES || by_link == UNKNOWN_MISSES ? UNKNOWN_MISSES :
	       missed + by_link;
}

/* Where the kernel does not tell, null, which is not 0. */
void tracer_print_misses(FILE *file, const struct tracer *tracer)
{
	struct bpf_program *program;
	const char *before = "";

	fputs("  \"misses\": {", file);
	bpf_object__for_each_program(program, tracer->object) {
		__u64 missed;

		if (!bpf_program__autoload(program))
			continue;
		missed = misses_of(tracer, program);
		fprintf(file, "%s\"%s\": ", before, bpf_program__name(program));
		if (missed == UNKNOWN_MISSES)
			fputs("null", file);
		else
			fprintf(file, "%llu", missed);
		before = ", ";
	}
	fputs("},\n", file);
}
