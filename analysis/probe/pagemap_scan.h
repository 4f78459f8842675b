/* SPDX-License-Identifier: GPL-2.0-only */
/* The ioctl that tells zero pages apart, shared with the bench, which walks by it alone. */
#ifndef PAGEMAP_SCAN_H
#define PAGEMAP_SCAN_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* include/uapi/linux/fs.h, from 6.7; our own names, as old headers lack them. */
struct scan_region {
	__u64 start, end, categories;
};

struct scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	__u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_IOCTL	_IOWR('f', 16, struct scan_arg)
#define SCAN_PRESENT	(1ULL << 3)
#define SCAN_SWAPPED	(1ULL << 4)
#define SCAN_ZERO	(1ULL << 5)
#define SCAN_HUGE	(1ULL << 6)
#define SCAN_GUARD	(1ULL << 8)	/* from 6.15 */

#endif
