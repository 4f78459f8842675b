// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe time: where the time of a command's tasks went, or of processes while they
 * were watched: in which context, waiting for mmap_lock or holding it, with a CPU or without.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "btf.h"
#include "command.h"
#include "common.h"
#include "embedded.h"
#include "follow_tasks.h"
#include "json.h"
#include "kallsyms.h"
#include "output.h"
#include "preemption.h"
#include "subcommands.h"
#include "time.h"
#include "tracer.h"
#include "watch.h"

struct events {
	struct bpf_link **links;
	size_t count;
};

struct timing {
	struct watch watch;
	const char *output;
	struct tracer tracer;
	struct events faults;
};

/* ---- names ---- */

static const char *const context_names[] = {
	[IN_UNKNOWN] = "unknown", [IN_USER] = "user", [IN_FAULT] = "fault",
	[IN_KERNEL_FAULT] = "kernel fault", [IN_MMAP] = "mmap", [IN_MUNMAP] = "munmap",
	[IN_BRK] = "brk", [IN_MPROTECT] = "mprotect", [IN_MREMAP] = "mremap",
	[IN_MADVISE] = "madvise", [IN_FORK] = "fork", [IN_EXEC] = "exec", [IN_EXIT] = "exit",
	[IN_OTHER] = "other call",
};

static const char *const lock_names[] = {
	[LOCK_NONE] = "none", [LOCK_WAITING] = "waiting", [LOCK_READING] = "reading",
	[LOCK_WRITING] = "writing",
};

static const char *const cpu_names[] = {
	[CPU_RUNNING] = "running", [CPU_SLEEPING] = "sleeping", [CPU_WOKEN] = "woken",
	[CPU_WOKEN_BEHIND] = "woken, behind others", [CPU_PREEMPTED] = "preempted",
	[CPU_PREEMPTED_BEHIND] = "preempted, behind others",
};

static const char *const sum_names[] = {
	[TIME_TASKS] = "tasks", [TIME_BEFORE] = "before_ns",
	[TIME_TRACER] = "tracer_ns", [TIME_FAULTS_BEGUN] = "faults_begun",
	[TIME_FAULTS_ENDED] = "faults_ended", [TIME_EXEC] = "exec_ns",
	[TIME_QUEUED] = "queued_ns", [TIME_USER] = "user_ns", [TIME_SYSTEM] = "system_ns",
	[TIME_VOLUNTARY] = "voluntary_ctxt", [TIME_INVOLUNTARY] = "involuntary_ctxt",
	[TIME_FAULTS] = "faults",
};

static const char *const user_names[] = {
	[CPU_OF_TRACED] = "traced", [CPU_OF_OTHERS] = "others", [CPU_IDLE] = "idle",
};

static const struct {
	int number;
	__u8 context;
} calls[] = {
	{ SYS_mmap, IN_MMAP }, { SYS_munmap, IN_MUNMAP }, { SYS_brk, IN_BRK },
	{ SYS_mprotect, IN_MPROTECT }, { SYS_mremap, IN_MREMAP }, { SYS_madvise, IN_MADVISE },
	{ SYS_clone, IN_FORK }, { SYS_clone3, IN_FORK }, { SYS_execve, IN_EXEC },
	{ SYS_execveat, IN_EXEC }, { SYS_exit, IN_EXIT }, { SYS_exit_group, IN_EXIT },
#ifdef SYS_fork
	{ SYS_fork, IN_FORK }, { SYS_vfork, IN_FORK },
#endif
};

/* ---- loading ---- */

static void prepare(struct tracer *tracer, void *arg)
{
	struct bpf_map *map = bpf_object__find_map_by_name(tracer->object, ".rodata");
	size_t size;
	__u8 *contexts = (void *)bpf_map__initial_value(map, &size);

	(void)arg;
	for (int i = 0; i < KNOWN_SYSCALLS; i++)
		contexts[i] = IN_OTHER;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (calls[i].number < KNOWN_SYSCALLS)
			contexts[calls[i].number] = calls[i].context;
}

