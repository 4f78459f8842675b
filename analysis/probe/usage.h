/* SPDX-License-Identifier: GPL-2.0-only */
/* What processes have used. */
#ifndef USAGE_H
#define USAGE_H

#include <linux/types.h>
#include <stddef.h>
#include <sys/resource.h>

struct usage {
	unsigned long long minor_faults, major_faults, voluntary_ctxt, involuntary_ctxt;
	double user_s, system_s;
};

/* One JSON object: what these processes have used so far, summed. */
int usage_print(const __u32 *pids, size_t count);
/* The same object, of a command that has ended. */
int usage_write(const char *path, const struct rusage *used);
/* Runs a command, watched by nothing, and prints what it used and how long it took. */
int usage_run(char **argv, const char *path);

#endif
