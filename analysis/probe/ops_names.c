// SPDX-License-Identifier: GPL-2.0-only
/* The names of vm_operations_structs, from the addresses that a BPF program put in its map "ops". */
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include "kallsyms.h"
#include "ops_names.h"

struct ops_named {
	struct ops_entry entry;
	struct ops_functions functions;
	__u64 address;
	char *name;
	int rank;			/* of the address that gave the name: lower is better */
};

/* Address number RANK of a vm_ops: itself, its fault handler, its other callbacks. */
static __u64 ops_address(const struct ops_named *ops, int rank)
{
	if (rank == 0)
		return ops->address;
	return rank == 1 ? ops->functions.fault : ops->functions.callbacks[rank - 2];
}

struct naming {
	struct ops_named ops[MAX_OPS];
	size_t count;
	__u64 addresses[MAX_OPS * 8];
	size_t addresses_count;
};

static void name_found(void *arg, size_t index, const char *name)
{
	struct naming *naming = arg;

	for (size_t i = 0; i < naming->count; i++) {
		struct ops_named *ops = &naming->ops[i];

		for (int rank = 0; rank < 8; rank++) {
			if (ops_address(ops, rank) != naming->addresses[index] || rank >= ops->rank)
				continue;
			free(ops->name);
			ops->name = strdup(name);
			ops->rank = rank;
			ops->entry.how = rank == 0 ? OPS_OWN_NAME : rank == 1 ? OPS_FAULT : OPS_CALLBACK;
		}
	}
}

static int compare_u64(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Squeezes repetitions out of a sorted array; its new length. */
static size_t distinct(__u64 *values, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (!i || values[i] != values[i - 1])
			values[kept++] = values[i];
	return kept;
}

static void collect_ops(struct naming *naming, int map)
{
	__u64 key, *previous = NULL;

	while (naming->count < MAX_OPS && !bpf_map_get_next_key(map, previous, &key)) {
		struct ops_named *ops = &naming->ops[naming->count];

		previous = &key;
		if (bpf_map_lookup_elem(map, &key, &ops->functions))
			continue;
		ops->address = key;
		ops->entry.id = ops->functions.id;
		ops->rank = 8;
		ops->entry.how = OPS_EMPTY;
		for (int rank = 0; rank < 8; rank++)
			if (ops_address(ops, rank))
				naming->addresses[naming->addresses_count++] = ops_address(ops, rank);
		for (int rank = 1; rank < 8; rank++)
			if (ops_address(ops, rank))
				ops->entry.how = OPS_UNNAMED;
		naming->count++;
	}
	qsort(naming->addresses, naming->addresses_count, sizeof(naming->addresses[0]), compare_u64);
	naming->addresses_count = distinct(naming->addresses, naming->addresses_count);
}

bool ops_names(int map, bool (*each)(void *arg, struct ops_entry *entry, const char *name), void *arg)
{
	struct naming *naming = calloc(1, sizeof(*naming));
	bool ok = naming;

	if (!naming)
		return false;
	collect_ops(naming, map);
	if (naming->count)
		kallsyms_names(naming->addresses, naming->addresses_count, name_found, naming);
	for (size_t i = 0; i < naming->count; i++) {
		ok = ok && each(arg, &naming->ops[i].entry, naming->ops[i].name);
		free(naming->ops[i].name);
	}
	free(naming);
	return ok;
}

static bool note_ops(void *arg, struct ops_entry *entry, const char *name)
{
	struct ops_list *list = arg;

	if (entry->id <= MAX_OPS && name)
		list->names[entry->id] = strdup(name);
	return true;
}

void ops_list_read(struct ops_list *list, int map)
{
	ops_names(map, note_ops, list);
}

void ops_list_free(struct ops_list *list)
{
	for (size_t i = 0; i <= MAX_OPS; i++)
		free(list->names[i]);
}
