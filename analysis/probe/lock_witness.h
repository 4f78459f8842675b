/* SPDX-License-Identifier: GPL-2.0-only */
/* A second count of the acquisitions of mmap_lock, by the kernel. */
#ifndef LOCK_WITNESS_H
#define LOCK_WITNESS_H

#include <stdbool.h>
#include <stddef.h>

struct lock_witness;
struct lock_testimony;

/* Begins to count; NULL, and why, where that cannot be had. */
struct lock_witness *lock_witness_begin(char *why, size_t size);
/* What it counted of the tasks in a map of tallies, beside those. */
bool lock_witness_hear(const struct lock_witness *witness, int tallies, struct lock_testimony *found);
void lock_witness_end(struct lock_witness *witness);

#endif
