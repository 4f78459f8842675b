// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps for memory that only some processors have: with tags of its own, reached by pointers
 * with a tag, or a shadow stack.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "specimens.h"

#ifndef PROT_MTE
#define PROT_MTE 0x20				/* Linux 5.10, arm64 */
#endif
#define ARM64_HWCAP2_MTE (1UL << 18)
#ifndef SYS_map_shadow_stack
#define SYS_map_shadow_stack 453		/* Linux 6.6; one number everywhere */
#endif
#ifndef SHADOW_STACK_SET_TOKEN
#define SHADOW_STACK_SET_TOKEN 1
#endif
#define TAG (0x2aUL << 56)			/* in the top byte, which the MMU of arm64 ignores */

#ifdef __aarch64__
static const int is_arm64 = 1;
#else
static const int is_arm64;
#endif

/* Elsewhere mmap() takes this bit and ignores it, so the processor is asked, not mmap(). */
int map_tagged_memory(struct specimen *s)
{
	errno = ENOTSUP;
	if (!is_arm64 || !(getauxval(AT_HWCAP2) & ARM64_HWCAP2_MTE))
		return lacks(s, "mmap(PROT_MTE)");
	s->length = specimen_length();
	s->start = slot(s->length, page_size());
	if (!s->start || mmap(s->start, s->length, s->kind->prot | PROT_MTE,
			      s->kind->flags | MAP_FIXED, -1, 0) == MAP_FAILED)
		return lacks(s, "mmap(PROT_MTE)");
	return 0;
}

/* User space of arm64 has TCR_EL1.TBI0 set always, so this asks nobody. */
int touch_by_tagged_pointer(struct specimen *s)
{
	char *plain = s->start;
	int err;

	errno = ENOTSUP;
	if (!is_arm64)
		return lacks(s, "a pointer with a tag");
	s->start = (char *)((unsigned long)plain | TAG);
	err = touch_pages(s);
	s->start = plain;
	return err;
}

/* The kernel itself writes the token, as if the task had; no other write gets through here. */
int make_shadow_stack(struct specimen *s)
{
	long flags = s->touch == WRITTEN ? SHADOW_STACK_SET_TOKEN : 0;

	s->length = specimen_length();
	s->start = slot(s->length, page_size());
	/* It replaces no mapping. */
	if (!s->start || munmap(s->start, s->length) ||
	    syscall(SYS_map_shadow_stack, s->start, s->length, flags) != (long)s->start)
		return lacks(s, "map_shadow_stack()");
	return 0;
}

int touch_shadow_stack(struct specimen *s)
{
	return s->touch == READ ? touch_pages(s) : 0;
}
