/* SPDX-License-Identifier: GPL-2.0-only */
/* What every part of vmaprobe needs: exit codes, and sentences on standard error. */
#ifndef COMMON_H
#define COMMON_H

#include <linux/types.h>
#include <signal.h>

/* Exit codes; the README and --help list them. */
enum {
	EXIT_OK		= 0,
	EXIT_OTHER	= 1,
	EXIT_USAGE	= 2,
	EXIT_PRIVILEGE	= 3,
	EXIT_KERNEL	= 4,
	EXIT_VANISHED	= 5,
};

/* One sentence on stderr, then the exit code that goes with it. */
int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Set by SIGINT, SIGTERM and SIGHUP: stop soon, leave nothing half-written. */
extern volatile sig_atomic_t interrupted;
/* Why loading failed with ERROR, in one sentence; returns the exit code. */
int explain_load_failure(int error);
int parse_pid(const char *text, __u32 *pid);

#endif