/* On each CPU, for any task: those of a task alone would not follow its children's BPF state. */
static int attach_event(struct timing *timing, __u64 event)
{
	struct bpf_program *program = bpf_object__find_program_by_name(timing->tracer.object,
								       "fault_is_handled");
	struct perf_event_attr attr = { .size = sizeof(attr), .type = PERF_TYPE_SOFTWARE,
					.config = event, .sample_period = 1 };
	int cpus = libbpf_num_possible_cpus();

	for (int cpu = 0; cpu < cpus; cpu++) {
		int fd = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
		struct bpf_link *link;

		if (fd < 0 && (errno == ENODEV || errno == EINVAL))
			continue;	/* it is not online */
		link = fd < 0 ? NULL : bpf_program__attach_perf_event(program, fd);
		if (!link)
			return complain(EXIT_KERNEL, "the ends of page faults cannot be seen: perf's "
					"event of them is refused (%s)", strerror(errno));
		timing->faults.links[timing->faults.count++] = link;
	}
	return 0;
}

static int attach_events(struct timing *timing)
{
	int cpus = libbpf_num_possible_cpus(), code;
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	timing->faults.links = calloc(2 * (cpus > 0 ? cpus : 1), sizeof(*timing->faults.links));
	if (!timing->faults.links)
		return complain(EXIT_OTHER, "out of memory");
	code = attach_event(timing, PERF_COUNT_SW_PAGE_FAULTS_MIN);
	return code ? code : attach_event(timing, PERF_COUNT_SW_PAGE_FAULTS_MAJ);
}

static int load(struct timing *timing)
{
	static const struct embedded object = { "time", time_bpf_start, time_bpf_end };
	static const char *const needed[] = {
		"sys_enter", "page_fault_user", "mmap_lock_released", "sched_switch",
	};
	static const char *const remedies[] = {
		"CONFIG_FTRACE_SYSCALLS=y or HAVE_SYSCALL_TRACEPOINTS",
		"x86 or riscv with CONFIG_TRACING=y", "Linux 5.11 or later with CONFIG_TRACING=y",
		"CONFIG_TRACING=y",
	};
	int error;

	for (int i = 0; i < 4; i++)
		if (!tracepoint_arguments(needed[i]))
			return complain(EXIT_KERNEL, "this kernel has no tracepoint %s: it takes %s, "
					"and CONFIG_DEBUG_INFO_BTF=y", needed[i], remedies[i]);
	error = tracer_load(&timing->tracer, &object, prepare, timing);
	if (error)
		return explain_load_failure(error);
	error = attach_events(timing);
	return error ? error : know_the_probe(timing->tracer.object);
}

static void unload(struct timing *timing)
{
	while (timing->faults.count)
		bpf_link__destroy(timing->faults.links[--timing->faults.count]);
	free(timing->faults.links);
	timing->faults.links = NULL;
	tracer_close(&timing->tracer);
}

/* ---- the result ---- */

static void print_cells(FILE *file, const struct time_key *key, const struct time_value *value,
			const char **before)
{
	for (int i = 0; i < TIME_CELLS; i++) {
		if (!value->ns[i])
			continue;
		fprintf(file, "%s    {\"process\": %u, \"in_window\": %s, \"context\": \"%s\", "
			"\"lock\": \"%s\", \"cpu\": \"%s\", \"ns\": %llu}", *before, key->process,
			key->in_window ? "true" : "false",
			context_names[i / TIME_STATES / TIME_LOCKS],
			lock_names[i / TIME_STATES % TIME_LOCKS], cpu_names[i % TIME_STATES],
			value->ns[i]);
		*before = ",\n";
	}
}

static void print_sums(FILE *file, const struct time_key *key, const struct time_value *value,
		       const char **before)
{
	fprintf(file, "%s    {\"process\": %u, \"in_window\": %s", *before, key->process,
		key->in_window ? "true" : "false");
	for (int i = 0; i < TIME_SUMS; i++)
		fprintf(file, ", \"%s\": %llu", sum_names[i], value->sums[i]);
	fputs(", \"entries\": {", file);
	for (int i = 0, any = 0; i < TIME_CONTEXTS; i++)
		if (value->entries[i])
			fprintf(file, "%s\"%s\": %llu", any++ ? ", " : "", context_names[i],
				value->entries[i]);
	fputs("}}", file);
	*before = ",\n";
}

static void print_groups(FILE *file, int map, const char *member,
			 void (*print)(FILE *file, const struct time_key *key,
				       const struct time_value *value, const char **before))
{
	struct time_key key, *previous = NULL;
	struct time_value value;
	const char *before = "\n";

	fprintf(file, "  \"%s\": [", member);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!bpf_map_lookup_elem(map, &key, &value))
			print(file, &key, &value, &before);
	}
	fputs("\n  ],\n", file);
}

