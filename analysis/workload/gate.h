// SPDX-License-Identifier: GPL-2.0-only
/*
 * A gate: many tasks arrive and wait, one keeper sees them arrive and opens it for all of them at
 * once. vmload starts its tasks at one gate and holds them at another; specimens holds its children
 * at one. A gate is two pipes. Whoever waits is also released when the keeper dies, because the
 * kernel then closes the writing end of the second pipe.
 */
#ifndef ANONVMA_GATE_H
#define ANONVMA_GATE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

struct gate {
	int arrived[2];
	int open[2];
};

static inline int gate_init(struct gate *gate)
{
	return pipe2(gate->arrived, O_CLOEXEC) ? -1 : pipe2(gate->open, O_CLOEXEC);
}

/* In a new process: let go of the keeper's ends, so that the keeper alone holds the gate shut. */
static inline void gate_visitor(struct gate *gate)
{
	close(gate->arrived[0]);
	close(gate->open[1]);
}

/* Arrive, and wait until the gate opens. */
static inline void gate_pass(struct gate *gate)
{
	char byte = 0;

	while (write(gate->arrived[1], &byte, 1) < 0 && errno == EINTR)
		;
	while (read(gate->open[0], &byte, 1) < 0 && errno == EINTR)
		;
}

static inline void gate_open(struct gate *gate)
{
	close(gate->open[1]);
}

/* Nothing of ours outlives the process that started it, however that one ended. */
static inline void die_with_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)	/* it was already gone when we asked */
		_exit(1);
}

/* A standard stream that was closed must not become one of our pipes: /dev/null takes its place. */
static inline void fill_standard_streams(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Hold still until stdin gives a line or ends. */
static inline void wait_for_release(void)
{
	char byte;
	ssize_t got;

	do {
		got = read(STDIN_FILENO, &byte, 1);
	} while ((got == 1 && byte != '\n') || (got < 0 && errno == EINTR));
}

#endif /* ANONVMA_GATE_H */
