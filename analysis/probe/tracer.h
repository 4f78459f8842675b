/* SPDX-License-Identifier: GPL-2.0-only */
/* BPF programs, loaded and attached together. */
#ifndef TRACER_H
#define TRACER_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct bpf_link;
struct bpf_object;
struct bpf_program;

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
	bool single;			/* kprobes one by one, for the kernel has no kprobe.multi */
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
void tracer_detach(struct tracer *tracer);
void tracer_close(struct tracer *tracer);
bool tracer_is_preemptible(const struct tracer *tracer);

/* The member "misses" of a JSON object: of each program, how often it was not run. */
void tracer_print_misses(FILE *file, const struct tracer *tracer);

#endif
