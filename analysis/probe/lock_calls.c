// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading what traces locks: the calls of a few functions are seen by fentry or kprobes,
 * where the kernel has either; the tracepoints serve without.
 */
#include <string.h>
#include <bpf/libbpf.h>
#include "attach.h"
#include "btf.h"
#include "contended_file.h"
#include "embedded.h"
#include "features.h"
#include "follow_tasks.h"
#include "lock_calls.h"
#include "preemption.h"

static const struct {
	unsigned int part;
	const char *function, *fentry, *kprobe;
} calls[] = {
	{ TRACE_VMAS, "__vma_start_write", "locks_vma", "locks_vma_multi" },	/* from 6.15 */
	{ TRACE_VMAS, "lock_mm_and_find_vma", "falls_back", "falls_back_multi" },	/* from 6.5 */
	{ TRACE_FORKS, "copy_page_range", "copies", "copies_multi" },
};

static bool is_wanted(const struct lock_calls_seen *seen, const char *function)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (!strcmp(calls[i].function, function))
			return seen->parts & calls[i].part;
	return false;
}

bool lock_calls_sees(const struct lock_calls_seen *seen, const char *function)
{
	return seen->way != CALLS_UNSEEN && is_wanted(seen, function) && has_function(function);
}

static void prepare(struct tracer *tracer, void *arg)
{
	const struct lock_calls_seen *seen = arg;
	bool names = seen->parts & TRACE_NAMES;

	if (!names || !tracepoint_arguments("contention_begin"))
		tracer_drop(tracer, "contention_begin");
	if (!names || !tracepoint_arguments("contention_end"))
		tracer_drop(tracer, "contention_end");
	if (!(seen->parts & (TRACE_VMAS | TRACE_FORKS)))
		tracer_drop(tracer, "sched_switch");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		bool there = lock_calls_sees(seen, calls[i].function);

		tracer_use(tracer, calls[i].fentry, there && seen->way == CALLS_BY_FENTRY);
		tracer_use(tracer, calls[i].kprobe, there && seen->way == CALLS_BY_KPROBE);
	}
	contended_know_kernel(tracer->object, lock_calls_sees(seen, "__vma_start_write"));
	size_groups(tracer->object);
}

const char *lock_calls_word(enum lock_calls way)
{
	return way == CALLS_BY_FENTRY ? "fentry" : way == CALLS_BY_KPROBE ? "kprobe" : NULL;
}

/* Programs of fentry are preemptible, and miss calls for it: see faults.c, fault_source_order(). */
static enum lock_calls choose(char *why, size_t size)
{
	const struct {
		enum lock_calls way;
		const char *program;
	} ways[] = { { CALLS_BY_FENTRY, "try_fentry" },
		     { CALLS_BY_KPROBE, single_kprobes_serve() ? "try_kprobe" : "try_kprobe_multi" } };
	char model[32];
	bool preemptible = preemption_model(model, sizeof(model)) != NOT_PREEMPTIBLE;
	int errors[2];

	for (int i = 0; i < 2; i++) {
		int way = preemptible ? 1 - i : i;
		const char *step;

		errors[way] = try_program(ways[way].program, &step);
		if (!errors[way])
			return ways[way].way;
	}
	snprintf(why, size, "fentry: %s; kprobes: %s", strerror(-errors[0]),
		 strerror(-errors[1]));
	return CALLS_UNSEEN;
}

int lock_calls_load(struct tracer *tracer, struct lock_calls_seen *seen)
{
	static const struct embedded object = { "locks", locks_bpf_start, locks_bpf_end };
	int error, first;

	seen->why_not[0] = '\0';
	seen->way = choose(seen->why_not, sizeof(seen->why_not));
	first = tracer_load(tracer, &object, prepare, seen);
	if (!first || seen->way == CALLS_UNSEEN)
		return first;
	seen->way = CALLS_UNSEEN;
	error = tracer_load(tracer, &object, prepare, seen);
	if (!error)
		snprintf(seen->why_not, sizeof(seen->why_not),
			 "programs for them are not accepted: %s", strerror(-first));
	return error;
}
