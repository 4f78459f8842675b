// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking a census: list the tasks, then read each mm once through one task.
 *
 * The tasks are listed again after reading, so that processes born meanwhile
 * are read too; what still appears after ROUNDS is counted, and so is what
 * vanished. An mm that was written to while it was read is read again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "census_taking.h"
#include "common.h"
#include "embedded.h"
#include "kallsyms.h"
#include "opaque.h"
#include "output.h"
#include "pages.h"
#include "take_census.h"

#define ROUNDS		3
#define ATTEMPTS	3
#define BATCH		(READ_SIZE / offsetof(struct vma_item, name))

/* overlayfs: the file as the process opened it, by the id of the path of the layer below. */
struct user_file {
	__u32 path;
	__u32 dev;
	__u64 ino;
};

/* ---- reading an iterator ---- */

static int open_iterator(struct bpf_program *program, __u32 tgid, struct bpf_link **link)
{
	union bpf_iter_link_info info = { .task.pid = tgid };
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info,
		    .link_info_len = sizeof(info));
	int fd;

	*link = bpf_program__attach_iter(program, tgid ? &opts : NULL);
	if (!*link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(*link));
	return fd < 0 ? -errno : fd;
}

static ssize_t read_iterator(int fd, char *chunk)
{
	ssize_t got;

	do {
		got = read(fd, chunk, READ_SIZE);
	} while (got < 0 && (errno == EAGAIN || (errno == EINTR && !interrupted)));
	return got < 0 ? -errno : got;
}

static int list_tasks(struct census *census)
{
	struct bpf_link *link = NULL;
	ssize_t got = 0;
	int fd;

	census->tasks.size = 0;
	fd = open_iterator(census->list_tasks, 0, &link);
	if (fd < 0)
		got = fd;
	while (fd >= 0 && (got = read_iterator(fd, census->chunk)) > 0)
		if (!append(&census->tasks, census->chunk, got))
			got = -ENOMEM;
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	if (got < 0)
		return complain(EXIT_OTHER, "reading the tasks: %s", strerror(-got));
	return 0;
}

/* ---- files as overlayfs shows them ---- */

/* The path as the process knows it, in TARGET; PATH where that cannot be had. */
static const char *look_up_user_file(struct census *census, const struct vma_record *vma,
				     const char *path, char *target)
{
	struct user_file file = { .path = vma->path };
	char name[96];
	struct statx st;
	ssize_t length;

	snprintf(name, sizeof(name), "/proc/%u/map_files/%llx-%llx", vma->tid, vma->start, vma->end);
	length = readlink(name, target, PATH_LEN_MAX);
	if (length <= 0 || length == PATH_LEN_MAX ||
	    statx(AT_FDCWD, name, AT_STATX_DONT_SYNC, STATX_INO, &st))
		return path;
	target[length] = '\0';
	file.ino = st.stx_ino;
	file.dev = st.stx_dev_major << 20 | st.stx_dev_minor;
	append(&census->user_files, &file, sizeof(file));
	return target;
}

static void show_user_file(const struct census *census, struct vma_record *vma)
{
	const struct user_file *file = (const void *)census->user_files.data;
	size_t count = census->user_files.size / sizeof(*file);

	for (size_t i = 0; i < count; i++) {
		if (file[i].path != vma->path)
			continue;
		vma->ino = file[i].ino;
		vma->dev = file[i].dev;
	}
}

/* ---- one mm ---- */

/* A link that came behind the record of VMA number VMA of the file. */
static bool append_link(struct census *census, const char *at, __u64 vma)
{
	struct chain_link link = *(const struct chain_link *)at;
	const __u64 address = link.anon_vma;

	link.vma = vma;
	link.anon_vma = opaque(address);
	/* A root is its own parent. */
	link.root = link.root == address ? link.anon_vma : opaque(link.root);
	link.parent = link.parent == address ? link.anon_vma : opaque(link.parent);
	return append(&census->links, &link, sizeof(link));
}

