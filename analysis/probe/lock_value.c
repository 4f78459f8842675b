// SPDX-License-Identifier: GPL-2.0-only
/* How often and how long a lock was waited for: counted on each CPU, told of all. */
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "lock_value.h"

bool lock_value_sum(int map, const void *key, struct lock_value *total)
{
	int cpus = libbpf_num_possible_cpus();
	struct lock_value *parts = calloc(cpus > 0 ? cpus : 1, sizeof(*parts));
	bool found = parts && !bpf_map_lookup_elem(map, key, parts);

	memset(total, 0, sizeof(*total));
	for (int cpu = 0; found && cpu < cpus; cpu++) {
		total->count += parts[cpu].count;
		total->contended += parts[cpu].contended;
		total->wait_ns += parts[cpu].wait_ns;
		if (parts[cpu].longest_ns > total->longest_ns)
			total->longest_ns = parts[cpu].longest_ns;
		for (int i = 0; i < LOCK_BUCKETS; i++)
			total->buckets[i] += parts[cpu].buckets[i];
	}
	free(parts);
	return found;
}

void lock_value_print(FILE *file, const struct lock_value *value)
{
	int last = LOCK_BUCKETS - 1;

	fprintf(file, "\"count\": %llu, \"contended\": %llu, \"wait_ns\": %llu, "
		"\"longest_ns\": %llu, \"log2_ns\": [", value->count, value->contended,
		value->wait_ns, value->longest_ns);
	while (last >= 0 && !value->buckets[last])
		last--;
	for (int i = 0; i <= last; i++)
		fprintf(file, "%s%u", i ? ", " : "", value->buckets[i]);
	putc(']', file);
}
