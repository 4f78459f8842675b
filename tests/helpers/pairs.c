// SPDX-License-Identifier: GPL-2.0-only
/*
 * pairs: adjacent VMAs that are not one, each pair for a reason of its own, and what happens when
 * the difference is taken away.
 *
 * Prints "pair PID ADDRESS REASON ALONE NAME" for each (the address is that of the upper one), or
 * "lacks NAME" where the kernel has not what it takes, then "ready". After a line on stdin each
 * difference is taken away and "now PID ADDRESS merged|apart stays|merges NAME" is printed: what
 * became of it, and what should have; then "done", and it waits for another line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY	1
#endif

#define RW	(PROT_READ | PROT_WRITE)
#define PRIVATE	(MAP_PRIVATE | MAP_ANONYMOUS)

static size_t half;			/* bytes of each of the two */

struct pair {
	const char *name, *reason;
	bool alone;			/* no other test of the kernel's fails */
	bool (*make)(char *at);		/* false: this kernel cannot */
	bool (*equal)(char *at);
	bool stays;			/* nothing can make them one */
	bool in_child;			/* make() goes on in a child of the process */
	bool (*child)(char *at);
};

static bool map(char *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	return mmap(at, size, prot, flags | MAP_FIXED, fd, offset) == at;
}

static bool both(char *at)
{
	return map(at, 2 * half, RW, PRIVATE, -1, 0);
}

static bool protect(char *at, int prot)
{
	return !mprotect(at, half, prot);
}

/* ---- protection ---- */

static bool readable(char *at) { return both(at) && protect(at + half, PROT_READ); }
static bool untouchable(char *at) { return both(at) && protect(at + half, PROT_NONE); }
static bool executable(char *at) { return both(at) && protect(at + half, RW | PROT_EXEC); }
static bool upper_rw(char *at) { return protect(at + half, RW); }
static bool lower_rw(char *at) { return protect(at, RW); }

static bool written(char *at)
{
	return both(at) && memset(at, 1, 2 * half) && protect(at + half, PROT_READ);
}

static bool lower_written(char *at) { return readable(at) && memset(at, 1, half); }

static bool upper_written(char *at)
{
	return both(at) && protect(at, PROT_READ) && memset(at + half, 1, half);
}

/* ---- advice and locks ---- */

#define ADVICE(name, on, off)								\
	static bool name(char *at) { return both(at) && !madvise(at + half, half, on); }	\
	static bool un##name(char *at) { return !madvise(at + half, half, off); }

ADVICE(dontfork, MADV_DONTFORK, MADV_DOFORK)
ADVICE(dontdump, MADV_DONTDUMP, MADV_DODUMP)
ADVICE(wipeonfork, MADV_WIPEONFORK, MADV_KEEPONFORK)
ADVICE(sequential, MADV_SEQUENTIAL, MADV_NORMAL)
ADVICE(at_random, MADV_RANDOM, MADV_NORMAL)
ADVICE(mergeable, MADV_MERGEABLE, MADV_UNMERGEABLE)

static bool nohugepage(char *at) { return both(at) && !madvise(at + half, half, MADV_NOHUGEPAGE); }
static bool hugepage(char *at) { return both(at) && !madvise(at + half, half, MADV_HUGEPAGE); }
static bool lower_nohugepage(char *at) { return !madvise(at, half, MADV_NOHUGEPAGE); }
static bool lower_hugepage(char *at) { return !madvise(at, half, MADV_HUGEPAGE); }
static bool lower_dontfork(char *at) { return !madvise(at, half, MADV_DONTFORK); }
static bool locked(char *at) { return both(at) && !mlock(at + half, half); }
static bool unlocked(char *at) { return !munlock(at + half, half); }
static bool lower_locked(char *at) { return !mlock(at, half); }

static bool locked_on_fault(char *at)
{
	return both(at) && !syscall(SYS_mlock2, at + half, half, 1);
}

/* ---- what mmap() was asked for ---- */

static bool remade(char *at) { return map(at + half, half, RW, PRIVATE, -1, 0); }
static bool lower_remade(char *at) { return map(at, half, RW, PRIVATE, -1, 0); }

static bool noreserve(char *at)
{
	return map(at, half, RW, PRIVATE, -1, 0) &&
	       map(at + half, half, RW, PRIVATE | MAP_NORESERVE, -1, 0);
}

