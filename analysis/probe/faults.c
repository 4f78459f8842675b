// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe faults: every page fault of a command, or of processes that run, as
 * the programs of faults_*.bpf.c saw it; one JSON object, and a file of events.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "btf.h"
#include "common.h"
#include "embedded.h"
#include "faults.h"
#include "follow_tasks.h"
#include "kallsyms.h"
#include "lacking.h"
#include "output.h"
#include "preemption.h"
#include "subcommands.h"
#include "trace_faults.h"
#include "tracer.h"
#include "user_stacks.h"
#include "watch.h"

#define RING_BYTES		(32u << 20)

/* ---- what is loaded ---- */

/*
 * The functions that a fault takes mmap_lock in, for the tracepoint source, which tells
 * lock paths by them: without any, every fault would look like one under its VMA's lock.
 */
static void find_lock_takers(struct faults *faults, struct fault_constants *constants)
{
	static const char *const names[] = { "lock_mm_and_find_vma", "exc_page_fault",
					     "do_user_addr_fault", "__vmf_anon_prepare",
					     "vmf_anon_prepare" };
	__u64 ranges[5][2];
	bool any;

	kallsyms_ranges(names, 5, ranges);
	any = ranges[0][0] || ranges[1][0] || ranges[2][0];
	memcpy(constants->fault_callers, ranges, sizeof(constants->fault_callers));
	memcpy(constants->prepare_caller, ranges[ranges[3][0] ? 3 : 4], sizeof(ranges[0]));
	if (!any || !tracepoint_arguments("mmap_lock_acquire_returned"))
		tracer_drop(&faults->tracer, "mmap_lock_acquire_returned");
	faults->lock_events = tracer_has(&faults->tracer, "mmap_lock_acquire_returned");
	if (!any)
		snprintf(faults->why_no_lock_paths, sizeof(faults->why_no_lock_paths),
			 "/proc/kallsyms shows none of lock_mm_and_find_vma, exc_page_fault and "
			 "do_user_addr_fault, which a fault takes mmap_lock in");
	else if (!faults->lock_events)
		snprintf(faults->why_no_lock_paths, sizeof(faults->why_no_lock_paths),
			 "there is no tracepoint mmap_lock_acquire_returned");
}

static bool has_page_fault_tracepoints(void)
{
	return tracepoint_arguments("page_fault_user") == 3;
}

/* Of a pair of programs for one function, that of the source. */
static void use_program(struct faults *faults, const char *name, bool use)
{
	bool fentry = faults->source == SOURCE_FENTRY;
	char multi[64];

	snprintf(multi, sizeof(multi), "%s_multi", name);
	tracer_use(&faults->tracer, name, use && fentry);
	tracer_use(&faults->tracer, multi, use && !fentry);
}

/* Those that tell why mmap_lock was acquired; of what the kernel lacks no reason is told. */
static void choose_reasons(struct faults *faults, struct fault_constants *constants)
{
	static const struct { const char *program, *function; } each[] = {
		{ "lock_asked", "lock_mm_and_find_vma" }, { "file_fault", "filemap_fault" },
		{ "folio_lock", "__folio_lock_or_retry" }, { "userfault", "handle_userfault" },
	};
	bool inner = has_function("__vmf_anon_prepare"), outer = has_function("vmf_anon_prepare");
	size_t used = 0;
	char lacking[200] = "";

	use_program(faults, "anon_prepared", inner);
	use_program(faults, "anon_prepare", outer && !inner);
	if (!inner && !outer)
		used += snprintf(lacking, sizeof(lacking), ", vmf_anon_prepare");
	for (size_t i = 0; i < sizeof(each) / sizeof(*each); i++) {
		bool there = has_function(each[i].function);

		use_program(faults, each[i].program, there);
		if (!there)
			used += snprintf(lacking + used, sizeof(lacking) - used, ", %s",
					 each[i].function);
	}
	constants->sees_retries = !used || !strcmp(lacking, ", lock_mm_and_find_vma");
	if (used && constants->has_vma_locks)
		snprintf(faults->why_no_reasons, sizeof(faults->why_no_reasons), "this kernel has "
			 "no function %s by that name", lacking + 2);
}

/* Of the programs for handle_mm_fault(), those of the source; the tracepoints tell what these miss. */
static void choose_programs(struct faults *faults, struct fault_constants *constants)
{
	faults->why_no_reasons[0] = '\0';
	use_program(faults, "fault_enters", true);
	use_program(faults, "fault_leaves", true);
	choose_reasons(faults, constants);
	if (!has_page_fault_tracepoints()) {
		tracer_drop(&faults->tracer, "page_fault_user");
		tracer_drop(&faults->tracer, "page_fault_kernel");
	}
}

