// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests of who waits for a VMA's lock.
 *
 *	vma_locks overlap COUNT MEGABYTES
 *		One thread holds the lock of a VMA for reading, filling it by UFFDIO_ZEROPAGE, while
 *		another changes its protection, and that of its neighbour, until the former has waited
 *		so often. Says where the two begin, how many calls of mprotect(2) there were for each,
 *		and how many of either's gave up the processor.
 *	vma_locks forks COUNT BARE WRITTEN
 *		So many forks of a process with so many bare VMAs, and VMAs that have been written to,
 *		of a page each. Each child touches all of them. Says how many VMAs there are by
 *		/proc/self/maps, and how many faults the children were charged for.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

static void *map(void *at, size_t size)
{
	void *area = mmap(at, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0), -1, 0);

	if (area == MAP_FAILED)
		fail("mmap");
	return area;
}

/* ---- overlaps ---- */

static struct {
	int fd;
	char *area;
	size_t size;
	atomic_int turn;		/* 0: nobody's, 1: the filler's */
} shared;

static void *fill(void *arg)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)shared.area, shared.size } };

	for (;;) {
		while (!atomic_load(&shared.turn))
			sched_yield();
		zero.zeropage = 0;
		if (ioctl(shared.fd, UFFDIO_ZEROPAGE, &zero))
			fail("UFFDIO_ZEROPAGE");
		atomic_store(&shared.turn, 0);
	}
	return arg;
}

static int is_present(int pagemap, const char *at)
{
	uint64_t entry = 0;

	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)at / PAGE * sizeof(entry)) < 0)
		fail("pagemap");
	return entry >> 63;
}

/* Whether changing the protection gave up the processor. */
static int waits(char *at, size_t size, int prot)
{
	struct rusage before, after;

	getrusage(RUSAGE_THREAD, &before);
	if (mprotect(at, size, prot))
		fail("mprotect");
	getrusage(RUSAGE_THREAD, &after);
	return after.ru_nvcsw != before.ru_nvcsw;
}

static void overlap(int count, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register whole = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int pagemap = open("/proc/self/pagemap", O_RDONLY), calls, waited = 0, neighbour = 0;
	char *room = map(NULL, size + 2 * PAGE);
	pthread_t filler;

	shared.area = room;
	shared.size = size;
	shared.fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (shared.fd < 0 || ioctl(shared.fd, UFFDIO_API, &api))
		fail("userfaultfd");
	whole.range.start = (uintptr_t)room;
	whole.range.len = size;
	if (ioctl(shared.fd, UFFDIO_REGISTER, &whole))
		fail("UFFDIO_REGISTER");
	if (madvise(room, size, MADV_NOHUGEPAGE) || pthread_create(&filler, NULL, fill, NULL))
		fail("pthread_create");
	/* On a busy machine the filler may be done before. */
	for (calls = 0; waited < count; calls++) {
		int prot = calls % 2 ? PROT_READ | PROT_WRITE : PROT_READ;

		atomic_store(&shared.turn, 1);
		while (!is_present(pagemap, room + 64 * PAGE))
			;
		waited += waits(room, size, prot);
		neighbour += waits(room + size, 2 * PAGE, prot);
		while (atomic_load(&shared.turn))
			sched_yield();
		madvise(room, size, MADV_DONTNEED);
	}
	printf("%lu %lu %d %d %d\n", (uintptr_t)room, (uintptr_t)room + size, calls, waited, neighbour);
}

/* ---- forks ---- */

static int count_vmas(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	static char line[8192];
	int count = 0;

	while (maps && fgets(line, sizeof(line), maps))
		count += !strstr(line, "[vsyscall]");
	if (maps)
		fclose(maps);
	return count;
}

static void forks(int count, int bare, int written)
{
	int areas = bare + written, status;
	char *room = map(NULL, 2 * areas * PAGE);
	struct rusage used;
	long faults = 0;

	for (int i = 0; i < areas; i++) {
		volatile char *page = room + 2 * i * PAGE;

		if (munmap((void *)(page + PAGE), PAGE))
			fail("munmap");
		if (i < bare)
			(void)*page;
		else
			*page = 1;
	}
	printf("%d ", count_vmas());
	fflush(stdout);
	for (int n = 0; n < count; n++) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		for (int i = 0; !child && i < areas; i++)
			(void)*(volatile char *)(room + 2 * i * PAGE);
		if (!child)
			_exit(0);
		if (wait4(child, &status, 0, &used) < 0)
			fail("wait4");
		faults += used.ru_minflt + used.ru_majflt;
	}
	printf("%ld\n", faults);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "overlap"))
		overlap(atoi(argv[2]), strtoul(argv[3], NULL, 10) << 20);
	else if (argc == 5 && !strcmp(argv[1], "forks"))
		forks(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	else
		return 2;
	return 0;
}
