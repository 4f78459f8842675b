/* SPDX-License-Identifier: GPL-2.0-only */
/* Files of tracefs and debugfs. */
#ifndef TRACEFS_H
#define TRACEFS_H

/* The directory of each, wherever it is mounted, or nowhere; -1 if it cannot be had. */
int tracefs_open(void);
int debugfs_open(void);
/* All of a file, as a string to be freed; NULL if it cannot be read. */
char *read_file_at(int directory, const char *path);

#endif
