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

/* As tracer_load(); WAY becomes the one that served, WHY says why none did, or is empty. */
int lock_calls_load(struct tracer *tracer, enum lock_calls *way, char *why, size_t size);
bool lock_calls_seen(enum lock_calls way, const char *function);
const char *lock_calls_word(enum lock_calls way);

#endif
