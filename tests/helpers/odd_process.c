// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes of the kinds a census might get wrong. Prints its pid when ready
 * and sleeps until killed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ready(void)
{
	printf("%d\n", getpid());
	fflush(stdout);
}

static int child(void *arg)
{
	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pause();
}

/* Two processes, one mm: CLONE_VM without CLONE_THREAD. */
static void share_mm(void)
{
	static char stack[65536];
	int pid = clone(child, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);

	printf("%d\n", pid);
	ready();
}

static void *stay(void *arg)
{
	(void)arg;
	usleep(100000);		/* let the leader go first */
	ready();
	pause();
	return NULL;
}

static void leader_exits(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, stay, NULL);
	syscall(SYS_exit, 0);
}

/* N mappings: neighbours differ in protection, or they would merge. */
static void many(long n)
{
	long page = sysconf(_SC_PAGESIZE), i;
	char *area = mmap(NULL, n * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (i = 0; i < n; i += 2)
		if (area == MAP_FAILED || mprotect(area + i * page, page, PROT_READ | PROT_WRITE)) {
			perror("odd_process: many");
			exit(1);
		}
	ready();
}

/* Maps every file named. */
static void map_files(char **names)
{
	for (; *names; names++) {
		int fd = open(*names, O_RDONLY);

		if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED) {
			perror("odd_process: files");
			exit(1);
		}
		close(fd);
	}
	ready();
}

/* Never the same twice: mprotect() splits and joins without end. */
static void churn(long n)
{
	long page = sysconf(_SC_PAGESIZE), i;
	char *area = mmap(NULL, n * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (i = 0; i < n; i += 2)
		mprotect(area + i * page, page, PROT_READ | PROT_WRITE);
	ready();
	for (;;) {
		mprotect(area, page, PROT_READ);
		mprotect(area, page, PROT_READ | PROT_WRITE);
	}
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(kind, "shared-mm"))
		share_mm();
	else if (!strcmp(kind, "leader-exits"))
		leader_exits();
	else if (!strcmp(kind, "many"))
		many(atol(argv[2]));
	else if (!strcmp(kind, "churn"))
		churn(atol(argv[2]));
	else if (!strcmp(kind, "files"))
		map_files(argv + 2);
	else if (!strcmp(kind, "named") && !prctl(PR_SET_NAME, argv[2]))
		ready();
	else
		return 2;
	for (;;)
		pause();
}
