// SPDX-License-Identifier: GPL-2.0-only
/*
 * A second count of who acquired mmap_lock, that has nothing of ours in it: a histogram of
 * the same tracepoint (Documentation/trace/histogram.rst), in a trace instance of its own.
 *
 * The instance is removed whatever becomes of the probe: a process that does nothing else
 * waits for its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include "lock_witness.h"
#include "locks.h"
#include "output.h"
#include "tracefs.h"

#define EVENT	"events/mmap_lock/mmap_lock_acquire_returned/"
#define HIST	"hist:keys=common_pid,write:size=65536 if success == 1"

struct lock_witness {
	int tracefs, keeper_pipe;
	pid_t keeper;
	char name[64];			/* of the instance, below tracefs */
};

static int open_in(const struct lock_witness *witness, const char *file, int flags)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/" EVENT "%s", witness->name, file);
	return openat(witness->tracefs, path, flags | O_CLOEXEC);
}

static bool set_trigger(const struct lock_witness *witness, const char *text)
{
	int fd = open_in(witness, "trigger", O_WRONLY);
	bool ok = fd >= 0 && write_all(fd, text, strlen(text));
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return ok;
}

static void remove_instance(const struct lock_witness *witness)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };

	set_trigger(witness, "!" HIST);
	/* While the probe, killed, still has a file of it open, it is busy. */
	for (int i = 0; i < 500 && unlinkat(witness->tracefs, witness->name, AT_REMOVEDIR) &&
			errno == EBUSY; i++)
		nanosleep(&pause, NULL);
}

/* Lives until the probe lets go of the other end of a pipe, or dies. */
static bool start_keeper(struct lock_witness *witness)
{
	int ends[2];
	char byte;

	if (pipe2(ends, O_CLOEXEC))
		return false;
	witness->keeper = fork();
	if (!witness->keeper) {
		setsid();
		for (int number = 1; number < NSIG; number++)
			signal(number, SIG_IGN);
		close(ends[1]);
		while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
			;
		remove_instance(witness);
		_exit(0);
	}
	close(ends[0]);
	witness->keeper_pipe = ends[1];
	if (witness->keeper > 0)
		return true;
	close(ends[1]);
	return false;
}

void lock_witness_end(struct lock_witness *witness)
{
	if (!witness)
		return;
	if (witness->keeper > 0) {
		close(witness->keeper_pipe);
		while (waitpid(witness->keeper, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (witness->tracefs >= 0)
		close(witness->tracefs);
	free(witness);
}

struct lock_witness *lock_witness_begin(char *why, size_t size)
{
	struct lock_witness *witness = calloc(1, sizeof(*witness));
	const char *step = "tracefs";

	if (!witness)
		return NULL;
	snprintf(witness->name, sizeof(witness->name), "instances/anonvma-%d", getpid());
	witness->tracefs = tracefs_open();
	if (witness->tracefs >= 0) {
		step = "an instance in tracefs";
		if (!mkdirat(witness->tracefs, witness->name, 0700) && start_keeper(witness)) {
			step = "a trigger of type hist (CONFIG_HIST_TRIGGERS)";
			if (set_trigger(witness, HIST))
				return witness;
		}
	}
	snprintf(why, size, "%s: %s", step, strerror(errno));
	lock_witness_end(witness);
	return NULL;
}

/* ---- what it saw ---- */

static void add_line(const char *line, int tallies, struct lock_testimony *found)
{
	struct lock_tally tally;
	unsigned int pid, write;
	unsigned long long count;

	if (sscanf(line, " Dropped: %llu", &count) == 1)
		found->dropped += count;
	if (sscanf(line, " { common_pid: %u, write: %u } hitcount: %llu", &pid, &write, &count) != 3)
		return;
	if (bpf_map_lookup_elem(tallies, &pid, &tally) || tally.alive)
		return;			/* it is not traced, or goes on */
	*(write ? &found->write : &found->read) += count;
}

static void add_tallies(int tallies, struct lock_testimony *found)
{
	__u32 pid, *previous = NULL;
	struct lock_tally tally;

	while (!bpf_map_get_next_key(tallies, previous, &pid)) {
		previous = &pid;
		if (bpf_map_lookup_elem(tallies, &pid, &tally))
			continue;
		found->left_out += tally.alive;
		if (tally.alive)
			continue;
		found->tasks++;
		found->traced_read += tally.read;
		found->traced_write += tally.write;
	}
}

bool lock_witness_hear(const struct lock_witness *witness, int tallies, struct lock_testimony *found)
{
	char path[160], *text, *rest = NULL;

	snprintf(path, sizeof(path), "%s/" EVENT "hist", witness->name);
	text = read_file_at(witness->tracefs, path);
	if (!text)
		return false;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		add_line(line, tallies, found);
	add_tallies(tallies, found);
	free(text);
	return true;
}
