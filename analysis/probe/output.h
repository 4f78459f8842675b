/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that have their name only when they are whole, and growing arrays. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A growing array; the only container needed here. */
struct buffer {
	char *data;
	size_t size, room;
};

/*
 * A file that has its name only when it is whole; fd is -1 where there is none. It is written
 * where a link leads to; what is no file, but a device or a FIFO, is written to as it is.
 */
struct output {
	const char *path;
	char *place, *partial;		/* NULL: no file */
	int fd;
	char *buffer;
	size_t used;
};

void *append(struct buffer *buffer, const void *data, size_t size);
/* Whether a path is that of a file, or of nothing yet; and where it leads to then. */
bool output_is_file(const char *path);
char *output_place(const char *path);
bool write_all(int fd, const void *data, size_t size);
int output_open(struct output *output, const char *path);
bool output_write(struct output *output, const void *data, size_t size);
int output_flush(struct output *output);
int output_commit(struct output *output);
void output_close(struct output *output);
/* What PRINT prints goes to OUTPUT, which then has its name, or to standard output. */
int output_result(struct output *output, bool (*print)(FILE *file, void *arg), void *arg);
__u64 monotonic_ns(void);

#endif
