// SPDX-License-Identifier: GPL-2.0-only
/*
 * What this kernel allows this user, each found by trying it, and when the
 * answer is no, why and what would change it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "btf.h"
#include "common.h"
#include "embedded.h"
#include "faults.h"
#include "features.h"
#include "json.h"
#include "kallsyms.h"
#include "pages.h"
#include "preemption.h"
#include "subcommands.h"
#include "trace_faults.h"
#include "attach.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41	/* include/uapi/linux/prctl.h, from 5.17 */
#define PR_SET_VMA_ANON_NAME	0
#endif

struct verdict {
	bool available;
	char reason[256];		/* when not */
	char how[256];			/* when it is, and there is a choice */
	const char *remedy;
};

struct feature {
	const char *name;
	const char *what;
	void (*check)(const struct feature *feature, struct verdict *verdict);
	const char *program;		/* of features.bpf.c, for check_program() */
	const char *remedy;
};

static void no(struct verdict *verdict, const char *remedy, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void no(struct verdict *verdict, const char *remedy, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(verdict->reason, sizeof(verdict->reason), format, args);
	va_end(args);
	verdict->remedy = remedy;
	verdict->available = false;
}

static void check_file(const struct feature *feature, struct verdict *verdict)
{
	if (access(feature->program, R_OK))
		no(verdict, feature->remedy, "%s: %s", feature->program, strerror(errno));
}

int try_program(const char *name, const char **step)
{
	struct bpf_object *object = open_embedded("features", features_bpf_start, features_bpf_end);
	struct bpf_program *program, *chosen = NULL;
	struct bpf_link *link;
	int error;

	*step = "opened";
	if (!object)
		return -errno;
	bpf_object__for_each_program(program, object) {
		bool wanted = !strcmp(bpf_program__name(program), name);

		bpf_program__set_autoload(program, wanted);
		if (wanted)
			chosen = program;
	}
	*step = "loaded";
	error = chosen ? bpf_object__load(object) : -ENOENT;
	if (!error) {
		*step = "attached";
		link = attach_program(chosen);
		error = link ? 0 : -errno;
		bpf_link__destroy(link);
	}
	bpf_object__close(object);
	return error;
}

static void check_program(const struct feature *feature, struct verdict *verdict)
{
	const char *step, *remedy = feature->remedy;
	int error;

	if (access("/sys/kernel/btf/vmlinux", R_OK)) {
		no(verdict, "a kernel built with CONFIG_DEBUG_INFO_BTF=y",
		   "needs BTF, and /sys/kernel/btf/vmlinux is not there");
		return;
	}
	error = try_program(feature->program, &step);
	if (!error)
		return;
	if (error == -EPERM && geteuid())
		remedy = "root, or CAP_BPF and CAP_PERFMON";
	no(verdict, remedy, "it cannot be %s: %s", step, strerror(-error));
}

static bool works(const char *const programs[2])
{
	const char *step;

	return !try_program(programs[0], &step) && !try_program(programs[1], &step);
}

static void check_exact_faults(const struct feature *feature, struct verdict *verdict)
{
	static const struct {
		const char *programs[2], *why;
	} ways[SOURCES] = {
		[SOURCE_FENTRY] = { { "try_fentry", "try_fexit" },
				    "so no task is preempted in its programs" },
		[SOURCE_KPROBE] = { { "try_kprobe_multi", "try_kretprobe_multi" },
				    "and kprobes are called with it off" },
		[SOURCE_TRACEPOINT] = { { "try_page_fault_user", "try_page_fault_kernel" },
					"but page_fault_user and page_fault_kernel, which tell no "
					"times, are called with interrupts off" },
	};
	static const char *const single[2] = { "try_kprobe", "try_kretprobe" };
	char model[32];
	bool preemptible = preemption_model(model, sizeof(model)) != NOT_PREEMPTIBLE;
	const int *order = fault_source_order(preemptible);
	int found = 0;

	for (int i = 0; i < SOURCES - 1 && !found; i++)
		if (works(ways[order[i]].programs) ||
		    (order[i] == SOURCE_KPROBE && single_kprobes_serve() && works(single)))
			found = order[i];
	if (found && (found != SOURCE_FENTRY || !preemptible))
		snprintf(verdict->how, sizeof(verdict->how), "%s: preemption is %s, %s",
			 fault_source_name(found), model, ways[found].why);
	else
		no(verdict, feature->remedy, "kprobes are refused, there is no tracepoint "
		   "page_fault_user, which x86 and riscv have, and fentry %s%s",
		   found ? "misses some, for preemption is " : "is refused", found ? model : "");
}

static void check_pagemap_scan(const struct feature *feature, struct verdict *verdict)
{
	if (!pagemap_scan_works())
		no(verdict, feature->remedy, "ioctl on /proc/self/pagemap: %s", strerror(errno));
}

static void check_kpageflags(const struct feature *feature, struct verdict *verdict)
{
	__u64 flags;
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, &flags, sizeof(flags), sizeof(flags)) != sizeof(flags))
		no(verdict, feature->remedy, "/proc/kpageflags: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void check_kallsyms(const struct feature *feature, struct verdict *verdict)
{
	if (!kallsyms_address("handle_mm_fault"))
		no(verdict, feature->remedy, "/proc/kallsyms shows no address for handle_mm_fault");
}

static void check_kallsyms_all(const struct feature *feature, struct verdict *verdict)
{
	if (!kallsyms_address("shmem_vm_ops"))
		no(verdict, feature->remedy, "/proc/kallsyms has no data symbols such as "
		   "shmem_vm_ops; a vm_ops is named by its fault handler instead");
}

static void check_vma_locks(const struct feature *feature, struct verdict *verdict)
{
	int found = has_vma_locks();

	if (found < 0)
		no(verdict, "a kernel built with CONFIG_DEBUG_INFO_BTF=y",
		   "cannot tell: this kernel has no BTF");
	else if (!found)
		no(verdict, feature->remedy, "struct vm_area_struct has no vm_lock_seq: "
		   "every fault takes mmap_lock");
}

static void check_vma_lock_stats(const struct feature *feature, struct verdict *verdict)
{
	FILE *file = fopen("/proc/vmstat", "re");
	bool found = false;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		found |= !strncmp(line, "vma_lock_success", 16);
	if (file)
		fclose(file);
	if (!found)
		no(verdict, feature->remedy, "/proc/vmstat has no vma_lock_success");
}

static void check_perf_event(const struct feature *feature, struct verdict *verdict,
			     __u32 type, __u64 config)
{
	struct perf_event_attr attr = { .size = sizeof(attr), .type = type, .config = config,
					.disabled = 1 };
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd >= 0)
		close(fd);
	else
		no(verdict, errno == EACCES || errno == EPERM ?
		   "root, CAP_PERFMON, or a lower kernel.perf_event_paranoid" : feature->remedy,
		   "perf_event_open: %s", strerror(errno));
}

