// SPDX-License-Identifier: GPL-2.0-only
/* What vmload was asked to do, shared by its two parts: the options and the work. */
#ifndef ANONVMA_VMLOAD_H
#define ANONVMA_VMLOAD_H

#include <sched.h>
#include <stdbool.h>

/* Who accesses a page first, and so in which mode the fault is taken. */
enum toucher { TOUCH_AS_USEMEM, TOUCH_USER, TOUCH_KERNEL };

struct options {
	unsigned long bytes;		/* a task's share, as in usemem */
	unsigned long unit;		/* bytes a mapping */
	unsigned long step;		/* bytes from one access to the next */
	unsigned long offset, delay_ns;
	unsigned long processes, threads;	/* threads == 0: the process is the task */
	unsigned long repeat, bind, sleep_secs, runtime_secs, seed;
	enum toucher touch;
	bool some_cpus;			/* only those in @cpus */
	cpu_set_t cpus;
	const char *file;
	int map_flags, msync_flags;
	bool readonly, open_rw, random, prealloc, use_malloc, mlock, read_again, sync_rw, hold;
};

extern struct options opt;
extern const char sparse_file[];	/* opt.file is this very pointer: make one */

void parse_options(int argc, char **argv);

/* One sentence on stderr, then the end of this process with exit code @code. */
void fail(int code, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));

#endif /* ANONVMA_VMLOAD_H */
