// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe faults: every page fault of a command, or of processes that run, as
 * the programs of faults.bpf.c saw it; one JSON object, and a file of events.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "faults.h"
#include "json.h"
#include "vmaprobe.h"

#define RING_BYTES		(32u << 20)

struct faults {
	struct watch watch;
	const char *output_path, *events_path;
	int wanted;			/* SOURCE_*, 0: the best that works */
	bool stacks;
	struct bpf_object *object;
	struct bpf_link *links[16];
	size_t link_count;
	int source;
	char why_not_fentry[256];
	bool lock_events;
	struct ring_buffer *ring;
	struct user_images *images;	/* where stacks are wanted */
	struct output events, result;
};

/* ---- what is loaded ---- */

struct program_choice {
	const char *name;
	int sources;			/* 1 << SOURCE_*, or 0: always */
	bool needed;
};

static const struct program_choice choices[] = {
	{ "know_the_probe", 0, true },
	{ "follow_wanted", 0, true },
	{ "follow_fork", 0, true },
	{ "follow_exec", 0, true },
	{ "fault_enters", 1 << SOURCE_FENTRY, true },
	{ "fault_leaves", 1 << SOURCE_FENTRY, true },
	{ "user_exception_begins", 1 << SOURCE_FENTRY, false },
	{ "kernel_exception_begins", 1 << SOURCE_FENTRY, false },
	{ "user_fault_begins", 1 << SOURCE_TRACEPOINT, true },
	{ "kernel_fault_begins", 1 << SOURCE_TRACEPOINT, true },
	{ "task_exits", 1 << SOURCE_TRACEPOINT, true },
	{ "flush_tasks", 0, true },
	{ "lock_taken_plain", 1 << SOURCE_TRACEPOINT, true },
	{ "lock_taken_with_path", 1 << SOURCE_TRACEPOINT, true },
};

static const struct program_choice *choice_of(const char *name)
{
	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
		if (!strcmp(choices[i].name, name))
			return &choices[i];
	return NULL;
}

/* The kernel would refuse a program for a tracepoint that it has not, or has in another form. */
static bool fits(const char *name)
{
	if (!strncmp(name, "lock_taken", 10))
		return tracepoint_arguments("mmap_lock_acquire_returned") ==
		       (!strcmp(name, "lock_taken_plain") ? 3 : 4);
	if (strstr(name, "exception_begins"))
		return tracepoint_arguments("page_fault_user") == 3;
	return true;
}

static void choose_programs(struct faults *faults)
{
	struct bpf_program *program;

	faults->lock_events = false;
	bpf_object__for_each_program(program, faults->object) {
		const char *name = bpf_program__name(program);
		const struct program_choice *choice = choice_of(name);
		bool wanted = choice && (!choice->sources || choice->sources & 1 << faults->source) &&
			      fits(name);

		bpf_program__set_autoload(program, wanted);
		faults->lock_events |= wanted && !strncmp(name, "lock_taken", 10);
	}
}

static void set_constants(struct faults *faults)
{
	static const char *const takers[] = { "lock_mm_and_find_vma", "exc_page_fault",
					      "do_user_addr_fault" };
	struct fault_constants *constants;
	size_t size;

	constants = (void *)bpf_map__initial_value(
		bpf_object__find_map_by_name(faults->object, ".rodata"), &size);
	constants->want_events = faults->events_path != NULL;
	constants->want_stacks = faults->stacks;
	constants->timed = faults->source == SOURCE_FENTRY;
	constants->has_vma_locks = has_vma_locks() > 0;
	constants->has_lock_events = faults->lock_events;
	for (int i = 0; i < 3 && faults->lock_events; i++)
		kallsyms_range(takers[i], constants->fault_callers[i]);
	if (faults->lock_events && !kallsyms_range("__vmf_anon_prepare", constants->prepare_caller))
		kallsyms_range("vmf_anon_prepare", constants->prepare_caller);
}

static void set_sizes(struct faults *faults)
{
	struct bpf_object *object = faults->object;

	bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "events"),
				 faults->events_path ? RING_BYTES : 4096);
	size_groups(object);
	if (!faults->stacks)
		bpf_map__set_max_entries(bpf_object__find_map_by_name(object, "stacks"), 1);
}

