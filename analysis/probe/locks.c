// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe locks: who took mmap_lock while a command ran, or processes were
 * watched, for reading or writing, and how long each waited.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "btf.h"
#include "command.h"
#include "common.h"
#include "contended_file.h"
#include "follow_tasks.h"
#include "forks_file.h"
#include "json.h"
#include "kallsyms.h"
#include "lock_calls.h"
#include "lock_value.h"
#include "lock_witness.h"
#include "locks.h"
#include "output.h"
#include "stacks.h"
#include "subcommands.h"
#include "tracer.h"
#include "watch.h"

struct locks {
	struct watch watch;
	const char *output;
	struct tracer tracer;
	struct lock_witness *witness;
	char why_no_witness[160];
	struct lock_calls_seen calls;
};

/* ---- loading ---- */

static int load(struct locks *locks)
{
	unsigned int count = tracepoint_arguments("mmap_lock_acquire_returned");
	int error;

	if (count != 3 && count != 4)
		return complain(EXIT_KERNEL, "this kernel has no tracepoint "
				"mmap_lock_acquire_returned of a known form: it needs Linux 5.11 or "
				"later with CONFIG_TRACING=y and CONFIG_DEBUG_INFO_BTF=y");
	error = lock_calls_load(&locks->tracer, &locks->calls);
	return error ? explain_load_failure(error) : know_the_probe(locks->tracer.object);
}

/* ---- the result ---- */

static void print_group(FILE *file, const struct lock_key *key, const struct lock_value *value,
			const struct stack_names *names)
{
	fprintf(file, "    {\"process\": %u, ", key->process);
	json_pair(file, "asked_by", stack_asker(names, key->stack), ", ");
	fprintf(file, "\"mode\": \"%s\", \"waited_for\": %s, \"success\": %s, \"foreign\": %s, "
		"\"kernel_stack\": %d, ", key->write ? "write" : "read",
		key->waited_for ? "true" : "false", key->success ? "true" : "false",
		key->foreign ? "true" : "false", key->stack);
	lock_value_print(file, value);
	putc('}', file);
}

struct totals {
	__u64 read, write;
	struct buffer stack_ids;
};

/* The successes that are the traced tasks' own, and every stack. */
static bool add_up(int map, struct totals *totals)
{
	struct lock_key key, *previous = NULL;
	struct lock_value value;

	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!lock_value_sum(map, &key, &value))
			continue;
		if (key.success && key.process)
			*(key.write ? &totals->write : &totals->read) += value.count;
		if (key.stack >= 0 && !append(&totals->stack_ids, &key.stack, sizeof(key.stack)))
			return false;
	}
	return true;
}

static void print_groups(FILE *file, int map, const struct stack_names *names)
{
	struct lock_key key, *previous = NULL;
	struct lock_value value;
	const char *before = "\n";

	fputs("  \"groups\": [", file);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!lock_value_sum(map, &key, &value))
			continue;
		fputs(before, file);
		print_group(file, &key, &value, names);
		before = ",\n";
	}
	fputs("\n  ],\n", file);
}

/* Of the traced tasks that have ended; null, and why, where there is none. */
static void print_witness(FILE *file, const struct locks *locks)
{
	int tallies = bpf_object__find_map_fd_by_name(locks->tracer.object, "tallies");
	struct lock_testimony found = {};
	const char *why = locks->why_no_witness;

	if (!locks->watch.command)
		why = "it is taken of a command only";
	else if (locks->witness && !lock_witness_hear(locks->witness, tallies, &found))
		why = "its histogram cannot be read";
	else if (locks->witness)
		why = NULL;
	fputs("  ", file);
	json_pair(file, "why_no_witness", why, ",\n");
	if (why)
		fputs("  \"witness\": null,\n", file);
	else
		fprintf(file, "  \"witness\": {\"read\": %llu, \"write\": %llu, \"traced_read\": %llu, "
			"\"traced_write\": %llu, \"tasks\": %llu, \"left_out\": %llu, "
			"\"dropped\": %llu},\n", found.read, found.write, found.traced_read,
			found.traced_write, found.tasks, found.left_out, found.dropped);
}

/* Which calls are seen: where they are not, what they tell is null. */
static void print_calls(FILE *file, const struct locks *locks)
{
	const struct lock_calls_seen *seen = &locks->calls;

	fputs("  ", file);
	json_pair(file, "calls", lock_calls_word(seen->way), ",\n  ");
	json_pair(file, "why_no_calls", seen->why_not[0] ? seen->why_not : NULL, ",\n");
	fprintf(file, "  \"vma_locks\": %s,\n  \"writers_seen\": %s,\n  \"readers_seen\": %s,\n",
		has_vma_locks() > 0 ? "true" : "false",
		lock_calls_sees(seen, "__vma_start_write") ? "true" : "false",
		lock_calls_sees(seen, "lock_mm_and_find_vma") ? "true" : "false");
}

