/* SPDX-License-Identifier: GPL-2.0-only */
/* A census, as those see it who ask for one. */
#ifndef TAKE_CENSUS_H
#define TAKE_CENSUS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

struct census;

struct census_options {
	const char *output;		/* NULL: standard output */
	int pages_how;
	bool no_chains;
};

int census_open(struct census **census, const struct census_options *options);
/* Every mm, or those of the thread groups named. */
int census_take(struct census *census, const __u32 *tgids, size_t count);
__u32 census_missing(const struct census *census, const __u32 *tgids, size_t count);
/* The mm of one task that stops in its exit, unless another task not yet EXITED still uses it. */
int census_take_exiting(struct census *census, __u32 tid, bool (*exited)(__u32 tid));
/* Writes the file; without this, census_close() leaves none. */
void census_went_on(struct census *census, __u32 processes);
int census_commit(struct census *census);
void census_close(struct census *census);

#endif
