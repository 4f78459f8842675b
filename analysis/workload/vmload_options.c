// SPDX-License-Identifier: GPL-2.0-only
/* vmload's command line: usemem's options, and the cases vm-scalability's scripts make of them. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmload.h"

#define VERSION "1"

const char sparse_file[] = "an unlinked sparse file";

struct options opt = {
	.processes = 1,
	.repeat = 1,
	.step = sizeof(long),
	.seed = 1,
	.file = "/dev/zero",
	.map_flags = MAP_PRIVATE,
};

/* Of several failing threads only one speaks. */
void fail(int code, const char *fmt, ...)
{
	static atomic_flag spoken = ATOMIC_FLAG_INIT;
	char text[512];
	va_list args;

	while (atomic_flag_test_and_set(&spoken))
		pause();
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	dprintf(STDERR_FILENO, "vmload: %s\n", text);
	_exit(code);
}

/* ---- cases ---- */

/* What vm-scalability's case-NAME scripts give to usemem; words in capitals: see case_words(). */
static const struct test_case {
	const char *name;
	const char *options;
} cases[] = {
	{ "small-allocs-mt",	"-t CPUS --readonly --unit 10PAGES" },
	{ "small-allocs",	"-n CPUS --readonly --unit 10PAGES" },
	{ "anon-r-seq-mt",	"-t CPUS --readonly" },
	{ "anon-r-rand-mt",	"-t CPUS --readonly --random" },
	{ "anon-w-seq-mt",	"-t CPUS" },
	{ "anon-w-rand-mt",	"-t CPUS --random" },
	{ "anon-cow-seq-mt",	"-t CPUS --prealloc --prefault" },
	{ "anon-cow-rand-mt",	"-t CPUS --prealloc --prefault --random" },
	{ "mmap-pread-seq-mt",	"-t CPUS -f SPARSE --readonly" },
	{ "mmap-pread-rand-mt",	"-t CPUS -f SPARSE --readonly --random" },
	{ "anon-r-seq",		"-n CPUS --readonly" },
	{ "anon-r-rand",	"-n CPUS --readonly --random" },
	{ "anon-w-seq",		"-n CPUS" },
	{ "anon-w-rand",	"-n CPUS --random" },
	{ "anon-cow-seq",	"-n CPUS --prealloc --prefault" },
	{ "anon-cow-rand",	"-n CPUS --prealloc --prefault --random" },
	{ "mmap-pread-seq",	"-n CPUS -f SPARSE --readonly" },
	{ "mmap-pread-rand",	"-n CPUS -f SPARSE --readonly --random" },
};

#define NR_CASES (sizeof(cases) / sizeof(cases[0]))
#define MAX_CASE_WORDS 16