/* Splits one buffer of the iterator into records, and the links and strings that came with them. */
static ssize_t unpack(struct census *census, ssize_t size)
{
	char *at = census->chunk, *end = at + size, target[PATH_LEN_MAX];
	const char *path;
	struct vma_record *vma;
	struct vma_item *item;
	size_t count = 0;

	while (end - at >= (ssize_t)sizeof(struct chain_link)) {
		__u32 path_room;

		if (*(const __u64 *)at == LINK_MARK) {
			if (!append_link(census, at, census->header.vmas + count - 1))
				return -ENOMEM;
			at += sizeof(struct chain_link);
			continue;
		}
		item = (struct vma_item *)at;
		path_room = VMA_PATH_ROOM(item->path_len);
		vma = &census->batch[count++];
		*vma = item->vma;
		path = item->path;
		if (vma->bits & VMA_INTERNAL_MOUNT && item->path_len)
			path = look_up_user_file(census, vma, path, target);
		if (vma->bits & VMA_INTERNAL_MOUNT)
			show_user_file(census, vma);
		if (item->path_len &&
		    !append_string(census, vma->path, path, strlen(path)))
			return -ENOMEM;
		if (item->name_len && !append_string(census, vma->name, item->name, item->name_len - 1))
			return -ENOMEM;
		census->header.paths_lost += !!(vma->bits & VMA_PATH_LOST);
		at += offsetof(struct vma_item, name);
		if (item->name_len || item->path_len)
			at += sizeof(item->name);
		at += path_room;
	}
	return count;
}

static int read_vmas(struct census *census, struct mm_work *work, int fd, int *reads)
{
	ssize_t got, count;
	int error;

	for (*reads = 0; (got = read_iterator(fd, census->chunk)) > 0; ++*reads) {
		count = unpack(census, got);
		if (count < 0)
			return count;
		if (count && census->batch[0].mm != work->entry.mm)
			return -ESTALE;		/* the task has exec'ed: another mm */
		pages_look(&census->looker, census->batch, count);
		error = write_records(census, census->batch, count);
		if (error)
			return error;
		work->entry.vmas += count;
	}
	return got;
}

/* The mm's VMAs, once; -ESRCH or -ESTALE when it has gone. */
static int try_mm(struct census *census, struct mm_work *work, bool *changed)
{
	struct census_state *state = census->state;
	struct bpf_link *link = NULL;
	int fd, error, reads = 0;

	state->want_tid = work->entry.tid;
	state->seq_known = 0;
	state->fresh = 1;
	state->links_lost = 0;
	work->entry.vmas = 0;
	work->entry.attempts++;
	fd = open_iterator(census->list_vmas, work->entry.tgid, &link);
	error = fd < 0 ? fd : read_vmas(census, work, fd, &reads);
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	/* Within one buffer mmap_lock is never dropped. */
	*changed = reads > 1 && state->seq_known && state->seq_first != state->seq_last;
	work->entry.bits &= ~(MM_CHANGED | MM_UNWATCHED);
	if (*changed)
		work->entry.bits |= MM_CHANGED;
	if (reads > 1 && !state->seq_known)
		work->entry.bits |= MM_UNWATCHED;
	return error ? error : work->entry.vmas ? 0 : -ESRCH;
}

static int read_mm(struct census *census, struct mm_work *work)
{
	__u64 before = census->header.vmas, lost = census->header.paths_lost;
	__u64 failed = census->looker.failed;
	size_t links = census->links.size;
	bool changed = true;
	int error = 0;

	pages_open(&census->looker, work->entry.tid);
	for (int attempt = 0; attempt < ATTEMPTS && changed && !error && !interrupted; attempt++) {
		census->header.vmas = before;
		census->header.paths_lost = lost;
		census->looker.failed = failed;
		census->links.size = links;
		error = try_mm(census, work, &changed);
	}
	pages_close(&census->looker);
	if (!error) {
		work->read = true;
		census->header.links_lost += census->state->links_lost;
		return 0;
	}
	census->header.vmas = before;
	census->links.size = links;
	work->gone = error == -ESRCH || error == -ESTALE;
	if (work->gone || error == -EINTR)
		return 0;
	if (error == -EINVAL || error == -E2BIG)
		return complain(EXIT_KERNEL, "this kernel's task_vma iterator cannot be pointed at "
				"one process: Linux 6.1 or later is needed");
	return complain(EXIT_OTHER, "reading the VMAs of process %u: %s", work->entry.tgid,
			strerror(-error));
}

