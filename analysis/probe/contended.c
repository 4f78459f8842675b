// SPDX-License-Identifier: GPL-2.0-only
/* Locks that traced tasks found taken, by name: no address of one leaves this file. */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "contended.h"
#include "contended_file.h"
#include "follow_tasks.h"
#include "json.h"
#include "kallsyms.h"
#include "lock_value.h"
#include "ops_names.h"
#include "output.h"
#include "stacks.h"

static const char *const lock_words[LOCK_NAMES] = {
	[LOCK_OTHER] = "other", [LOCK_MMAP] = "mmap_lock", [LOCK_VMA] = "VMA lock",
	[LOCK_I_MMAP] = "i_mmap_rwsem", [LOCK_INODE] = "i_rwsem", [LOCK_ANON_VMA] = "anon_vma",
	[LOCK_PAGE_TABLE] = "page table", [LOCK_MM_PAGE_TABLE] = "page_table_lock",
	[LOCK_ZONE] = "zone", [LOCK_LRU] = "lru_lock", [LOCK_SIGHAND] = "siglock",
};

/* perf lock contention's words: tools/perf/builtin-lock.c */
static const struct {
	__u8 flags;
	const char *type;
} types[] = {
	{ 0, "semaphore" }, { LCB_F_SPIN, "spinlock" },
	{ LCB_F_SPIN | LCB_F_READ, "rwlock:R" }, { LCB_F_SPIN | LCB_F_WRITE, "rwlock:W" },
	{ LCB_F_READ, "rwsem:R" }, { LCB_F_WRITE, "rwsem:W" },
	{ LCB_F_RT, "rt-mutex" }, { LCB_F_RT | LCB_F_READ, "rwlock-rt:R" },
	{ LCB_F_RT | LCB_F_WRITE, "rwlock-rt:W" },
	{ LCB_F_PERCPU | LCB_F_READ, "pcpu-sem:R" }, { LCB_F_PERCPU | LCB_F_WRITE, "pcpu-sem:W" },
	{ LCB_F_MUTEX, "mutex" }, { LCB_F_MUTEX | LCB_F_SPIN, "mutex" },
};

/* System calls that lock a VMA for writing, as their callers are called. */
static const struct {
	int number;
	const char *word;
} calls[] = {
	{ SYS_mmap, "mmap" }, { SYS_munmap, "munmap" }, { SYS_brk, "brk" },
	{ SYS_mprotect, "mprotect" }, { SYS_mremap, "mremap" }, { SYS_madvise, "madvise" },
	{ SYS_clone, "fork" }, { SYS_clone3, "fork" }, { SYS_execve, "exec" },
	{ SYS_exit, "exit" }, { SYS_exit_group, "exit" }, { SYS_ioctl, "userfaultfd" },
#ifdef SYS_fork
	{ SYS_fork, "fork" },
#endif
};

static const char *call_word(__u32 call)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if ((__u32)calls[i].number + 1 == call)
			return calls[i].word;
	return call ? "other" : NULL;
}

static const char *type_of(__u8 flags)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].flags == flags)
			return types[i].type;
	return "unknown";
}

void contended_know_kernel(struct bpf_object *object, bool sees_writers)
{
	static const char *const ends[] = { "_sdata", "_end" };
	static const char *const waiters[] = { "__vma_start_write", "vma_mark_detached" };
	struct bpf_map *map = bpf_object__find_map_by_name(object, ".rodata.locks");
	struct lock_constants *constants;
	__u64 image[2];
	size_t size;

	constants = (void *)bpf_map__initial_value(map, &size);
	constants->sees_writers = sees_writers;
	kallsyms_addresses(ends, 2, image);
	if (image[0] && image[1])
		memcpy(constants->image, image, sizeof(image));
	kallsyms_ranges(waiters, 2, constants->waiters);
}

/* ---- symbols ---- */

struct symbols {
	__u64 *addresses;		/* ascending */
	char **names;
	size_t count;
};

