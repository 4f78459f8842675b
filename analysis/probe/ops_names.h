/* SPDX-License-Identifier: GPL-2.0-only */
/* Names of vm_operations_struct. */
#ifndef OPS_NAMES_H
#define OPS_NAMES_H

#include <stdbool.h>
#include "census.h"

/* Calls back with each vm_operations_struct in a map "ops", and its name or NULL; false on failure. */
bool ops_names(int map, bool (*each)(void *arg, struct ops_entry *entry, const char *name), void *arg);

/* By ops_entry.id, from 1; NULL where there is no name. */
struct ops_list {
	char *names[MAX_OPS + 1];
};

void ops_list_read(struct ops_list *list, int map);
void ops_list_free(struct ops_list *list);

#endif
