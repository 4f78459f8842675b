// SPDX-License-Identifier: GPL-2.0-only
/* What a tracer is pointed at: a command until its end, or processes for a while. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <bpf/libbpf.h>
#include "command.h"
#include "common.h"
#include "follow_tasks.h"
#include "kallsyms.h"
#include "output.h"
#include "watch.h"

static int parse_seconds(const char *text, double *seconds)
{
	char *end;

	*seconds = strtod(text, &end);
	return end == text || *end || !(*seconds > 0) || *seconds > 1e6 ?
	       complain(EXIT_USAGE, "--seconds %s: not a time above 0", text) : 0;
}

static int add_pid(struct watch *watch, const char *text)
{
	__u32 *grown = realloc(watch->pids, (watch->pid_count + 1) * sizeof(*grown));

	if (!grown)
		return complain(EXIT_OTHER, "out of memory");
	watch->pids = grown;
	return parse_pid(text, &watch->pids[watch->pid_count++]);
}

int watch_option(struct watch *watch, int option, const char *word)
{
	if (option == 'p')
		return add_pid(watch, optarg);
	if (option == 't')
		return parse_seconds(optarg, &watch->seconds);
	return complain(EXIT_USAGE, "%s: no such option, or its value is missing; see vmaprobe --help",
			word);
}

int watch_parsed(struct watch *watch, const char *what, int argc, char **argv)
{
	watch->command = optind < argc ? argv + optind : NULL;
	if (!watch->command == !watch->pid_count)
		return complain(EXIT_USAGE, "%s needs --pid PID or -- COMMAND, and not both", what);
	if (watch->command && watch->seconds)
		return complain(EXIT_USAGE, "--seconds goes with --pid; a command is traced to its end");
	return 0;
}

int watch_parse(struct watch *watch, const char *what, const char **output, int argc, char **argv)
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
			*output = optarg;
		else
			code = watch_option(watch, c, argv[optind - 1]);
	}
	return code ? code : watch_parsed(watch, what, argc, argv);
}

/* By pidfds: a number may be used again, and a process that nobody waits for keeps its own. */
static struct pollfd *open_pids(const struct watch *watch)
{
	struct pollfd *fds = calloc(watch->pid_count, sizeof(*fds));
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	for (size_t i = 0; i < watch->pid_count && fds; i++) {
		fds[i].fd = syscall(SYS_pidfd_open, watch->pids[i], 0);
		fds[i].events = POLLIN;
	}
	return fds;
}

/* Drops those that have ended, all of their threads. */
static bool any_lives(struct pollfd *fds, size_t count)
{
	bool any = false;

	if (poll(fds, count, 0) < 0)
		return true;		/* interrupted: ask again */
	for (size_t i = 0; i < count; i++) {
		if (fds[i].fd >= 0 && fds[i].revents) {
			close(fds[i].fd);
			fds[i].fd = -1;
		}
		any |= fds[i].fd >= 0;
	}
	return any;
}

/* Until they have all ended, the time is over, or we are told to stop: all are good ends. */
static int watch_processes(struct watch *watch, struct bpf_object *object, int (*each)(void *arg),
			   void *arg)
{
	const struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };
	__u64 end = watch->seconds ? monotonic_ns() + (__u64)(watch->seconds * 1e9) : ~0ULL;
	struct pollfd *fds = open_pids(watch);
	int code = fds ? trace_processes(object, watch->pids, watch->pid_count) :
			 complain(EXIT_OTHER, "out of memory");

	while (!code && !interrupted && monotonic_ns() < end && any_lives(fds, watch->pid_count)) {
		nanosleep(&pause, NULL);
		code = each ? each(arg) : 0;
	}
	interrupted = 0;
	for (size_t i = 0; i < watch->pid_count && fds; i++)
		if (fds[i].fd >= 0)
			close(fds[i].fd);
	free(fds);
	return code;
}

static int watch_command(struct watch *watch, struct bpf_object *object, bool aside,
			 int (*each)(void *arg), void *arg)
{
	struct command command = {};
	__u32 pid;
	int code = command_prepare(&command, watch->command, aside);

	pid = command.pid;
	if (!code)
		code = trace_processes(object, &pid, 1);
	if (!code && watch->ready)
		watch->ready(arg);
	if (!code)
		code = command_begin(&command);
	if (!code)
		code = command_wait(&command, each, arg);
	if (!code)
		watch->status = command_status(&command);
	watch->used = command.used;
	command_close(&command);
	return code;
}

int watch_run(struct watch *watch, struct bpf_object *object, bool aside, int (*each)(void *arg),
	      void *arg)
{
	int code;

	watch->begun_ns = monotonic_ns();
	code = watch->command ? watch_command(watch, object, aside, each, arg) :
				watch_processes(watch, object, each, arg);
	watch->ended_ns = monotonic_ns();
	return code;
}

void watch_close(struct watch *watch)
{
	free(watch->pids);
}
