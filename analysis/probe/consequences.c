// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe consequences: what bareness costs beside page faults. Each operation is done to a VMA
 * that is bare and to one that differs in that alone: a page of it was written, and given back; or,
 * where only pages of its own show what bareness spares, it keeps them.
 *
 * The kernel's own tracepoint counts how often mmap_lock was acquired meanwhile, through perf
 * events of this task. The last VMA of each stays until a census has been taken of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "census.h"
#include "common.h"
#include "consequences.h"
#include "json.h"
#include "output.h"
#include "subcommands.h"
#include "take_census.h"
#include "tracefs.h"

#define TRIALS	64

static const char *const filters[] = { "write==0 && success==1", "write==1 && success==1" };

enum { READS, WRITES, NR_LOCKS };

struct outcome {
	struct trial last;
	int trials, setup_error;
	__u64 ns[TRIALS];
	__u64 locks[NR_LOCKS];
	long faults, faults_after;
};

struct consequences {
	int counters[NR_LOCKS];		/* perf events, or -1 */
	const char *no_counters;	/* why acquisitions cannot be counted, or NULL */
	struct outcome (*outcomes)[2];	/* by operation, and whether it was bare */
	const char *only;
};

/* ---- counting ---- */

static int open_counter(const char *filter)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr) };
	int directory = tracefs_open(), fd;
	char *id = read_file_at(directory, "events/mmap_lock/mmap_lock_acquire_returned/id");

	if (directory >= 0)
		close(directory);
	if (!id)
		return -1;
	attr.config = strtoull(id, NULL, 10);
	free(id);
	fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd >= 0 && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter)) {
		close(fd);
		return -1;
	}
	return fd;
}

static __u64 count(int counter)
{
	__u64 value = 0;

	return counter >= 0 && read(counter, &value, sizeof(value)) == sizeof(value) ? value : 0;
}

/* Whether the events count at all: unmapping takes mmap_lock for writing. */
static bool counts_itself(const struct consequences *all)
{
	void *page = mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	__u64 before = count(all->counters[WRITES]);

	return page != MAP_FAILED && !munmap(page, 1) && count(all->counters[WRITES]) > before;
}

static long faults(void)
{
	struct rusage used;

	getrusage(RUSAGE_THREAD, &used);
	return used.ru_minflt + used.ru_majflt;
}

/* ---- one trial ---- */

static void touch(const struct trial *trial)
{
	for (size_t i = 0; i < trial->length / trial->page; i++)
		if (i < trial->skip_from || i >= trial->skip_to)
			*(volatile char *)(trial->at + i * trial->page);
}

