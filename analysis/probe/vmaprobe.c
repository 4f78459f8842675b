// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe: what the kernel itself knows of every VMA.
 *
 * The only part of anonvma, beside perf, that needs privilege. One static
 * binary, so that a target needs nothing else. No kernel pointer leaves it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <bpf/libbpf.h>
#include "lacking.h"
#include "vmaprobe.h"

#define EMBED(name, file)						\
	__asm__(".section .rodata\n.balign 8\n"				\
		".globl " #name "_start\n.globl " #name "_end\n"	\
		#name "_start:\n.incbin \"" file "\"\n" #name "_end:\n"	\
		".byte 0\n.previous\n")

EMBED(census_bpf, CENSUS_BPF_OBJECT);
EMBED(features_bpf, FEATURES_BPF_OBJECT);
EMBED(locks_bpf, LOCKS_BPF_OBJECT);
EMBED(time_bpf, TIME_BPF_OBJECT);
EMBED(faults_handled_bpf, FAULTS_HANDLED_BPF_OBJECT);
EMBED(faults_tracepoint_bpf, FAULTS_TRACEPOINT_BPF_OBJECT);

static const char usage_text[] =
"Usage: vmaprobe census [--pid PID]... [--pages HOW] [--output FILE]\n"
"       vmaprobe census --at-exit [--skip-root] [--usage FILE] --output FILE -- COMMAND...\n"
"       vmaprobe features [--json]\n"
"       vmaprobe usage --pid PID... | [--output FILE] -- COMMAND...\n"
"       vmaprobe faults [--pid PID]... [--seconds N] [--source WHICH] [--events FILE]\n"
"                       [--stacks] [--output FILE] [-- COMMAND...]\n"
"       vmaprobe locks [--pid PID]... [--seconds N] [--output FILE] [-- COMMAND...]\n"
"       vmaprobe time [--pid PID]... [--seconds N] [--output FILE] [-- COMMAND...]\n"
"\n"
"census    Every VMA of every process, or of those named, as binary records after a\n"
"          header that describes them (analysis/probe/census.h). For each bare VMA\n"
"          (vm_ops and anon_vma both NULL) also the pages in it.\n"
"  --pid PID      only this process; may be repeated\n"
"  --output FILE  default: standard output, if that is not a terminal. FILE appears\n"
"                 when the census is whole; until then it is FILE.partial\n"
"  --pages HOW    scan (ioctl PAGEMAP_SCAN; falls back to pagemap before 6.7),\n"
"                 pagemap (/proc/PID/pagemap and /proc/kpageflags) or none\n"
"  --at-exit      run COMMAND and take the census of it and of every process it\n"
"                 starts, each as it exits, its mappings still in place\n"
"  --skip-root    leave out COMMAND's first process, a wrapper such as perf\n"
"  --usage FILE   with --at-exit: also write what COMMAND used, as \"usage\" prints it\n"
"\n"
"features  What this kernel allows this user, with reason and remedy where it does not.\n"
"  --json         the same as one JSON object\n"
"\n"
"usage     The page faults, times and context switches of these processes so far, summed,\n"
"          or of COMMAND, which nothing else watches, as one JSON object.\n"
"\n"
"faults    Every page fault of COMMAND, or of the processes named, and of what they start:\n"
"          what it found and left (vm_ops, anon_vma), under which lock it was taken, and how\n"
"          it ended; counted in the kernel, as one JSON object.\n"
"  --pid PID      this process, as long as it lives; may be repeated\n"
"  --seconds N    with --pid: no longer than so. SIGINT and SIGTERM end it, too, in order\n"
"  --source WHICH fentry (fentry and fexit of handle_mm_fault(); misses some on a preemptible\n"
"                 kernel), kprobe (kprobe.multi of it; costs more, and misses none), tracepoint\n"
"                 (page_fault_user and page_fault_kernel; without times) or auto: the first of\n"
"                 these that works and misses nothing on this kernel\n"
"  --events FILE  each fault as a binary record, too (analysis/probe/faults.h)\n"
"  --stacks       tell the stacks at each fault apart, the kernel's and the user's; those are\n"
"                 told by frame pointers, and /proc/PID/maps is read for the files in them\n"
"  --output FILE  the JSON goes there. Without it, it goes to standard output, and what\n"
"                 COMMAND prints to standard error\n"
"\n"
"locks     Who took mmap_lock, for reading or writing, how often and how long each waited,\n"
"          as one JSON object, beside what a histogram of the same tracepoint has. Options as\n"
"          for faults.\n"
"\n"
"time      Where the time of COMMAND's tasks goes, or of those of the processes named: user mode,\n"
"          page faults, mmap() and other calls, each at work, waiting for mmap_lock, holding it,\n"
"          asleep or waiting for a CPU, as one JSON object; it adds up. Options as for faults.\n"
"\n"
"They say what they lost, be it for want of room or because the kernel did not run a program.\n"
"An --output or --events that is a device or a FIFO is written to, and where it is a link, what\n"
"that leads to.\n"
"\n"
"Exit codes: 0 done; 1 failed; 2 usage; 3 no privilege; 4 the kernel lacks what is\n"
"needed; 5 a process named does not exist or has no memory of its own; 130 interrupted.\n"
"With a COMMAND, its own exit code when the observation succeeded.\n";

volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
	interrupted = signal;
}

int complain(int code, const char *format, ...)
{
	va_list args;

	fputs("vmaprobe: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return code;
}

struct bpf_object *open_embedded(const char *name, const char *start, const char *end)
{
	/* For tests: another kernel's types. Not for whoever has no privilege but by this file's. */
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = name,
		    .btf_custom_path = secure_getenv("VMAPROBE_BTF"));

	return bpf_object__open_mem(start, end - start, &opts);
}

int explain_load_failure(int error)
{
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		return complain(EXIT_KERNEL, "this kernel has no type information "
				"(/sys/kernel/btf/vmlinux): it must be built with CONFIG_DEBUG_INFO_BTF=y");
	/* The verifier, too, says EACCES of a program it does not follow. */
	if (error == -EPERM || (error == -EACCES && geteuid()))
		return complain(EXIT_PRIVILEGE, "BPF is refused to this user: run it as root or under "
				"sudo, or give it CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, "
				"CAP_DAC_READ_SEARCH and CAP_SYSLOG");
	if (what_is_lacking())
		return complain(EXIT_KERNEL, "this kernel has no %s, which the BPF programs rely on: "
				"it may be older than Linux 6.1 or newer than this program",
				what_is_lacking());
	return complain(EXIT_KERNEL, "this kernel does not accept the BPF programs (%s): Linux 6.1 "
			"or later is needed", strerror(-error));
}

int parse_pid(const char *text, __u32 *pid)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value <= 0 || value > 4194304)
		return complain(EXIT_USAGE, "--pid %s: not a process id", text);
	*pid = value;
	return 0;
}

/*
 * The kernel tells us processes by their numbers in our pid namespace; /proc may
 * be that of another, where the same number is another process. NSpid has our
 * number in the namespace of /proc first, then in each that lies within it
 * (fs/proc/array.c, task_state()); a /proc from within ours does not know us.
 */
static int require_own_proc(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	int levels = 0;

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "NSpid:", 6))
			continue;
		for (char *word = strtok(line + 6, " \t\n"); word; word = strtok(NULL, " \t\n"))
			levels++;
	}
	if (file)
		fclose(file);
	if (levels == 1 || (file && !levels))	/* CONFIG_PID_NS=n has no such line */
		return 0;
	return complain(EXIT_OTHER, "/proc belongs to another pid namespace than this process, so that "
			"/proc/PID is not the process that the kernel calls PID here: mount the "
			"namespace's own (mount -t proc proc /proc, or unshare --mount-proc)");
}

static int parse_pages(const char *text, int *how)
{
	if (!strcmp(text, "scan"))
		*how = PAGES_SCAN;
	else if (!strcmp(text, "pagemap"))
		*how = PAGES_PAGEMAP;
	else if (!strcmp(text, "none"))
		*how = PAGES_NOT_LOOKED;
	else
		return complain(EXIT_USAGE, "--pages %s: scan, pagemap or none", text);
	return 0;
}

struct arguments {
	struct census_options options;
	__u32 *pids;
	size_t pid_count;
	bool at_exit, skip_root;
	const char *usage;
	char **command;
};

static int parse_census(int argc, char **argv, struct arguments *args)
{
	static const struct option longs[] = {
		{ "pid", required_argument, NULL, 'p' },
		{ "output", required_argument, NULL, 'o' },
		{ "pages", required_argument, NULL, 'g' },
		{ "at-exit", no_argument, NULL, 'x' },
		{ "skip-root", no_argument, NULL, 's' },
		{ "usage", required_argument, NULL, 'u' },
		{}
	};
	int c, code = 0;

	opterr = 0;
	args->options.pages_how = PAGES_SCAN;
	args->pids = calloc(argc, sizeof(*args->pids));
	while (!code && (c = getopt_long(argc, argv, "+p:o:", longs, NULL)) != -1) {
		if (c == 'p')
			code = parse_pid(optarg, &args->pids[args->pid_count++]);
		else if (c == 'o')
			args->options.output = optarg;
		else if (c == 'g')
			code = parse_pages(optarg, &args->options.pages_how);
		else if (c == 'x')
			args->at_exit = true;
		else if (c == 's')
			args->skip_root = true;
		else if (c == 'u')
			args->usage = optarg;
		else
			return complain(EXIT_USAGE, "%s: no such option, or its value is missing; see "
					"vmaprobe --help", argv[optind - 1]);
	}
	args->command = argv + optind;
	if (code)
		return code;
	if (!args->at_exit && (optind < argc || args->skip_root || args->usage))
		return complain(EXIT_USAGE, "a COMMAND, --skip-root and --usage go with --at-exit");
	if (args->at_exit && (optind == argc || args->pid_count || !args->options.output))
		return complain(EXIT_USAGE, "--at-exit needs --output FILE and -- COMMAND, and no --pid");
	return 0;
}

