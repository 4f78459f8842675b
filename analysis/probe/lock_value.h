/* SPDX-License-Identifier: GPL-2.0-only */
/* How often and how long a lock was waited for, of all CPUs together. */
#ifndef LOCK_VALUE_H
#define LOCK_VALUE_H

#include <stdbool.h>
#include <stdio.h>
#include "locks.h"

/* Of one key of a map with a value for each CPU; false where there is none. */
bool lock_value_sum(int map, const void *key, struct lock_value *total);
/* As members of a JSON object. */
void lock_value_print(FILE *file, const struct lock_value *value);

#endif
