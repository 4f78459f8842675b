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
#include "json.h"
#include "locks.h"
#include "vmaprobe.h"

struct locks {
	struct watch watch;
	const char *output;
	struct bpf_object *object;
	struct bpf_link *links[8];
	size_t link_count;
};

/* ---- who asks, by a function on the stack; the first of these that is there ---- */

static const struct {
	const char *function, *who;
} askers[] = {
	{ "lock_mm_and_find_vma", "page fault" },
	{ "exc_page_fault", "page fault" },
	{ "do_user_addr_fault", "page fault" },
	{ "handle_mm_fault", "page fault" },
	{ "fixup_user_fault", "page fault" },
	{ "dup_mm", "fork" },
	{ "copy_process", "fork" },
	{ "begin_new_exec", "exec" },
	{ "do_execveat_common", "exec" },
	{ "do_exit", "exit" },
	{ "do_group_exit", "exit" },
	{ "__mm_populate", "populate" },
	{ "__x64_sys_mremap", "mremap" },
	{ "__do_sys_mremap", "mremap" },
	{ "__x64_sys_munmap", "munmap" },
	{ "__vm_munmap", "munmap" },
	{ "ksys_mmap_pgoff", "mmap" },
	{ "vm_mmap_pgoff", "mmap" },
	{ "__x64_sys_mmap", "mmap" },
	{ "do_mprotect_pkey", "mprotect" },
	{ "do_madvise", "madvise" },
	{ "__do_sys_brk", "brk" },
	{ "__x64_sys_brk", "brk" },
	{ "do_mlock", "mlock" },
	{ "do_shmat", "shmat" },
	{ "userfaultfd_ioctl", "userfaultfd" },
	{ "bpf_iter_", "BPF iterator" },
	{ "bpf_seq_read", "BPF iterator" },
	{ "task_vma_seq_", "BPF iterator" },
	{ "proc_pid_cmdline_read", "reader of /proc" },
	{ "environ_read", "reader of /proc" },
	{ "pagemap_", "reader of /proc" },
	{ "do_pagemap_", "reader of /proc" },
	{ "m_start", "reader of /proc" },
	{ "show_smaps_rollup", "reader of /proc" },
	{ "access_remote_vm", "access to another process" },
	{ "process_vm_rw", "access to another process" },
	{ "task_numa_work", "NUMA balancing" },
	{ "khugepaged", "khugepaged" },
	{ "internal_get_user_pages_fast", "get_user_pages" },
	{ "__gup_longterm_locked", "get_user_pages" },
	{ "__get_user_pages", "get_user_pages" },
	{ "prctl_set_", "prctl" },
	{ "__do_sys_prctl", "prctl" },
};

/* A name ending in _ stands for all that begin so. */
static bool is_named(const char *function, const char *name)
{
	size_t length = strlen(name);

	return !strncmp(function, name, length) &&
	       (name[length - 1] == '_' || !function[length] || function[length] == '.');
}

const char *lock_asker(char *const *frames, size_t depth)
{
	for (size_t a = 0; a < sizeof(askers) / sizeof(askers[0]); a++)
		for (size_t i = 0; i < depth; i++)
			if (is_named(frames[i], askers[a].function))
				return askers[a].who;
	/* At least the system call that it was in. */
	for (size_t i = depth; i--;)
		if (!strncmp(frames[i], "__x64_sys_", 10) || !strncmp(frames[i], "__arm64_sys_", 12))
			return strstr(frames[i], "sys_") + 4;
	return "other";
}

/* ---- loading ---- */

static int load(struct locks *locks)
{
	unsigned int count = tracepoint_arguments("mmap_lock_acquire_returned");
	struct bpf_program *program;
	int error;

	if (count != 3 && count != 4)
		return complain(EXIT_KERNEL, "this kernel has no tracepoint "
				"mmap_lock_acquire_returned of a known form: it needs Linux 5.11 or "
				"later with CONFIG_TRACING=y and CONFIG_DEBUG_INFO_BTF=y");
	locks->object = open_embedded("locks", locks_bpf_start, locks_bpf_end);
	if (!locks->object)
		return explain_load_failure(-errno);
	bpf_object__for_each_program(program, locks->object) {
		const char *name = bpf_program__name(program);

		if (!strncmp(name, "answered", 8))
			bpf_program__set_autoload(program, count == (!strcmp(name, "answered_plain") ?
								     3 : 4));
		if (!strcmp(name, "finds_it_taken"))
			bpf_program__set_autoload(program, tracepoint_arguments("contention_begin"));
	}
	size_groups(locks->object);
	error = bpf_object__load(locks->object);
	return error ? explain_load_failure(error) : know_the_probe(locks->object);
}

static void detach(struct locks *locks)
{
	while (locks->link_count)
		bpf_link__destroy(locks->links[--locks->link_count]);
}

static int attach(struct locks *locks)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, locks->object) {
		struct bpf_link *link;

		if (!bpf_program__autoload(program) || is_run_by_us(program))
			continue;
		link = bpf_program__attach(program);
		if (!link)
			return complain(EXIT_KERNEL, "cannot attach to the tracepoints of mmap_lock: %s",
					strerror(errno));
		locks->links[locks->link_count++] = link;
	}
	return 0;
}

/* ---- the result ---- */