static int check_pids(const struct arguments *args)
{
	char path[64];

	for (size_t i = 0; i < args->pid_count; i++) {
		snprintf(path, sizeof(path), "/proc/%u", args->pids[i]);
		if (access(path, F_OK))
			return complain(EXIT_VANISHED, "there is no process %u", args->pids[i]);
	}
	return 0;
}

/* Says why the memory of a process that was asked for was not read. */
static int complain_missing(__u32 pid)
{
	char path[64], line[256], state = 0;
	bool has_memory = false;
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "State: %c", &state);
		has_memory |= !strncmp(line, "VmSize:", 7);	/* only with an mm, see task_mem() */
	}
	if (file)
		fclose(file);
	if (!state || state == 'Z' || state == 'X')
		return complain(EXIT_VANISHED, "process %u has ended", pid);
	if (!has_memory)
		return complain(EXIT_VANISHED, "process %u has no memory of its own: it is a kernel "
				"thread", pid);
	snprintf(path, sizeof(path), "/proc/%u/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return complain(EXIT_PRIVILEGE, "the memory of process %u may not be looked at from here "
				"(%s: %s): it lies outside this container, or a security module "
				"protects it", pid, path, strerror(errno));
	close(fd);
	return complain(EXIT_VANISHED, "process %u was not met: it has begun or ended just now", pid);
}

static int run_census(int argc, char **argv)
{
	struct arguments args = {};
	struct census *census = NULL;
	struct rusage used = {};
	__u32 missing;
	int status = 0, code = parse_census(argc, argv, &args);

	if (!code)
		code = check_pids(&args);
	if (!code)
		code = census_open(&census, &args.options);
	if (!code && args.at_exit)
		code = follow_command(census, args.command, args.skip_root, &status, &used);
	else if (!code)
		code = census_take(census, args.pids, args.pid_count);
	missing = code || interrupted ? 0 : census_missing(census, args.pids, args.pid_count);
	if (missing)
		code = complain_missing(missing);
	if (!code && interrupted)
		code = 128 + interrupted;
	if (!code && args.usage)
		code = usage_write(args.usage, &used);
	if (!code)
		code = census_commit(census);
	census_close(census);
	free(args.pids);
	return code ? code : status;
}

static int run_observer(int (*run)(int argc, char **argv), int argc, char **argv)
{
	int code = require_own_proc();

	return code ? code : run(argc, argv);
}

static int run_features(int argc, char **argv)
{
	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--json")))
		return complain(EXIT_USAGE, "features takes only --json");
	return features_print(argc == 2);
}

static int run_usage(int argc, char **argv)
{
	size_t count = 0;
	__u32 *pids;
	int code = 0;

	if (argc > 2 && !strcmp(argv[1], "--"))
		return usage_run(argv + 2, NULL);
	if (argc > 4 && !strcmp(argv[1], "--output") && !strcmp(argv[3], "--"))
		return usage_run(argv + 4, argv[2]);
	pids = calloc(argc, sizeof(*pids));
	for (int i = 1; i < argc && !code; i += 2)
		if (!pids || i + 1 == argc || strcmp(argv[i], "--pid"))
			code = complain(EXIT_USAGE, "usage takes only --pid PID, or [--output FILE] -- COMMAND");
		else
			code = parse_pid(argv[i + 1], &pids[count++]);
	if (!code && !count)
		code = complain(EXIT_USAGE, "usage needs --pid PID or -- COMMAND");
	if (!code)
		code = usage_print(pids, count);
	free(pids);
	return code;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	libbpf_set_print(listen_to_libbpf);
	if (argc > 1 && !strcmp(argv[1], "census"))
		return run_observer(run_census, argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "features"))
		return run_features(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "usage"))
		return run_observer(run_usage, argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "locks"))
		return run_observer(run_locks, argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "faults"))
		return run_observer(run_faults, argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "time"))
		return run_observer(run_time, argc - 1, argv + 1);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage_text, stdout);
		return EXIT_OK;
	}
	return complain(EXIT_USAGE, "census, features, usage, faults, locks or time? See vmaprobe --help");
}
