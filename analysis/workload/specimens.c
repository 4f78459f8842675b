// SPDX-License-Identifier: GPL-2.0-only
/*
 * specimens - make mappings of every kind, touch each in one way, say what was made, hold still
 *
 * One JSON line a specimen. What the kernel made of it is for others to observe: nothing here
 * looks at anon_vma or vm_ops. Specimens that need a process of their own live in children, which
 * are made first so that they inherit none of the others.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gate.h"
#include "specimens.h"

#define VERSION "1"
#define MAX_CHILDREN 64

static const char *const touch_names[NR_TOUCHES] = {
	"untouched", "read", "written", "read-written",
};

static struct gate hold_gate;
static pid_t children[MAX_CHILDREN];
static unsigned int nr_children;

static void __attribute__((noreturn, format(printf, 2, 3))) fail(int code, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	dprintf(STDERR_FILENO, "specimens: %s\n", text);
	exit(code);
}

/* ---- what a step needs ---- */

int lacks(struct specimen *s, const char *what)
{
	const char *needs = s->kind->needs ? s->kind->needs : "any kernel should have it";

	snprintf(s->missing, sizeof(s->missing), "%s: %s (%s)", what, strerror(errno), needs);
	return -1;
}

size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

size_t specimen_length(void)
{
	return 8 * page_size();
}

char *slot(size_t length, size_t alignment)
{
	static char *next, *end;
	size_t arena = 24576 * page_size(), gap = 16 * page_size();
	char *start;

	if (!next) {
		arena += 24 * thp_size();
		next = mmap(NULL, arena, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);
		if (next == MAP_FAILED)
			fail(1, "no address space for the specimens: %s.", strerror(errno));
		end = next + arena;
	}
	start = (char *)(((unsigned long)next + gap + alignment - 1) & -alignment);
	if (start > end || length + gap > (size_t)(end - start)) {
		errno = ENOMEM;
		return NULL;
	}
	next = start + length;
	return start;
}

/* ---- JSON ---- */

struct line {
	char text[4096];
	size_t used;
};

static void __attribute__((format(printf, 2, 3))) add(struct line *line, const char *fmt, ...)
{
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(line->text + line->used, sizeof(line->text) - line->used, fmt, args);
	va_end(args);
	line->used += len;
	if (line->used >= sizeof(line->text))
		fail(1, "a line of output is too long.");
}

static void add_string(struct line *line, const char *key, const char *value)
{
	add(line, "%s\"%s\": \"", line->used > 1 ? ", " : "", key);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			add(line, "\\%c", *value);
		else if ((unsigned char)*value < 0x20)
			add(line, "\\u%04x", *value);
		else
			add(line, "%c", *value);
	}
	add(line, "\"");
}

/* One write, so that a reader never sees half a line. */
static void end_line(struct line *line)
{
	add(line, "}\n");
	if (write(STDOUT_FILENO, line->text, line->used) != (ssize_t)line->used)
		fail(1, "could not write to stdout: %s.", strerror(errno));
}

static void print_specimen(const struct specimen *s)
{
	const struct kind *kind = s->kind;
	struct line line = { .text = "{", .used = 1 };

	add_string(&line, "kind", kind->name);
	add_string(&line, "touch", touch_names[s->touch]);
	if (*s->missing) {
		add_string(&line, "missing", s->missing);
	} else {
		add(&line, ", \"pid\": %d, \"start\": \"%p\", \"end\": \"%p\"",
		    s->pid, s->start, s->start + s->length);
		if (s->repeated)
			add(&line, ", \"repeated\": %d", s->repeated);
	}
	add_string(&line, "origin_note", kind->origin_note);
	add_string(&line, "made_by", kind->made_by);
	add_string(&line, "explain", kind->explain[s->touch]);
	end_line(&line);
}

static void print_hold(void)
{
	struct line line = { .text = "{", .used = 1 };
	unsigned int i;

	add(&line, "\"hold\": true, \"pids\": [%d", getpid());
	for (i = 0; i < nr_children; i++)
		add(&line, ", %d", children[i]);
	add(&line, "]");
	end_line(&line);
}

/* ---- making ---- */

static int run_step(step_fn step, step_fn otherwise, struct specimen *s)
{
	if (!step)
		step = otherwise;
	return step ? step(s) : 0;
}

/* What is left to do after @point, here or in the child that took over there. */
static int run_steps_after(enum fork_point point, struct specimen *s)
{
	const struct kind *kind = s->kind;

	switch (point) {
	case NO_FORK:
	case FORK_FIRST:
		if (run_step(kind->file, NULL, s) || run_step(kind->map, map_slot, s) ||
		    run_step(kind->before, NULL, s))
			return -1;
		if (kind->fork_point == FORK_BEFORE_TOUCH)
			return 0;
		/* fall through */
	case FORK_BEFORE_TOUCH:
		if (run_step(kind->touch_by, touch_pages, s))
			return -1;
		if (kind->fork_point == FORK_AFTER_TOUCH)
			return 0;
		/* fall through */
	case FORK_AFTER_TOUCH:
		return run_step(kind->after, NULL, s);
	}
	return 0;
}

