// SPDX-License-Identifier: GPL-2.0-only
/* What the programs counted of page faults, by kinds of VMA and groups of like faults, as JSON:
 * there are a few hundred groups at most, and whoever runs vmaprobe by itself reads them. Events,
 * of which there may be millions, are records of a fixed size. That both say the same, words and
 * all, tests/probe/test_faults_program.py checks.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "command.h"
#include "faults.h"
#include "follow_tasks.h"
#include "json.h"
#include "ops_names.h"
#include "output.h"
#include "preemption.h"
#include "stacks.h"
#include "trace_faults.h"
#include "tracer.h"
#include "user_stacks.h"
#include "watch.h"

static const char *const modes[] = { "", "user", "kernel", "gup" };
static const char *const accesses[] = { "", "read", "write", "exec" };
static const char *const paths[] = { "unknown", "vma", "mmap", "retry" };
static const char *const results[] = { "unknown", "minor", "major", "error" };
/* After the kernel's functions and fields; the first is no reason. */
static const char *const reasons[] = {
	"", "not told", "get_user_pages()", "access by the kernel", "no per-VMA locks",
	"nothing mapped", "stack growth", "VMA replaced", "VMA write-locked", "VMA detached",
	"bare VMA", "anon_vma, mmap_lock busy", "I/O", "userfaultfd", "vm_ops without map_pages",
	"other",
};

#define WORD(words, index)	((index) < sizeof(words) / sizeof(*(words)) ? (words)[index] : "")

/* What no program saw, though the kernel charged it, the tracepoints do not show at all. */
static void print_counts(FILE *file, const struct fault_counts *counts, bool sees_gup)
{
	fprintf(file, "  \"faults_lost\": %llu,\n  \"events_lost\": %llu,\n  \"kinds_lost\": %llu,\n"
		"  \"unseen_gup\": %llu,\n  \"faults_missed\": %llu,\n  \"charged\": %llu,\n"
		"  \"tasks_differ\": %llu,\n  \"pending\": %llu,\n  \"refused\": %llu,\n",
		counts->faults_lost, counts->events_lost, counts->kinds_lost,
		sees_gup ? 0 : counts->unseen, sees_gup ? counts->unseen : 0, counts->charged,
		counts->tasks_differ, counts->pending, counts->refused);
}

static void print_kinds(FILE *file, struct bpf_object *object)
{
	int map = bpf_object__find_map_fd_by_name(object, "kinds");
	struct kind_key key, *previous = NULL;
	struct ops_list ops = {};
	struct fault_kind kind;
	const char *before = "";

	ops_list_read(&ops, bpf_object__find_map_fd_by_name(object, "ops"));
	fputs("  \"kinds\": [", file);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (bpf_map_lookup_elem(map, &key, &kind))
			continue;
		fprintf(file, "%s\n    {\"id\": %u, \"bits\": %u, \"prot\": %u, \"flags\": %llu, "
			"\"dev\": %u, \"inode\": %llu, ", before, kind.id, key.bits, key.prot,
			key.flags, key.dev, key.ino);
		json_pair(file, "vm_ops", kind.ops <= MAX_OPS ? ops.names[kind.ops] : NULL, ", ");
		json_pair(file, "file", kind.file, "}");
		before = ",";
	}
	fputs("\n  ],\n", file);
	ops_list_free(&ops);
}

static void print_group(FILE *file, const struct group_key *key, const struct group_value *value)
{
	int last = FAULT_BUCKETS - 1;

	fprintf(file, "    {\"process\": %u, \"kind\": %u, \"mode\": \"%s\", \"access\": \"%s\", "
		"\"before\": %u, \"after\": %u, \"path\": \"%s\", \"result\": \"%s\", "
		"\"reason\": \"%s\", \"kernel_stack\": %d, \"user_stack\": %d, \"count\": %llu, "
		"\"time_ns\": %llu, \"wait_ns\": %llu, \"log2_ns\": [",
		key->process, key->kind, WORD(modes, key->mode), WORD(accesses, key->access),
		key->before, key->after, WORD(paths, key->path), WORD(results, key->result),
		WORD(reasons, key->reason), key->kernel_stack, key->user_stack, value->count,
		value->time_ns, value->wait_ns);
	while (last >= 0 && !value->buckets[last])
		last--;
	for (int i = 0; i <= last; i++)
		fprintf(file, "%s%u", i ? ", " : "", value->buckets[i]);
	fputs("]}", file);
}

