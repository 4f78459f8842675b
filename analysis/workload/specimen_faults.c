// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults that their VMA's lock will not do for, made on purpose: nothing is mapped, a writer has
 * write-locked the VMA or only keeps mmap_lock busy, a page has to be read, or userfaultfd is to
 * fill it. A fault that met no writer is not one of those, and is taken again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "specimens.h"

static int start(struct specimen *s, pthread_t *thread, void *(*what)(void *), void *arg)
{
	errno = pthread_create(thread, NULL, what, arg);
	return errno ? lacks(s, "pthread_create()") : 0;
}

/* ---- nothing mapped ---- */

static sigjmp_buf back;

static void go_back(int signal)
{
	siglongjmp(back, signal);
}

int unmap_all(struct specimen *s)
{
	return munmap(s->start, s->length) ? lacks(s, "munmap()") : 0;
}

/* Each ends in a signal. */
int touch_nothing_mapped(struct specimen *s)
{
	struct sigaction catch = { .sa_handler = go_back, .sa_flags = SA_NODEFER }, old;
	volatile size_t at;

	sigaction(SIGSEGV, &catch, &old);
	for (at = 0; at < s->length; at += page_size())
		if (!sigsetjmp(back, 0))
			(void)*(volatile char *)(s->start + at);
	sigaction(SIGSEGV, &old, NULL);
	return 0;
}

int map_again(struct specimen *s)
{
	void *place = mmap(s->start, s->length, s->kind->prot, s->kind->flags | MAP_FIXED, -1, 0);

	return place == MAP_FAILED ? lacks(s, "mmap()") : 0;
}

/* ---- a writer ---- */

#define MANY		2048
#define SOON_NS		10000
#define MOST_TRIES	10000

/* Changes the protection of many VMAs, again and again: a millisecond each time, or more. */
struct writer {
	pthread_t thread;
	char *start;
	unsigned long calls;		/* begun */
	bool stop;
};

/* The first of the many VMAs: a specimen, and a page to write to. */
static size_t first_length(void)
{
	return specimen_length() + page_size();
}

static size_t many_length(void)
{
	return first_length() + MANY * page_size();
}

static void *write_lock(void *arg)
{
	struct writer *writer = arg;
	int prot = PROT_READ;

	while (!__atomic_load_n(&writer->stop, __ATOMIC_RELAXED)) {
		__atomic_add_fetch(&writer->calls, 1, __ATOMIC_RELEASE);
		mprotect(writer->start, many_length(), prot);
		prot ^= PROT_WRITE;
	}
	return NULL;
}

/*
 * In a slot, no two with the same flags. The first, which mprotect() locks before it goes on to
 * the others, is the specimen's where it has no mapping of its own.
 */
