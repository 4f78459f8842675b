/* SPDX-License-Identifier: GPL-2.0-only */
/* Whether the kernel can be preempted. */
#ifndef PREEMPTION_H
#define PREEMPTION_H

#include <stddef.h>

enum preemption {
	NOT_PREEMPTIBLE,
	PREEMPTIBLE,
	PREEMPTION_UNKNOWN,
};

/* The model in the kernel's own word: none, voluntary, full, lazy, rt; "unknown". */
enum preemption preemption_model(char *model, size_t size);

#endif
