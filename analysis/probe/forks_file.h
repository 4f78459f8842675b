/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs saw of forks, as members of a JSON object. */
#ifndef FORKS_FILE_H
#define FORKS_FILE_H

#include <stdbool.h>
#include <stdio.h>

struct bpf_object;

/* COPIES: whether the calls of copy_page_range() were seen. */
void forks_print(FILE *file, struct bpf_object *object, bool copies);

#endif
