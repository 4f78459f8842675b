/* SPDX-License-Identifier: GPL-2.0-only */
/* One tracing of page faults: shared by faults.c, which does it, and fault_groups.c, which tells it. */
#ifndef TRACE_FAULTS_H
#define TRACE_FAULTS_H

#include <stdbool.h>
#include "faults.h"
#include "output.h"
#include "preemption.h"
#include "tracer.h"
#include "watch.h"

struct ring_buffer;

struct faults {
	struct watch watch;
	const char *output_path, *events_path;
	int wanted;			/* SOURCE_*, 0: the best that loses nothing here */
	bool stacks;
	struct tracer tracer;
	int source;
	char preemption[32];		/* the kernel's word for its model */
	char why_not[SOURCES][256];	/* of those that were not used */
	char why_no_lock_paths[256], why_no_reasons[256];	/* or not for all */
	bool lock_events;
	struct ring_buffer *ring;
	struct user_images *images;	/* where stacks are wanted */
	struct output events, result;
};

/* In a word, as --source has it. */
const char *fault_source_name(int source);
/* All of them, the best of those that lose nothing on such a kernel first. */
const int *fault_source_order(bool preemptible);
/* All that was counted, as one JSON object; ARG is a struct faults. */
bool faults_print(FILE *file, void *arg);

#endif
