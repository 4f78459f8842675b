// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads memory in one of several ways, for tests of what a change comes from:
 *
 *   whole N     N private mappings of /dev/zero of ten pages, each read and unmapped
 *   by-page N   the same, but each unmapped page by page: ten calls in place of one
 *   small N     N regions of 2 MB of anonymous memory, written in pages of 4 kB
 *   huge N      the same with MADV_HUGEPAGE
 *
 * and says how fast, as usemem does.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "../../analysis/workload/window.h"

#define PAGES 10
#define HUGE (2UL << 20)

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void read_and_unmap(int zero, size_t page, int by_page)
{
	size_t bytes = PAGES * page, step = by_page ? page : bytes;
	volatile char *map = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, zero, 0);

	if (map == MAP_FAILED)
		fail("mmap");
	for (size_t at = 0; at < bytes; at += page)
		(void)map[at];
	for (size_t at = 0; at < bytes; at += step)
		if (munmap((char *)map + at, step))
			fail("munmap");
}

static void write_region(size_t page, int huge)
{
	size_t span = 2 * HUGE;
	char *map = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start = (char *)(((unsigned long)map + HUGE - 1) & ~(HUGE - 1));

	if (map == MAP_FAILED)
		fail("mmap");
	if (madvise(start, HUGE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		fail("madvise");
	for (size_t at = 0; at < HUGE; at += page)
		start[at] = 1;
}

int main(int argc, char **argv)
{
	size_t page = sysconf(_SC_PAGESIZE), bytes = 0;
	struct timespec begin, end;
	int count, zero;
	long usecs;

	if (argc != 3 || (count = atoi(argv[2])) < 1)
		return 2;
	zero = open("/dev/zero", O_RDONLY);
	if (zero < 0)
		fail("/dev/zero");
	clock_gettime(CLOCK_MONOTONIC, &begin);
	syscall(CLOCK_STARTS);
	syscall(WINDOW_BEGINS);
	for (int i = 0; i < count; i++) {
		if (!strcmp(argv[1], "whole") || !strcmp(argv[1], "by-page")) {
			read_and_unmap(zero, page, argv[1][0] == 'b');
			bytes += PAGES * page;
		} else {
			write_region(page, argv[1][0] == 'h');
			bytes += HUGE;
		}
	}
	syscall(WINDOW_ENDS);
	clock_gettime(CLOCK_MONOTONIC, &end);
	usecs = (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000 + 1;
	printf("%zu bytes / %ld usecs = %zu KB/s\n", bytes, usecs,
	       (size_t)(bytes * 1000000.0 / 1024 / usecs));
	return 0;
}