static int compare_u64(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void name_symbol(void *arg, size_t index, const char *name)
{
	struct symbols *symbols = arg;

	if (!symbols->names[index])
		symbols->names[index] = strdup(name);
}

static void read_symbols(struct symbols *symbols, int things)
{
	struct thing_key key, *previous = NULL;
	struct buffer addresses = {};

	while (!bpf_map_get_next_key(things, previous, &key)) {
		previous = &key;
		if (key.name == LOCK_OTHER)
			append(&addresses, &key.address, sizeof(key.address));
	}
	symbols->addresses = (void *)addresses.data;
	symbols->count = addresses.size / sizeof(__u64);
	symbols->names = calloc(symbols->count + 1, sizeof(char *));
	if (!symbols->names || !symbols->count)
		return;
	qsort(symbols->addresses, symbols->count, sizeof(__u64), compare_u64);
	kallsyms_names(symbols->addresses, symbols->count, name_symbol, symbols);
}

static const char *symbol_of(const struct symbols *symbols, __u64 address)
{
	const __u64 *found = symbols->count ? bsearch(&address, symbols->addresses, symbols->count,
						      sizeof(address), compare_u64) : NULL;

	return found ? symbols->names[found - symbols->addresses] : NULL;
}

static void free_symbols(struct symbols *symbols)
{
	for (size_t i = 0; symbols->names && i < symbols->count; i++)
		free(symbols->names[i]);
	free(symbols->names);
	free(symbols->addresses);
}

/* ---- JSON ---- */

static void print_thing(FILE *file, const struct thing_key *key, const struct thing *thing,
			const struct symbols *symbols, const struct ops_list *ops)
{
	fprintf(file, "    {\"id\": %u, ", thing->id);
	json_pair(file, "lock", key->name < LOCK_NAMES ? lock_words[key->name] : NULL, ", ");
	json_pair(file, "symbol", key->name == LOCK_OTHER ? symbol_of(symbols, key->address) : NULL,
		  ", ");
	fprintf(file, "\"mm\": %u, \"foreign\": %s, \"found\": %u, \"start\": %llu, \"end\": %llu, "
		"\"bits\": %u, \"prot\": %u, \"flags\": %llu, \"dev\": %u, \"inode\": %llu, ",
		thing->mm, thing->foreign ? "true" : "false", thing->found, thing->start, thing->end,
		thing->kind.bits, thing->kind.prot, thing->kind.flags, thing->kind.dev,
		thing->kind.ino);
	json_pair(file, "vm_ops", thing->ops <= MAX_OPS ? ops->names[thing->ops] : NULL, ", ");
	json_pair(file, "file", thing->file, "}");
}

static void print_things(FILE *file, struct bpf_object *object)
{
	int map = bpf_object__find_map_fd_by_name(object, "things");
	struct thing_key key, *previous = NULL;
	struct symbols symbols = {};
	struct ops_list ops = {};
	const char *before = "\n";
	struct thing thing;

	read_symbols(&symbols, map);
	ops_list_read(&ops, bpf_object__find_map_fd_by_name(object, "ops"));
	fputs("  \"things\": [", file);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (bpf_map_lookup_elem(map, &key, &thing))
			continue;
		fputs(before, file);
		print_thing(file, &key, &thing, &symbols, &ops);
		before = ",\n";
	}
	fputs("\n  ],\n", file);
	ops_list_free(&ops);
	free_symbols(&symbols);
}

static void print_wait(FILE *file, const struct contended_key *key, const struct lock_value *value,
		       const struct stack_names *names)
{
	fprintf(file, "    {\"process\": %u, ", key->process);
	json_pair(file, "asked_by", stack_asker(names, key->stack), ", ");
	json_pair(file, "lock", key->name < LOCK_NAMES ? lock_words[key->name] : NULL, ", ");
	json_pair(file, "type", type_of(key->flags), ", ");
	json_pair(file, "because_of", call_word(key->call), ", ");
	fprintf(file, "\"thing\": %u, \"success\": %s, \"kernel_stack\": %d, ", key->thing,
		key->failed ? "false" : "true", key->stack);
	lock_value_print(file, value);
	putc('}', file);
}

bool contended_stacks(struct bpf_object *object, struct buffer *ids)
{
	int map = bpf_object__find_map_fd_by_name(object, "contended");
	struct contended_key key, *previous = NULL;

	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (key.stack >= 0 && !append(ids, &key.stack, sizeof(key.stack)))
			return false;
	}
	return true;
}

void contended_print(FILE *file, struct bpf_object *object, const struct stack_names *names)
{
	int map = bpf_object__find_map_fd_by_name(object, "contended");
	struct contended_key key, *previous = NULL;
	struct contended_totals totals = {};
	const char *before = "\n";
	struct lock_value value;

	read_bss(object, ".bss.contended", &totals, sizeof(totals));
	fprintf(file, "  \"waits_lost\": %llu,\n  \"things_lost\": %llu,\n  \"unended\": %llu,\n"
		"  \"unnamed_vmas\": %llu,\n", totals.lost, totals.things_lost, totals.unended,
		totals.unnamed_vmas);
	fputs("  \"contended\": [", file);
	while (!bpf_map_get_next_key(map, previous, &key)) {
		previous = &key;
		if (!lock_value_sum(map, &key, &value))
			continue;
		fputs(before, file);
		print_wait(file, &key, &value, names);
		before = ",\n";
	}
	fputs("\n  ],\n", file);
	print_things(file, object);
}