static void check_pmu(const struct feature *feature, struct verdict *verdict)
{
	check_perf_event(feature, verdict, PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES);
}

static void check_software_events(const struct feature *feature, struct verdict *verdict)
{
	check_perf_event(feature, verdict, PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS);
}

static void check_anon_names(const struct feature *feature, struct verdict *verdict)
{
	size_t size = sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED || prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, page, size, "anonvma"))
		no(verdict, feature->remedy, "prctl(PR_SET_VMA_ANON_NAME): %s", strerror(errno));
	if (page != MAP_FAILED)
		munmap(page, size);
}

static const struct feature features[] = {
	{ "btf", "types of the running kernel", check_file, "/sys/kernel/btf/vmlinux",
	  "a kernel built with CONFIG_DEBUG_INFO_BTF=y" },
	{ "task_vma_iterator", "BPF iterator over VMAs: the census", check_program, "try_iterator",
	  "Linux 5.12 or later with CONFIG_BPF_SYSCALL=y (6.1 for the census)" },
	{ "fentry", "BPF on entry to handle_mm_fault()", check_program, "try_fentry",
	  "a kernel with CONFIG_FUNCTION_TRACER=y and CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y, "
	  "on a host that does not forbid it; or a guest kernel" },
	{ "fexit", "BPF on return from handle_mm_fault()", check_program, "try_fexit",
	  "as for fentry" },
	{ "kprobe_multi", "BPF on entry to handle_mm_fault(), with preemption off", check_program,
	  "try_kprobe_multi", "Linux 5.18 or later with CONFIG_FPROBE=y" },
	{ "kretprobe_multi", "BPF on return from handle_mm_fault(), likewise", check_program,
	  "try_kretprobe_multi", "as for kprobe_multi" },
	{ "kprobes", "BPF on a kprobe", check_program, "try_kprobe",
	  "a kernel built with CONFIG_KPROBES=y and CONFIG_KPROBE_EVENTS=y" },
	{ "kretprobes", "BPF on the return of a kprobe", check_program, "try_kretprobe",
	  "a kernel built with CONFIG_KRETPROBES=y" },
	{ "mmap_lock_tracepoints", "tracepoints of mmap_lock", check_program, "try_mmap_lock",
	  "a kernel built with CONFIG_TRACING=y, 5.11 or later" },
	{ "page_fault_tracepoint", "tracepoint page_fault_user", check_program,
	  "try_page_fault_user", "x86 or riscv with CONFIG_TRACING=y; perf's page-faults event "
	  "serves elsewhere" },
	{ "exact_faults", "page faults traced without missing any", check_exact_faults, NULL,
	  "what kprobe_multi needs; or a kernel booted with preempt=none, and what fentry needs" },
	{ "pagemap_scan", "ioctl PAGEMAP_SCAN: pages and zero pages of a range",
	  check_pagemap_scan, NULL, "Linux 6.7 or later; until then pagemap and kpageflags serve" },
	{ "kpageflags", "page flags by frame: zero pages before 6.7", check_kpageflags, NULL,
	  "root, and CONFIG_PROC_PAGE_MONITOR=y" },
	{ "kallsyms", "addresses of kernel functions", check_kallsyms, NULL,
	  "root or CAP_SYSLOG, with kernel.kptr_restrict below 2" },
	{ "kallsyms_all", "addresses of kernel data", check_kallsyms_all, NULL,
	  "a kernel built with CONFIG_KALLSYMS_ALL=y" },
	{ "per_vma_locks", "CONFIG_PER_VMA_LOCK", check_vma_locks, NULL,
	  "Linux 6.4 or later with CONFIG_PER_VMA_LOCK=y" },
	{ "per_vma_lock_stats", "vma_lock_* in /proc/vmstat", check_vma_lock_stats, NULL,
	  "a kernel built with CONFIG_PER_VMA_LOCK_STATS=y" },
	{ "anon_vma_names", "names of anonymous mappings", check_anon_names, NULL,
	  "Linux 5.17 or later with CONFIG_ANON_VMA_NAME=y" },
	{ "perf_software_events", "perf: page-faults and its kin", check_software_events, NULL,
	  "a kernel built with CONFIG_PERF_EVENTS=y" },
	{ "pmu", "perf: hardware counters", check_pmu, NULL,
	  "a machine, or a virtual machine, that exposes its performance counters" },
};

