// SPDX-License-Identifier: GPL-2.0-only
/* The probe's side of traced.bpf.h: naming what is traced, and telling what was. */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "common.h"
#include "follow_tasks.h"
#include "json.h"
#include "traced.h"

bool read_bss(struct bpf_object *object, const char *name, void *value, size_t size)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, name);
	__u32 zero = 0;

	return map && !bpf_map__lookup_elem(map, &zero, sizeof(zero), value, size, 0);
}

int know_the_probe(struct bpf_object *object)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	struct bpf_program *program = bpf_object__find_program_by_name(object, "know_the_probe");
	int error = program ? bpf_prog_test_run_opts(bpf_program__fd(program), &opts) : -ENOENT;

	return error ? complain(EXIT_KERNEL, "this kernel does not run a program of type syscall "
				"(%s): it needs Linux 5.14 or later", strerror(-error)) : 0;
}

/*
 * A map "groups" has a value for each CPU in each of its entries, which it has from the
 * beginning: without, a burst of new ones finds no memory that can be had in a fault.
 */
#define GROUPS_BYTES	(128ul << 20)
#define FEW_GROUPS	4096

void size_groups(struct bpf_object *object)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, "groups");
	int cpus = libbpf_num_possible_cpus();
	size_t each = bpf_map__value_size(map) * (cpus > 0 ? cpus : 1);
	size_t fit = GROUPS_BYTES / each;

	if (fit < FEW_GROUPS)
		fit = FEW_GROUPS;
	if (fit < bpf_map__max_entries(map))
		bpf_map__set_max_entries(map, fit);
}

/* Reading the iterator runs its program on every task; it writes nothing. */
int run_on_tasks(struct bpf_object *object, const char *name)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	struct bpf_link *link = program ? bpf_program__attach_iter(program, NULL) : NULL;
	int fd = link ? bpf_iter_create(bpf_link__fd(link)) : -1;
	ssize_t got = -1;
	char nothing[64];

	while (fd >= 0 && ((got = read(fd, nothing, sizeof(nothing))) > 0 ||
			   (got < 0 && (errno == EAGAIN || errno == EINTR))))
		;
	if (got < 0)
		complain(EXIT_OTHER, "cannot go through the tasks: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	return got < 0 ? EXIT_OTHER : 0;
}

int trace_processes(struct bpf_object *object, const __u32 *pids, size_t count)
{
	int wanted = bpf_object__find_map_fd_by_name(object, "wanted"), code;
	__u32 process = 0;

	for (size_t i = 0; i < count; i++)
		if (bpf_map_update_elem(wanted, &pids[i], &process, BPF_ANY))
			return complain(EXIT_USAGE, "more than %d processes are named", MAX_WANTED);
	code = run_on_tasks(object, "follow_wanted");
	for (size_t i = 0; i < count && !code; i++)
		if (bpf_map_lookup_elem(wanted, &pids[i], &process) || !process)
			code = complain(EXIT_VANISHED, "there is no process %u with memory of its "
					"own", pids[i]);
	return code;
}

static void print_process(FILE *file, const struct traced_process *process, const char *before)
{
	static const char *const how[] = { "named", "forked", "execed" };
	char comm[TASK_COMM_LEN + 1] = {};

	memcpy(comm, process->comm, TASK_COMM_LEN);
	fprintf(file, "%s\n    {\"id\": %u, \"tgid\": %u, \"parent\": %u, \"how\": \"%s\", ", before,
		process->id, process->tgid, process->parent,
		process->how < 3 ? how[process->how] : "");
	json_pair(file, "comm", comm, "}");
}

void print_processes(FILE *file, struct bpf_object *object)
{
	int map = bpf_object__find_map_fd_by_name(object, "processes");
	struct traced_process process;
	struct tracing tracing = {};
	const char *before = "";
	__u32 key, *previous = NULL;

	read_bss(object, ".bss.tracing", &tracing, sizeof(tracing));
	fprintf(file, "  \"faults_before\": %llu,\n  \"tasks_lost\": %llu,\n"
		"  \"processes_lost\": %llu,\n  \"processes\": [", tracing.faults_before,
		tracing.tasks_lost, tracing.processes_lost);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (bpf_map_lookup_elem(map, &key, &process))
			continue;
		print_process(file, &process, before);
		before = ",";
	}
	fputs("\n  ],\n", file);
}
