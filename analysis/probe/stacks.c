// SPDX-License-Identifier: GPL-2.0-only
/* Stacks of the kernel, which are addresses until here, as the names of functions. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/bpf.h>
#include "json.h"
#include "kallsyms.h"
#include "lock_askers.h"
#include "stacks.h"

#define MAX_DEPTH	128

struct stack {
	__s32 id;
	size_t depth;
	char **functions;		/* the innermost first */
};

struct stack_names {
	struct stack *stacks;		/* by id */
	size_t count;
};

struct frames {
	__u64 *addresses;		/* distinct, ascending */
	char **names;
	size_t count;
};

static int compare_u64(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int compare_ids(const void *a, const void *b)
{
	const __s32 *x = a, *y = b;	/* of a struct stack the first member */

	return *x < *y ? -1 : *x > *y;
}

/* As perf names them: what a module calls its functions is its own affair. */
static void name_frame(void *arg, size_t index, const char *name, const char *module)
{
	struct frames *frames = arg;

	if (!module)
		frames->names[index] = strdup(name);
	else if (asprintf(&frames->names[index], "%s %s", name, module) < 0)
		frames->names[index] = NULL;
}

static size_t depth_of(const __u64 *stack, size_t limit)
{
	size_t depth = 0;

	while (depth < limit && stack[depth])
		depth++;
	return depth;
}

/* Every address in any of the stacks, once, with its function's name. */
static bool name_frames(struct frames *frames, int map, size_t depth, const struct stack_names *names)
{
	__u64 stack[MAX_DEPTH];
	size_t total = 0;

	frames->addresses = calloc(names->count * depth + 1, sizeof(__u64));
	for (size_t i = 0; i < names->count && frames->addresses; i++) {
		size_t found = bpf_map_lookup_elem(map, &names->stacks[i].id, stack) ? 0 :
			       depth_of(stack, depth);

		memcpy(frames->addresses + total, stack, found * sizeof(__u64));
		total += found;
	}
	if (total)
		qsort(frames->addresses, total, sizeof(__u64), compare_u64);
	for (size_t i = 0; i < total; i++)
		if (!i || frames->addresses[i] != frames->addresses[i - 1])
			frames->addresses[frames->count++] = frames->addresses[i];
	frames->names = calloc(frames->count + 1, sizeof(char *));
	if (!frames->addresses || !frames->names)
		return false;
	if (frames->count)
		kallsyms_functions(frames->addresses, frames->count, name_frame, frames);
	return true;
}

static const char *name_of(const struct frames *frames, __u64 address)
{
	const __u64 *found = bsearch(&address, frames->addresses, frames->count, sizeof(address),
				     compare_u64);
	const char *name = found ? frames->names[found - frames->addresses] : NULL;

	return name ? name : "unknown";
}

/* The frames of the programs that looked are no part of what they saw. */
static bool is_own_frame(const char *name)
{
	static const char *const begins[] = { "bpf_prog_", "bpf_trace_run", "__bpf_trace_",
					      "bpf_trampoline_", "__mmap_lock_do_trace_" };

	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++)
		if (!strncmp(name, begins[i], strlen(begins[i])))
			return true;
	return false;
}

static void fill(struct stack *to, int map, size_t depth, const struct frames *frames)
{
	__u64 stack[MAX_DEPTH];
	size_t found = bpf_map_lookup_elem(map, &to->id, stack) ? 0 : depth_of(stack, depth);

	to->functions = calloc(found + 1, sizeof(char *));
	for (size_t i = 0; to->functions && i < found; i++) {
		const char *name = name_of(frames, stack[i]);

		if (to->depth || !is_own_frame(name))
			to->functions[to->depth++] = strdup(name);
	}
}

struct stack_names *stack_names_read(int map, size_t depth, const __s32 *ids, size_t count)
{
	struct stack_names *names = calloc(1, sizeof(*names));
	struct frames frames = {};

	if (!names)
		return NULL;
	names->stacks = calloc(count + 1, sizeof(struct stack));
	for (size_t i = 0; i < count && names->stacks; i++)
		names->stacks[i].id = ids[i];
	if (count)
		qsort(names->stacks, count, sizeof(struct stack), compare_ids);
	for (size_t i = 0; i < count; i++)
		if (!i || names->stacks[i].id != names->stacks[i - 1].id)
			names->stacks[names->count++] = names->stacks[i];
	if (name_frames(&frames, map, depth, names))
		for (size_t i = 0; i < names->count; i++)
			fill(&names->stacks[i], map, depth, &frames);
	for (size_t i = 0; i < frames.count && frames.names; i++)
		free(frames.names[i]);
	free(frames.names);
	free(frames.addresses);
	return names;
}

const char *stack_asker(const struct stack_names *names, __s32 id)
{
	const struct stack *stack = id < 0 ? NULL :
				    bsearch(&id, names->stacks, names->count, sizeof(*stack), compare_ids);

	return stack && stack->depth ? lock_asker(stack->functions, stack->depth) : "unknown";
}

void stack_names_print(FILE *file, const struct stack_names *names)
{
	fputs("  \"stacks\": {", file);
	for (size_t i = 0; i < names->count; i++) {
		const struct stack *stack = &names->stacks[i];

		fprintf(file, "%s\n    \"%d\": [", i ? "," : "", stack->id);
		for (size_t f = 0; f < stack->depth; f++) {
			fputs(f ? ", " : "", file);
			json_string(file, stack->functions[f]);
		}
		putc(']', file);
	}
	fputs("\n  }", file);
}

void stack_names_free(struct stack_names *names)
{
	for (size_t i = 0; names && i < names->count; i++) {
		for (size_t f = 0; f < names->stacks[i].depth; f++)
			free(names->stacks[i].functions[f]);
		free(names->stacks[i].functions);
	}
	if (names)
		free(names->stacks);
	free(names);
}
