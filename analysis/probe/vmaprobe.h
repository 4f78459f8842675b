/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef VMAPROBE_H
#define VMAPROBE_H

#include <linux/types.h>
#include <stdbool.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "census.h"

/* Exit codes; the README and --help list them. */
enum {
	EXIT_OK		= 0,
	EXIT_OTHER	= 1,
	EXIT_USAGE	= 2,
	EXIT_PRIVILEGE	= 3,
	EXIT_KERNEL	= 4,
	EXIT_VANISHED	= 5,
};

/* One sentence on stderr, then the exit code that goes with it. */
int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Set by SIGINT, SIGTERM and SIGHUP: stop soon, leave nothing half-written. */
extern volatile sig_atomic_t interrupted;

/* ---- output.c ---- */

/* A growing array; the only container needed here. */
struct buffer {
	char *data;
	size_t size, room;
};

/*
 * A file that has its name only when it is whole; fd is -1 where there is none. It is written
 * where a link leads to; what is no file, but a device or a FIFO, is written to as it is.
 */
struct output {
	const char *path;
	char *place, *partial;		/* NULL: no file */
	int fd;
	char *buffer;
	size_t used;
};

void *append(struct buffer *buffer, const void *data, size_t size);
/* Whether a path is that of a file, or of nothing yet; and where it leads to then. */
bool output_is_file(const char *path);
char *output_place(const char *path);
bool write_all(int fd, const void *data, size_t size);
int output_open(struct output *output, const char *path);
bool output_write(struct output *output, const void *data, size_t size);
int output_flush(struct output *output);
int output_commit(struct output *output);
void output_close(struct output *output);
/* What PRINT prints goes to OUTPUT, which then has its name, or to standard output. */
int output_result(struct output *output, bool (*print)(FILE *file, void *arg), void *arg);
__u64 monotonic_ns(void);

/* ---- kallsyms.c ---- */

/* The address of one symbol; 0 if there is none or addresses are hidden. */
__u64 kallsyms_address(const char *name);
/* The same of some, in one reading. */
void kallsyms_addresses(const char *const *names, size_t count, __u64 *addresses);
/* Where each function begins and the next symbol does; both 0 if there is none of that name. */
void kallsyms_ranges(const char *const *names, size_t count, __u64 (*ranges)[2]);
/* Calls back with the name at each of COUNT distinct addresses, ascending; false if unreadable. */
bool kallsyms_names(const __u64 *addresses, size_t count,
		    void (*found)(void *arg, size_t index, const char *name), void *arg);

/* Calls back with the name of the function around each of COUNT addresses, ascending. */
bool kallsyms_functions(const __u64 *addresses, size_t count,
			void (*found)(void *arg, size_t index, const char *name), void *arg);

/* ---- btf.c ---- */

/* How many arguments a tracepoint has; 0 if there is none of that name. */
unsigned int tracepoint_arguments(const char *name);
/* Whether there is a function of that name which BTF tells of, such as a kfunc. */
bool has_function(const char *name);
/* Whether a VMA has a lock of its own; negative if that cannot be told. */
int has_vma_locks(void);

/* ---- ops_names.c ---- */

/* Calls back with each vm_operations_struct in a map "ops", and its name or NULL; false on failure. */
bool ops_names(int map, bool (*each)(void *arg, struct ops_entry *entry, const char *name), void *arg);

/* ---- pages.c ---- */

struct page_looker {
	int pagemap;
	int kpageflags;
	int how;			/* PAGES_* of census.h; degrades once, for all */
	__u64 categories;
	__u32 page_size;
	__u64 failed;			/* bare VMAs that could not be looked at */
};

void pages_init(struct page_looker *looker, int how);
void pages_open(struct page_looker *looker, __u32 tid);
void pages_look(struct page_looker *looker, struct vma_record *vmas, size_t count);
void pages_close(struct page_looker *looker);
void pages_exit(struct page_looker *looker);
bool pagemap_scan_works(void);

/* ---- census.c ---- */

struct census;

struct census_options {
	const char *output;		/* NULL: standard output */
	int pages_how;
};

