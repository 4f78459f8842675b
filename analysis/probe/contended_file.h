/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs saw of locks found taken, as members of a JSON object. */
#ifndef CONTENDED_FILE_H
#define CONTENDED_FILE_H

#include <stdbool.h>
#include <stdio.h>

struct bpf_object;
struct buffer;
struct stack_names;

/* To be called before it is loaded: what the programs know the kernel by. */
void contended_know_kernel(struct bpf_object *object, bool sees_writers);
/* Adds the stacks that are told of. */
bool contended_stacks(struct bpf_object *object, struct buffer *ids);
void contended_print(FILE *file, struct bpf_object *object, const struct stack_names *names);

#endif