/* ---- every mm ---- */

static bool wanted(__u32 tgid, const __u32 *tgids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (tgids[i] == tgid)
			return true;
	return !count;
}

static bool note_process(struct census *census, const struct task_item *task)
{
	struct process_entry entry = { .tgid = task->tgid, .mm = task->mm };
	const struct process_entry *known = (const void *)census->processes.data;
	size_t count = census->processes.size / sizeof(entry);

	/* The leader stands for its threads; without one the first of them does. */
	if (task->tid != task->tgid && !task->leader_gone)
		return true;
	for (size_t i = 0; task->leader_gone && i < count; i++)
		if (known[i].tgid == task->tgid)
			return true;
	memcpy(entry.comm, task->comm, sizeof(entry.comm));
	return append(&census->processes, &entry, sizeof(entry));
}

/* Enters a task into the table of mms; the best task to read one through is a leader that lives. */
static int note_task(struct census *census, const struct task_item *task)
{
	struct mm_work fresh = {}, *work;
	size_t count;

	work = mm_works(census, &count);
	while (count < task->mm) {
		fresh.entry.mm = ++count;
		if (!append(&census->mms, &fresh, sizeof(fresh)))
			return -ENOMEM;
	}
	work = mm_works(census, &count) + task->mm - 1;
	if (work->read)
		return 0;
	work->gone = false;
	work->entry.tasks++;
	if (work->entry.tid && task->tid != task->tgid)
		return 0;
	if (work->entry.tid && work->entry.tid == work->entry.tgid)
		return 0;
	work->entry.tgid = task->tgid;
	work->entry.tid = task->tid;
	work->entry.bits = task->leader_gone ? MM_LEADER_GONE : 0;
	memcpy(work->entry.comm, task->comm, sizeof(work->entry.comm));
	return 0;
}

static int note_tasks(struct census *census, const __u32 *tgids, size_t count)
{
	const struct task_item *task = (const void *)census->tasks.data;
	const struct task_item *end = task + census->tasks.size / sizeof(*task);
	struct mm_work *work;
	size_t mms, i;

	work = mm_works(census, &mms);
	for (i = 0; i < mms; i++)
		if (!work[i].read)
			work[i].entry = (struct mm_entry){ .mm = i + 1 };
	census->processes.size = 0;
	for (; task < end; task++) {
		if (!task->mm || !wanted(task->tgid, tgids, count))
			continue;
		if (note_task(census, task) || !note_process(census, task))
			return complain(EXIT_OTHER, "out of memory");
	}
	return 0;
}

/* Reads what has not been read; how many mms there were to read. */
static int read_new_mms(struct census *census, size_t *fresh)
{
	struct mm_work *work;
	size_t count, i;
	int code;

	*fresh = 0;
	work = mm_works(census, &count);
	for (i = 0; i < count && !interrupted; i++) {
		if (work[i].read || !work[i].entry.tid)
			continue;
		++*fresh;
		code = read_mm(census, &work[i]);
		if (code)
			return code;
	}
	return 0;
}

int census_take(struct census *census, const __u32 *tgids, size_t count)
{
	struct mm_work *work;
	size_t fresh = 1, mms;
	int code = 0;

	for (int round = 0; round < ROUNDS && fresh && !code && !interrupted; round++) {
		code = list_tasks(census);
		if (!code)
			code = note_tasks(census, tgids, count);
		if (!code)
			code = read_new_mms(census, &fresh);
	}
	if (code || interrupted || !fresh)
		return code;
	/* The last round still found some: is there more by now? */
	code = list_tasks(census);
	if (!code)
		code = note_tasks(census, tgids, count);
	work = mm_works(census, &mms);
	for (size_t i = 0; i < mms; i++)
		census->header.mms_late += !work[i].read && !work[i].gone && work[i].entry.tid;
	return code;
}

/* The first of the thread groups named whose mm was not read; 0 if all were. */
__u32 census_missing(const struct census *census, const __u32 *tgids, size_t count)
{
	const struct process_entry *process = (const void *)census->processes.data;
	size_t processes = census->processes.size / sizeof(*process), i, j;
	const struct mm_work *work = (const void *)census->mms.data;

	for (i = 0; i < count; i++) {
		for (j = 0; j < processes; j++)
			if (process[j].tgid == tgids[i] && work[process[j].mm - 1].read)
				break;
		if (j == processes)
			return tgids[i];
	}
	return 0;
}

