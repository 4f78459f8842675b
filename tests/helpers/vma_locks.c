// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests of who waits for a VMA's lock.
 *
 *	vma_locks overlap KIND COUNT MEGABYTES
 *		One thread holds the lock of a VMA for reading, while another changes its protection,
 *		and that of its neighbour, until it has waited so often. Says where the two begin, how
 *		many calls of mprotect(2) there were for each, and how many of either's gave up the
 *		processor. The lock is held
 *		prepared	filling private anonymous memory by UFFDIO_ZEROPAGE
 *		file		filling a memfd likewise, which is mapped shared
 *		bare		unmapping zero pages by MADV_DONTNEED (6.17), and all of it once more,
 *				with a line of its own, when the VMA has been written to
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
#include <stdbool.h>
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
	int fd;				/* of userfaultfd(2), -1: pages are unmapped */
	char *area;
	size_t size;
	atomic_int turn;		/* 0: nobody's, 1: the reader's */
} shared;

static void *read_lock(void *arg)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)shared.area, shared.size } };

	for (;;) {
		while (!atomic_load(&shared.turn))
			sched_yield();
		zero.zeropage = 0;
		if (shared.fd < 0 ? madvise(shared.area, shared.size, MADV_DONTNEED) :
				    ioctl(shared.fd, UFFDIO_ZEROPAGE, &zero))
			fail("the reader");
		atomic_store(&shared.turn, 0);
	}
	return arg;
}

static void take_faults(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register whole = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	shared.fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (shared.fd < 0 || ioctl(shared.fd, UFFDIO_API, &api))
		fail("userfaultfd");
	whole.range.start = (uintptr_t)shared.area;
	whole.range.len = shared.size;
	if (ioctl(shared.fd, UFFDIO_REGISTER, &whole))
		fail("UFFDIO_REGISTER");
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

/* What the reader works on is there, or not, when its turn comes. */
static void ready(int file)
{
	if (shared.fd < 0)
		for (size_t at = 0; at < shared.size; at += PAGE)
			(void)*(volatile char *)(shared.area + at);
	else if (file < 0 ? madvise(shared.area, shared.size, MADV_DONTNEED) :
			    fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, shared.size))
		fail("emptying it");
}

static void overlaps(int pagemap, int file, int count)
{
	char *beside = shared.area + shared.size;
	int calls, waited = 0, neighbour = 0;

	/* On a busy machine the reader may be done before. */
	for (calls = 0; waited < count; calls++) {
		int prot = calls % 2 ? PROT_READ | PROT_WRITE : PROT_READ;

		atomic_store(&shared.turn, 1);
		while (is_present(pagemap, shared.area + 64 * PAGE) == (shared.fd < 0))
			;
		waited += waits(shared.area, shared.size, prot);
		neighbour += waits(beside, 2 * PAGE, prot);
		while (atomic_load(&shared.turn))
			sched_yield();
		ready(file);
	}
	printf("%lu %lu %d %d %d\n", (uintptr_t)shared.area, (uintptr_t)beside, calls, waited,
	       neighbour);
}

static void overlap(const char *kind, int count, size_t size)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int file = !strcmp(kind, "file") ? memfd_create("overlap", 0) : -1;
	bool bare = !strcmp(kind, "bare");
	pthread_t reader;

	shared.area = map(NULL, size + 2 * PAGE);
	shared.size = size;
	shared.fd = -1;
	if (file >= 0 && (ftruncate(file, size) ||
			  mmap(shared.area, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			       file, 0) == MAP_FAILED))
		fail("memfd");
	if (madvise(shared.area, size, MADV_NOHUGEPAGE))
		fail("MADV_NOHUGEPAGE");
	if (!bare)
		take_faults();
	ready(file);
	if (pthread_create(&reader, NULL, read_lock, NULL))
		fail("pthread_create");
	overlaps(pagemap, file, count);
	if (!bare)
		return;
	mprotect(shared.area, size, PROT_READ | PROT_WRITE);
	*shared.area = 1;
	overlaps(pagemap, -1, count);
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
	if (argc == 5 && !strcmp(argv[1], "overlap"))
		overlap(argv[2], atoi(argv[3]), strtoul(argv[4], NULL, 10) << 20);
	else if (argc == 5 && !strcmp(argv[1], "forks"))
		forks(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	else
		return 2;
	return 0;
}