static bool grows_down(char *at)
{
	return map(at + half, half, RW, PRIVATE, -1, 0) &&
	       map(at, half, RW, PRIVATE | MAP_GROWSDOWN, -1, 0);
}

static bool shared_beside_private(char *at)
{
	return map(at, half, RW, PRIVATE, -1, 0) &&
	       map(at + half, half, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* ---- files ---- */

static int file(void)
{
	int fd = memfd_create("pairs", 0);

	return fd >= 0 && !ftruncate(fd, 8 * half) ? fd : -1;
}

static int one_file(void)
{
	static int fd = -2;

	return fd == -2 ? fd = file() : fd;
}

static int zero(void)
{
	static int fd = -2;

	return fd == -2 ? fd = open("/dev/zero", O_RDWR) : fd;
}

static bool of_one_file(char *at, int flags, off_t second)
{
	return map(at, half, RW, flags, one_file(), 0) &&
	       map(at + half, half, RW, flags, one_file(), second);
}

static bool private_hole(char *at) { return of_one_file(at, MAP_PRIVATE, 2 * half); }
static bool shared_hole(char *at) { return of_one_file(at, MAP_SHARED, 2 * half); }
static bool same_piece(char *at) { return of_one_file(at, MAP_SHARED, 0); }

static bool private_behind(char *at)
{
	return map(at + half, half, RW, MAP_PRIVATE, one_file(), half);
}

static bool shared_behind(char *at)
{
	return map(at + half, half, RW, MAP_SHARED, one_file(), half);
}

static bool two_files(char *at)
{
	return map(at, half, RW, MAP_PRIVATE, one_file(), 0) &&
	       map(at + half, half, RW, MAP_PRIVATE, file(), half);
}

/* vm_file is what open() made: the same inode is not the same file. */
static bool opened_twice(char *at)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", one_file());
	fd = open(path, O_RDWR);
	return fd >= 0 && map(at, half, RW, MAP_SHARED, one_file(), 0) &&
	       map(at + half, half, RW, MAP_SHARED, fd, half);
}

static bool file_beside_anonymous(char *at)
{
	return map(at, half, RW, PRIVATE, -1, 0) &&
	       map(at + half, half, RW, MAP_PRIVATE, one_file(), 0);
}

static bool shared_readable(char *at)
{
	return map(at, 2 * half, RW, MAP_SHARED, one_file(), 0) && protect(at + half, PROT_READ);
}

static bool private_written(char *at)
{
	return map(at, 2 * half, RW, MAP_PRIVATE, one_file(), 0) && memset(at, 1, 2 * half) &&
	       protect(at + half, PROT_READ);
}

static bool dev_zero(char *at)
{
	return map(at, half, RW, MAP_PRIVATE, zero(), 0) &&
	       map(at + half, half, RW, MAP_PRIVATE, zero(), 0);
}

static bool dev_zero_behind(char *at)
{
	return map(at + half, half, RW, MAP_PRIVATE, zero(), half);
}

static bool shm_was_split(char *at)
{
	int id = shmget(IPC_PRIVATE, 2 * half, 0600);
	bool ok = id >= 0 && shmat(id, at, 0) == at;

	if (id >= 0)
		shmctl(id, IPC_RMID, NULL);
	return ok && protect(at + half, PROT_READ) && protect(at + half, RW);
}

static bool split_again(char *at)
{
	return protect(at + half, PROT_READ) && protect(at + half, RW);
}

/* ---- names, policies, userfaultfd ---- */

static bool name(char *at, const char *text)
{
	return !prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, half, text);
}

static bool named(char *at) { return both(at) && name(at + half, "upper"); }
static bool unnamed(char *at) { return name(at + half, NULL); }
static bool named_twice(char *at) { return named(at) && name(at, "lower"); }
static bool named_as_upper(char *at) { return name(at, "upper"); }

static bool bind_to(char *at, int mode)
{
	unsigned long node = 1;

	return !syscall(SYS_mbind, at, half, mode, mode ? &node : NULL, mode ? 8 : 0, 0);
}

static bool bound(char *at) { return both(at) && bind_to(at + half, MPOL_BIND); }
static bool unbound(char *at) { return bind_to(at + half, MPOL_DEFAULT); }
static bool bound_as_upper(char *at) { return bind_to(at, MPOL_BIND); }
static bool two_policies(char *at) { return bound(at) && bind_to(at, MPOL_INTERLEAVE); }