static void detach(struct faults *faults)
{
	while (faults->link_count)
		bpf_link__destroy(faults->links[--faults->link_count]);
}

static int attach(struct faults *faults)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, faults->object) {
		const struct program_choice *choice = choice_of(bpf_program__name(program));
		struct bpf_link *link;

		if (!bpf_program__autoload(program) || is_run_by_us(program))
			continue;
		link = bpf_program__attach(program);
		if (link)
			faults->links[faults->link_count++] = link;
		else if (choice->needed)
			return -errno;
	}
	return 0;
}

static void unload(struct faults *faults)
{
	detach(faults);
	bpf_object__close(faults->object);
	faults->object = NULL;
}

/* Loads and attaches all of one source; what is attached sees nothing until tasks are marked. */
static int try_source(struct faults *faults, int source, const char **step)
{
	int error;

	*step = "open";
	faults->source = source;
	faults->object = open_embedded("faults", faults_bpf_start, faults_bpf_end);
	if (!faults->object)
		return -errno;
	choose_programs(faults);
	set_constants(faults);
	set_sizes(faults);
	*step = "load";
	error = bpf_object__load(faults->object);
	if (!error) {
		*step = "attach";
		error = attach(faults);
	}
	if (error)
		unload(faults);
	return error;
}

static int choose_source(struct faults *faults)
{
	int wanted = faults->wanted, error = 0;
	const char *step = "";

	if (wanted == SOURCE_TRACEPOINT)
		snprintf(faults->why_not_fentry, sizeof(faults->why_not_fentry), "not asked for");
	else
		error = try_source(faults, SOURCE_FENTRY, &step);
	if (wanted != SOURCE_TRACEPOINT && !error)
		return 0;
	if (error)
		snprintf(faults->why_not_fentry, sizeof(faults->why_not_fentry),
			 "to %s it failed: %s", step, strerror(-error));
	if (wanted == SOURCE_FENTRY && error == -EPERM && geteuid())
		return explain_load_failure(error);
	if (wanted == SOURCE_FENTRY)
		return complain(EXIT_KERNEL, "fentry on handle_mm_fault() does not work here: %s",
				faults->why_not_fentry);
	if (!tracepoint_arguments("page_fault_user"))
		return complain(EXIT_KERNEL, "page faults cannot be traced here: fentry on "
				"handle_mm_fault() does not work (%s), and there is no tracepoint "
				"page_fault_user, which x86 and riscv have", faults->why_not_fentry);
	error = try_source(faults, SOURCE_TRACEPOINT, &step);
	return error ? explain_load_failure(error) : 0;
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
	faults->ring = ring_buffer__new(bpf_object__find_map_fd_by_name(faults->object, "events"),
					take_event, faults, NULL);
	if (!faults->ring || !output_write(&faults->events, &header, sizeof(header)))
		return complain(EXIT_OTHER, "cannot take events: %s", strerror(errno));
	return 0;
}

/* ---- the result ---- */

static const char *const modes[] = { "", "user", "kernel", "gup" };
static const char *const accesses[] = { "", "read", "write", "exec" };
static const char *const paths[] = { "unknown", "vma", "mmap", "retry" };
static const char *const results[] = { "unknown", "minor", "major", "error" };

#define WORD(words, index)	((index) < sizeof(words) / sizeof(*(words)) ? (words)[index] : "")

static void print_counts(FILE *file, const struct fault_counts *counts)
{
	fprintf(file, "  \"faults_lost\": %llu,\n  \"events_lost\": %llu,\n  \"kinds_lost\": %llu,\n"
		"  \"unseen_gup\": %llu,\n", counts->faults_lost, counts->events_lost,
		counts->kinds_lost, counts->unseen_gup);
}

struct ops_list {
	char *names[MAX_OPS + 1];
};

static bool note_ops(void *arg, struct ops_entry *entry, const char *name)
{
	struct ops_list *list = arg;

	if (entry->id <= MAX_OPS && name)
		list->names[entry->id] = strdup(name);
	return true;
}

