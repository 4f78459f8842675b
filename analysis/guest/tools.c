// SPDX-License-Identifier: GPL-2.0-only
/* Small tools, for the host: this binary is the only program that is surely on the target. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guest.h"

/* Copies to the end, to where there is one; HASH, if any, is of what was read. */
static int copy(int from, int to, struct sha256 *hash)
{
	static char buffer[65536];
	ssize_t count;

	while ((count = read(from, buffer, sizeof(buffer))) > 0) {
		if (hash)
			sha256_add(hash, buffer, count);
		for (ssize_t done = 0, put; to >= 0 && done < count; done += put) {
			put = write(to, buffer + done, count - done);
			if (put < 0)
				return errno;
		}
	}
	return count < 0 ? errno : 0;
}

static int get(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? errno : copy(fd, STDOUT_FILENO, NULL);
}

/* The hash of what a file holds now, to standard output. */
static int print_hash(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), error;
	struct sha256 hash;
	char digits[65];

	if (fd < 0)
		return errno;
	sha256_begin(&hash);
	error = copy(fd, -1, &hash);
	sha256_end(&hash, digits);
	if (!error)
		puts(digits);
	return error;
}

static int put(const char *path, const char *mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, strtol(mode, NULL, 8));
	int error;

	if (fd < 0)
		return errno;
	error = copy(STDIN_FILENO, fd, NULL);
	if (close(fd) && !error)
		error = errno;
	return error;
}

static int which(const char *name)
{
	char *list = strdup(getenv("PATH") ?: "/usr/bin:/bin"), *next = list, *directory;
	char path[4096];

	while (list && (directory = strsep(&next, ":"))) {
		struct stat about;

		if (*directory != '/')
			continue;	/* it would depend on where we are */
		snprintf(path, sizeof(path), "%s/%s", directory, name);
		if (!access(path, X_OK) && !stat(path, &about) && S_ISREG(about.st_mode)) {
			puts(path);
			return 0;
		}
	}
	return ENOENT;
}

static int print_environment(void)
{
	for (char **variable = environ; *variable; variable++)
		fwrite(*variable, strlen(*variable) + 1, 1, stdout);
	return fflush(stdout) ? errno : 0;
}

int tool(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "true"))
		return 0;
	if (!strcmp(what, "environment"))
		return print_environment();
	if (argc < 3)
		return EINVAL;
	if (!strcmp(what, "get"))
		return get(argv[2]);
	if (!strcmp(what, "hash"))
		return print_hash(argv[2]);
	if (!strcmp(what, "put") && argc > 3)
		return put(argv[2], argv[3]);
	if (!strcmp(what, "which"))
		return which(argv[2]);
	if (!strcmp(what, "remove"))
		return unlink(argv[2]) ? errno : 0;
	if (!strcmp(what, "exists"))
		return access(argv[2], F_OK) ? errno : 0;
	if (!strcmp(what, "executable"))
		return access(argv[2], X_OK) ? errno : 0;
	return EINVAL;
}