/* What the CPU has done since its last switch of tasks is in no program's hands. */
static void finish_clock(struct cpu_clock *clock, const struct time_counts *counts, __u64 end)
{
	__u64 from = clock->since;

	if (clock->window != counts->window)
		memset(clock->ns, 0, sizeof(clock->ns));
	if (from < counts->window_begun_ns)
		from = counts->window_begun_ns;
	if (end > from && clock->user < CPU_USERS)
		clock->ns[clock->user] += end - from;
}

/* Those that have switched tasks at all; of another one it is not known what it did. */
static void print_cpus(FILE *file, const struct timing *timing, const struct time_counts *counts)
{
	int map = bpf_object__find_map_fd_by_name(timing->tracer.object, "cpus");
	int cpus = libbpf_num_possible_cpus();
	__u64 end = counts->window ? counts->window_ended_ns : timing->watch.ended_ns;
	const char *before = "\n";

	fputs("  \"cpus\": [", file);
	for (__u32 cpu = 0; (int)cpu < cpus && cpu < MAX_CPUS; cpu++) {
		struct cpu_clock clock = {};

		if (bpf_map_lookup_elem(map, &cpu, &clock) || !clock.since)
			continue;
		finish_clock(&clock, counts, end);
		fprintf(file, "%s    {\"cpu\": %u", before, cpu);
		for (int i = 0; i < CPU_USERS; i++)
			fprintf(file, ", \"%s_ns\": %llu", user_names[i], clock.ns[i]);
		fputs("}", file);
		before = ",\n";
	}
	fputs("\n  ],\n", file);
}

static double seconds(struct timeval time)
{
	return time.tv_sec + time.tv_usec / 1e6;
}

static bool print_all(FILE *file, void *arg)
{
	struct timing *timing = arg;
	int map = bpf_object__find_map_fd_by_name(timing->tracer.object, "times");
	const struct rusage *used = &timing->watch.used;
	struct time_counts counts = {};
	char model[32];

	if (!read_bss(timing->tracer.object, ".bss.counts", &counts, sizeof(counts)))
		return false;
	if (counts.inside)		/* they are still at it */
		counts.window_ended_ns = timing->watch.ended_ns;
	preemption_model(model, sizeof(model));
	fprintf(file, "{\n  \"begun_ns\": %llu,\n  \"ended_ns\": %llu,\n", timing->watch.begun_ns,
		timing->watch.ended_ns);
	if (timing->watch.command)
		fprintf(file, "  \"minor_faults\": %ld,\n  \"major_faults\": %ld,\n"
			"  \"user_s\": %.6f,\n  \"system_s\": %.6f,\n", used->ru_minflt,
			used->ru_majflt, seconds(used->ru_utime), seconds(used->ru_stime));
	fprintf(file, "  \"window\": %s,\n  \"window_ns\": %llu,\n  \"lost\": %llu,\n  ",
		counts.window ? "true" : "false",
		counts.window ? counts.window_ended_ns - counts.window_begun_ns : 0, counts.lost);
	json_pair(file, "preemption", model, ",\n");
	fprintf(file, "  \"preemptible\": %s,\n",
		tracer_is_preemptible(&timing->tracer) ? "true" : "false");
	tracer_print_misses(file, &timing->tracer);
	print_processes(file, timing->tracer.object);
	print_groups(file, map, "sums", print_sums);
	print_cpus(file, timing, &counts);
	print_groups(file, map, "cells", print_cells);
	fputs("  \"format\": 1\n}\n", file);
	return true;
}

/* ---- the command line ---- */

int run_time(int argc, char **argv)
{
	struct timing timing = {};
	struct output output = { .fd = -1 };
	int code;

	code = watch_parse(&timing.watch, "time", &timing.output, argc, argv);
	if (!code)
		code = load(&timing);
	if (!code && timing.output)
		code = output_open(&output, timing.output);
	if (!code)
		code = watch_run(&timing.watch, timing.tracer.object, !timing.output, NULL, &timing);
	if (!code)
		code = run_on_tasks(timing.tracer.object, "flush_tasks");
	tracer_detach(&timing.tracer);
	if (!code)
		code = output_result(&output, print_all, &timing);
	output_close(&output);
	unload(&timing);
	watch_close(&timing.watch);
	return code ? code : timing.watch.status;
}