/* Let a child go on from here; it reports the finished specimen and then holds. */
static void hand_over(struct specimen *s)
{
	int report[2];
	pid_t parent = getpid(), child;

	if (nr_children == MAX_CHILDREN || pipe2(report, O_CLOEXEC))
		fail(1, "no room for another child process.");
	child = fork();
	if (child < 0)
		fail(1, "could not fork: %s.", strerror(errno));
	if (child == 0) {
		die_with_parent(parent);
		gate_visitor(&hold_gate);
		s->pid = getpid();
		run_steps_after(s->kind->fork_point, s);
		if (write(report[1], s, sizeof(*s)) != sizeof(*s))
			_exit(1);
		gate_pass(&hold_gate);
		_exit(0);
	}
	children[nr_children++] = child;
	close(report[1]);
	if (read(report[0], s, sizeof(*s)) != sizeof(*s))
		fail(1, "the child that makes %s died.", s->kind->name);
	close(report[0]);
}

static void make_specimen(const struct kind *kind, enum touch touch)
{
	struct specimen s = { .kind = kind, .touch = touch, .pid = getpid(), .fd = -1 };
	int lacking = 0;

	if (kind->fork_point != FORK_FIRST)
		lacking = run_steps_after(NO_FORK, &s);
	if (kind->fork_point != NO_FORK && !lacking)
		hand_over(&s);
	print_specimen(&s);
}

/* ---- the command line ---- */

/* Is @name in the comma-separated @list? No list holds everything. */
static bool listed(const char *list, const char *name)
{
	size_t length = strlen(name), word;

	for (; list; list = list[word] ? list + word + 1 : "") {
		word = strcspn(list, ",");
		if (word == length && !strncmp(list, name, word))
			return true;
		if (!list[word])
			return false;
	}
	return true;
}

static void check_only(const char *only)
{
	size_t i, word;

	for (;; only += word + 1) {
		word = strcspn(only, ",");
		for (i = 0; i < nr_kinds; i++)
			if (strlen(kinds[i].name) == word && !strncmp(kinds[i].name, only, word))
				break;
		if (i == nr_kinds)
			fail(2, "there is no kind '%.*s'; `specimens --list` lists them.",
			     (int)word, only);
		if (!only[word])
			return;
	}
}

static void print_list(void)
{
	const char *comma;
	size_t i, touch;

	for (i = 0; i < nr_kinds; i++) {
		printf("%s\t", kinds[i].name);
		for (touch = 0, comma = ""; touch < NR_TOUCHES; touch++) {
			if (kinds[i].touches & 1U << touch) {
				printf("%s%s", comma, touch_names[touch]);
				comma = ",";
			}
		}
		printf("\t%s\n", kinds[i].made_by);
	}
}

static void print_help(void)
{
	printf("Usage: specimens [--hold] [--only KIND[,KIND]] [--list]\n"
	       "Makes one mapping of every kind, touched in every way, and prints one JSON line for each.\n"
	       "\n"
	       "  --hold     then keep them all until stdin gives a line or ends\n"
	       "  --only     these kinds alone\n"
	       "  --list     print kind, touches and how it is made, separated by tabs; make nothing\n"
	       "  --version\n");
}

static void make_all(const char *only, bool in_children)
{
	size_t i, touch;

	for (i = 0; i < nr_kinds; i++) {
		if (!listed(only, kinds[i].name) || (kinds[i].fork_point != NO_FORK) != in_children)
			continue;
		for (touch = 0; touch < NR_TOUCHES; touch++)
			if (kinds[i].touches & 1U << touch)
				make_specimen(&kinds[i], touch);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "hold", 0, NULL, 'H' }, { "only", 1, NULL, 'o' }, { "list", 0, NULL, 'l' },
		{ "help", 0, NULL, 'h' }, { "version", 0, NULL, 'V' }, { NULL, 0, NULL, 0 },
	};
	const char *only = NULL;
	bool hold = false;
	int c;

	fill_standard_streams();
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (c) {
		case 'H': hold = true; break;
		case 'o': only = optarg; break;
		case 'l': print_list(); return 0;
		case 'h': print_help(); return 0;
		case 'V': printf("specimens %s\n", VERSION); return 0;
		case ':': fail(2, "option %s needs a value.", argv[optind - 1]);
		default: fail(2, "there is no option '%s'; `specimens --help` lists them.",
			      argv[optind - 1]);
		}
	}
	if (optind < argc)
		fail(2, "'%s' is not an option; `specimens --help` lists them.", argv[optind]);
	if (only)
		check_only(only);
	if (gate_init(&hold_gate))
		fail(1, "could not make a pipe: %s.", strerror(errno));

	make_all(only, true);
	make_all(only, false);
	if (hold) {
		print_hold();
		wait_for_release();
	}
	gate_open(&hold_gate);
	while (wait(NULL) > 0)
		;
	return 0;
}