int census_open(struct census **census, const struct census_options *options);
/* Every mm, or those of the thread groups named. */
int census_take(struct census *census, const __u32 *tgids, size_t count);
__u32 census_missing(const struct census *census, const __u32 *tgids, size_t count);
/* The mm of one task that stops in its exit, unless another task not yet EXITED still uses it. */
int census_take_exiting(struct census *census, __u32 tid, bool (*exited)(__u32 tid));
/* Writes the file; without this, census_close() leaves none. */
void census_went_on(struct census *census, __u32 processes);
int census_commit(struct census *census);
void census_close(struct census *census);

/* ---- command.c ---- */

struct command {
	pid_t pid;
	int status;
	struct rusage used;
	__u64 ended_ns;			/* CLOCK_MONOTONIC */
};

/*
 * Starts a process for a command; it is stopped, a child of ours like any, until command_begin().
 * ASIDE: what it prints goes to standard error, for standard output is for our result.
 */
int command_prepare(struct command *command, char **argv, bool aside);
int command_begin(struct command *command);
/* Waits for its end, calling EACH, if not NULL, every few milliseconds; kills it when EACH fails. */
int command_wait(struct command *command, int (*each)(void *arg), void *arg);
/* As a shell has it. */
int command_status(const struct command *command);
/* Kills it, if it runs still. */
void command_close(struct command *command);

/* ---- traced.c ---- */

struct bpf_object;
struct bpf_program;

/* Copies a section of variables, such as ".bss.counts". */
bool read_bss(struct bpf_object *object, const char *name, void *value, size_t size);
int know_the_probe(struct bpf_object *object);
/* To be called before it is loaded. */
void size_groups(struct bpf_object *object);
/* Runs a program of type iter/task on every task. */
int run_on_tasks(struct bpf_object *object, const char *name);
/* Has these processes traced from now on, and all that they start. */
int trace_processes(struct bpf_object *object, const __u32 *pids, size_t count);
/* The members "processes", "faults_before" and the losses, of a JSON object. */
void print_processes(FILE *file, struct bpf_object *object);

/* ---- tracefs.c ---- */

/* The directory of each, wherever it is mounted, or nowhere; -1 if it cannot be had. */
int tracefs_open(void);
int debugfs_open(void);
/* All of a file, as a string to be freed; NULL if it cannot be read. */
char *read_file_at(int directory, const char *path);

/* ---- preemption.c ---- */

enum preemption {
	NOT_PREEMPTIBLE,
	PREEMPTIBLE,
	PREEMPTION_UNKNOWN,
};

/* The model in the kernel's own word: none, voluntary, full, lazy, rt; "unknown". */
enum preemption preemption_model(char *model, size_t size);

/* ---- tracer.c ---- */

struct embedded {
	const char *name, *start, *end;
};

struct attached {
	const struct bpf_program *program;
	struct bpf_link *link;		/* NULL when it is detached */
	__u64 missed;			/* by it, known then */
};

struct tracer {
	struct bpf_object *object;
	struct attached attached[16];
	size_t attached_count;
	bool plain;			/* tracepoints by programs of type "tp", not "tp_btf" */
};

/*
 * Loads and attaches it; PREPARE is called before that, which may be twice. What is attached
 * sees nothing until tasks are followed. Nothing is left where it fails.
 */
int tracer_load(struct tracer *tracer, const struct embedded *embedded,
		void (*prepare)(struct tracer *tracer, void *arg), void *arg);
/* To be called by PREPARE: whether a program is one of those to load; does without a tracepoint. */
void tracer_use(struct tracer *tracer, const char *program, bool use);
void tracer_drop(struct tracer *tracer, const char *tracepoint);
/* Whether one of its programs is for this tracepoint. */
bool tracer_has(const struct tracer *tracer, const char *tracepoint);
/* Attaches a program of any section; NULL, and errno, where that fails. */
struct bpf_link *attach_program(const struct bpf_program *program);
void tracer_detach(struct tracer *tracer);
void tracer_close(struct tracer *tracer);
bool tracer_is_preemptible(const struct tracer *tracer);

/* The member "misses" of a JSON object: of each program, how often it was not run. */
void tracer_print_misses(FILE *file, const struct tracer *tracer);

/* ---- watch.c ---- */

struct watch {
	__u32 *pids;
	size_t pid_count;
	double seconds;			/* 0: as long as they live */
	char **command;			/* or NULL */
	void (*ready)(void *arg);	/* or NULL: the command is followed, and has not begun */
	/* What came of it. */
	__u64 begun_ns, ended_ns;	/* CLOCK_MONOTONIC */
	struct rusage used;		/* by the command */
	int status;			/* the command's */
};

