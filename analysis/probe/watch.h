/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tracers have in common: a command, or processes, for a while. */
#ifndef WATCH_H
#define WATCH_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

struct bpf_object;

struct watch {
	__u32 *pids;
	size_t pid_count;
	double seconds;			/* 0: as long as they live */
	char **command;			/* or NULL */
	void (*ready)(void *arg);	/* or NULL: the command is followed, and has not begun */
	/* What came of it. */
	__u64 begun_ns, ended_ns;	/* CLOCK_MONOTONIC */
	struct rusage used;		/* by the command */
	int status;			/* the command's */
};

#define WATCH_OPTIONS	{ "pid", required_argument, NULL, 'p' },	\
			{ "seconds", required_argument, NULL, 't' }

int watch_option(struct watch *watch, int option, const char *word);
int watch_parsed(struct watch *watch, const char *what, int argc, char **argv);

/* The whole command line of a tracer that takes these options and --output alone. */
int watch_parse(struct watch *watch, const char *what, const char **output, int argc, char **argv);
/* ASIDE as for command_prepare(); EACH, if not NULL, is called every few milliseconds. */
int watch_run(struct watch *watch, struct bpf_object *object, bool aside, int (*each)(void *arg),
	      void *arg);
void watch_close(struct watch *watch);

#endif