/* Both ways with the same pages in it, or none. */
static bool make(struct trial *trial, const struct operation *operation)
{
	if (mmap(trial->at, trial->length, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != trial->at)
		return false;
	/* Without CONFIG_TRANSPARENT_HUGEPAGE there is nothing to keep away. */
	madvise(trial->at, trial->length, MADV_NOHUGEPAGE);
	if (!trial->bare && operation->contents == WRITTEN) {
		memset(trial->at, 1, trial->length);
	} else if (!trial->bare) {
		*trial->at = 1;
		madvise(trial->at, trial->length, MADV_DONTNEED);
	}
	if (operation->contents != NOTHING)
		touch(trial);
	return true;
}

static void try_once(const struct consequences *all, const struct operation *operation,
		     struct trial *trial, struct outcome *outcome)
{
	__u64 locks[NR_LOCKS], begun;
	long before = faults();

	for (int i = 0; i < NR_LOCKS; i++)
		locks[i] = count(all->counters[i]);
	begun = monotonic_ns();
	trial->error = operation->run(trial) ? errno : 0;
	outcome->ns[outcome->trials++] = monotonic_ns() - begun;
	for (int i = 0; i < NR_LOCKS; i++)
		outcome->locks[i] += count(all->counters[i]) - locks[i];
	outcome->faults += faults() - before;
	if (operation->finish)
		operation->finish(trial);
	if (trial->file >= 0)
		close(trial->file);
	before = faults();
	touch(trial);
	outcome->faults_after += faults() - before;
	/* What else a child faults on, such as its rseq area, it does not fault on each time. */
	if (outcome->trials > 1 && outcome->last.child_faults < trial->child_faults)
		trial->child_faults = outcome->last.child_faults;
	/* A page in a batch of another CPU's, on its way to the LRU list, is passed over. */
	if (outcome->trials > 1 && outcome->last.pages > trial->pages)
		trial->pages = outcome->last.pages;
	outcome->last = *trial;
}

static void try(const struct consequences *all, size_t number, bool bare)
{
	const struct operation *operation = &operations[number];
	struct outcome *outcome = &all->outcomes[number][bare];
	char *place = (char *)0x7c0000000000 + (2 * number + bare) * 8 * HUGE_SIZE;
	struct trial trial = { .at = place, .page = sysconf(_SC_PAGESIZE), .bare = bare,
			       .file = -1, .child_faults = -1, .dumped = -1, .pages = -1 };

	trial.length = operation->huge ? HUGE_SIZE : PAGES * trial.page;
	munmap(place, 4 * HUGE_SIZE);
	if (make(&trial, operation) && (!operation->setup || !operation->setup(&trial))) {
		try_once(all, operation, &trial, outcome);
		return;
	}
	outcome->setup_error = errno ? errno : ENODEV;
	outcome->last = trial;
	if (trial.file >= 0)
		close(trial.file);
	munmap(place, 4 * HUGE_SIZE);
}

/* In turns, so that whatever else goes on meets both. */
static void try_operation(const struct consequences *all, size_t number)
{
	int trials = operations[number].trials ? operations[number].trials : TRIALS;

	for (int i = 0; i < 2 * trials && !interrupted; i++)
		if (!all->outcomes[number][i & 1].setup_error)
			try(all, number, i & 1);
}

/* ---- the result ---- */

static int compare(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void print_number(FILE *file, const char *key, long value)
{
	if (value < 0)
		fprintf(file, "\"%s\": null, ", key);
	else
		fprintf(file, "\"%s\": %ld, ", key, value);
}

static void print_outcome(FILE *file, const struct consequences *all, size_t number, bool bare)
{
	struct outcome *outcome = &all->outcomes[number][bare];
	const struct trial *last = &outcome->last;
	int error = outcome->setup_error ? outcome->setup_error : last->error;
	bool counted = !all->no_counters;

	qsort(outcome->ns, outcome->trials, sizeof(outcome->ns[0]), compare);
	fprintf(file, "{\"operation\": \"%s\", \"bare\": %s, \"pid\": %d, \"start\": %lu, \"end\": %lu, ",
		operations[number].name, bare ? "true" : "false", getpid(), (unsigned long)last->at,
		(unsigned long)last->at + last->length);
	print_number(file, "trials", outcome->trials);
	print_number(file, "median_ns", outcome->trials ? (long)outcome->ns[outcome->trials / 2] : -1);
	print_number(file, "reads", counted ? (long)outcome->locks[READS] : -1);
	print_number(file, "writes", counted ? (long)outcome->locks[WRITES] : -1);
	print_number(file, "faults", outcome->faults);
	print_number(file, "faults_after", outcome->faults_after);
	print_number(file, "child_faults", last->child_faults);
	print_number(file, "dumped", last->dumped);
	print_number(file, "pages", last->pages);
	json_pair(file, "error", error && last->lacks ? last->lacks :
			 error ? strerrorname_np(error) : NULL, "}");
}

static bool print_all(FILE *file, void *arg)
{
	const struct consequences *all = arg;
	const char *comma = "";

	fputc('{', file);
	json_pair(file, "uncounted", all->no_counters, ", ");
	fputs("\"outcomes\": [", file);
	for (size_t i = 0; i < nr_operations; i++)
		for (int bare = 0; bare < 2; bare++) {
			struct outcome *outcome = &all->outcomes[i][bare];

			if (!outcome->trials && !outcome->setup_error)
				continue;
			fputs(comma, file);
			print_outcome(file, all, i, bare);
			comma = ",\n";
		}
	fputs("]}\n", file);
	return !ferror(file);
}

static int take(const char *path)
{
	struct census_options options = { .output = path, .pages_how = PAGES_SCAN };
	__u32 self = getpid();
	struct census *census;
	int code = census_open(&census, &options);

	if (!code)
		code = census_take(census, &self, 1);
	if (!code && interrupted)
		code = 128 + interrupted;
	if (!code)
		code = census_commit(census);
	census_close(census);
	return code;
}

static void try_all(struct consequences *all)
{
	for (int i = 0; i < NR_LOCKS; i++) {
		all->counters[i] = open_counter(filters[i]);
		if (all->counters[i] < 0 && !all->no_counters)
			all->no_counters = strerror(errno);
	}
	if (!all->no_counters && !counts_itself(all))
		all->no_counters = "a BPF program of another tracer on the same tracepoint keeps "
				   "perf from counting (trace_call_bpf())";
	for (size_t i = 0; i < nr_operations; i++)
		if (!all->only || !strcmp(all->only, operations[i].name))
			try_operation(all, i);
}

static bool parse(int argc, char **argv, struct consequences *all, const char **census,
		  const char **outcomes)
{
	const struct {
		const char *name, **value;
	} options[] = { { "--census", census }, { "--output", outcomes }, { "--only", &all->only } };
	size_t which;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--start-ksmd")) {
			may_start_ksmd = true;
			continue;
		}
		for (which = 0; which < 3 && strcmp(argv[i], options[which].name);)
			which++;
		if (which == 3 || ++i == argc)
			return false;
		*options[which].value = argv[i];
	}
	return *census && *outcomes;
}

int run_consequences(int argc, char **argv)
{
	const char *census = NULL, *outcomes = NULL;
	struct consequences all = { 0 };
	struct output output = { .fd = -1 };
	int code;

	if (!parse(argc, argv, &all, &census, &outcomes))
		return complain(EXIT_USAGE, "consequences takes --census FILE and --output FILE, and "
				"maybe --only OPERATION and --start-ksmd");
	all.outcomes = calloc(nr_operations, sizeof(*all.outcomes));
	if (!all.outcomes)
		return complain(EXIT_OTHER, "out of memory");
	code = output_open(&output, outcomes);
	if (!code) {
		try_all(&all);
		code = interrupted ? 128 + interrupted : take(census);
	}
	if (!code)
		code = output_result(&output, print_all, &all);
	output_close(&output);
	free(all.outcomes);
	return code;
}