static bool print_all(FILE *file, void *arg)
{
	struct locks *locks = arg;
	int map = bpf_object__find_map_fd_by_name(locks->tracer.object, "groups");
	struct lock_totals lost = {};
	struct stack_names *names;
	struct totals totals = {};
	bool ok = add_up(map, &totals) && contended_stacks(locks->tracer.object, &totals.stack_ids) &&
		  read_bss(locks->tracer.object, ".bss.totals", &lost, sizeof(lost));

	names = stack_names_read(bpf_object__find_map_fd_by_name(locks->tracer.object, "stacks"),
				 LOCK_DEPTH, (void *)totals.stack_ids.data,
				 totals.stack_ids.size / sizeof(__s32));
	ok = ok && names;
	if (ok) {
		fprintf(file, "{\n  \"mmap_lock_read\": %llu,\n  \"mmap_lock_write\": %llu,\n",
			totals.read, totals.write);
		fprintf(file, "  \"begun_ns\": %llu,\n  \"ended_ns\": %llu,\n", locks->watch.begun_ns,
			locks->watch.ended_ns);
		if (locks->watch.command)
			fprintf(file, "  \"minor_faults\": %ld,\n  \"major_faults\": %ld,\n",
				locks->watch.used.ru_minflt, locks->watch.used.ru_majflt);
		fprintf(file, "  \"lost\": %llu,\n  \"tallies_lost\": %llu,\n"
			"  \"contention_known\": %s,\n", lost.lost, lost.tallies_lost,
			tracer_has(&locks->tracer, "contention_begin") ? "true" : "false");
		fprintf(file, "  \"preemptible\": %s,\n",
			tracer_is_preemptible(&locks->tracer) ? "true" : "false");
		print_witness(file, locks);
		tracer_print_misses(file, &locks->tracer);
		print_processes(file, locks->tracer.object);
		print_groups(file, map, names);
		print_calls(file, locks);
		forks_print(file, locks->tracer.object,
			    lock_calls_sees(&locks->calls, "copy_page_range"));
		contended_print(file, locks->tracer.object, names);
		stack_names_print(file, names);
		fputs("\n}\n", file);
	}
	stack_names_free(names);
	free(totals.stack_ids.data);
	return ok;
}

/* ---- the command line ---- */

static void call_witness(void *arg)
{
	struct locks *locks = arg;

	locks->witness = lock_witness_begin(locks->why_no_witness, sizeof(locks->why_no_witness));
}

static int parse_parts(char *list, unsigned int *parts)
{
	static const char *const words[] = { "names", "vmas", "forks", NULL };
	char *end, *word;

	*parts = 0;
	if (!strcmp(list, "none"))
		return 0;
	for (word = strtok_r(list, ",", &end); word; word = strtok_r(NULL, ",", &end)) {
		int i = 0;

		while (words[i] && strcmp(word, words[i]))
			i++;
		if (!words[i])
			return complain(EXIT_USAGE, "--parts %s: names, vmas, forks or none", word);
		*parts |= 1U << i;	/* as TRACE_* */
	}
	return 0;
}

static int parse(struct locks *locks, int argc, char **argv)
{
	static const struct option longs[] = {
		WATCH_OPTIONS,
		{ "output", required_argument, NULL, 'o' },
		{ "parts", required_argument, NULL, 'a' },
		{}
	};
	int c, code = 0;

	opterr = 0;
	while (!code && (c = getopt_long(argc, argv, "+p:o:", longs, NULL)) != -1) {
		if (c == 'o')
			locks->output = optarg;
		else if (c == 'a')
			code = parse_parts(optarg, &locks->calls.parts);
		else
			code = watch_option(&locks->watch, c, argv[optind - 1]);
	}
	return code ? code : watch_parsed(&locks->watch, "locks", argc, argv);
}

int run_locks(int argc, char **argv)
{
	struct locks locks = { .watch.ready = call_witness, .calls.parts = TRACE_ALL };
	struct output output = { .fd = -1 };
	int code;

	code = parse(&locks, argc, argv);
	if (!code)
		code = load(&locks);
	if (!code && locks.output)
		code = output_open(&output, locks.output);
	if (!code)
		code = watch_run(&locks.watch, locks.tracer.object, !locks.output, NULL, &locks);
	if (!code)
		code = run_on_tasks(locks.tracer.object, "flush_tasks");
	tracer_detach(&locks.tracer);
	if (!code)
		code = output_result(&output, print_all, &locks);
	output_close(&output);
	lock_witness_end(locks.witness);
	tracer_close(&locks.tracer);
	watch_close(&locks.watch);
	return code ? code : locks.watch.status;
}
