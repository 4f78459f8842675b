// SPDX-License-Identifier: GPL-2.0-only
/* vmaprobe census: its arguments, and the census that they ask for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "census.h"
#include "command.h"
#include "common.h"
#include "follow.h"
#include "output.h"
#include "subcommands.h"
#include "take_census.h"
#include "usage.h"

static int parse_pages(const char *text, int *how)
{
	if (!strcmp(text, "scan"))
		*how = PAGES_SCAN;
	else if (!strcmp(text, "pagemap"))
		*how = PAGES_PAGEMAP;
	else if (!strcmp(text, "none"))
		*how = PAGES_NOT_LOOKED;
	else
		return complain(EXIT_USAGE, "--pages %s: scan, pagemap or none", text);
	return 0;
}

struct arguments {
	struct census_options options;
	__u32 *pids;
	size_t pid_count;
	bool at_exit, skip_root;
	const char *usage;
	char **command;
};

static int parse_census(int argc, char **argv, struct arguments *args)
{
	static const struct option longs[] = {
		{ "pid", required_argument, NULL, 'p' },
		{ "output", required_argument, NULL, 'o' },
		{ "pages", required_argument, NULL, 'g' },
		{ "no-chains", no_argument, NULL, 'c' },
		{ "at-exit", no_argument, NULL, 'x' },
		{ "skip-root", no_argument, NULL, 's' },
		{ "usage", required_argument, NULL, 'u' },
		{}
	};
	int c, code = 0;

	opterr = 0;
	args->options.pages_how = PAGES_SCAN;
	args->pids = calloc(argc, sizeof(*args->pids));
	while (!code && (c = getopt_long(argc, argv, "+p:o:", longs, NULL)) != -1) {
		if (c == 'p')
			code = parse_pid(optarg, &args->pids[args->pid_count++]);
		else if (c == 'o')
			args->options.output = optarg;
		else if (c == 'g')
			code = parse_pages(optarg, &args->options.pages_how);
		else if (c == 'c')
			args->options.no_chains = true;
		else if (c == 'x')
			args->at_exit = true;
		else if (c == 's')
			args->skip_root = true;
		else if (c == 'u')
			args->usage = optarg;
		else
			return complain(EXIT_USAGE, "%s: no such option, or its value is missing; see "
					"vmaprobe --help", argv[optind - 1]);
	}
	args->command = argv + optind;
	if (code)
		return code;
	if (!args->at_exit && (optind < argc || args->skip_root || args->usage))
		return complain(EXIT_USAGE, "a COMMAND, --skip-root and --usage go with --at-exit");
	if (args->at_exit && (optind == argc || args->pid_count || !args->options.output))
		return complain(EXIT_USAGE, "--at-exit needs --output FILE and -- COMMAND, and no --pid");
	return 0;
}

static int check_pids(const struct arguments *args)
{
	char path[64];

	for (size_t i = 0; i < args->pid_count; i++) {
		snprintf(path, sizeof(path), "/proc/%u", args->pids[i]);
		if (access(path, F_OK))
			return complain(EXIT_VANISHED, "there is no process %u", args->pids[i]);
	}
	return 0;
}

/* Says why the memory of a process that was asked for was not read. */
static int complain_missing(__u32 pid)
{
	char path[64], line[256], state = 0;
	bool has_memory = false;
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "State: %c", &state);
		has_memory |= !strncmp(line, "VmSize:", 7);	/* only with an mm, see task_mem() */
	}
	if (file)
		fclose(file);
	if (!state || state == 'Z' || state == 'X')
		return complain(EXIT_VANISHED, "process %u has ended", pid);
	if (!has_memory)
		return complain(EXIT_VANISHED, "process %u has no memory of its own: it is a kernel "
				"thread", pid);
	snprintf(path, sizeof(path), "/proc/%u/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return complain(EXIT_PRIVILEGE, "the memory of process %u may not be looked at from here "
				"(%s: %s): it lies outside this container, or a security module "
				"protects it", pid, path, strerror(errno));
	close(fd);
	return complain(EXIT_VANISHED, "process %u was not met: it has begun or ended just now", pid);
}

int run_census(int argc, char **argv)
{
	struct arguments args = {};
	struct census *census = NULL;
	struct rusage used = {};
	__u32 missing;
	int status = 0, code = parse_census(argc, argv, &args);

	if (!code)
		code = check_pids(&args);
	if (!code)
		code = census_open(&census, &args.options);
	if (!code && args.at_exit)
		code = follow_command(census, args.command, args.skip_root, &status, &used);
	else if (!code)
		code = census_take(census, args.pids, args.pid_count);
	missing = code || interrupted ? 0 : census_missing(census, args.pids, args.pid_count);
	if (missing)
		code = complain_missing(missing);
	if (!code && interrupted)
		code = 128 + interrupted;
	if (!code && args.usage)
		code = usage_write(args.usage, &used);
	if (!code)
		code = census_commit(census);
	census_close(census);
	free(args.pids);
	return code ? code : status;
}