#define WATCH_OPTIONS	{ "pid", required_argument, NULL, 'p' },	\
			{ "seconds", required_argument, NULL, 't' }

int watch_option(struct watch *watch, int option, const char *word);
int watch_parsed(struct watch *watch, const char *what, int argc, char **argv);

/* The whole command line of a tracer that takes these options and --output alone. */
int watch_parse(struct watch *watch, const char *what, const char **output, int argc, char **argv);
/* ASIDE as for command_prepare(); EACH, if not NULL, is called every few milliseconds. */
int watch_run(struct watch *watch, struct bpf_object *object, bool aside, int (*each)(void *arg),
	      void *arg);
void watch_close(struct watch *watch);

/* ---- stacks.c ---- */

struct stack_names;

/* The kernel stacks that IDS names, in a map of stacks of DEPTH, by function; NULL: no memory. */
struct stack_names *stack_names_read(int map, size_t depth, const __s32 *ids, size_t count);
/* Who took mmap_lock there, in a word or two. */
const char *stack_asker(const struct stack_names *names, __s32 id);
/* The member "stacks" of a JSON object. */
void stack_names_print(FILE *file, const struct stack_names *names);
void stack_names_free(struct stack_names *names);

/* ---- user_stacks.c ---- */

/* What lies where in the traced processes: looked at again and again while they live. */
struct user_images;

struct user_stack {
	__u32 process;			/* traced_process.id */
	__s32 id;
};

struct user_images *user_images_new(struct bpf_object *object);
void user_images_look(struct user_images *images);
/* The member "user_stacks" of a JSON object: by process and id, the innermost function first. */
void user_stacks_print(FILE *file, struct user_images *images, int map,
		       const struct user_stack *stacks, size_t count);
void user_images_free(struct user_images *images);

/* ---- faults.c ---- */

int run_faults(int argc, char **argv);

/* ---- follow.c ---- */

/*
 * Runs COMMAND, taking each process's census as it exits; returns COMMAND's exit code.
 * USED is what COMMAND and all that it waited for have used.
 */
int follow_command(struct census *census, char **command, bool skip_root, int *command_status,
		   struct rusage *used);

/* ---- usage.c ---- */

struct usage {
	unsigned long long minor_faults, major_faults, voluntary_ctxt, involuntary_ctxt;
	double user_s, system_s;
};

/* One JSON object: what these processes have used so far, summed. */
int usage_print(const __u32 *pids, size_t count);
/* The same object, of a command that has ended. */
int usage_write(const char *path, const struct rusage *used);
/* Runs a command, watched by nothing, and prints what it used and how long it took. */
int usage_run(char **argv, const char *path);

/* ---- locks.c ---- */

int run_locks(int argc, char **argv);

/* ---- lock_askers.c ---- */

/* By the functions of a stack, the innermost first. */
const char *lock_asker(char *const *functions, size_t depth);

/* ---- lock_witness.c ---- */

struct lock_witness;
struct lock_testimony;

/* Begins to count; NULL, and why, where that cannot be had. */
struct lock_witness *lock_witness_begin(char *why, size_t size);
/* What it counted of the tasks in a map of tallies, beside those. */
bool lock_witness_hear(const struct lock_witness *witness, int tallies, struct lock_testimony *found);
void lock_witness_end(struct lock_witness *witness);

/* ---- time.c ---- */

int run_time(int argc, char **argv);

/* ---- features.c ---- */

int features_print(bool json);

/* ---- the BPF objects, embedded by the assembler ---- */

extern const char census_bpf_start[], census_bpf_end[];
extern const char features_bpf_start[], features_bpf_end[];
extern const char locks_bpf_start[], locks_bpf_end[];
extern const char time_bpf_start[], time_bpf_end[];
extern const char faults_handled_bpf_start[], faults_handled_bpf_end[];
extern const char faults_tracepoint_bpf_start[], faults_tracepoint_bpf_end[];

struct bpf_object *open_embedded(const char *name, const char *start, const char *end);
/* What the kernel lacks that a program relies on, by name, if libbpf has said so; else NULL. */
const char *what_is_lacking(void);
/* Why loading failed with ERROR, in one sentence; returns the exit code. */
int explain_load_failure(int error);
int parse_pid(const char *text, __u32 *pid);

#endif
