// SPDX-License-Identifier: GPL-2.0-only
/* Swap-out and KSM: what is done to pages that the kernel comes to by their anon_vma. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common.h"
#include "consequences.h"
#include "output.h"
#include "tracefs.h"

#define PAGEOUT		21		/* 5.4 */

/* Documentation/admin-guide/mm/pagemap.rst */
#define PM_FRAME	((1ULL << 55) - 1)
#define PM_SWAPPED	(1ULL << 62)
#define KPF_KSM		(1ULL << 21)

#define KSM		"/sys/kernel/mm/ksm/"
#define SCANS		3		/* a page is merged once two found it unchanged */
#define PATIENCE_NS	20000000000ULL

/* Pages of it that pagemap has IN_PAGEMAP of, or whose frame has IN_FLAGS. */
static long count_pages(const struct trial *trial, uint64_t in_pagemap, uint64_t in_flags)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	uint64_t first = (uintptr_t)trial->at / trial->page, entry, flags;
	long count = 0;

	for (size_t i = 0; i < trial->length / trial->page && count >= 0; i++) {
		if (pread(pagemap, &entry, 8, (first + i) * 8) != 8)
			count = -1;
		else if (entry & in_pagemap)
			count++;
		else if (in_flags && pread(kpageflags, &flags, 8, (entry & PM_FRAME) * 8) == 8)
			count += !!(flags & in_flags);
	}
	close(pagemap);
	close(kpageflags);
	return count;
}

/* ---- swap-out ---- */

int needs_swap(struct trial *trial)
{
	FILE *swaps = fopen("/proc/swaps", "re");
	char line[512];
	int lines = 0;

	while (swaps && fgets(line, sizeof(line), swaps))
		lines++;
	if (swaps)
		fclose(swaps);
	if (lines > 1)
		return 0;
	trial->lacks = "swap";
	return -1;
}

int swap_out(struct trial *trial)
{
	return madvise(trial->at, trial->length, PAGEOUT);
}

void count_swapped(struct trial *trial)
{
	trial->pages = count_pages(trial, PM_SWAPPED, 0);
}

/* ---- KSM ---- */

bool may_start_ksmd;

static long ksm_number(const char *file)
{
	char *text = read_file_at(AT_FDCWD, file);
	long number = text ? strtol(text, NULL, 10) : -1;

	free(text);
	return number;
}

static bool ksm_run(char how)
{
	int fd = open(KSM "run", O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, &how, 1) == 1;

	if (fd >= 0)
		close(fd);
	return written;
}

/* A process that stops ksmd once we close our end of a pipe, or are gone. */
static bool stop_ksmd_afterwards(struct trial *trial)
{
	int ends[2];
	char byte;

	/* Of no fork's VMA is this the operation. */
	if (pipe2(ends, O_CLOEXEC) || madvise(trial->at, trial->length, MADV_DONTFORK))
		return false;
	trial->child = fork();
	if (!trial->child) {
		close(ends[1]);
		while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
			;
		ksm_run('2');	/* what it merged is so no more, and nothing of it kept */
		ksm_run('0');
		_exit(0);
	}
	close(ends[0]);
	trial->file = ends[1];
	return trial->child > 0 && !madvise(trial->at, trial->length, MADV_DOFORK);
}

int needs_ksmd(struct trial *trial)
{
	long runs = ksm_number(KSM "run");

	if (runs == 1 || (runs >= 0 && may_start_ksmd && stop_ksmd_afterwards(trial) && ksm_run('1')))
		return 0;
	trial->lacks = runs < 0 ? "CONFIG_KSM" : "running ksmd";
	return -1;
}

int merge_by_ksm(struct trial *trial)
{
	long scans = ksm_number(KSM "full_scans");
	uint64_t begun = monotonic_ns();

	if (madvise(trial->at, trial->length, MADV_MERGEABLE))
		return -1;
	while (ksm_number(KSM "full_scans") < scans + SCANS + 1 && !interrupted)
		if (usleep(1000), monotonic_ns() - begun > PATIENCE_NS)
			return errno = ETIMEDOUT, -1;
	return 0;
}

void count_merged(struct trial *trial)
{
	trial->pages = count_pages(trial, 0, KPF_KSM);
	if (trial->file >= 0)
		close(trial->file);
	trial->file = -1;
	while (trial->child > 0 && waitpid(trial->child, NULL, 0) < 0 && errno == EINTR)
		;
}
