/* SPDX-License-Identifier: GPL-2.0-only */
/* User stacks by file and offset. */
#ifndef USER_STACKS_H
#define USER_STACKS_H

#include <linux/types.h>
#include <stddef.h>
#include <stdio.h>

struct bpf_object;

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

#endif
