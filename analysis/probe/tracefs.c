// SPDX-License-Identifier: GPL-2.0-only
/*
 * File systems of the kernel's own that need not be mounted anywhere: tracefs and debugfs.
 * One that may not be mounted (CAP_SYS_ADMIN) is looked for where it usually is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include "output.h"
#include "tracefs.h"

/* fsmount(2), from 5.2: a mount that only its descriptor shows, and that goes with it. */
static int mount_unseen(const char *type)
{
	int context = fsopen(type, FSOPEN_CLOEXEC), fd = -1;

	if (context >= 0 && !fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		fd = fsmount(context, FSMOUNT_CLOEXEC, 0);
	if (context >= 0)
		close(context);
	return fd;
}

int tracefs_open(void)
{
	int fd = open("/sys/kernel/tracing", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && !faccessat(fd, "events", F_OK, 0))
		return fd;
	if (fd >= 0)
		close(fd);
	fd = mount_unseen("tracefs");
	return fd >= 0 ? fd : open("/sys/kernel/debug/tracing", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int debugfs_open(void)
{
	int fd = mount_unseen("debugfs");

	return fd >= 0 ? fd : open("/sys/kernel/debug", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

char *read_file_at(int directory, const char *path)
{
	int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
	struct buffer text = {};
	char piece[4096];
	ssize_t got = -1;

	while (fd >= 0 && (got = read(fd, piece, sizeof(piece))) > 0)
		if (!append(&text, piece, got))
			break;
	if (fd >= 0)
		close(fd);
	if (got || !append(&text, "", 1)) {
		free(text.data);
		return NULL;
	}
	return text.data;
}