static void prepare(struct tracer *tracer, void *arg)
{
	struct faults *faults = arg;
	struct bpf_object *object = tracer->object;
	struct fault_constants *constants;
	size_t size;

	constants = (void *)bpf_map__initial_value(
		bpf_object__find_map_by_name(object, ".rodata"), &size);
	constants->want_events = faults->events_path != NULL;
	constants->want_stacks = faults->stacks;
	constants->timed = faults->source != SOURCE_TRACEPOINT;
	constants->has_vma_locks = has_vma_locks() > 0;
	constants->page_size = sysconf(_SC_PAGESIZE);
	if (faults->source == SOURCE_TRACEPOINT) {
		find_lock_takers(faults, constants);
		snprintf(faults->why_no_reasons, sizeof(faults->why_no_reasons), "the tracepoints "
			 "show neither what lock_vma_under_rcu() finds nor what the handler returns");
	}
	if (faults->source != SOURCE_TRACEPOINT)
		choose_programs(faults, constants);
	constants->has_lock_events = faults->lock_events;
	bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "events"),
				 faults->events_path ? RING_BYTES : 4096);
	size_groups(object);
	if (!faults->stacks)
		bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "stacks"), 1);
}

/* ---- which source ---- */

static const char *const source_names[] = {
	[SOURCE_FENTRY] = "fentry", [SOURCE_TRACEPOINT] = "tracepoint", [SOURCE_KPROBE] = "kprobe",
};

const char *fault_source_name(int source)
{
	return source_names[source];
}

static int try_source(struct faults *faults, int source)
{
	static const struct embedded handled = { "faults", faults_handled_bpf_start,
						 faults_handled_bpf_end };
	static const struct embedded begun = { "faults", faults_tracepoint_bpf_start,
					       faults_tracepoint_bpf_end };
	char *why = faults->why_not[source];
	int error;

	if (source == SOURCE_TRACEPOINT && !has_page_fault_tracepoints()) {
		snprintf(why, sizeof(faults->why_not[0]), "there is no tracepoint page_fault_user, "
			 "which x86 and riscv have");
		return -ENOENT;
	}
	faults->source = source;
	error = tracer_load(&faults->tracer, source == SOURCE_TRACEPOINT ? &begun : &handled,
			    prepare, faults);
	if (error)
		snprintf(why, sizeof(faults->why_not[0]), "it failed: %s%s", strerror(-error),
			 source == SOURCE_KPROBE && error == -EOPNOTSUPP ?
			 ", for the kernel is built without CONFIG_FPROBE" : "");
	return error;
}

/* The one that was asked for, or all that were tried. */
static int explain_sources(const struct faults *faults, int error)
{
	bool refused = (error == -EPERM || error == -EACCES) && geteuid();

	if (refused || what_is_lacking() || access("/sys/kernel/btf/vmlinux", R_OK))
		return explain_load_failure(error);
	if (faults->wanted)
		return complain(EXIT_KERNEL, "page faults cannot be traced by %s here: %s",
				source_names[faults->wanted], faults->why_not[faults->wanted]);
	return complain(EXIT_KERNEL, "page faults cannot be traced here. fentry: %s. kprobe: %s. "
			"tracepoint: %s", faults->why_not[SOURCE_FENTRY],
			faults->why_not[SOURCE_KPROBE], faults->why_not[SOURCE_TRACEPOINT]);
}

/*
 * What loses nothing comes first, then what has times, then what costs less. Programs of
 * fentry are preemptible, and what is preempted in one keeps the others of its CPU out of it
 * (__bpf_prog_enter_recur()); the others are called with preemption or interrupts off.
 */
const int *fault_source_order(bool preemptible)
{
	static const int orders[2][SOURCES - 1] = {
		{ SOURCE_FENTRY, SOURCE_KPROBE, SOURCE_TRACEPOINT },
		{ SOURCE_KPROBE, SOURCE_TRACEPOINT, SOURCE_FENTRY },
	};

	return orders[preemptible];
}

