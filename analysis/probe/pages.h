/* SPDX-License-Identifier: GPL-2.0-only */
/* Which pages are in a VMA. */
#ifndef PAGES_H
#define PAGES_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include "census.h"

struct page_looker {
	int pagemap;
	int kpageflags;
	int how;			/* PAGES_* of census.h; degrades once, for all */
	__u64 categories;
	__u32 page_size;
	bool swaps;			/* whether the mm may have pages swapped out */
	__u64 failed;			/* VMAs that could not be looked at */
};

void pages_init(struct page_looker *looker, int how);
void pages_open(struct page_looker *looker, __u32 tid);
void pages_look(struct page_looker *looker, struct vma_record *vmas, size_t count);
void pages_close(struct page_looker *looker);
void pages_exit(struct page_looker *looker);
bool pagemap_scan_works(void);

#endif