static void print_feature(const struct feature *feature, const struct verdict *verdict,
			  bool json, bool last)
{
	if (!json) {
		printf("%-22s %-3s  %s\n", feature->name, verdict->available ? "yes" : "no",
		       feature->what);
		if (verdict->how[0])
			printf("%-27s %s\n", "", verdict->how);
		if (!verdict->available)
			printf("%-27s %s\n%-27s remedy: %s\n", "", verdict->reason, "",
			       verdict->remedy);
		return;
	}
	printf("    \"%s\": {\"available\": %s, ", feature->name,
	       verdict->available ? "true" : "false");
	json_pair(stdout, "what", feature->what, ", ");
	json_pair(stdout, "reason", verdict->reason, ", ");
	json_pair(stdout, "how", verdict->how[0] ? verdict->how : NULL, ", ");
	json_pair(stdout, "remedy", verdict->available ? NULL : verdict->remedy, "}");
	puts(last ? "" : ",");
}

int features_print(bool json)
{
	size_t count = sizeof(features) / sizeof(features[0]);
	struct utsname names;

	uname(&names);
	if (json) {
		fputs("{\n  ", stdout);
		json_pair(stdout, "kernel", names.release, ",\n  ");
		json_pair(stdout, "arch", names.machine, ",\n  ");
		printf("\"root\": %s,\n  \"features\": {\n", geteuid() ? "false" : "true");
	} else {
		printf("Linux %s (%s), %s\n", names.release, names.machine,
		       geteuid() ? "not root" : "root");
	}
	for (size_t i = 0; i < count; i++) {
		struct verdict verdict = { .available = true };

		features[i].check(&features[i], &verdict);
		print_feature(&features[i], &verdict, json, i + 1 == count);
	}
	if (json)
		fputs("  }\n}\n", stdout);
	return EXIT_OK;
}
