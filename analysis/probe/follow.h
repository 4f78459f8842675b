/* SPDX-License-Identifier: GPL-2.0-only */
/* The census of each process as it exits. */
#ifndef FOLLOW_H
#define FOLLOW_H

#include <stdbool.h>
#include <sys/resource.h>

struct census;

/*
 * Runs COMMAND, taking each process's census as it exits; returns COMMAND's exit code.
 * USED is what COMMAND and all that it waited for have used.
 */
int follow_command(struct census *census, char **command, bool skip_root, int *command_status,
		   struct rusage *used);

#endif
