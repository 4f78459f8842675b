/* SPDX-License-Identifier: GPL-2.0-only */
/* A command that is run and watched. */
#ifndef COMMAND_H
#define COMMAND_H

#include <linux/types.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

struct command {
	pid_t pid;
	int status;
	struct rusage used;
	__u64 ended_ns;			/* CLOCK_MONOTONIC */
};

/*
 * Starts a process for a command; it is stopped, a child of ours like any, until command_begin().
 * ASIDE: what it prints goes to standard error, for standard output is for our result.
 */
int command_prepare(struct command *command, char **argv, bool aside);
int command_begin(struct command *command);
/* Waits for its end, calling EACH, if not NULL, every few milliseconds; kills it when EACH fails. */
int command_wait(struct command *command, int (*each)(void *arg), void *arg);
/* As a shell has it. */
int command_status(const struct command *command);
/* Kills it, if it runs still. */
void command_close(struct command *command);

#endif