static int userfaultfd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	return fd >= 0 && !ioctl(fd, UFFDIO_API, &api) ? fd : -1;
}

static int faultfd[2] = { -2, -2 };

static bool watch(int which, char *at)
{
	struct uffdio_register range = { .range = { (unsigned long)at, half },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (faultfd[which] == -2)
		faultfd[which] = userfaultfd();
	return faultfd[which] >= 0 && !ioctl(faultfd[which], UFFDIO_REGISTER, &range);
}

static bool unwatch(int which, char *at)
{
	struct uffdio_range range = { (unsigned long)at, half };

	return !ioctl(faultfd[which], UFFDIO_UNREGISTER, &range);
}

static bool watched(char *at) { return both(at) && watch(0, at + half); }
static bool unwatched(char *at) { return unwatch(0, at + half); }
static bool watched_by_two(char *at) { return watched(at) && watch(1, at); }
static bool watched_by_one(char *at) { return unwatch(1, at) && watch(0, at); }

/* ---- anon_vmas ---- */

/* Not anon_vma_compatible() when they were first written, but equal in all else since. */
static bool two_anon_vmas(char *at)
{
	return dontfork(at) && memset(at, 1, 2 * half) && undontfork(at);
}

static bool moved_here(char *at, bool lower_too)
{
	char *from = mmap(NULL, half, RW, PRIVATE, -1, 0);

	if (from == MAP_FAILED || !memset(from, 1, half) || !map(at, half, RW, PRIVATE, -1, 0))
		return false;
	if (lower_too)
		memset(at, 1, half);
	return mremap(from, half, half, MREMAP_MAYMOVE | MREMAP_FIXED, at + half) == at + half;
}

static bool moved(char *at) { return moved_here(at, false); }
static bool moved_to_written(char *at) { return moved_here(at, true); }

/* ---- after a fork ---- */

static bool nothing(char *at) { (void)at; return true; }
static bool changed_and_back(char *at) { return protect(at + half, PROT_NONE) && upper_rw(at); }

static const struct pair pairs[] = {
	{ "read-only", "flags", true, readable, upper_rw },
	{ "no access", "flags", true, untouchable, upper_rw },
	{ "executable", "flags", true, executable, upper_rw },
	{ "read-only, of one anon_vma", "flags", true, written, upper_rw },
	{ "read-only and bare, beside one written", "flags", true, lower_written, upper_rw },
	{ "written, beside one read-only and bare", "flags", true, upper_written, lower_rw },
	{ "MADV_DONTFORK", "flags", true, dontfork, undontfork },
	{ "MADV_DONTFORK, then on both", "flags", true, dontfork, lower_dontfork },
	{ "MADV_DONTDUMP", "flags", true, dontdump, undontdump },
	{ "MADV_WIPEONFORK", "flags", true, wipeonfork, unwipeonfork },
	{ "MADV_SEQUENTIAL", "flags", true, sequential, unsequential },
	{ "MADV_RANDOM", "flags", true, at_random, unat_random },
	{ "MADV_MERGEABLE", "flags", true, mergeable, unmergeable },
	{ "MADV_NOHUGEPAGE", "flags", true, nohugepage, lower_nohugepage },
	{ "MADV_HUGEPAGE", "flags", true, hugepage, lower_hugepage },
	{ "mlock", "flags", true, locked, unlocked },
	{ "mlock, then on both", "flags", true, locked, lower_locked },
	{ "mlock2 with MLOCK_ONFAULT", "flags", true, locked_on_fault, unlocked },
	{ "MAP_NORESERVE", "flags", true, noreserve, remade },
	{ "MAP_GROWSDOWN", "flags", true, grows_down, lower_remade },
	{ "shared beside private", "flags", false, shared_beside_private, remade },
	{ "private file, a hole between", "offset", true, private_hole, private_behind },
	{ "shared file, a hole between", "offset", true, shared_hole, shared_behind },
	{ "shared file, the same piece", "offset", true, same_piece, shared_behind },
	{ "two files", "file", true, two_files, private_behind },
	{ "one file, opened twice", "file", true, opened_twice, shared_behind },
	{ "file beside anonymous", "file", false, file_beside_anonymous, remade },
	{ "shared file, read-only", "flags", true, shared_readable, upper_rw },
	{ "private file, written, read-only", "flags", true, private_written, upper_rw },
	{ "private /dev/zero", "offset", true, dev_zero, dev_zero_behind },
	{ "System V, split before", "close", true, shm_was_split, split_again, .stays = true },
	{ "named", "name", true, named, unnamed },
	{ "two names", "name", true, named_twice, named_as_upper },
	{ "bound", "policy", true, bound, unbound },
	{ "bound, then both", "policy", true, bound, bound_as_upper },
	{ "two policies", "policy", true, two_policies, bound_as_upper },
	{ "userfaultfd", "flags", false, watched, unwatched },
	{ "two userfaultfds", "userfaultfd", true, watched_by_two, watched_by_one },
	{ "two anon_vmas", "anon_vma", true, two_anon_vmas, remade },
	{ "moved here", "offset", true, moved, remade },
	{ "moved here, beside one written", "anon_vma", false, moved_to_written, remade },
	{ "inherited, beside one bare", "fork-child", true, lower_written, lower_remade,
	  .in_child = true, .child = upper_rw },
	{ "bare, beside one inherited", "fork-child", true, upper_written, remade,
	  .in_child = true, .child = lower_rw },
	{ "of one anon_vma in the parent", "anon_vma", true, written, both,
	  .in_child = true, .child = upper_rw },
	{ "locked in the parent", "nothing", true, locked_on_fault, changed_and_back,
	  .in_child = true, .child = nothing },
	{ "watched in the parent", "nothing", true, watched, changed_and_back,
	  .in_child = true, .child = nothing },
};

#define NR_PAIRS (sizeof(pairs) / sizeof(pairs[0]))

static char *place_of(size_t number)
{
	return (char *)0x7d0000000000 + number * 64 * half;
}

static bool is_one(char *at)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char *start, *end;
	bool one = false;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%p-%p", (void **)&start, (void **)&end) == 2)
			one |= start <= at && end >= at + 2 * half;
	if (maps)
		fclose(maps);
	return one;
}

