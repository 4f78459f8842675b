// SPDX-License-Identifier: GPL-2.0-only
/*
 * The bare read that the census is measured against: every VMA of a process out
 * of the task_vma iterator, into a buffer, thrown away.
 *
 *	bare_iterator OBJECT PID [pages]
 *
 * With "pages" also what is in the VMAs, in one walk of ioctl(PAGEMAP_SCAN) over
 * all of them, thrown away likewise: the least that takes what a census takes.
 *
 * Prints one JSON object: how many VMAs, and the seconds and CPU seconds of the
 * read alone, without the loading of the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "../../analysis/probe/pagemap_scan.h"

static char buffer[256 * 1024];		/* as vmaprobe's; the kernel fills 32 KiB at a time */

static int fail(const char *what, int error)
{
	fprintf(stderr, "bare_iterator: %s: %s\n", what, strerror(error));
	return 1;
}

static double clock_seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/*
 * Limited by task.pid, the thread group, as vmaprobe is. Limited by task.tid,
 * Linux 6.18 starts again from the first VMA after the last, without end.
 */
static int open_iterator(const char *object_file, int pid)
{
	union bpf_iter_link_info info = { .task.pid = pid };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_object *object = bpf_object__open_file(object_file, NULL);
	struct bpf_program *program;
	struct bpf_link *link;

	if (!object || bpf_object__load(object))
		return -errno;
	program = bpf_object__find_program_by_name(object, "bare_read");
	link = bpf_program__attach_iter(program, &opts);
	if (!link)
		return -errno;
	return bpf_iter_create(bpf_link__fd(link));
}

#define ADDRESSES_END	0x7ffffffff000ULL	/* of user space with four levels of page tables */

static bool walk_pages(const char *pid)
{
	static struct scan_region regions[512];	/* as vmaprobe's */
	struct scan_arg arg = { .size = sizeof(arg), .walk_end = 0, .end = ADDRESSES_END };
	char path[64];
	long found;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	arg.vec = (uintptr_t)regions;
	arg.vec_len = sizeof(regions) / sizeof(regions[0]);
	arg.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED;
	arg.return_mask = arg.category_anyof_mask | SCAN_ZERO | SCAN_HUGE;
	do {
		arg.start = arg.walk_end;
		found = ioctl(fd, SCAN_IOCTL, &arg);
	} while (found >= 0 && arg.walk_end < ADDRESSES_END && arg.walk_end > arg.start);
	close(fd);
	return found >= 0;
}

static ssize_t read_to_the_end(int fd)
{
	ssize_t got, total = 0;

	do {
		got = read(fd, buffer, sizeof(buffer));
		if (got > 0)
			total += got;
	} while (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)));
	return got < 0 ? got : total;
}

int main(int argc, char **argv)
{
	double start, cpu;
	ssize_t total;
	int fd;

	if (argc != 3 && (argc != 4 || strcmp(argv[3], "pages")))
		return fail("usage: bare_iterator OBJECT PID [pages]", EINVAL);
	fd = open_iterator(argv[1], atoi(argv[2]));
	if (fd < 0)
		return fail("loading the program", -fd);
	start = clock_seconds(CLOCK_MONOTONIC);
	cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
	total = read_to_the_end(fd);
	if (total < 0)
		return fail("reading the iterator", errno);
	if (argc == 4 && !walk_pages(argv[2]))
		return fail("walking the pages", errno);
	printf("{\"vmas\": %zd, \"seconds\": %.6f, \"cpu_s\": %.6f}\n", total / RECORD_SIZE,
	       clock_seconds(CLOCK_MONOTONIC) - start,
	       clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
	return 0;
}