static bool sum(int map, const struct lock_key *key, struct lock_value *parts, int cpus,
		struct lock_value *total)
{
	memset(total, 0, sizeof(*total));
	if (bpf_map_lookup_elem(map, key, parts))
		return false;
	for (int cpu = 0; cpu < cpus; cpu++) {
		total->count += parts[cpu].count;
		total->contended += parts[cpu].contended;
		total->wait_ns += parts[cpu].wait_ns;
		if (parts[cpu].longest_ns > total->longest_ns)
			total->longest_ns = parts[cpu].longest_ns;
		for (int i = 0; i < LOCK_BUCKETS; i++)
			total->buckets[i] += parts[cpu].buckets[i];
	}
	return true;
}

static void print_group(FILE *file, const struct lock_key *key, const struct lock_value *value,
			const struct stack_names *names)
{
	int last = LOCK_BUCKETS - 1;

	fprintf(file, "    {\"process\": %u, ", key->process);
	json_pair(file, "asked_by", stack_asker(names, key->stack), ", ");
	fprintf(file, "\"mode\": \"%s\", \"waited_for\": %s, \"success\": %s, \"foreign\": %s, "
		"\"kernel_stack\": %d, \"count\": %llu, \"contended\": %llu, \"wait_ns\": %llu, "
		"\"longest_ns\": %llu, \"log2_ns\": [", key->write ? "write" : "read",
		key->waited_for ? "true" : "false", key->success ? "true" : "false",
		key->foreign ? "true" : "false", key->stack, value->count, value->contended,
		value->wait_ns, value->longest_ns);
	while (last >= 0 && !value->buckets[last])
		last--;
	for (int i = 0; i <= last; i++)
		fprintf(file, "%s%u", i ? ", " : "", value->buckets[i]);
	fputs("]}", file);
}

struct totals {
	__u64 read, write;
	struct buffer stack_ids;
};

/* The successes that are the traced tasks' own, and every stack. */
static bool add_up(int map, struct lock_value *parts, int cpus, struct totals *totals)
{
	struct lock_key key, *previous = NULL;
	struct lock_value value;

	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!sum(map, &key, parts, cpus, &value))
			continue;
		if (key.success && key.process)
			*(key.write ? &totals->write : &totals->read) += value.count;
		if (key.stack >= 0 && !append(&totals->stack_ids, &key.stack, sizeof(key.stack)))
			return false;
	}
	return true;
}

static void print_groups(FILE *file, int map, struct lock_value *parts, int cpus,
			 const struct stack_names *names)
{
	struct lock_key key, *previous = NULL;
	struct lock_value value;
	const char *before = "\n";

	fputs("  \"groups\": [", file);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!sum(map, &key, parts, cpus, &value))
			continue;
		fputs(before, file);
		print_group(file, &key, &value, names);
		before = ",\n";
	}
	fputs("\n  ],\n", file);
}

static bool print_all(FILE *file, void *arg)
{
	struct locks *locks = arg;
	int map = bpf_object__find_map_fd_by_name(locks->object, "groups");
	int cpus = libbpf_num_possible_cpus();
	struct lock_value *parts = calloc(cpus > 0 ? cpus : 1, sizeof(*parts));
	struct lock_totals lost = {};
	struct stack_names *names;
	struct totals totals = {};
	bool ok = parts && add_up(map, parts, cpus, &totals) &&
		  read_bss(locks->object, ".bss.totals", &lost, sizeof(lost));

	names = stack_names_read(bpf_object__find_map_fd_by_name(locks->object, "stacks"),
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
		fprintf(file, "  \"lost\": %llu,\n  \"contention_known\": %s,\n", lost.lost,
			tracepoint_arguments("contention_begin") ? "true" : "false");
		print_processes(file, locks->object);
		print_groups(file, map, parts, cpus, names);
		stack_names_print(file, names);
		fputs("\n}\n", file);
	}
	stack_names_free(names);
	free(totals.stack_ids.data);
	free(parts);
	return ok;
}

/* ---- the command line ---- */

static int parse(int argc, char **argv, struct locks *locks)
{
	static const struct option longs[] = {
		WATCH_OPTIONS,
		{ "output", required_argument, NULL, 'o' },
		{}
	};
	int c, code = 0;

	opterr = 0;
	while (!code && (c = getopt_long(argc, argv, "+p:o:", longs, NULL)) != -1) {
		if (c == 'o')
			locks->output = optarg;
		else
			code = watch_option(&locks->watch, c, argv[optind - 1]);
	}
	return code ? code : watch_parsed(&locks->watch, "locks", argc, argv);
}

int run_locks(int argc, char **argv)
{
	struct locks locks = {};
	struct output output = { .fd = -1 };
	int code;

	code = parse(argc, argv, &locks);
	if (!code)
		code = load(&locks);
	if (!code && locks.output)
		code = output_open(&output, locks.output);
	if (!code)
		code = attach(&locks);
	if (!code)
		code = watch_run(&locks.watch, locks.object, !locks.output, NULL, NULL);
	detach(&locks);
	if (!code)
		code = output_result(&output, print_all, &locks);
	output_close(&output);
	bpf_object__close(locks.object);
	watch_close(&locks.watch);
	return code ? code : locks.watch.status;
}
