// SPDX-License-Identifier: GPL-2.0-only
/*
 * fork_tree SHAPE: processes of a known shape, each with a page of its own at the same address,
 * which was written before every fork. Each prints its pid once it stays; all end with stdin.
 *
 *	chain		a parent, a child, a grandchild and so on: four processes
 *	star		a parent with four children
 *	binary		a parent, two children, four grandchildren
 *	exec		a parent, and a child that has exec'ed
 *	reparented	a parent and a grandchild whose own parent is gone
 *	reused		the same, and a child of that grandchild
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "../../analysis/workload/gate.h"

#define PLACE	((char *)0x7e0000000000)

static struct gate gate;

/* Says that this process is part of the tree, and stays until the gate opens. */
static void __attribute__((noreturn)) stay(void)
{
	char line[16];
	int length = snprintf(line, sizeof(line), "%d\n", getpid());

	if (write(STDOUT_FILENO, line, length) != length)
		_exit(1);
	gate_pass(&gate);
	_exit(0);
}

/* True in a new child, which has written to its page as its parent had. */
static bool forked(void)
{
	pid_t child = fork();

	if (child < 0)
		_exit(1);
	if (child)
		return false;
	close(gate.open[1]);
	*PLACE = 2;
	return true;
}

static void chain(int forks)
{
	if (forks && forked()) {
		chain(forks - 1);
		stay();
	}
}

static void tree(int depth, int children)
{
	for (int i = 0; depth && i < children; i++) {
		if (forked()) {
			tree(depth - 1, children);
			stay();
		}
	}
}

static void exec(void)
{
	char place[16];

	if (!forked())
		return;
	snprintf(place, sizeof(place), "%d", gate.open[0]);
	fcntl(gate.open[0], F_SETFD, 0);
	execl("/proc/self/exe", "fork_tree", "exec'ed", place, NULL);
	_exit(1);
}

static void reparented(bool forks_again)
{
	pid_t middle;

	if (!forked())
		return;
	middle = getpid();
	if (!forked())
		_exit(0);
	while (getppid() == middle)
		usleep(1000);
	if (forks_again)
		chain(1);
	stay();
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		gate.arrived[1] = STDERR_FILENO;
		gate.open[0] = atoi(argv[2]);
		stay();
	}
	if (argc != 2 || gate_init(&gate) ||
	    mmap(PLACE, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != PLACE)
		return 2;
	*PLACE = 1;
	switch (argv[1][0]) {
	case 'c': chain(3); break;
	case 's': tree(1, 4); break;
	case 'b': tree(2, 2); break;
	case 'e': exec(); break;
	case 'r': reparented(!strcmp(argv[1], "reused")); break;
	}
	printf("%d\n", getpid());
	fflush(stdout);
	wait_for_release();
	return 0;
}
