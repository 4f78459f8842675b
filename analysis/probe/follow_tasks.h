/* SPDX-License-Identifier: GPL-2.0-only */
/* Has tasks traced, and names them. */
#ifndef FOLLOW_TASKS_H
#define FOLLOW_TASKS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

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

#endif
