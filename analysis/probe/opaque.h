/* SPDX-License-Identifier: GPL-2.0-only */
/* Kernel addresses as ids that nobody can turn back into them, not even with another census. */
#ifndef OPAQUE_H
#define OPAQUE_H

#include <linux/types.h>
#include <stdbool.h>

bool opaque_begin(void);		/* a new key; false without a source of random bytes */
__u64 opaque(__u64 address);		/* 0 stays 0 */

#endif