static void print_kinds(FILE *file, struct bpf_object *object)
{
	int map = bpf_object__find_map_fd_by_name(object, "kinds");
	struct kind_key key, *previous = NULL;
	struct ops_list ops = {};
	struct fault_kind kind;
	const char *before = "";

	ops_names(bpf_object__find_map_fd_by_name(object, "ops"), note_ops, &ops);
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
	for (size_t i = 0; i <= MAX_OPS; i++)
		free(ops.names[i]);
}

static void print_group(FILE *file, const struct group_key *key, const struct group_value *value)
{
	int last = FAULT_BUCKETS - 1;

	fprintf(file, "    {\"process\": %u, \"kind\": %u, \"mode\": \"%s\", \"access\": \"%s\", "
		"\"before\": %u, \"after\": %u, \"path\": \"%s\", \"result\": \"%s\", "
		"\"kernel_stack\": %d, \"user_stack\": %d, \"count\": %llu, \"time_ns\": %llu, \"log2_ns\": [",
		key->process, key->kind, WORD(modes, key->mode), WORD(accesses, key->access),
		key->before, key->after, WORD(paths, key->path), WORD(results, key->result),
		key->kernel_stack, key->user_stack, value->count, value->time_ns);
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
	bool fentry = faults->source == SOURCE_FENTRY;
	struct utsname names;

	uname(&names);
	fputs("{\n  ", file);
	json_pair(file, "kernel", names.release, ",\n  ");
	json_pair(file, "source", fentry ? "fentry" : "tracepoint", ",\n  ");
	json_pair(file, "why_not_fentry", faults->why_not_fentry, ",\n");
	fprintf(file, "  \"timed\": %s,\n  \"lock_paths\": %s,\n  \"page_size\": %ld,\n"
		"  \"begun_ns\": %llu,\n  \"ended_ns\": %llu,\n", fentry ? "true" : "false",
		fentry || faults->lock_events ? "true" : "false", sysconf(_SC_PAGESIZE),
		faults->watch.begun_ns, faults->watch.ended_ns);
	if (faults->watch.command)
		fprintf(file, "  \"minor_faults\": %ld,\n  \"major_faults\": %ld,\n",
			faults->watch.used.ru_minflt, faults->watch.used.ru_majflt);
}

static bool print_all(FILE *file, void *arg)
{
	struct faults *faults = arg;
	struct fault_counts counts = {};
	int map = bpf_object__find_map_fd_by_name(faults->object, "stacks");
	struct stacks_named stacks = {};
	struct stack_names *names = NULL;
	bool ok = read_bss(faults->object, ".bss.counts", &counts, sizeof(counts));

	if (ok) {
		print_source(file, faults);
		print_counts(file, &counts);
		print_processes(file, faults->object);
		print_kinds(file, faults->object);
		ok = print_groups(file, faults->object, &stacks);
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

/* ---- the command line ---- */

static int parse_source(const char *text, int *source)
{
	*source = !strcmp(text, "fentry") ? SOURCE_FENTRY :
		  !strcmp(text, "tracepoint") ? SOURCE_TRACEPOINT : 0;
	return *source || !strcmp(text, "auto") ? 0 :
	       complain(EXIT_USAGE, "--source %s: auto, fentry or tracepoint", text);
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
		code = know_the_probe(faults.object);
	if (!code && faults.output_path)
		code = output_open(&faults.result, faults.output_path);
	if (!code && faults.stacks)
		faults.images = user_images_new(faults.object);
	if (!code)
		code = open_events(&faults);
	if (!code)
		code = watch_run(&faults.watch, faults.object, !faults.output_path, drain, &faults);
	detach(&faults);
	if (!code)
		code = run_on_tasks(faults.object, "flush_tasks");
	if (!code)
		code = drain(&faults);
	if (!code)
		code = output_flush(&faults.events);
	if (!code)
		code = output_result(&faults.result, print_all, &faults);
	if (!code)
		code = output_commit(&faults.events);
	output_close(&faults.events);
	output_close(&faults.result);
	ring_buffer__free(faults.ring);
	user_images_free(faults.images);
	if (faults.object)
		unload(&faults);
	watch_close(&faults.watch);
	return code ? code : faults.watch.status;
}