/* Split a case's options into @words, machine-dependent ones filled in; returns how many. */
static int case_words(const struct test_case *test, const char *words[MAX_CASE_WORDS])
{
	char *copy = strdup(test->options), *word, *rest = copy;
	char number[32];
	int count = 0;

	while (copy && (word = strsep(&rest, " ")) && count < MAX_CASE_WORDS) {
		if (!strcmp(word, "SPARSE")) {
			words[count++] = sparse_file;
			continue;
		}
		if (!strcmp(word, "CPUS")) {
			snprintf(number, sizeof(number), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
			word = strdup(number);
		} else if (!strcmp(word, "10PAGES")) {
			snprintf(number, sizeof(number), "%ld", 10 * sysconf(_SC_PAGESIZE));
			word = strdup(number);
		}
		words[count++] = word;
	}
	return count;
}

static void print_cases(void)
{
	const char *words[MAX_CASE_WORDS];
	unsigned long i;
	int j, count;

	for (i = 0; i < NR_CASES; i++) {
		printf("%s\t", cases[i].name);
		count = case_words(&cases[i], words);
		for (j = 0; j < count; j++)
			printf("%s%s", j ? " " : "",
			       words[j] == sparse_file ? "SPARSE-FILE" : words[j]);
		printf("\n");
	}
}

static const struct test_case *find_case(const char *name)
{
	unsigned long i;

	for (i = 0; i < NR_CASES; i++)
		if (!strcmp(cases[i].name, name))
			return &cases[i];
	fail(2, "there is no case '%s'; `vmload --cases` lists them.", name);
}

/* ---- options ---- */

enum {
	OPT_CASE = 256, OPT_CASES, OPT_CPUS, OPT_HOLD, OPT_SEED, OPT_TOUCH, OPT_VERSION,
	OPT_UNSUPPORTED
};

static const char short_options[] = ":aAB:b:e:f:Fhj:Mn:oOPqr:RSs:t:T:u:UwyZdp:gLDENHWxm:";

static const struct option long_options[] = {
	{ "nproc",		1, NULL, 'n' },
	{ "thread",		1, NULL, 't' },
	{ "unit",		1, NULL, 'u' },
	{ "step",		1, NULL, 'j' },
	{ "repeat",		1, NULL, 'r' },
	{ "readonly",		0, NULL, 'o' },
	{ "open-rw",		0, NULL, 'w' },
	{ "random",		0, NULL, 'R' },
	{ "mlock",		0, NULL, 'M' },
	{ "file",		1, NULL, 'f' },
	{ "offset",		1, NULL, 'B' },
	{ "prefault",		0, NULL, 'F' },
	{ "prealloc",		0, NULL, 'P' },
	{ "anonymous",		0, NULL, 'O' },
	{ "hugetlb",		0, NULL, 'U' },
	{ "malloc",		0, NULL, 'a' },
	{ "bind",		1, NULL, 'b' },
	{ "quiet",		0, NULL, 'q' },
	{ "sleep",		1, NULL, 's' },
	{ "runtime",		1, NULL, 'T' },
	{ "delay",		1, NULL, 'e' },
	{ "read-again",		0, NULL, 'Z' },
	{ "msync",		0, NULL, 'S' },
	{ "msync-async",	0, NULL, 'A' },
	{ "sync-rw",		0, NULL, 'y' },
	{ "help",		0, NULL, 'h' },
	{ "case",		1, NULL, OPT_CASE },
	{ "cases",		0, NULL, OPT_CASES },
	{ "cpus",		1, NULL, OPT_CPUS },
	{ "hold",		0, NULL, OPT_HOLD },
	{ "seed",		1, NULL, OPT_SEED },
	{ "touch",		1, NULL, OPT_TOUCH },
	{ "version",		0, NULL, OPT_VERSION },
	/* usemem has these; vmload does not. */
	{ "detach",		0, NULL, 'd' },
	{ "pid-file",		1, NULL, 'p' },
	{ "getchar",		0, NULL, 'g' },
	{ "lock",		0, NULL, 'L' },
	{ "advise",		0, NULL, 'D' },
	{ "remap",		0, NULL, 'E' },
	{ "mincore",		0, NULL, 'N' },
	{ "mincore-hgpg",	0, NULL, 'H' },
	{ "write-signal-read",	0, NULL, 'W' },
	{ "sync-free",		0, NULL, 'x' },
	{ "signal-read-count",	1, NULL, OPT_UNSUPPORTED },
	{ "punch-holes",	0, NULL, OPT_UNSUPPORTED },
	{ "init-time",		0, NULL, OPT_UNSUPPORTED },
	{ "touch-alloc",	0, NULL, OPT_UNSUPPORTED },
	{ NULL, 0, NULL, 0 },
};

static void print_help(void)
{
	printf("Usage: vmload [options] SIZE[k|m|g|t|p]\n"
	       "Each task maps SIZE bytes and reads or writes every word, as vm-scalability's usemem does.\n"
	       "\n"
	       "usemem's options\n"
	       "  -n, --nproc N      N processes (1)           -t, --thread M    M threads in each\n"
	       "  -u, --unit SIZE    one mmap() per SIZE (all) -j, --step SIZE   one access per SIZE (8)\n"
	       "  -o, --readonly     read, do not write        -w, --open-rw     but map it writable\n"
	       "  -R, --random       in random order           -r, --repeat N    N times\n"
	       "  -f, --file FILE    map FILE shared (default: /dev/zero, private)\n"
	       "  -B, --offset SIZE  from here in the file     -O, --anonymous   MAP_ANONYMOUS\n"
	       "  -F, --prefault     MAP_POPULATE              -P, --prealloc    map once, before fork\n"
	       "  -a, --malloc       malloc(), not mmap()      -U, --hugetlb     2 MB pages, with -O\n"
	       "  -M, --mlock        mlock() when done         -Z, --read-again  and read it all again\n"
	       "  -S, --msync        MS_SYNC after each pass   -A, --msync-async MS_ASYNC\n"
	       "  -b, --bind N       task i on CPU i*N         -y, --sync-rw     gate after the mmap\n"
	       "  -e, --delay NS     stay NS[u|m] on each page -T, --runtime SEC stop after SEC\n"
	       "  -s, --sleep SEC    sleep when done           -q, --quiet       (always quiet)\n"
	       "\n"
	       "vmload's own\n"
	       "  --case NAME        options of vm-scalability's case-NAME; yours override them\n"
	       "  --cases            list the cases with their options\n"
	       "  --touch WHO        who accesses each page first, and so takes its fault: `user`, the\n"
	       "                     task; `kernel`, a system call of the task's that reads the page or,\n"
	       "                     where tasks write, writes it. A fault in kernel mode never takes a\n"
	       "                     VMA's lock but mmap_lock. Either way the system call is made once a\n"
	       "                     page and changes nothing, so the two differ in the lock path alone;\n"
	       "                     where tasks write, the first fault on a VMA may need mmap_lock\n"
	       "                     either way, to prepare its anon_vma.\n"
	       "  --cpus LIST        run on these CPUs alone, such as 0-3,8\n"
	       "  --hold             when all is done print what each process used, `hold: PID...`, and\n"
	       "                     keep every mapping until stdin gives a line or ends\n"
	       "  --seed N           of the random order (1)\n"
	       "  --version\n");
}

static unsigned long parse_number(const char *what, const char *text)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || errno)
		fail(2, "%s must be a whole number, not '%s'.", what, text);
	return value;
}

