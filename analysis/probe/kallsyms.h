/* SPDX-License-Identifier: GPL-2.0-only */
/* Symbols of the running kernel. */
#ifndef KALLSYMS_H
#define KALLSYMS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

/* The address of one symbol; 0 if there is none or addresses are hidden. */
__u64 kallsyms_address(const char *name);
/* The same of some, in one reading. */
void kallsyms_addresses(const char *const *names, size_t count, __u64 *addresses);
/* Where each function begins and the next symbol does; both 0 if there is none of that name. */
void kallsyms_ranges(const char *const *names, size_t count, __u64 (*ranges)[2]);
/* Calls back with the name at each of COUNT distinct addresses, ascending; false if unreadable. */
bool kallsyms_names(const __u64 *addresses, size_t count,
		    void (*found)(void *arg, size_t index, const char *name), void *arg);

/*
 * Calls back with the name of the function around each of COUNT addresses, ascending, and
 * "[module]" where it is one's, else NULL.
 */
bool kallsyms_functions(const __u64 *addresses, size_t count,
			void (*found)(void *arg, size_t index, const char *name,
				      const char *module), void *arg);

#endif
