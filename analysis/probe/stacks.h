/* SPDX-License-Identifier: GPL-2.0-only */
/* Kernel stacks by function. */
#ifndef STACKS_H
#define STACKS_H

#include <linux/types.h>
#include <stddef.h>
#include <stdio.h>

struct stack_names;

/* The kernel stacks that IDS names, in a map of stacks of DEPTH, by function; NULL: no memory. */
struct stack_names *stack_names_read(int map, size_t depth, const __s32 *ids, size_t count);
/* Who took mmap_lock there, in a word or two. */
const char *stack_asker(const struct stack_names *names, __s32 id);
/* The member "stacks" of a JSON object. */
void stack_names_print(FILE *file, const struct stack_names *names);
void stack_names_free(struct stack_names *names);

#endif