static unsigned long parse_size(const char *what, const char *text)
{
	static const char suffixes[] = "kmgt";
	const char *suffix;
	unsigned long long value;
	unsigned int shift = 0;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (*end && (suffix = strchr(suffixes, tolower((unsigned char)*end)))) {
		shift = 10 * (suffix - suffixes + 1);
		end++;
	} else if (*end == 'p') {
		shift = __builtin_ctzl(sysconf(_SC_PAGESIZE));
		end++;
	}
	if (!isdigit((unsigned char)text[0]) || *end || errno || value > ULONG_MAX >> shift)
		fail(2, "%s must be a size such as 4096, 0x1000, 40k, 2m, 1g, 1t or 16p (pages), not "
		     "'%s'.", what, text);
	return value << shift;
}

static unsigned long parse_delay(const char *text)
{
	unsigned long value, scale = 1;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 0);
	if (*end == 'u')
		scale = 1000, end++;
	else if (*end == 'm')
		scale = 1000000, end++;
	if (!isdigit((unsigned char)text[0]) || *end || errno || value > ULONG_MAX / scale)
		fail(2, "--delay must be nanoseconds, or a number with u or m, not '%s'.", text);
	return value * scale;
}

static enum toucher parse_toucher(const char *text)
{
	if (!strcmp(text, "user"))
		return TOUCH_USER;
	if (!strcmp(text, "kernel"))
		return TOUCH_KERNEL;
	fail(2, "--touch must be user or kernel, not '%s'.", text);
}

/* "0-3,8" */
static cpu_set_t parse_cpus(const char *text)
{
	cpu_set_t cpus;
	const char *rest = text;
	char *end;

	CPU_ZERO(&cpus);
	do {
		unsigned long first = strtoul(rest, &end, 10), last = first;
		bool number = isdigit((unsigned char)*rest);

		if (number && *end == '-') {
			rest = end + 1;
			last = strtoul(rest, &end, 10);
			number = isdigit((unsigned char)*rest);
		}
		if (!number || last < first || last >= CPU_SETSIZE || (*end && *end != ','))
			fail(2, "--cpus must be a list such as 0-3,8 of CPUs below %d, not '%s'.",
			     CPU_SETSIZE, text);
		for (; first <= last; first++)
			CPU_SET(first, &cpus);
		rest = end + 1;
	} while (*end);
	return cpus;
}

/* The option as the user wrote it, for a message. */
static const char *option_name(int c, int index, char **argv)
{
	static char name[64];

	if (c >= OPT_CASE && index >= 0)
		snprintf(name, sizeof(name), "--%s", long_options[index].name);
	else if (optopt && isprint(optopt) && strncmp(argv[optind - 1], "--", 2))
		snprintf(name, sizeof(name), "-%c", optopt);
	else
		snprintf(name, sizeof(name), "%s", argv[optind - 1]);
	return name;
}

static void __attribute__((noreturn)) fail_unsupported(int c, int index)
{
	const struct option *o = &long_options[index >= 0 ? index : 0];

	for (; index < 0 && o->name; o++)
		if (o->val == c)
			break;
	if (o->name)
		fail(2, "usemem's option --%s is not supported by vmload.", o->name);
	fail(2, "usemem's option -%c is not supported by vmload.", c);
}

