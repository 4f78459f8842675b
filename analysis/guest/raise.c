// SPDX-License-Identifier: GPL-2.0-only
/*
 * Raises a sysctl for as long as somebody wants it raised, as the guardian in
 * anonvma/target.py does on the machine that anonvma itself runs on: the lock on
 * the sysctl's own file keeps runs from putting back each other's values, and
 * what someone else has set meanwhile is left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "guest.h"

#define LOCK_PATIENCE	60000	/* ms that another run may hold it raised */

static bool look(int fd, long long *value)
{
	char text[32];
	ssize_t count = pread(fd, text, sizeof(text) - 1, 0);

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

int raise_sysctl(const char *path, const char *value)
{
	long long old, new, wanted = atoll(value), now;
	int fd = open(path, O_RDONLY | O_CLOEXEC), waited = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int number = 1; number < 32; number++)
		if (number != SIGCHLD)
			signal(number, SIG_IGN);
	if (fd < 0)
		return failed("it cannot be read");
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (waited > LOCK_PATIENCE)
			return puts("another run holds it raised"), 1;
		if (input_ends(100))
			return 1;
		waited += 100;
	}
	if (!look(fd, &old))
		return failed("it cannot be read");
	new = old < wanted ? wanted : old;
	if (new == old)
		flock(fd, LOCK_UN);	/* whoever raises it further does not harm us */
	else if (!set(path, new))
		return failed("it cannot be set");
	printf("raised %lld %lld\n", old, new);
	while (!input_ends(-1))
		;
	if (new != old && look(fd, &now) && now != new)
		return printf("changed %lld\n", now), 0;
	if (new != old && !set(path, old))
		return failed("it cannot be set");
	printf("restored %lld\n", old);
	return 0;
}
