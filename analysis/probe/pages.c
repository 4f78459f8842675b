// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is in a bare VMA, without touching a page of it.
 *
 * ioctl(PAGEMAP_SCAN) (6.7 on) walks only the page tables that exist and tells
 * zero pages apart. Before it, /proc/PID/pagemap gives a frame number for every
 * page and /proc/kpageflags says whether that frame is the zero page.
 *
 * Of a VMA with an anon_vma only what is swapped out is counted, and where the process has
 * nothing swapped out, as nearly all have, that is known without a walk.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "kallsyms.h"
#include "pagemap_scan.h"
#include "pages.h"
#include "tracefs.h"

#define SCAN_REGIONS	512

/* Documentation/admin-guide/mm/pagemap.rst */
#define PM_FRAME	((1ULL << 55) - 1)
#define PM_SWAPPED	(1ULL << 62)
#define PM_PRESENT	(1ULL << 63)
#define KPF_HUGE	(1ULL << 17)
#define KPF_THP		(1ULL << 22)
#define KPF_ZERO_PAGE	(1ULL << 24)
#define PAGEMAP_ENTRIES	4096
/* Eight bytes a page: beyond this a VMA would take seconds to read that way. */
#define PAGEMAP_MAX_BYTES (1ULL << 38)

static bool is_bare(const struct vma_record *vma)
{
	return !(vma->bits & (VMA_HAS_OPS | VMA_HAS_ANON));
}

bool pagemap_scan_works(void)
{
	struct scan_arg arg = { .size = sizeof(arg), .return_mask = SCAN_PRESENT,
				.category_mask = SCAN_PRESENT };
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool works = fd >= 0 && ioctl(fd, SCAN_IOCTL, &arg) >= 0;

	if (fd >= 0)
		close(fd);
	return works;
}

void pages_init(struct page_looker *looker, int how)
{
	*looker = (struct page_looker){
		.pagemap = -1, .kpageflags = -1, .how = how,
		.categories = SCAN_PRESENT | SCAN_SWAPPED | SCAN_GUARD,
		.page_size = sysconf(_SC_PAGESIZE),
	};
	if (how == PAGES_SCAN && !pagemap_scan_works())
		looker->how = PAGES_PAGEMAP;
	if (looker->how == PAGES_PAGEMAP)
		looker->kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
}

/* By the counter of the mm itself, MM_SWAPENTS; true also if nobody says. */
static bool has_swap_entries(__u32 tid)
{
	char path[64], *status, *line;
	bool none;

	snprintf(path, sizeof(path), "/proc/%u/status", tid);
	status = read_file_at(AT_FDCWD, path);
	line = status ? strstr(status, "\nVmSwap:") : NULL;
	none = line && !strtoull(line + strlen("\nVmSwap:"), NULL, 10);
	free(status);
	return !none;
}

void pages_open(struct page_looker *looker, __u32 tid)
{
	char path[64];

	looker->swaps = looker->how != PAGES_NOT_LOOKED && has_swap_entries(tid);
	snprintf(path, sizeof(path), "/proc/%u/pagemap", tid);
	looker->pagemap = looker->how == PAGES_NOT_LOOKED ? -1 :
			  open(path, O_RDONLY | O_CLOEXEC);
}

void pages_close(struct page_looker *looker)
{
	if (looker->pagemap >= 0)
		close(looker->pagemap);
	looker->pagemap = -1;
}

void pages_exit(struct page_looker *looker)
{
	pages_close(looker);
	if (looker->kpageflags >= 0)
		close(looker->kpageflags);
}

/* One PAGEMAP_SCAN call, for pages of a category that is WANTED; the number of regions, or -1. */
static long scan_once(struct page_looker *looker, __u64 wanted, __u64 start, __u64 end,
		      struct scan_region *regions, __u64 *walk_end)
{
	struct scan_arg arg;
	long found;

	for (;;) {
		arg = (struct scan_arg){
			.size = sizeof(arg), .start = start, .end = end,
			.vec = (uintptr_t)regions, .vec_len = SCAN_REGIONS,
			.category_anyof_mask = looker->categories & wanted,
			.return_mask = looker->categories | SCAN_ZERO | SCAN_HUGE,
		};
		found = ioctl(looker->pagemap, SCAN_IOCTL, &arg);
		if (found >= 0 || (errno != EINVAL && errno != EINTR))
			break;
		if (errno == EINVAL && !(looker->categories & SCAN_GUARD))
			break;
		if (errno == EINVAL)
			looker->categories &= ~SCAN_GUARD;
	}
	*walk_end = arg.walk_end;
	return found;
}

static void add_region(struct page_looker *looker, struct vma_record *vma,
		       const struct scan_region *region)
{
	__u64 start = region->start > vma->start ? region->start : vma->start;
	__u64 end = region->end < vma->end ? region->end : vma->end;
	__u64 pages;

	if (start >= end || !is_bare(vma))
		return;
	pages = (end - start) / looker->page_size;
	if (region->categories & SCAN_PRESENT)
		vma->present += pages;
	if (region->categories & SCAN_ZERO)
		vma->zero += pages;
	if (region->categories & SCAN_SWAPPED)
		vma->swapped += pages;
	if (region->categories & SCAN_HUGE)
		vma->huge += pages;
	if (region->categories & SCAN_GUARD)
		vma->guard += pages;
}

