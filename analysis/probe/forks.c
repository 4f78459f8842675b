// SPDX-License-Identifier: GPL-2.0-only
/* What the programs saw of forks: of what they could not see, null, which is not 0. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "btf.h"
#include "follow_tasks.h"
#include "forks.h"
#include "forks_file.h"

static void print_number(FILE *file, const char *name, __u64 number, bool known)
{
	if (known)
		fprintf(file, ", \"%s\": %llu", name, number);
	else
		fprintf(file, ", \"%s\": null", name);
}

static void print_fork(FILE *file, const struct fork_record *fork, bool copies)
{
	bool locks = copies && has_vma_locks() > 0;

	fprintf(file, "    {\"process\": %u, \"child\": %u, \"held_ns\": %llu, \"child_faults\": %llu",
		fork->process, fork->child, fork->held_ns, fork->child_faults);
	print_number(file, "vmas", fork->vmas, copies);
	print_number(file, "locked", fork->locked, locks);
	print_number(file, "skipped", fork->skipped, copies);
	print_number(file, "shut_out", fork->shut_out, copies);
	print_number(file, "shut_out_ns", fork->shut_out_ns, copies);
	print_number(file, "longest_ns", fork->longest_ns, copies);
	putc('}', file);
}

void forks_print(FILE *file, struct bpf_object *object, bool copies)
{
	int map = bpf_object__find_map_fd_by_name(object, "forks");
	struct fork_totals totals = {};
	const char *before = "\n";
	struct fork_record fork;
	__u32 id, *previous = NULL;

	read_bss(object, ".bss.forks", &totals, sizeof(totals));
	fprintf(file, "  \"forks_lost\": %llu,\n  \"forks\": [", totals.lost);
	while (!bpf_map_get_next_key(map, previous, &id)) {
		previous = &id;
		if (bpf_map_lookup_elem(map, &id, &fork))
			continue;
		fputs(before, file);
		print_fork(file, &fork, copies);
		before = ",\n";
	}
	fputs("\n  ],\n", file);
}