int census_take_exiting(struct census *census, __u32 tid, bool (*exited)(__u32 tid))
{
	const struct task_item *task, *end, *self = NULL;
	struct mm_work *work;
	size_t count;
	int code = list_tasks(census);

	task = (const void *)census->tasks.data;
	end = task + census->tasks.size / sizeof(*task);
	for (const struct task_item *t = task; t < end; t++)
		if (t->tid == tid)
			self = t;
	if (code || !self)
		return code;
	for (; task < end; task++)
		if (task->mm == self->mm && task->tid != tid && !exited(task->tid))
			return 0;	/* somebody uses it still */
	if (note_task(census, self) || !note_process(census, self))
		return complain(EXIT_OTHER, "out of memory");
	work = mm_works(census, &count) + self->mm - 1;
	if (work->read)
		return 0;
	work->entry.tgid = self->tgid;
	work->entry.tid = self->tid;
	return read_mm(census, work);
}

void census_went_on(struct census *census, __u32 processes)
{
	census->header.went_on += processes;
}

/* ---- start and end ---- */

static int load_programs(struct census *census, bool no_chains)
{
	struct census_settings settings = {
		.special_mapping_fault = kallsyms_address("special_mapping_fault"),
		.page_shift = __builtin_ctzl(sysconf(_SC_PAGESIZE)),
		.no_chains = no_chains,
	};
	struct bpf_map *map;
	size_t size;
	int error;

	census->object = open_embedded("census", census_bpf_start, census_bpf_end);
	if (!census->object)
		return complain(EXIT_OTHER, "the BPF object inside this program is damaged");
	map = bpf_object__find_map_by_name(census->object, ".rodata");
	memcpy((void *)bpf_map__initial_value(map, &size), &settings, sizeof(settings));
	error = bpf_object__load(census->object);
	if (error)
		return explain_load_failure(error);
	map = bpf_object__find_map_by_name(census->object, ".bss");
	census->state = mmap(NULL, sizeof(*census->state), PROT_READ | PROT_WRITE, MAP_SHARED,
			     bpf_map__fd(map), 0);
	if (census->state == MAP_FAILED) {
		census->state = NULL;
		return complain(EXIT_KERNEL, "cannot map the census program's state: %s",
				strerror(errno));
	}
	census->list_tasks = bpf_object__find_program_by_name(census->object, "list_tasks");
	census->list_vmas = bpf_object__find_program_by_name(census->object, "list_vmas");
	return 0;
}

int census_open(struct census **result, const struct census_options *options)
{
	struct census *census = calloc(1, sizeof(*census));
	int code;

	*result = census;
	if (!census)
		return complain(EXIT_OTHER, "out of memory");
	census->fd = -1;
	census->output = options->output;
	census->chunk = malloc(READ_SIZE);
	census->batch = calloc(BATCH, sizeof(*census->batch));
	if (!census->chunk || !census->batch)
		return complain(EXIT_OTHER, "out of memory");
	if (!opaque_begin())
		return complain(EXIT_OTHER, "no random bytes: %s", strerror(errno));
	code = load_programs(census, options->no_chains);
	if (!code)
		code = open_output(census);
	if (code)
		return code;
	pages_init(&census->looker, options->pages_how);
	describe_machine(&census->header);
	census->header.start_ns = now(CLOCK_REALTIME);
	census->header.start_monotonic_ns = now(CLOCK_MONOTONIC);
	return 0;
}

void census_close(struct census *census)
{
	if (!census)
		return;
	if (census->partial)
		unlink(census->partial);
	free(census->place);
	free(census->partial);
	if (census->fd >= 0)
		close(census->fd);
	pages_exit(&census->looker);
	if (census->state)
		munmap(census->state, sizeof(*census->state));
	bpf_object__close(census->object);
	free(census->mms.data);
	free(census->processes.data);
	free(census->strings.data);
	free(census->tasks.data);
	free(census->user_files.data);
	free(census->links.data);
	free(census->batch);
	free(census->chunk);
	free(census);
}
