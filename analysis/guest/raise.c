// SPDX-License-Identifier: GPL-2.0-only
/*
 * Raises a sysctl for as long as somebody wants it raised: in a guest, over ssh,
 * and on the machine that anonvma itself runs on.
 *
 * Only what has to be raised is locked, on a file that root alone can open: on the
 * sysctl's own, which all can read, anybody could hold a lock for ever. What is
 * about to be raised is written down there first: whoever comes next puts back what
 * was left raised by one that was killed. What someone else has set meanwhile is
 * left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guest.h"

#define DIRECTORY	"/run/anonvma"

/* What is written down: the value before, the one that it was raised to, and for which process. */
struct note {
	long long old, raised;
	int who;
};

static bool look(const char *path, long long *value)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t count = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (count <= 0)
		return false;
	text[count] = '\0';
	*value = atoll(text);
	return true;
}

static bool set(const char *path, long long value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), length;
	char text[32];
	bool done;

	if (fd < 0)
		return false;
	length = sprintf(text, "%lld\n", value);
	done = write(fd, text, length) == length;
	close(fd);
	return done;
}

/* Whether nobody wants anything any more. */
static bool input_ends(int wait)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char byte;

	return poll(&input, 1, wait) > 0 && read(STDIN_FILENO, &byte, 1) <= 0;
}

static int failed(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

/* ---- the note ---- */

static int open_note(const char *path)
{
	struct stat about;
	char name[256];

	mkdir("/run", 0755);		/* a guest has none */
	mkdir(DIRECTORY, 0700);
	if (lstat(DIRECTORY, &about))
		return -1;
	if (!S_ISDIR(about.st_mode) || about.st_uid) {
		errno = EPERM;
		return -1;
	}
	if (chmod(DIRECTORY, 0700))
		return -1;
	snprintf(name, sizeof(name), DIRECTORY "/%s", strrchr(path, '/') + 1);
	return open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static bool read_note(int fd, struct note *note)
{
	char text[96];
	ssize_t count = pread(fd, text, sizeof(text) - 1, 0);

	text[count > 0 ? count : 0] = '\0';
	*note = (struct note){};
	return sscanf(text, "%lld %lld %d", &note->old, &note->raised, &note->who) >= 2;
}

static void clear_note(int fd)
{
	if (ftruncate(fd, 0))
		_exit(1);
}

static bool write_note(int fd, const struct note *note)
{
	char text[96];
	int length = sprintf(text, "%lld %lld %d\n", note->old, note->raised, note->who);

	return !ftruncate(fd, 0) && pwrite(fd, text, length, 0) == length;
}

/* ---- raising ---- */

/* It is high enough, whatever others do: there is nothing to put back. */
static int leave(long long value)
{
	printf("raised %lld %lld\n", value, value);
	while (!input_ends(-1))
		;
	printf("restored %lld\n", value);
	return 0;
}

/* Puts back what one that was killed has left raised. */
static void recover(const char *path, int fd)
{
	struct note note;
	long long now;

	if (!read_note(fd, &note))
		return;
	if (look(path, &now) && now == note.raised && set(path, note.old))
		printf("recovered %lld %lld\n", note.old, note.raised);
	clear_note(fd);
}

static int raise_locked(const char *path, int fd, long long old, long long wanted, int who)
{
	struct note note = { .old = old, .raised = wanted, .who = who };
	long long now;

	if (!write_note(fd, &note))
		return failed(DIRECTORY);
	if (!set(path, wanted)) {
		int error = errno;

		clear_note(fd);
		errno = error;
		return failed("it cannot be set");
	}
	printf("raised %lld %lld\n", old, wanted);
	while (!input_ends(-1))
		;
	if (!look(path, &now))
		return failed("it cannot be read");
	if (now == wanted && !set(path, old))
		return failed("it cannot be set");
	clear_note(fd);
	if (now == wanted)
		printf("restored %lld\n", old);
	else
		printf("changed %lld\n", now);
	return 0;
}

/* Waits until nobody has it raised; false when that takes too long, or nobody wants it any more. */
static bool take_turn(int fd, int patience)
{
	struct note note = {};

	for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB); waited += 100) {
		if (!waited) {
			read_note(fd, &note);
			printf("waiting %d\n", note.who);
		}
		if (waited > patience) {
			printf("process %d still has it raised\n", note.who);
			return false;
		}
		if (input_ends(100))
			return false;
	}
	return true;
}

int raise_sysctl(const char *path, const char *value, int who, int patience)
{
	long long old, wanted = atoll(value);
	struct note note;
	int fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int number = 1; number < 32; number++)
		if (number != SIGCHLD)
			signal(number, SIG_IGN);
	if (!look(path, &old))
		return failed("it cannot be read");
	if (geteuid() && old >= wanted)
		return leave(old);
	if (geteuid()) {
		errno = EACCES;
		return failed("it cannot be set");
	}
	fd = open_note(path);
	if (fd < 0)
		return failed(DIRECTORY);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		/* Enough, whether or not it is put back meanwhile. */
		if (read_note(fd, &note) && note.old >= wanted)
			return leave(old);
		if (!take_turn(fd, patience))
			return 1;
	}
	recover(path, fd);
	if (!look(path, &old))
		return failed("it cannot be read");
	if (old < wanted)
		return raise_locked(path, fd, old, wanted, who);
	flock(fd, LOCK_UN);	/* whoever raises it further does not harm us */
	return leave(old);
}