static void make(bool *made)
{
	for (size_t i = 0; i < NR_PAIRS; i++) {
		made[i] = pairs[i].make(place_of(i));
		if (!made[i])
			printf("lacks %s\n", pairs[i].name);
	}
}

static void report(const bool *made, bool child)
{
	for (size_t i = 0; i < NR_PAIRS; i++)
		if (made[i] && pairs[i].in_child == child)
			printf("pair %d %lx %s %d %s\n", getpid(), (long)place_of(i) + half,
			       pairs[i].reason, pairs[i].alone, pairs[i].name);
	fflush(stdout);
}

static void make_equal(const bool *made, bool child)
{
	for (size_t i = 0; i < NR_PAIRS; i++)
		if (made[i] && pairs[i].in_child == child)
			printf("now %d %lx %s %s %s\n", getpid(), (long)place_of(i) + half,
			       !pairs[i].equal(place_of(i)) ? "failed" :
			       is_one(place_of(i)) ? "merged" : "apart",
			       pairs[i].stays ? "stays" : "merges", pairs[i].name);
	fflush(stdout);
}

static void await(int fd)
{
	char byte;

	while (read(fd, &byte, 1) == 1 && byte != '\n')
		;
}

static pid_t start_child(const bool *made, int commands[2], int answers[2])
{
	char newline = '\n';
	pid_t child;

	if (pipe(commands) || pipe(answers))
		exit(1);
	fflush(stdout);
	child = fork();
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < NR_PAIRS; i++)
		if (pairs[i].in_child && made[i] && !pairs[i].child(place_of(i)))
			exit(1);
	for (int step = 0; step < 2; step++) {
		step ? make_equal(made, true) : report(made, true);
		if (write(answers[1], &newline, 1) != 1)
			exit(1);
		await(commands[0]);
	}
	exit(0);
}

int main(void)
{
	int commands[2], answers[2];
	bool made[NR_PAIRS];

	half = 4 * sysconf(_SC_PAGESIZE);
	make(made);
	start_child(made, commands, answers);
	await(answers[0]);
	report(made, false);
	puts("ready");
	fflush(stdout);
	await(STDIN_FILENO);
	make_equal(made, false);
	if (write(commands[1], "\n", 1) != 1)
		return 1;
	await(answers[0]);
	puts("done");
	fflush(stdout);
	await(STDIN_FILENO);
	return write(commands[1], "\n", 1) != 1 || wait(NULL) < 0;
}
