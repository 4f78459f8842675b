// SPDX-License-Identifier: GPL-2.0-only
/* The operations that ask of a VMA whether it has an anon_vma. To add one, add a row. */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "consequences.h"

/* Newer than the headers that this may be built with. */
#define GUARD_INSTALL	102		/* 6.13 */
#define COLLAPSE	25		/* 6.1 */
#define POPULATE_READ	22		/* 5.14 */
#define POPULATE_WRITE	23

#define AWAY		HUGE_SIZE	/* where a VMA is moved to, from its place */
#define QUARTER		(trial->length / 4)

struct move {				/* struct uffdio_move, 6.8 */
	unsigned long long dst, src, len, mode;
	long long move;
};

#define MOVE_PAGES	_IOWR(UFFDIO, 0x05, struct move)

static void skip_second_quarter(struct trial *trial)
{
	trial->skip_from = PAGES / 4;
	trial->skip_to = PAGES / 2;
}

static int guard(struct trial *trial)
{
	skip_second_quarter(trial);
	return madvise(trial->at + QUARTER, QUARTER, GUARD_INSTALL);
}

static int dontneed(struct trial *trial) { return madvise(trial->at, trial->length, MADV_DONTNEED); }
static int lazily_free(struct trial *trial) { return madvise(trial->at, trial->length, MADV_FREE); }
static int mergeable(struct trial *trial) { return madvise(trial->at, trial->length, MADV_MERGEABLE); }

static int populate_read(struct trial *trial)
{
	return madvise(trial->at, trial->length, POPULATE_READ);
}

static int populate_write(struct trial *trial)
{
	return madvise(trial->at, trial->length, POPULATE_WRITE);
}

static int may_be_huge(struct trial *trial)
{
	return madvise(trial->at, trial->length, MADV_HUGEPAGE);
}

static int collapse(struct trial *trial) { return madvise(trial->at, trial->length, COLLAPSE); }

static int protect_quarter(struct trial *trial)
{
	return mprotect(trial->at + QUARTER, QUARTER, PROT_READ);
}

static int unprotect_quarter(struct trial *trial)
{
	return mprotect(trial->at + QUARTER, QUARTER, PROT_READ | PROT_WRITE);
}

static int grow(struct trial *trial)
{
	return mremap(trial->at, trial->length, trial->length + QUARTER, 0) == MAP_FAILED ? -1 : 0;
}

static int move(struct trial *trial)
{
	char *to = trial->at + AWAY;

	if (mremap(trial->at, trial->length, trial->length, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return -1;
	trial->at = to;
	return 0;
}

static int move_and_keep(struct trial *trial)
{
	char *to = trial->at + AWAY;

	return mremap(trial->at, trial->length, trial->length, MREMAP_MAYMOVE | MREMAP_FIXED |
		      MREMAP_DONTUNMAP, to) == to ? 0 : -1;
}

static int unmap_quarter(struct trial *trial)
{
	skip_second_quarter(trial);
	return munmap(trial->at + QUARTER, QUARTER);
}

static int lock(struct trial *trial) { return mlock(trial->at, trial->length); }

/* ---- fork, and reading what was read before ---- */

static long own_faults(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return used.ru_minflt + used.ru_majflt;
}

static int fork_and_read(struct trial *trial)
{
	int result[2];
	long before;
	pid_t child;

	if (pipe2(result, O_CLOEXEC))
		return -1;
	child = fork();
	if (!child) {
		before = own_faults();
		for (size_t i = 0; i < trial->length; i += trial->page)
			*(volatile char *)(trial->at + i);
		before = own_faults() - before;
		_exit(write(result[1], &before, sizeof(before)) != sizeof(before));
	}
	close(result[1]);
	trial->file = result[0];
	return child < 0 ? -1 : 0;
}

static void reap(struct trial *trial)
{
	if (read(trial->file, &trial->child_faults, sizeof(long)) != sizeof(long))
		trial->child_faults = -1;
	while (wait(NULL) < 0 && errno == EINTR)
		;
}

/* ---- userfaultfd ---- */

static int watch(struct trial *trial)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (unsigned long)trial->at, trial->length },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };

	trial->file = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (trial->file < 0 || ioctl(trial->file, UFFDIO_API, &api))
		return -1;
	return ioctl(trial->file, UFFDIO_REGISTER, &range);
}

static char *page_of_own(size_t size)
{
	static char *page;

	if (!page)
		page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(page, 1, size);
	return page;
}

static int watch_and_have_page(struct trial *trial)
{
	page_of_own(trial->page);
	return watch(trial);
}

static int fill_copy(struct trial *trial)
{
	struct uffdio_copy copy = { .dst = (unsigned long)trial->at, .len = trial->page,
				    .src = (unsigned long)page_of_own(trial->page) };

	return ioctl(trial->file, UFFDIO_COPY, &copy);
}

