/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel's types tell. */
#ifndef BTF_H
#define BTF_H

#include <stdbool.h>

/* How many arguments a tracepoint has; 0 if there is none of that name. */
unsigned int tracepoint_arguments(const char *name);
/* Whether there is a function of that name which BTF tells of, such as a kfunc. */
bool has_function(const char *name);
/* Whether a VMA has a lock of its own; negative if that cannot be told. */
int has_vma_locks(void);

#endif
