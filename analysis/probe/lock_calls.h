/* SPDX-License-Identifier: GPL-2.0-only */
/* How the calls of functions that have to do with locks are seen. */
#ifndef LOCK_CALLS_H
#define LOCK_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include "tracer.h"

enum lock_calls {
	CALLS_UNSEEN,
	CALLS_BY_FENTRY,
	CALLS_BY_KPROBE,
};

/* What is traced beside mmap_lock; a bit each. */
enum {
	TRACE_NAMES	= 1 << 0,	/* contended locks of any kind */
	TRACE_VMAS	= 1 << 1,
	TRACE_FORKS	= 1 << 2,
	TRACE_ALL	= TRACE_NAMES | TRACE_VMAS | TRACE_FORKS,
};

struct lock_calls_seen {
	enum lock_calls way;	/* the one that served */
	unsigned int parts;	/* TRACE_*, as wanted */
	char why_not[160];	/* none did, or empty */
};

/* As tracer_load(). */
int lock_calls_load(struct tracer *tracer, struct lock_calls_seen *seen);
bool lock_calls_sees(const struct lock_calls_seen *seen, const char *function);
const char *lock_calls_word(enum lock_calls way);

#endif