static int fill_zero(struct trial *trial)
{
	struct uffdio_zeropage zero = { .range = { (unsigned long)trial->at, trial->page } };

	return ioctl(trial->file, UFFDIO_ZEROPAGE, &zero);
}

static int fill_move(struct trial *trial)
{
	struct move move = { .dst = (unsigned long)trial->at, .len = trial->page,
			     .src = (unsigned long)page_of_own(trial->page) };

	return ioctl(trial->file, MOVE_PAGES, &move);
}

/* ---- core dump ---- */

/* How many bytes of the VMA's memory a core file has. */
static long bytes_in_core(const char *path, char *at)
{
	FILE *file = fopen(path, "re");
	Elf64_Phdr segment;
	Elf64_Ehdr header;
	long found = -1;

	if (file && fread(&header, sizeof(header), 1, file) == 1 &&
	    !fseek(file, header.e_phoff, SEEK_SET))
		while (header.e_phnum-- && fread(&segment, sizeof(segment), 1, file) == 1)
			if (segment.p_type == PT_LOAD && segment.p_vaddr == (unsigned long)at)
				found = segment.p_filesz;
	if (file)
		fclose(file);
	return found;
}

static int core_is_a_file(struct trial *trial)
{
	char pattern[128] = "|";
	int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);

	(void)trial;
	if (fd < 0 || read(fd, pattern, sizeof(pattern) - 1) <= 0 || strpbrk(pattern, "|/@"))
		errno = EOPNOTSUPP;
	else
		errno = 0;
	if (fd >= 0)
		close(fd);
	return errno ? -1 : 0;
}

static int dump_core(struct trial *trial)
{
	const struct rlimit any = { RLIM_INFINITY, RLIM_INFINITY };
	char place[] = "/tmp/anonvma-core-XXXXXX", path[sizeof(place) + 260];
	struct dirent *entry;
	DIR *directory;
	pid_t child;

	if (!mkdtemp(place) && !mkdtemp(strcpy(place, "/anonvma-core-XXXXXX")))
		return -1;
	child = fork();
	if (!child) {
		if (!chdir(place) && !setrlimit(RLIMIT_CORE, &any)) {
			signal(SIGABRT, SIG_DFL);
			kill(getpid(), SIGABRT);
		}
		_exit(1);
	}
	waitpid(child, NULL, 0);
	directory = opendir(place);
	while (directory && (entry = readdir(directory))) {
		snprintf(path, sizeof(path), "%s/%s", place, entry->d_name);
		if (entry->d_name[0] == '.')
			continue;
		trial->dumped = bytes_in_core(path, trial->at);
		unlink(path);
	}
	if (directory)
		closedir(directory);
	rmdir(place);
	return trial->dumped < 0 ? errno = ENOENT, -1 : 0;
}

static int read_smaps(struct trial *trial)
{
	int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	char piece[65536];

	(void)trial;
	while (fd >= 0 && read(fd, piece, sizeof(piece)) > 0)
		;
	return fd < 0 ? -1 : close(fd);
}

const struct operation operations[] = {
	{ "MADV_GUARD_INSTALL", .run = guard },
	{ "MADV_DONTNEED", .run = dontneed },
	{ "MADV_FREE", .run = lazily_free },
	{ "MADV_PAGEOUT", .run = swap_out },
	{ "MADV_COLLAPSE", .setup = may_be_huge, .run = collapse, .trials = 4, .huge = true },
	{ "MADV_POPULATE_READ", .contents = NOTHING, .run = populate_read },
	{ "MADV_POPULATE_WRITE", .contents = NOTHING, .run = populate_write },
	{ "MADV_MERGEABLE", .run = mergeable },
	{ "mprotect of a part", .run = protect_quarter },
	{ "mprotect of it, back", .setup = protect_quarter, .run = unprotect_quarter },
	{ "mremap, grow", .run = grow },
	{ "mremap, move", .run = move },
	{ "mremap, MREMAP_DONTUNMAP", .run = move_and_keep },
	{ "munmap of a part", .run = unmap_quarter },
	{ "mlock", .run = lock },
	{ "fork", .run = fork_and_read, .finish = reap },
	{ "UFFDIO_COPY", .contents = NOTHING, .setup = watch_and_have_page, .run = fill_copy },
	{ "UFFDIO_ZEROPAGE", .contents = NOTHING, .setup = watch, .run = fill_zero },
	{ "UFFDIO_MOVE", .contents = NOTHING, .setup = watch_and_have_page, .run = fill_move },
	{ "swap-out", .contents = WRITTEN, .setup = needs_swap, .run = swap_out,
	  .finish = count_swapped },
	{ "KSM", .contents = WRITTEN, .setup = needs_ksmd, .run = merge_by_ksm,
	  .finish = count_merged, .trials = 4 },
	{ "core dump", .setup = core_is_a_file, .run = dump_core, .trials = 8 },
	{ "/proc/PID/smaps", .run = read_smaps },
};

const size_t nr_operations = sizeof(operations) / sizeof(operations[0]);
