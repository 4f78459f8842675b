// SPDX-License-Identifier: GPL-2.0-only
/*
 * ram_swap [MODULE]: swap on a RAM disk, whose module is loaded first, and three VMAs of a written
 * page each 64 times: of one none are swapped out, of one some, of one all. Prints its pid and
 * keeps them until stdin ends; then there is no such disk again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PLACE	((char *)0x7e0000000000)
#define APART	(1UL << 20)
#define PAGES	64
#define SOME	20
#define DISK	"/anonvma/ram0"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

static bool load(const char *module)
{
	int fd = open(module, O_RDONLY | O_CLOEXEC);
	bool loaded = fd >= 0 && (!syscall(SYS_finit_module, fd, "", 0) || errno == EEXIST);

	if (fd >= 0)
		close(fd);
	return loaded;
}

/* What mkswap(8) writes: union swap_header of include/linux/swap.h. */
static bool make_swap(long page)
{
	struct { unsigned int version, last_page; } info = { .version = 1 };
	int fd = -1;
	bool made;

	if (mknod(DISK, S_IFBLK | 0600, makedev(1, 0)) && errno != EEXIST)
		return false;
	fd = open(DISK, O_RDWR | O_CLOEXEC);
	info.last_page = lseek(fd, 0, SEEK_END) / page - 1;
	made = pwrite(fd, &info, sizeof(info), 1024) == sizeof(info) &&
	       pwrite(fd, "SWAPSPACE2", 10, page - 10) == 10 && !fsync(fd);
	close(fd);
	return made && !swapon(DISK, 0);
}

/* A page that is still in another CPU's batch of pages for the LRU list is passed over at first. */
static bool swap_out(char *at, long page, int pages)
{
	unsigned char there[PAGES];
	int left = 1;

	for (int tries = 0; left && tries < 1000; tries++) {
		if (madvise(at, pages * page, MADV_PAGEOUT) || mincore(at, pages * page, there))
			return false;
		left = 0;
		for (int i = 0; i < pages; i++)
			left += there[i] & 1;
	}
	return true;
}

int main(int argc, char **argv)
{
	long page = sysconf(_SC_PAGESIZE);
	char byte;

	if ((argc > 1 && !load(argv[1])) || !make_swap(page)) {
		perror("ram_swap");
		return 1;
	}
	for (int i = 0; i < 3; i++) {
		char *at = PLACE + i * APART;

		if (mmap(at, PAGES * page, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
			return 1;
		madvise(at, PAGES * page, MADV_NOHUGEPAGE);
		memset(at, 1, PAGES * page);
		if (i && !swap_out(at, page, i == 1 ? SOME : PAGES))
			return 1;
	}
	printf("%d\n", getpid());
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	if (swapoff(DISK))
		return 1;
	unlink(DISK);
	return argc > 1 && syscall(SYS_delete_module, "brd", O_NONBLOCK);
}