static bool sum_group(int map, const struct group_key *key, struct group_value *parts, int cpus,
		      struct group_value *sum)
{
	memset(sum, 0, sizeof(*sum));
	if (bpf_map_lookup_elem(map, key, parts))
		return false;
	for (int cpu = 0; cpu < cpus; cpu++) {
		sum->count += parts[cpu].count;
		sum->time_ns += parts[cpu].time_ns;
		sum->wait_ns += parts[cpu].wait_ns;
		for (int i = 0; i < FAULT_BUCKETS; i++)
			sum->buckets[i] += parts[cpu].buckets[i];
	}
	return true;
}

struct stacks_named {
	struct buffer kernel;		/* __s32 */
	struct buffer user;		/* struct user_stack, each once */
};

static bool note_user_stack(struct buffer *user, const struct group_key *key)
{
	struct user_stack stack = { .process = key->process, .id = key->user_stack };
	const struct user_stack *known = (void *)user->data;

	for (size_t i = 0; i < user->size / sizeof(stack); i++)
		if (known[i].process == stack.process && known[i].id == stack.id)
			return true;
	return append(user, &stack, sizeof(stack));
}

/* Prints the groups and gathers the stacks that they name. */
static bool print_groups(FILE *file, struct bpf_object *object, struct stacks_named *stacks)
{
	int map = bpf_object__find_map_fd_by_name(object, "groups");
	int cpus = libbpf_num_possible_cpus();
	struct group_value *parts = calloc(cpus > 0 ? cpus : 1, sizeof(*parts)), sum;
	struct group_key key, *previous = NULL;
	const char *before = "\n";
	bool ok = parts;

	fputs("  \"groups\": [", file);
	while (ok && !bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!sum_group(map, &key, parts, cpus, &sum))
			continue;
		fputs(before, file);
		print_group(file, &key, &sum);
		before = ",\n";
		if (key.kernel_stack >= 0)
			ok = append(&stacks->kernel, &key.kernel_stack, sizeof(key.kernel_stack));
		if (key.user_stack >= 0)
			ok = ok && note_user_stack(&stacks->user, &key);
	}
	fputs("\n  ],\n", file);
	free(parts);
	return ok;
}

static void print_source(FILE *file, const struct faults *faults)
{
	bool handled = faults->source != SOURCE_TRACEPOINT;
	struct utsname names;

	uname(&names);
	fputs("{\n  ", file);
	json_pair(file, "kernel", names.release, ",\n  ");
	json_pair(file, "preemption", faults->preemption, ",\n  ");
	json_pair(file, "source", fault_source_name(faults->source), ",\n  ");
	json_pair(file, "why_not_fentry", faults->why_not[SOURCE_FENTRY], ",\n  ");
	json_pair(file, "why_not_kprobe", faults->why_not[SOURCE_KPROBE], ",\n  ");
	json_pair(file, "why_no_lock_paths", faults->why_no_lock_paths, ",\n  ");
	json_pair(file, "why_no_reasons", faults->why_no_reasons, ",\n");
	fprintf(file, "  \"timed\": %s,\n  \"lock_paths\": %s,\n  \"page_size\": %ld,\n"
		"  \"begun_ns\": %llu,\n  \"ended_ns\": %llu,\n", handled ? "true" : "false",
		handled || faults->lock_events ? "true" : "false", sysconf(_SC_PAGESIZE),
		faults->watch.begun_ns, faults->watch.ended_ns);
	if (faults->watch.command)
		fprintf(file, "  \"minor_faults\": %ld,\n  \"major_faults\": %ld,\n",
			faults->watch.used.ru_minflt, faults->watch.used.ru_majflt);
}

bool faults_print(FILE *file, void *arg)
{
	struct faults *faults = arg;
	struct fault_counts counts = {};
	int map = bpf_object__find_map_fd_by_name(faults->tracer.object, "stacks");
	struct stacks_named stacks = {};
	struct stack_names *names = NULL;
	bool ok = read_bss(faults->tracer.object, ".bss.counts", &counts, sizeof(counts));

	if (ok) {
		print_source(file, faults);
		print_counts(file, &counts, faults->source != SOURCE_TRACEPOINT);
		tracer_print_misses(file, &faults->tracer);
		print_processes(file, faults->tracer.object);
		print_kinds(file, faults->tracer.object);
		ok = print_groups(file, faults->tracer.object, &stacks);
	}
	if (ok)
		names = stack_names_read(map, STACK_DEPTH, (void *)stacks.kernel.data,
					 stacks.kernel.size / sizeof(__s32));
	if (names) {
		if (faults->images)
			user_stacks_print(file, faults->images, map, (void *)stacks.user.data,
					  stacks.user.size / sizeof(struct user_stack));
		stack_names_print(file, names);
		fputs("\n}\n", file);
	}
	stack_names_free(names);
	free(stacks.kernel.data);
	free(stacks.user.data);
	return names;
}
