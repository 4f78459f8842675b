// SPDX-License-Identifier: GPL-2.0-only
/*
 * What processes have used so far: faults, times and context switches, summed.
 *
 * /proc/PID/stat has the faults and times of the whole thread group, ended
 * threads included; context switches are told of each thread alone, by its
 * status, and those of ended threads are lost.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "command.h"
#include "common.h"
#include "kallsyms.h"
#include "output.h"
#include "usage.h"

static bool add_stat(__u32 pid, struct usage *usage)
{
	unsigned long long minor, major, user, system;
	char path[64], line[1024], *bracket;
	double tick = sysconf(_SC_CLK_TCK);
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	/* proc(5): the name in brackets may hold anything, line ends too; then state is field 3. */
	line[fread(line, 1, sizeof(line) - 1, file)] = '\0';
	fclose(file);
	bracket = strrchr(line, ')');
	ok = bracket && sscanf(bracket + 1, " %*c %*d %*d %*d %*d %*d %*u %llu %*u %llu %*u %llu %llu",
			       &minor, &major, &user, &system) == 4;
	if (ok) {
		usage->minor_faults += minor;
		usage->major_faults += major;
		usage->user_s += user / tick;
		usage->system_s += system / tick;
	}
	return ok;
}

static void add_status(__u32 pid, const char *tid, struct usage *usage)
{
	unsigned long long count;
	char path[300], line[512];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%u/task/%s/status", pid, tid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1)
			usage->voluntary_ctxt += count;
		else if (sscanf(line, "nonvoluntary_ctxt_switches: %llu", &count) == 1)
			usage->involuntary_ctxt += count;
	}
	if (file)
		fclose(file);
}

static void add_threads(__u32 pid, struct usage *usage)
{
	struct dirent *entry;
	char path[64];
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	threads = opendir(path);
	while (threads && (entry = readdir(threads)))
		if (entry->d_name[0] != '.')
			add_status(pid, entry->d_name, usage);
	if (threads)
		closedir(threads);
}

static void print_usage(FILE *file, const struct usage *usage, double seconds)
{
	fprintf(file, "{\"minor_faults\": %llu, \"major_faults\": %llu, \"user_s\": %.6f, "
		"\"system_s\": %.6f, \"voluntary_ctxt\": %llu, \"involuntary_ctxt\": %llu",
		usage->minor_faults, usage->major_faults, usage->user_s, usage->system_s,
		usage->voluntary_ctxt, usage->involuntary_ctxt);
	if (seconds > 0)
		fprintf(file, ", \"seconds\": %.6f", seconds);
	fputs("}\n", file);
}

static struct usage of_rusage(const struct rusage *used)
{
	return (struct usage){
		.minor_faults = used->ru_minflt,
		.major_faults = used->ru_majflt,
		.user_s = used->ru_utime.tv_sec + used->ru_utime.tv_usec / 1e6,
		.system_s = used->ru_stime.tv_sec + used->ru_stime.tv_usec / 1e6,
		.voluntary_ctxt = used->ru_nvcsw,
		.involuntary_ctxt = used->ru_nivcsw,
	};
}

int usage_print(const __u32 *pids, size_t count)
{
	struct usage usage = {};

	for (size_t i = 0; i < count; i++) {
		if (!add_stat(pids[i], &usage))
			return complain(EXIT_VANISHED, "there is no process %u", pids[i]);
		add_threads(pids[i], &usage);
	}
	print_usage(stdout, &usage, 0);
	return EXIT_OK;
}

int usage_write(const char *path, const struct rusage *used)
{
	struct usage usage = of_rusage(used);
	FILE *file = fopen(path, "we");

	if (!file)
		return complain(EXIT_OTHER, "cannot write %s: %s", path, strerror(errno));
	print_usage(file, &usage, 0);
	return fclose(file) ? complain(EXIT_OTHER, "cannot write %s: %s", path, strerror(errno)) : 0;
}

struct run {
	struct command command;
	double seconds;
};

static bool print_run(FILE *file, void *arg)
{
	const struct run *run = arg;
	struct usage usage = of_rusage(&run->command.used);

	print_usage(file, &usage, run->seconds);
	return true;
}

int usage_run(char **argv, const char *path)
{
	struct output output = { .fd = -1 };
	struct run run = {};
	__u64 begun;
	int code = path ? output_open(&output, path) : 0;

	if (!code)
		code = command_prepare(&run.command, argv, !path);
	begun = monotonic_ns();
	if (!code)
		code = command_begin(&run.command);
	if (!code)
		code = command_wait(&run.command, NULL, NULL);
	run.seconds = (run.command.ended_ns - begun) / 1e9;
	command_close(&run.command);
	if (!code)
		code = output_result(&output, print_run, &run);
	output_close(&output);
	return code ? code : command_status(&run.command);
}
