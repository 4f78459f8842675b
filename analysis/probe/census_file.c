// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writing a census: records as they come, then the tables, the header last.
 *
 * The file has its name only when it is whole.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "census_taking.h"
#include "common.h"
#include "kallsyms.h"
#include "ops_names.h"
#include "output.h"
#include "slab.h"
#include "take_census.h"

bool append_string(struct census *census, __u32 id, const char *text, size_t length)
{
	struct string_entry entry = { .id = id, .length = length };

	census->header.strings++;
	return append(&census->strings, &entry, sizeof(entry)) &&
	       append(&census->strings, text, length);
}

struct mm_work *mm_works(struct census *census, size_t *count)
{
	*count = census->mms.size / sizeof(struct mm_work);
	return (struct mm_work *)census->mms.data;
}

__u64 now(int clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* ---- the names of vm_operations_struct ---- */

struct ops_table {
	struct census *census;
	struct buffer *table;
};

static bool add_ops(void *arg, struct ops_entry *entry, const char *name)
{
	struct ops_table *to = arg;

	if (name) {
		entry->name = ++to->census->state->next_string;
		if (!append_string(to->census, entry->name, name, strlen(name)))
			return false;
	}
	to->census->header.ops++;
	return append(to->table, entry, sizeof(*entry));
}

/* Appends the ops_entry table and its strings. */
static bool name_ops(struct census *census, struct buffer *table)
{
	struct ops_table to = { .census = census, .table = table };

	return ops_names(bpf_object__find_map_fd_by_name(census->object, "ops"), add_ops, &to);
}

/* ---- the file ---- */

int write_records(struct census *census, const struct vma_record *vmas, size_t count)
{
	const char *at = (const char *)vmas;
	size_t left = count * sizeof(*vmas);
	off_t offset = sizeof(census->header) + census->header.vmas * sizeof(*vmas);
	ssize_t done;

	while (left) {
		done = pwrite(census->fd, at, left, offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		at += done;
		offset += done;
		left -= done;
	}
	census->header.vmas += count;
	return 0;
}

int open_output(struct census *census)
{
	if (!census->output) {
		if (isatty(STDOUT_FILENO))
			return complain(EXIT_USAGE, "a census is binary and standard output is a "
					"terminal: give --output FILE, or pipe it");
		census->fd = fileno(tmpfile());
		return 0;
	}
	if (!output_is_file(census->output)) {
		census->fd = fileno(tmpfile());
		return 0;
	}
	census->place = output_place(census->output);
	if (!census->place || asprintf(&census->partial, "%s.partial", census->place) < 0)
		return complain(EXIT_OTHER, "out of memory");
	census->fd = open(census->partial, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (census->fd < 0) {
		int error = errno;

		free(census->partial);
		census->partial = NULL;
		return complain(EXIT_OTHER, "cannot write %s: %s", census->output, strerror(error));
	}
	return 0;
}

/* To standard output, or to a device or a FIFO, neither of which can be written at any place. */
static bool copy_out(struct census *census)
{
	int fd = census->output ? open(census->output, O_WRONLY | O_CLOEXEC) : STDOUT_FILENO;
	ssize_t got = -1;

	if (fd < 0 || lseek(census->fd, 0, SEEK_SET))
		return false;
	while ((got = read(census->fd, census->chunk, READ_SIZE)) > 0)
		if (!write_all(fd, census->chunk, got))
			return false;
	return !got && (fd == STDOUT_FILENO || !close(fd));
}

void describe_machine(struct census_header *header)
{
	struct utsname names;
	FILE *file;

	memcpy(header->magic, CENSUS_MAGIC, sizeof(CENSUS_MAGIC));
	header->format = CENSUS_FORMAT;
	header->byte_order = 0x01020304;
	header->header_size = sizeof(*header);
	header->record_size = sizeof(struct vma_record);
	header->page_size = sysconf(_SC_PAGESIZE);
	uname(&names);
	snprintf(header->release, sizeof(header->release), "%.63s", names.release);
	snprintf(header->arch, sizeof(header->arch), "%.15s", names.machine);
	file = fopen("/proc/sys/kernel/random/boot_id", "re");
	if (file) {
		if (fscanf(file, "%36s", header->boot_id) != 1)
			header->boot_id[0] = '\0';
		fclose(file);
	}
}

static bool write_tables(struct census *census, const struct buffer *ops)
{
	struct mm_work *work;
	size_t count, i;

	work = mm_works(census, &count);
	for (i = 0; i < count; i++) {
		census->header.mms_vanished += work[i].gone;
		if (!work[i].read)
			continue;
		census->header.mms++;
		census->header.mms_changed += !!(work[i].entry.bits & MM_CHANGED);
		census->header.mms_unwatched += !!(work[i].entry.bits & MM_UNWATCHED);
		if (!write_all(census->fd, &work[i].entry, sizeof(work[i].entry)))
			return false;
	}
	census->header.processes = census->processes.size / sizeof(struct process_entry);
	return write_all(census->fd, census->processes.data, census->processes.size) &&
	       write_all(census->fd, ops->data, ops->size) &&
	       write_all(census->fd, census->links.data, census->links.size) &&
	       write_all(census->fd, census->strings.data, census->strings.size);
}

int census_commit(struct census *census)
{
	struct census_header *header = &census->header;
	off_t tables = sizeof(*header) + header->vmas * sizeof(struct vma_record);
	struct buffer ops = {};
	bool ok;

	slab_read(&header->anon_vma_slab, &header->anon_vma_chain_slab);
	header->end_ns = now(CLOCK_REALTIME);
	header->end_monotonic_ns = now(CLOCK_MONOTONIC);
	header->pages_how = census->looker.how;
	header->scans_failed = census->looker.failed;
	header->links = census->links.size / sizeof(struct chain_link);
	ok = !ftruncate(census->fd, tables) && lseek(census->fd, tables, SEEK_SET) == tables &&
	     name_ops(census, &ops) && write_tables(census, &ops) &&
	     pwrite(census->fd, header, sizeof(*header), 0) == sizeof(*header);
	free(ops.data);
	if (ok && census->partial)
		ok = !rename(census->partial, census->place);
	else if (ok)
		ok = copy_out(census);
	if (!ok)
		return complain(EXIT_OTHER, "cannot write %s: %s",
				census->output ? census->output : "standard output", strerror(errno));
	free(census->partial);
	census->partial = NULL;
	return 0;
}