/* A run of neighbouring bare VMAs, in one walk; false if the mm is gone. */
static bool scan_run(struct page_looker *looker, struct vma_record *vmas, size_t count)
{
	struct scan_region regions[SCAN_REGIONS];
	__u64 at = vmas[0].start, end = vmas[count - 1].end, walk_end = 0;
	size_t vma = 0;
	long found, i;

	while (at < end) {
		found = scan_once(looker, ~0ULL, at, end, regions, &walk_end);
		if (found < 0 || walk_end <= at)
			return false;
		for (i = 0; i < found; i++) {
			while (vma < count && vmas[vma].end <= regions[i].start)
				vma++;
			/* A region may cover several VMAs, and a VMA hold several regions. */
			for (size_t v = vma; v < count && vmas[v].start < regions[i].end; v++)
				add_region(looker, &vmas[v], &regions[i]);
		}
		at = walk_end;
	}
	return true;
}

static bool frame_flags(struct page_looker *looker, __u64 frame, __u64 *flags)
{
	return frame && looker->kpageflags >= 0 &&
	       pread(looker->kpageflags, flags, sizeof(*flags), frame * sizeof(*flags)) ==
	       sizeof(*flags);
}

static bool read_pagemap(struct page_looker *looker, struct vma_record *vma)
{
	__u64 entries[PAGEMAP_ENTRIES], page = vma->start / looker->page_size;
	__u64 last = vma->end / looker->page_size, frame, known_frame = 0, flags = 0;
	ssize_t got;

	if (vma->end - vma->start > PAGEMAP_MAX_BYTES)
		return false;
	while (page < last) {
		size_t want = last - page < PAGEMAP_ENTRIES ? last - page : PAGEMAP_ENTRIES;

		got = pread(looker->pagemap, entries, want * sizeof(*entries), page * sizeof(*entries));
		if (got <= 0)
			return false;
		for (size_t i = 0; i < got / sizeof(*entries); i++, page++) {
			vma->swapped += !!(entries[i] & PM_SWAPPED);
			if (!(entries[i] & PM_PRESENT))
				continue;
			vma->present++;
			frame = entries[i] & PM_FRAME;
			if (frame != known_frame && !frame_flags(looker, frame, &flags))
				return false;
			known_frame = frame;
			vma->zero += !!(flags & KPF_ZERO_PAGE);
			vma->huge += !!(flags & (KPF_THP | KPF_HUGE));
		}
	}
	return true;
}

/* ---- of a VMA with an anon_vma ---- */

static bool scan_swapped(struct page_looker *looker, struct vma_record *vma)
{
	struct scan_region regions[SCAN_REGIONS];
	__u64 at = vma->start, walk_end = 0;
	long found;

	while (at < vma->end) {
		found = scan_once(looker, SCAN_SWAPPED, at, vma->end, regions, &walk_end);
		if (found < 0 || walk_end <= at)
			return false;
		/* A guard marker is no page, though it lies where a swap entry would. */
		for (long i = 0; i < found; i++)
			if (!(regions[i].categories & SCAN_GUARD))
				vma->swapped += (regions[i].end - regions[i].start) /
						looker->page_size;
		at = walk_end;
	}
	return true;
}

static bool read_swapped(struct page_looker *looker, struct vma_record *vma)
{
	__u64 entries[PAGEMAP_ENTRIES], page = vma->start / looker->page_size;
	__u64 last = vma->end / looker->page_size;
	ssize_t got;

	for (; page < last; page += got / sizeof(*entries)) {
		size_t want = last - page < PAGEMAP_ENTRIES ? last - page : PAGEMAP_ENTRIES;

		got = pread(looker->pagemap, entries, want * sizeof(*entries), page * sizeof(*entries));
		if (got <= 0)
			return false;
		for (size_t i = 0; i < got / sizeof(*entries); i++)
			vma->swapped += !!(entries[i] & PM_SWAPPED);
	}
	return true;
}

static void look_for_swapped(struct page_looker *looker, struct vma_record *vma)
{
	vma->swapped = 0;
	if (!looker->swaps)
		return;
	if (looker->pagemap < 0 || !(looker->how == PAGES_SCAN ? scan_swapped(looker, vma) :
				     read_swapped(looker, vma))) {
		vma->swapped = PAGES_UNKNOWN;
		looker->failed++;
	}
}

/* ---- of both ---- */

static void set_counts(struct vma_record *vmas, size_t count, __u64 value)
{
	for (size_t i = 0; i < count; i++)
		if (is_bare(&vmas[i]))
			vmas[i].present = vmas[i].zero = vmas[i].swapped = vmas[i].huge =
				vmas[i].guard = value;
}

static bool look_at_run(struct page_looker *looker, struct vma_record *vmas, size_t count)
{
	bool looked, sees_guards;

	if (looker->pagemap < 0)
		return false;
	if (looker->how == PAGES_SCAN)
		looked = scan_run(looker, vmas, count);
	else
		looked = read_pagemap(looker, vmas);
	sees_guards = looker->how == PAGES_SCAN && looker->categories & SCAN_GUARD;
	for (size_t i = 0; !sees_guards && i < count; i++)
		vmas[i].guard = PAGES_UNKNOWN;
	return looked;
}

void pages_look(struct page_looker *looker, struct vma_record *vmas, size_t count)
{
	size_t i = 0, run;

	if (looker->how == PAGES_NOT_LOOKED)
		return;
	while (i < count) {
		for (run = 0; i + run < count && is_bare(&vmas[i + run]); run++)
			if (run && looker->how != PAGES_SCAN)
				break;	/* pagemap is read one VMA at a time */
		if (!run) {
			if (vmas[i].bits & VMA_HAS_ANON)
				look_for_swapped(looker, &vmas[i]);
			i++;
			continue;
		}
		set_counts(&vmas[i], run, 0);
		if (!look_at_run(looker, &vmas[i], run)) {
			set_counts(&vmas[i], run, PAGES_UNKNOWN);
			looker->failed += run;
		}
		i += run;
	}
}