static char *map_many(struct specimen *s)
{
	char *many = slot(many_length(), page_size());

	if (!many || mmap(many, many_length(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
		lacks(s, "mmap()");
		return NULL;
	}
	for (size_t at = first_length(); at < many_length(); at += 2 * page_size())
		if (madvise(many + at, page_size(), MADV_DONTDUMP)) {
			lacks(s, "madvise(MADV_DONTDUMP)");
			return NULL;
		}
	return many;
}

/* What was in a slot goes; what lies between slots comes back. */
static int give_back(struct specimen *s, char *from, char *to)
{
	return mmap(from, to - from, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
		    -1, 0) == MAP_FAILED ? lacks(s, "mmap()") : 0;
}

static long sleeps(void)
{
	struct rusage used;

	getrusage(RUSAGE_THREAD, &used);
	return used.ru_nvcsw;
}

/*
 * Until it has begun a call and had time to acquire mmap_lock. Right after a call of our own it may
 * still be queued for that, and a reader that comes then acquires it before, without sleeping.
 */
static void wait_for(struct writer *writer)
{
	unsigned long calls = __atomic_load_n(&writer->calls, __ATOMIC_ACQUIRE);
	struct timespec from, now;

	while (__atomic_load_n(&writer->calls, __ATOMIC_ACQUIRE) == calls)
		sched_yield();
	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < SOON_NS);
}

/* Faults in each page while somebody holds mmap_lock for writing: then it sleeps. */
static int meet(struct specimen *s, struct writer *writer,
		int (*ready)(struct specimen *s, char *page))
{
	char *page = s->start;
	long before;

	for (int tries = 0; tries < MOST_TRIES; tries++) {
		if (page == s->start + s->length)
			return 0;
		if (ready(s, page))
			return -1;
		wait_for(writer);
		before = sleeps();
		if (s->touch == WRITTEN)
			*(volatile char *)page = 1;
		else
			(void)*(volatile char *)page;
		/* It may have met a writer that was about to leave: nobody can tell from here. */
		if (sleeps() > before)
			page += page_size();
		else
			s->repeated++;
	}
	errno = EAGAIN;
	return lacks(s, "no fault met a writer");
}

static int beside_writer(struct specimen *s, char *many,
			 int (*ready)(struct specimen *s, char *page))
{
	struct writer writer = { .start = many };
	int err;

	if (start(s, &writer.thread, write_lock, &writer))
		return -1;
	err = meet(s, &writer, ready);
	__atomic_store_n(&writer.stop, true, __ATOMIC_RELAXED);
	pthread_join(writer.thread, NULL);
	return err;
}

int map_for_writer(struct specimen *s)
{
	s->start = map_many(s);
	s->length = specimen_length();
	if (!s->start)
		return -1;
	/* An early check would send the faults to mmap_lock, whoever has locked what. */
	*(volatile char *)(s->start + s->length) = 1;
	return 0;
}

/* Where it has been read, it would not fault. */
static int drop_page(struct specimen *s, char *page)
{
	return madvise(page, page_size(), MADV_DONTNEED) ? lacks(s, "madvise(MADV_DONTNEED)") : 0;
}

int touch_write_locked(struct specimen *s)
{
	if (beside_writer(s, s->start, drop_page))
		return -1;
	return give_back(s, s->start + s->length, s->start + many_length());
}

/* Where the VMA has an anon_vma, it would need none. */
static int map_anew(struct specimen *s, char *page)
{
	(void)page;
	return map_again(s);
}

int touch_beside_writer(struct specimen *s)
{
	char *many = map_many(s);

	if (!many || beside_writer(s, many, map_anew))
		return -1;
	return give_back(s, many, many + many_length());
}

/* ---- a page that has to be read ---- */

/* Some disk itself, where there is no file on one: it is only read. */
static int open_disk(void)
{
	DIR *disks = opendir("/sys/block");
	struct dirent *entry;
	char path[300];
	int fd = -1;

	while (disks && fd < 0 && (entry = readdir(disks))) {
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		if (entry->d_name[0] != '.')
			fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && lseek(fd, 0, SEEK_END) < (off_t)specimen_length()) {
			close(fd);
			fd = -1;
		}
	}
	if (disks)
		closedir(disks);
	return fd;
}

int open_uncached(struct specimen *s)
{
	if (open_disk_file(s)) {
		if (s->fd >= 0)
			close(s->fd);
		s->fd = open_disk();
		if (s->fd < 0)
			return -1;
		s->missing[0] = 0;
	}
	/* What is dirty would stay in the page cache. */
	if (fsync(s->fd))
		return lacks(s, "fsync()");
	errno = posix_fadvise(s->fd, 0, specimen_length(), POSIX_FADV_DONTNEED);
	return errno ? lacks(s, "posix_fadvise(POSIX_FADV_DONTNEED)") : 0;
}

/* One page at a time. */
int read_no_pages_ahead(struct specimen *s)
{
	return madvise(s->start, s->length, MADV_RANDOM) ? lacks(s, "madvise(MADV_RANDOM)") : 0;
}

/* ---- userfaultfd ---- */

static void *serve(void *arg)
{
	struct specimen *s = arg;
	struct uffd_msg message;

	for (size_t done = 0; done < s->length; done += page_size()) {
		struct uffdio_zeropage zero = { .range = { .len = page_size() } };

		if (read(s->fd, &message, sizeof(message)) != sizeof(message))
			break;
		zero.range.start = message.arg.pagefault.address & -page_size();
		ioctl(s->fd, UFFDIO_ZEROPAGE, &zero);
	}
	return NULL;
}

int touch_by_userfaultfd(struct specimen *s)
{
	pthread_t server;

	if (start(s, &server, serve, s))
		return -1;
	touch_pages(s);
	pthread_join(server, NULL);
	return 0;
}
