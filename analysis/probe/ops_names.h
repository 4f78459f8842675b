/* SPDX-License-Identifier: GPL-2.0-only */
/* Names of vm_operations_struct. */
#ifndef OPS_NAMES_H
#define OPS_NAMES_H

#include <stdbool.h>
#include "census.h"

/* Calls back with each vm_operations_struct in a map "ops", and its name or NULL; false on failure. */
bool ops_names(int map, bool (*each)(void *arg, struct ops_entry *entry, const char *name), void *arg);

#endif
