// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmaprobe: what the kernel itself knows of every VMA.
 *
 * The only part of anonvma, beside perf, that needs privilege. One static
 * binary, so that a target needs nothing else. No kernel pointer leaves it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/libbpf.h>
#include "common.h"
#include "lacking.h"
#include "subcommands.h"
#include "usage.h"

static const char usage_text[] =
"Usage: vmaprobe census [--pid PID]... [--pages HOW] [--no-chains] [--output FILE]\n"
"       vmaprobe census --at-exit [--skip-root] [--usage FILE] --output FILE -- COMMAND...\n"
"       vmaprobe features [--json]\n"
"       vmaprobe usage --pid PID... | [--output FILE] -- COMMAND...\n"
"       vmaprobe faults [--pid PID]... [--seconds N] [--source WHICH] [--events FILE]\n"
"                       [--stacks] [--output FILE] [-- COMMAND...]\n"
"       vmaprobe locks [--pid PID]... [--seconds N] [--parts LIST] [--output FILE]\n"
"                      [-- COMMAND...]\n"
"       vmaprobe time [--pid PID]... [--seconds N] [--output FILE] [-- COMMAND...]\n"
"       vmaprobe consequences --census FILE --output FILE [--only OPERATION] [--start-ksmd]\n"
"\n"
"census    Every VMA of every process, or of those named, as binary records after a\n"
"          header that describes them (analysis/probe/census.h). For each bare VMA\n"
"          (vm_ops and anon_vma both NULL) also the pages in it, of each other one the chain of\n"
"          its anon_vmas, and of any why it is not one with the VMA right below it.\n"
"  --pid PID      only this process; may be repeated\n"
"  --output FILE  default: standard output, if that is not a terminal. FILE appears\n"
"                 when the census is whole; until then it is FILE.partial\n"
"  --pages HOW    scan (ioctl PAGEMAP_SCAN; falls back to pagemap before 6.7),\n"
"                 pagemap (/proc/PID/pagemap and /proc/kpageflags) or none\n"
"  --no-chains    leave out the chains of their anon_vmas, which cost half as much again where\n"
"                 every VMA has one\n"
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
"          for faults, and:\n"
"  --parts LIST   what is traced beside it, separated by commas: names (contended locks of all\n"
"                 kinds, and which acquisitions of mmap_lock were), vmas (locks of VMAs) and\n"
"                 forks, which is the default; or none\n"
"\n"
"time      Where the time of COMMAND's tasks goes, or of those of the processes named: user mode,\n"
"          page faults, mmap() and other calls, each at work, waiting for mmap_lock, holding it,\n"
"          asleep or waiting for a CPU, as one JSON object; it adds up. Options as for faults.\n"
"\n"
"consequences  What other operations than page faults meet in a bare VMA, and in one that\n"
"          differs in that alone: of each how often it acquired mmap_lock, how long it took and\n"
"          which faults followed, as one JSON object, and a census of the VMAs afterwards.\n"
"          KSM is tried where ksmd runs; --start-ksmd starts it meanwhile, for all processes.\n"
"\n"
"They say what they lost, be it for want of room or because the kernel did not run a program.\n"
"An --output or --events that is a device or a FIFO is written to, and where it is a link, what\n"
"that leads to.\n"
"\n"
"Exit codes: 0 done; 1 failed; 2 usage; 3 no privilege; 4 the kernel lacks what is\n"
"needed; 5 a process named does not exist or has no memory of its own; 130 interrupted.\n"
"With a COMMAND, its own exit code when the observation succeeded.\n";

static void on_signal(int signal)
{
	interrupted = signal;
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
	if (argc > 1 && !strcmp(argv[1], "consequences"))
		return run_observer(run_consequences, argc - 1, argv + 1);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage_text, stdout);
		return EXIT_OK;
	}
	return complain(EXIT_USAGE, "census, features, usage, faults, locks, time or consequences? See "
			"vmaprobe --help");
}
