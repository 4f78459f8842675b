/* SPDX-License-Identifier: GPL-2.0-only */
/* Who takes mmap_lock, by the functions of a stack. */
#ifndef LOCK_ASKERS_H
#define LOCK_ASKERS_H

#include <stddef.h>

/* By the functions of a stack, the innermost first. */
const char *lock_asker(char *const *functions, size_t depth);

#endif
