// SPDX-License-Identifier: GPL-2.0-only
/*
 * BPF objects that are loaded and attached to trace: which of their programs fit this
 * kernel, and how often the kernel did not run one.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "attach.h"
#include "btf.h"
#include "embedded.h"
#include "json.h"
#include "kallsyms.h"
#include "tracer.h"

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

void tracer_detach(struct tracer *tracer)
{
	for (size_t i = 0; i < tracer->attached_count; i++) {
		struct attached *attached = &tracer->attached[i];

		if (!attached->link)
			continue;
		attached->missed = missed_by_link(attached->program, attached->link);
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
