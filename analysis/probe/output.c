// SPDX-License-Identifier: GPL-2.0-only
/* Files that have their name only when they are whole, and an array that grows. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "common.h"
#include "kallsyms.h"
#include "output.h"

#define OUTPUT_BUFFER	(1u << 20)

void *append(struct buffer *buffer, const void *data, size_t size)
{
	void *place;

	if (buffer->size + size > buffer->room) {
		size_t room = (buffer->size + size) * 2;
		char *grown = realloc(buffer->data, room);

		if (!grown)
			return NULL;
		buffer->data = grown;
		buffer->room = room;
	}
	place = buffer->data + buffer->size;
	memcpy(place, data, size);
	buffer->size += size;
	return place;
}

__u64 monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

bool write_all(int fd, const void *data, size_t size)
{
	const char *at = data;
	ssize_t done;

	while (size) {
		done = write(fd, at, size);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return false;
		at += done;
		size -= done;
	}
	return true;
}

bool output_is_file(const char *path)
{
	struct stat status;

	return stat(path, &status) || S_ISREG(status.st_mode);
}

/* One step along a link that may lead to nothing yet, which realpath(3) does not follow. */
static char *follow_link(const char *path)
{
	char target[PATH_MAX], *slash = strrchr(path, '/'), *next = NULL;
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	if (length < 0)
		return NULL;
	target[length] = '\0';
	if (target[0] == '/' || !slash)
		next = strdup(target);
	else if (asprintf(&next, "%.*s/%s", (int)(slash - path), path, target) < 0)
		next = NULL;
	return next;
}

char *output_place(const char *path)
{
	char *place = strdup(path), *next;

	for (int links = 0; place && links < 40; links++) {
		next = follow_link(place);
		if (!next)
			return place;
		free(place);
		place = next;
	}
	return place;
}

/* What is no file has its name already, and keeps it: a device, a FIFO. */
int output_open(struct output *output, const char *path)
{
	int flags = O_WRONLY | O_CLOEXEC;
	const char *opened = path;

	output->path = path;
	output->buffer = malloc(OUTPUT_BUFFER);
	if (output_is_file(path)) {
		output->place = output_place(path);
		if (!output->place || asprintf(&output->partial, "%s.partial", output->place) < 0)
			return complain(EXIT_OTHER, "out of memory");
		opened = output->partial;
		flags |= O_CREAT | O_TRUNC;
	}
	output->fd = open(opened, flags, 0600);
	if (output->buffer && output->fd >= 0)
		return 0;
	return complain(EXIT_OTHER, "cannot write %s: %s", path, strerror(errno));
}

static bool flush(struct output *output)
{
	bool ok = write_all(output->fd, output->buffer, output->used);

	output->used = 0;
	return ok;
}

bool output_write(struct output *output, const void *data, size_t size)
{
	if (output->used + size > OUTPUT_BUFFER && !flush(output))
		return false;
	if (size > OUTPUT_BUFFER)
		return write_all(output->fd, data, size);
	memcpy(output->buffer + output->used, data, size);
	output->used += size;
	return true;
}

static int cannot_write(const struct output *output)
{
	return complain(EXIT_OTHER, "cannot write %s: %s", output->path, strerror(errno));
}

/* All of it is in the file then, which has not its name yet. */
int output_flush(struct output *output)
{
	return output->fd < 0 || flush(output) ? 0 : cannot_write(output);
}

int output_commit(struct output *output)
{
	int code = output_flush(output);

	if (code || output->fd < 0)
		return code;
	if (!output->partial)
		return 0;
	if (rename(output->partial, output->place))
		return cannot_write(output);
	free(output->partial);
	output->partial = NULL;
	return 0;
}

void output_close(struct output *output)
{
	if (output->fd >= 0) {
		if (output->partial)
			unlink(output->partial);
		close(output->fd);
	}
	free(output->place);
	free(output->partial);
	free(output->buffer);
}

int output_result(struct output *output, bool (*print)(FILE *file, void *arg), void *arg)
{
	char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);
	bool ok = file && print(file, arg);

	if (file && fclose(file))
		ok = false;
	if (ok && output->fd >= 0)
		ok = output_write(output, text, size);
	else if (ok)
		ok = fwrite(text, 1, size, stdout) == size && !fflush(stdout);
	free(text);
	if (!ok)
		return complain(EXIT_OTHER, "cannot write the result: %s", strerror(errno));
	return output_commit(output);
}
