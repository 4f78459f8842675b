// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether a task in the kernel may be preempted where nothing forbids it, as a BPF program
 * may that does not run with preemption off.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "preemption.h"
#include "tracefs.h"

/* kernel/sched/debug.c: sched_dynamic_show(), "none voluntary (full) lazy"; from 5.12. */
static bool read_dynamic(char *model, size_t size)
{
	int debugfs = debugfs_open();
	char *text = debugfs >= 0 ? read_file_at(debugfs, "sched/preempt") : NULL;
	char *open = text ? strchr(text, '(') : NULL;

	if (debugfs >= 0)
		close(debugfs);
	if (open)
		snprintf(model, size, "%.*s", (int)strcspn(open + 1, ")"), open + 1);
	free(text);
	return open;
}

/* Without PREEMPT_DYNAMIC, the version names what was built: scripts/mkcompile_h, init/Makefile. */
static const char *built_in(const char *version)
{
	if (strstr(version, "PREEMPT_DYNAMIC"))
		return "unknown";
	return strstr(version, "PREEMPT_RT") ? "rt" : strstr(version, "PREEMPT_LAZY") ? "lazy" :
	       strstr(version, "PREEMPT") ? "full" : "none or voluntary";
}

enum preemption preemption_model(char *model, size_t size)
{
	struct utsname names;

	uname(&names);
	if (!read_dynamic(model, size))
		snprintf(model, size, "%s", built_in(names.version));
	if (!strcmp(model, "unknown"))
		return PREEMPTION_UNKNOWN;
	return !strcmp(model, "none") || !strcmp(model, "voluntary") ||
	       !strcmp(model, "none or voluntary") ? NOT_PREEMPTIBLE : PREEMPTIBLE;
}
