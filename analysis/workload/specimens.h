// SPDX-License-Identifier: GPL-2.0-only
/*
 * A specimen is one mapping, made in one deliberate way and touched in one deliberate way. Its kind
 * is a row of the table in specimen_kinds.c; the steps rows are made of are in specimen_steps.c.
 */
#ifndef ANONVMA_SPECIMENS_H
#define ANONVMA_SPECIMENS_H

#include <stddef.h>
#include <sys/types.h>

enum touch { UNTOUCHED, READ, WRITTEN, READ_WRITTEN, NR_TOUCHES };

/* When, if at all, a child process takes the making of a specimen over from its parent. */
enum fork_point { NO_FORK, FORK_FIRST, FORK_BEFORE_TOUCH, FORK_AFTER_TOUCH };

struct specimen {
	const struct kind *kind;
	enum touch touch;
	pid_t pid;
	char *start;			/* the range that is touched and looked up */
	size_t length;			/* 0 until a step sets it: specimen_length() */
	char perms[5];			/* as /proc/self/maps has them, if it was looked up there */
	int fd;				/* what is mapped, or -1 */
	int repeated;			/* touches that met no writer and were made again */
	char missing[200];		/* why it could not be made, or empty */
};

/* A step returns 0, or -1 after lacks() has said what is missing. */
typedef int (*step_fn)(struct specimen *s);

/*
 * How one kind is made: file() opens what is mapped, map() maps it, before() readies it, touch_by()
 * touches it as the specimen's touch says, after() does the rest. Where a step is left out,
 * map_slot() maps and touch_pages() touches.
 */
struct kind {
	const char *name;
	const char *made_by;		/* the calls that make it */
	const char *origin_note;	/* what a person would call it */
	unsigned int touches;		/* bits of enum touch */
	const char *const *explain;	/* for each touch: the kernel function that decides */
	const char *needs;		/* who has it, if not every kernel and machine */
	int prot, flags;		/* for mmap() */
	enum fork_point fork_point;
	step_fn file, map, before, touch_by, after;
};

extern const struct kind kinds[];
extern const size_t nr_kinds;

/* Say that the kernel or machine lacks @what, by errno and kind->needs. Returns -1. */
int lacks(struct specimen *s, const char *what);

/*
 * Address space for a specimen that touches no other: its neighbours are shared memory, which is no
 * anonymous VMA and merges with none. NULL if there is no more of it.
 */
char *slot(size_t length, size_t alignment);

size_t page_size(void);
size_t specimen_length(void);
size_t thp_size(void);			/* 0 if there are no transparent huge pages */

/* The steps, in the order in which they come in struct kind. */
int open_devzero(struct specimen *s);
int open_memfd(struct specimen *s);
int open_secret(struct specimen *s);
int open_tmpfs(struct specimen *s);
int open_disk_file(struct specimen *s);
int open_uncached(struct specimen *s);
int open_perf(struct specimen *s);
int open_io_uring(struct specimen *s);

int map_slot(struct specimen *s);
int map_thp(struct specimen *s);
int map_hugetlb(struct specimen *s);
int map_sysv_shm(struct specimen *s);
int map_io_uring_ring(struct specimen *s);
int map_aio_ring(struct specimen *s);
int map_grown_stack(struct specimen *s);
int map_beside_written(struct specimen *s);
int map_beside_read(struct specimen *s);
int map_behind_written(struct specimen *s);
int map_mprotected_beside_written(struct specimen *s);
int map_split_from_written(struct specimen *s);
int map_split_from_read(struct specimen *s);
int map_split_then_written(struct specimen *s);
int extend_brk(struct specimen *s);
int find_stack(struct specimen *s);
int find_thread_stack(struct specimen *s);
int find_thread_guard(struct specimen *s);
int find_bss(struct specimen *s);
int find_data(struct specimen *s);
int find_text(struct specimen *s);
int find_vdso(struct specimen *s);
int find_vvar(struct specimen *s);

int lock_pages(struct specimen *s);
int lock_on_fault(struct specimen *s);
int populate_read(struct specimen *s);
int populate_write(struct specimen *s);
int mark_mergeable(struct specimen *s);
int mark_wipe_on_fork(struct specimen *s);
int set_name(struct specimen *s);
int install_guards(struct specimen *s);
int install_and_remove_guards(struct specimen *s);
int register_uffd(struct specimen *s);
int fill_uffd_zeropage(struct specimen *s);
int fill_uffd_copy(struct specimen *s);
int protect_uffd(struct specimen *s);
int register_io_uring_buffer(struct specimen *s);
int wake_shared_futex(struct specimen *s);

int touch_pages(struct specimen *s);
int touch_nothing(struct specimen *s);
int touch_by_write2(struct specimen *s);
int touch_by_o_direct(struct specimen *s);
int touch_by_process_vm_readv(struct specimen *s);
int touch_by_proc_mem_read(struct specimen *s);
int touch_by_read2(struct specimen *s);
int touch_by_process_vm_writev(struct specimen *s);
int touch_by_proc_mem_write(struct specimen *s);

int unmap_all(struct specimen *s);
int touch_nothing_mapped(struct specimen *s);
int map_again(struct specimen *s);
int map_for_writer(struct specimen *s);
int touch_write_locked(struct specimen *s);
int touch_beside_writer(struct specimen *s);
int read_no_pages_ahead(struct specimen *s);
int touch_by_userfaultfd(struct specimen *s);

int map_tagged_memory(struct specimen *s);
int touch_by_tagged_pointer(struct specimen *s);
int make_shadow_stack(struct specimen *s);
int touch_shadow_stack(struct specimen *s);

int protect_none(struct specimen *s);
int protect_readonly(struct specimen *s);
int split_middle(struct specimen *s);
int drop_pages(struct specimen *s);
int free_pages(struct specimen *s);
int grow_in_place(struct specimen *s);
int move_away(struct specimen *s);
int leave_old_behind(struct specimen *s);
int move_to_new(struct specimen *s);

#endif /* ANONVMA_SPECIMENS_H */
