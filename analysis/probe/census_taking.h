/* SPDX-License-Identifier: GPL-2.0-only */
/* The census while it is being taken: shared by census.c, which reads, and census_file.c, which writes. */
#ifndef CENSUS_TAKING_H
#define CENSUS_TAKING_H

#include "kallsyms.h"
#include "output.h"
#include "pages.h"

#define READ_SIZE	(256 * 1024)	/* the kernel fills 32 KiB at a time */

struct bpf_program;

struct mm_work {
	struct mm_entry entry;
	bool read;
	bool gone;
};

struct census {
	struct bpf_object *object;
	struct bpf_program *list_tasks, *list_vmas;
	struct census_state *state;
	struct page_looker looker;
	struct census_header header;
	const char *output;
	char *place, *partial;		/* NULL: standard output, or no file */
	int fd;
	struct buffer mms, processes, strings, tasks, user_files, links;
	struct vma_record *batch;
	char *chunk;
};

bool append_string(struct census *census, __u32 id, const char *text, size_t length);
struct mm_work *mm_works(struct census *census, size_t *count);
__u64 now(int clock);

int open_output(struct census *census);
void describe_machine(struct census_header *header);
int write_records(struct census *census, const struct vma_record *vmas, size_t count);

#endif