static void parse_option(int c, int index, char **argv)
{
	switch (c) {
	case 'n': opt.processes = parse_number("--nproc", optarg); break;
	case 't': opt.threads = parse_number("--thread", optarg); break;
	case 'u': opt.unit = parse_size("--unit", optarg); break;
	case 'j': opt.step = parse_size("--step", optarg); break;
	case 'r': opt.repeat = parse_number("--repeat", optarg); break;
	case 'o': opt.readonly = true; break;
	case 'w': opt.open_rw = true; break;
	case 'R': opt.random = true; break;
	case 'M': opt.mlock = true; break;
	case 'f':
		opt.file = optarg;
		opt.map_flags = (opt.map_flags & ~MAP_PRIVATE) | MAP_SHARED;
		break;
	case 'B': opt.offset = parse_size("--offset", optarg); break;
	case 'F': opt.map_flags |= MAP_POPULATE; break;
	case 'P': opt.prealloc = true; break;
	case 'O': opt.map_flags |= MAP_ANONYMOUS; break;
	case 'U': opt.map_flags |= MAP_HUGETLB | 21 << MAP_HUGE_SHIFT; break;
	case 'a': opt.use_malloc = true; break;
	case 'b': opt.bind = parse_number("--bind", optarg); break;
	case 'q': break;
	case 's': opt.sleep_secs = parse_number("--sleep", optarg); break;
	case 'T': opt.runtime_secs = parse_number("--runtime", optarg); break;
	case 'e': opt.delay_ns = parse_delay(optarg); break;
	case 'Z': opt.read_again = true; break;
	case 'S': opt.msync_flags = MS_SYNC; break;
	case 'A': opt.msync_flags = MS_ASYNC; break;
	case 'y': opt.sync_rw = true; break;
	case 'h': print_help(); exit(0);
	case OPT_CASE: break;		/* expanded before */
	case OPT_CASES: print_cases(); exit(0);
	case OPT_CPUS:
		opt.cpus = parse_cpus(optarg);
		opt.some_cpus = true;
		break;
	case OPT_HOLD: opt.hold = true; break;
	case OPT_SEED: opt.seed = parse_number("--seed", optarg); break;
	case OPT_TOUCH: opt.touch = parse_toucher(optarg); break;
	case OPT_VERSION: printf("vmload %s\n", VERSION); exit(0);
	case ':': fail(2, "option %s needs a value.", option_name(c, index, argv));
	case '?': fail(2, "there is no option '%s'; `vmload --help` lists them.",
		       option_name(c, index, argv));
	default: fail_unsupported(c, index);
	}
}

/* A new argument vector with the options of --case, if there is one, before the user's own. */
static char **expand_case(int *argc, char **argv)
{
	const char *words[MAX_CASE_WORDS];
	const struct test_case *test = NULL;
	char **expanded;
	int c, count;

	opterr = 0;
	while ((c = getopt_long(*argc, argv, short_options, long_options, NULL)) != -1)
		if (c == OPT_CASE)
			test = find_case(optarg);
	optind = 0;		/* start afresh */
	if (!test)
		return argv;
	count = case_words(test, words);
	expanded = calloc(*argc + count + 1, sizeof(*expanded));
	if (!expanded)
		fail(1, "out of memory.");
	expanded[0] = argv[0];
	memcpy(expanded + 1, words, count * sizeof(*words));
	memcpy(expanded + 1 + count, argv + 1, (*argc - 1) * sizeof(*argv));
	*argc += count;
	return expanded;
}

void parse_options(int argc, char **argv)
{
	int c, index = -1;

	argv = expand_case(&argc, argv);
	while ((c = getopt_long(argc, argv, short_options, long_options, &index)) != -1) {
		parse_option(c, index, argv);
		index = -1;
	}
	if (optind >= argc)
		fail(2, "SIZE is missing: say how many bytes each task maps, as in `vmload 64m`.");
	if (optind < argc - 1)
		fail(2, "one SIZE is enough, but '%s' follows it.", argv[optind + 1]);
	opt.bytes = parse_size("SIZE", argv[optind]);
	if (!opt.unit)
		opt.unit = opt.bytes;
	if (opt.bytes < sizeof(long) || opt.unit < sizeof(long))
		fail(2, "SIZE and --unit must be at least %zu bytes.", sizeof(long));
	if (opt.step < sizeof(long))
		opt.step = sizeof(long);
	if (!opt.processes || !opt.repeat)
		fail(2, "--nproc and --repeat must be at least 1.");
	if (opt.sync_rw && opt.unit < opt.bytes)
		fail(2, "--sync-rw needs --unit to equal SIZE.");
	if (opt.some_cpus && opt.bind)
		fail(2, "--cpus and --bind both say where tasks run: give one of them.");
	if (opt.offset % sysconf(_SC_PAGESIZE))
		fail(2, "--offset must be a multiple of the page size, %ld.",
		     sysconf(_SC_PAGESIZE));
}