static int choose_source(struct faults *faults)
{
	bool preemptible = preemption_model(faults->preemption, sizeof(faults->preemption)) !=
			   NOT_PREEMPTIBLE;
	int error = -ENOENT;

	for (int source = 1; source < SOURCES; source++)
		snprintf(faults->why_not[source], sizeof(faults->why_not[0]), "%s",
			 faults->wanted ? "not asked for" : "");
	if (preemptible && !faults->wanted)
		snprintf(faults->why_not[SOURCE_FENTRY], sizeof(faults->why_not[0]), "where a kernel "
			 "is preemptible, and this one's model is %s, programs of fentry are not run "
			 "for some faults", faults->preemption);
	for (int i = 0; i < SOURCES - 1; i++) {
		int source = fault_source_order(preemptible)[i];

		if (faults->wanted && faults->wanted != source)
			continue;
		error = try_source(faults, source);
		if (!error) {
			faults->why_not[source][0] = '\0';
			return 0;
		}
	}
	return explain_sources(faults, error);
}

/* ---- events ---- */

static int take_event(void *arg, void *data, size_t size)
{
	struct faults *faults = arg;

	return output_write(&faults->events, data, size) ? 0 : -errno;
}

static int drain(void *arg)
{
	struct faults *faults = arg;

	if (faults->images)
		user_images_look(faults->images);
	if (faults->ring && ring_buffer__consume(faults->ring) < 0)
		return complain(EXIT_OTHER, "cannot write %s: %s", faults->events_path,
				strerror(errno));
	return 0;
}

static int open_events(struct faults *faults)
{
	struct fault_file header = {
		.magic = FAULTS_MAGIC, .format = FAULTS_FORMAT, .byte_order = 0x01020304,
		.header_size = sizeof(header), .event_size = sizeof(struct fault_event),
		.page_size = sysconf(_SC_PAGESIZE), .source = faults->source,
	};
	int code;

	if (!faults->events_path)
		return 0;
	code = output_open(&faults->events, faults->events_path);
	if (code)
		return code;
	faults->ring = ring_buffer__new(bpf_object__find_map_fd_by_name(faults->tracer.object, "events"),
					take_event, faults, NULL);
	if (!faults->ring || !output_write(&faults->events, &header, sizeof(header)))
		return complain(EXIT_OTHER, "cannot take events: %s", strerror(errno));
	return 0;
}

/* ---- the command line ---- */

static int parse_source(const char *text, int *source)
{
	for (*source = 1; *source < SOURCES; ++*source)
		if (!strcmp(text, source_names[*source]))
			return 0;
	*source = 0;
	return !strcmp(text, "auto") ? 0 :
	       complain(EXIT_USAGE, "--source %s: auto, fentry, kprobe or tracepoint", text);
}

static int parse(int argc, char **argv, struct faults *faults)
{
	static const struct option longs[] = {
		WATCH_OPTIONS,
		{ "output", required_argument, NULL, 'o' },
		{ "events", required_argument, NULL, 'e' },
		{ "source", required_argument, NULL, 's' },
		{ "stacks", no_argument, NULL, 'k' },
		{}
	};
	int c, code = 0;

	opterr = 0;
	while (!code && (c = getopt_long(argc, argv, "+p:o:", longs, NULL)) != -1) {
		if (c == 'o')
			faults->output_path = optarg;
		else if (c == 'e')
			faults->events_path = optarg;
		else if (c == 's')
			code = parse_source(optarg, &faults->wanted);
		else if (c == 'k')
			faults->stacks = true;
		else
			code = watch_option(&faults->watch, c, argv[optind - 1]);
	}
	return code ? code : watch_parsed(&faults->watch, "faults", argc, argv);
}

int run_faults(int argc, char **argv)
{
	struct faults faults = { .events.fd = -1, .result.fd = -1 };
	int code = parse(argc, argv, &faults);

	if (!code)
		code = choose_source(&faults);
	if (!code)
		code = know_the_probe(faults.tracer.object);
	if (!code && faults.output_path)
		code = output_open(&faults.result, faults.output_path);
	if (!code && faults.stacks)
		faults.images = user_images_new(faults.tracer.object);
	if (!code)
		code = open_events(&faults);
	if (!code)
		code = watch_run(&faults.watch, faults.tracer.object, !faults.output_path, drain, &faults);
	/* Before it is detached: what a task does after this is not of the tracing. */
	if (!code)
		code = run_on_tasks(faults.tracer.object, "flush_tasks");
	tracer_detach(&faults.tracer);
	if (!code)
		code = drain(&faults);
	if (!code)
		code = output_flush(&faults.events);
	if (!code)
		code = output_result(&faults.result, faults_print, &faults);
	if (!code)
		code = output_commit(&faults.events);
	output_close(&faults.events);
	output_close(&faults.result);
	ring_buffer__free(faults.ring);
	user_images_free(faults.images);
	tracer_close(&faults.tracer);
	watch_close(&faults.watch);
	return code ? code : faults.watch.status;
}
