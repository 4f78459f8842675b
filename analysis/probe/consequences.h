/* SPDX-License-Identifier: GPL-2.0-only */
/* What an operation meets: a VMA that is bare, or one like it in all but that. */
#ifndef CONSEQUENCES_H
#define CONSEQUENCES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct trial {
	char *at;			/* the VMA, PAGES long; what is looked up afterwards */
	size_t page, length;
	bool bare;
	int file;			/* what setup() opened and finish() closes, or -1 */
	int error;			/* errno of the operation, 0 if it succeeded */
	const char *lacks;		/* what there has to be for it, where errno would not say */
	pid_t child;			/* that setup() made and finish() waits for, or 0 */
	long child_faults;		/* of the child that fork() made; -1 otherwise */
	long dumped;			/* bytes of it in a core dump; -1 otherwise */
	long pages;			/* of it swapped out, or merged by KSM; -1 otherwise */
	size_t skip_from, skip_to;	/* pages that cannot be touched afterwards */
};

/* WRITTEN: the one that is not bare has pages of its own, as a bare one cannot. */
enum contents { ZERO_PAGES, NOTHING, WRITTEN };

struct operation {
	const char *name;
	enum contents contents;
	int (*setup)(struct trial *trial);	/* 0, or -1 and errno or what it lacks */
	int (*run)(struct trial *trial);	/* what is timed */
	void (*finish)(struct trial *trial);
	int trials;			/* 0: as many as usual */
	bool huge;
};

#define PAGES		16
#define HUGE_SIZE	(2UL << 20)

extern const struct operation operations[];
extern const size_t nr_operations;

/* reclaim.c */
extern bool may_start_ksmd;		/* which merges pages of other processes, too */

int needs_swap(struct trial *trial);
int swap_out(struct trial *trial);
void count_swapped(struct trial *trial);
int needs_ksmd(struct trial *trial);
int merge_by_ksm(struct trial *trial);
void count_merged(struct trial *trial);

#endif
