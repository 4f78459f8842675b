/* SPDX-License-Identifier: GPL-2.0-only */
/* What an operation meets: a VMA that is bare, or one like it in all but that. */
#ifndef CONSEQUENCES_H
#define CONSEQUENCES_H

#include <stdbool.h>
#include <stddef.h>

struct trial {
	char *at;			/* the VMA, PAGES long; what is looked up afterwards */
	size_t page, length;
	bool bare;
	int file;			/* what setup() opened and finish() closes, or -1 */
	int error;			/* errno of the operation, 0 if it succeeded */
	long child_faults;		/* of the child that fork() made; -1 otherwise */
	long dumped;			/* bytes of it in a core dump; -1 otherwise */
	size_t skip_from, skip_to;	/* pages that cannot be touched afterwards */
};

enum contents { ZERO_PAGES, NOTHING };

struct operation {
	const char *name;
	enum contents contents;
	int (*setup)(struct trial *trial);	/* 0, or -1 and errno: the kernel cannot */
	int (*run)(struct trial *trial);	/* what is timed */
	void (*finish)(struct trial *trial);
	bool once, huge;
};

#define PAGES		16
#define HUGE_SIZE	(2UL << 20)

extern const struct operation operations[];
extern const size_t nr_operations;

#endif
