// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps that specimens are made of: open, map, ready, touch, change. Each does one thing and
 * either succeeds or says what is missing. What is mapped stays mapped: that is the point.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "specimens.h"

/* For headers older than the kernel release that brought the constant. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4			/* Linux 5.7 */
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1			/* Linux 5.11 */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22			/* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447			/* Linux 5.14 */
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41			/* Linux 5.17 */
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)	/* Linux 6.4 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102			/* Linux 6.13 */
#define MADV_GUARD_REMOVE 103
#endif

/* ---- small helpers ---- */

static void access_range(char *start, size_t length, bool write)
{
	volatile char *p;

	for (p = start; p < start + length; p += page_size()) {
		if (write)
			*p = 1;
		else
			(void)*p;
	}
}

static void apply_touch(enum touch touch, char *start, size_t length)
{
	if (touch == READ || touch == READ_WRITTEN)
		access_range(start, length, false);
	if (touch == WRITTEN || touch == READ_WRITTEN)
		access_range(start, length, true);
}

static int map_at(struct specimen *s, char *at, size_t length, int prot, off_t offset)
{
	if (!at || mmap(at, length, prot, s->kind->flags | MAP_FIXED, s->fd, offset) == MAP_FAILED)
		return lacks(s, s->kind->made_by);
	return 0;
}

static int read_number(const char *path, const char *format, size_t *value)
{
	FILE *f = fopen(path, "re");
	char line[256];
	int found = 0;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, format, value) == 1;
	if (f)
		fclose(f);
	return found ? 0 : -1;
}

size_t thp_size(void)
{
	static const char dir[] = "/sys/kernel/mm/transparent_hugepage";
	char path[128], modes[128] = "";
	size_t size;
	FILE *f;

	snprintf(path, sizeof(path), "%s/hpage_pmd_size", dir);
	if (read_number(path, "%zu", &size))
		return 0;
	snprintf(path, sizeof(path), "%s/enabled", dir);
	f = fopen(path, "re");
	if (f) {
		if (!fgets(modes, sizeof(modes), f))
			*modes = '\0';
		fclose(f);
	}
	return strstr(modes, "[never]") ? 0 : size;
}

/* Take as the specimen the VMA that holds @address or, if that is NULL, the one called @name. */
static int take_vma(struct specimen *s, const void *address, const char *name)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long from, to, at = (unsigned long)address;
	char line[4352], vma_name[256];

	while (maps && !s->length && fgets(line, sizeof(line), maps)) {
		*vma_name = '\0';
		if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %255s",
			   &from, &to, s->perms, vma_name) < 3)
			continue;
		if (at ? at < from || at >= to : strcmp(name, vma_name))
			continue;
		s->start = (char *)from;
		s->length = to - from;
	}
	if (maps)
		fclose(maps);
	errno = ENOENT;
	return s->length ? 0 : lacks(s, s->kind->made_by);
}

/* ---- file: what is mapped ---- */

int open_devzero(struct specimen *s)
{
	s->fd = open("/dev/zero", (s->kind->prot & PROT_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return s->fd < 0 ? lacks(s, "open(/dev/zero)") : 0;
}

int open_memfd(struct specimen *s)
{
	s->fd = memfd_create("specimen", MFD_CLOEXEC);
	return s->fd < 0 || ftruncate(s->fd, specimen_length()) ? lacks(s, "memfd_create()") : 0;
}

int open_secret(struct specimen *s)
{
	s->fd = syscall(SYS_memfd_secret, O_CLOEXEC);
	return s->fd < 0 || ftruncate(s->fd, specimen_length()) ? lacks(s, "memfd_secret()") : 0;
}

static bool on_tmpfs(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

int open_tmpfs(struct specimen *s)
{
	s->fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->fd < 0 || ftruncate(s->fd, specimen_length()))
		return lacks(s, "open(/dev/shm, O_TMPFILE)");
	errno = ENODEV;
	return on_tmpfs(s->fd) ? 0 : lacks(s, "no tmpfs at /dev/shm");
}

int open_disk_file(struct specimen *s)
{
	const char *dir = getenv("TMPDIR");
	char path[4096], *page = calloc(1, page_size());
	size_t done;

	snprintf(path, sizeof(path), "%s/specimens-XXXXXX", dir && *dir ? dir : "/var/tmp");
	s->fd = mkostemp(path, O_CLOEXEC);
	if (s->fd < 0 || !page) {
		free(page);
		return lacks(s, path);
	}
	unlink(path);
	for (done = 0; done < specimen_length(); done += page_size())
		if (write(s->fd, page, page_size()) != (ssize_t)page_size())
			break;
	free(page);
	if (done < specimen_length())
		return lacks(s, path);
	errno = ENODEV;
	return on_tmpfs(s->fd) ? lacks(s, "the directory for temporary files is a tmpfs") : 0;
}

int open_perf(struct specimen *s)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY,
		.disabled = 1, .exclude_kernel = 1, .exclude_hv = 1,
	};

	s->fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	s->length = 9 * page_size();	/* a header page and a power of two */
	return s->fd < 0 ? lacks(s, "perf_event_open()") : 0;
}

int open_io_uring(struct specimen *s)
{
	struct io_uring_params params = { 0 };

	s->fd = syscall(SYS_io_uring_setup, 8, &params);
	return s->fd < 0 ? lacks(s, "io_uring_setup()") : 0;
}

/* ---- map ---- */

int map_slot(struct specimen *s)
{
	if (!s->length)
		s->length = specimen_length();
	s->start = slot(s->length, page_size());
	return map_at(s, s->start, s->length, s->kind->prot, 0);
}

int map_thp(struct specimen *s)
{
	s->length = thp_size();
	errno = ENOTSUP;
	if (!s->length)
		return lacks(s, "transparent huge pages");
	s->start = slot(s->length, s->length);
	if (map_at(s, s->start, s->length, s->kind->prot, 0))
		return -1;
	return madvise(s->start, s->length, MADV_HUGEPAGE) ? lacks(s, "madvise(MADV_HUGEPAGE)") : 0;
}

int map_hugetlb(struct specimen *s)
{
	size_t kilobytes;

	errno = ENOTSUP;
	if (read_number("/proc/meminfo", "Hugepagesize: %zu kB", &kilobytes))
		return lacks(s, "huge pages");
	s->length = kilobytes << 10;
	s->start = slot(s->length, s->length);
	return map_at(s, s->start, s->length, s->kind->prot, 0);
}

int map_sysv_shm(struct specimen *s)
{
	int id = shmget(IPC_PRIVATE, specimen_length(), IPC_CREAT | 0600);
	void *at;

	if (id < 0)
		return lacks(s, "shmget()");
	s->length = specimen_length();
	s->start = slot(s->length, SHMLBA);
	at = s->start ? shmat(id, s->start, SHM_REMAP) : (void *)-1;
	shmctl(id, IPC_RMID, NULL);
	return at == (void *)-1 ? lacks(s, "shmat()") : 0;
}

/* The kernel refuses an address of our choice; the mapping is shared and merges with nothing. */
int map_io_uring_ring(struct specimen *s)
{
	s->length = page_size();
	s->start = mmap(NULL, s->length, s->kind->prot, s->kind->flags, s->fd, IORING_OFF_SQ_RING);
	return s->start == MAP_FAILED ? lacks(s, "mmap(IORING_OFF_SQ_RING)") : 0;
}

int map_aio_ring(struct specimen *s)
{
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, 8, &context))
		return lacks(s, "io_setup()");
	return take_vma(s, (void *)context, NULL);
}

/* The range begins one page below the VMA, with room there: the first access makes it grow. */
int map_grown_stack(struct specimen *s)
{
	size_t length = specimen_length();
	char *room = slot(2 * length, page_size());

	if (!room || map_at(s, room + length, length, s->kind->prot, 0) || munmap(room, length))
		return lacks(s, s->kind->made_by);
	s->start = room + length - page_size();
	s->length = length + page_size();
	return 0;
}

/* A neighbour, touched as @first says, and right behind it the specimen. */
static int map_beside(struct specimen *s, enum touch first, int prot, off_t offset)
{
	size_t length = s->length = specimen_length();
	char *neighbour = slot(2 * length, page_size());

	s->start = neighbour + length;
	if (map_at(s, neighbour, length, s->kind->prot, 0))
		return -1;
	apply_touch(first, neighbour, length);
	return map_at(s, s->start, length, prot, offset);
}

int map_beside_written(struct specimen *s)
{
	return map_beside(s, WRITTEN, s->kind->prot, 0);
}

int map_beside_read(struct specimen *s)
{
	return map_beside(s, READ, s->kind->prot, 0);
}

/* Offsets that go on where the neighbour's end: the two may merge. */
int map_behind_written(struct specimen *s)
{
	return map_beside(s, WRITTEN, s->kind->prot, specimen_length());
}

int map_mprotected_beside_written(struct specimen *s)
{
	if (map_beside(s, WRITTEN, PROT_READ, 0))
		return -1;
	return mprotect(s->start, s->length, s->kind->prot) ? lacks(s, "mprotect()") : 0;
}

/* One mapping, split in two by mprotect(): the first piece is touched, the second the specimen. */
static int map_split(struct specimen *s, enum touch first, bool split_first)
{
	size_t length = s->length = specimen_length();
	char *whole = slot(2 * length, page_size());
	int step, err = 0;

	s->start = whole + length;
	if (map_at(s, whole, 2 * length, s->kind->prot, 0))
		return -1;
	for (step = 0; step < 2; step++) {
		if (split_first == !step)
			err |= mprotect(s->start, length, PROT_READ);
		else
			apply_touch(first, whole, length);
	}
	return err ? lacks(s, "mprotect()") : 0;
}

int map_split_from_written(struct specimen *s)
{
	return map_split(s, WRITTEN, false);
}

int map_split_from_read(struct specimen *s)
{
	return map_split(s, READ, false);
}

int map_split_then_written(struct specimen *s)
{
	return map_split(s, WRITTEN, true);
}

int extend_brk(struct specimen *s)
{
	char *old = sbrk(0);

	s->length = specimen_length();
	s->start = (char *)(((unsigned long)old + page_size() - 1) & -page_size());
	return sbrk(s->start - old + s->length) == (void *)-1 ? lacks(s, "brk()") : 0;
}

int find_stack(struct specimen *s)
{
	return take_vma(s, __builtin_frame_address(0), NULL);
}

static sem_t thread_runs;
static char *thread_frame;

static void *stand_still(void *unused)
{
	thread_frame = __builtin_frame_address(0);
	sem_post(&thread_runs);
	while (pause())		/* it never succeeds */
		;
	return unused;
}

int find_thread_stack(struct specimen *s)
{
	pthread_t thread;

	if (!thread_frame) {
		sem_init(&thread_runs, 0, 0);
		errno = pthread_create(&thread, NULL, stand_still, NULL);
		if (errno)
			return lacks(s, "pthread_create()");
		while (sem_wait(&thread_runs))
			;
	}
	return take_vma(s, thread_frame, NULL);
}

int find_thread_guard(struct specimen *s)
{
	char *stack;

	if (find_thread_stack(s))
		return -1;
	stack = s->start;
	s->length = 0;
	if (take_vma(s, stack - 1, NULL))
		return -1;
	errno = ENOENT;
	return strcmp(s->perms, "---p") ? lacks(s, "no PROT_NONE mapping below the stack") : 0;
}

int find_bss(struct specimen *s)
{
	static char pages[8 << 16] __attribute__((aligned(1 << 16)));

	s->start = pages;
	s->length = sizeof(pages);
	return 0;
}

int find_data(struct specimen *s)
{
	static char pages[2 << 16] __attribute__((aligned(1 << 16))) = "initialised, so in .data";

	s->start = pages;
	s->length = sizeof(pages);
	return 0;
}

int find_text(struct specimen *s)
{
	return take_vma(s, (void *)(unsigned long)find_text, NULL);
}

int find_vdso(struct specimen *s)
{
	return take_vma(s, (void *)getauxval(AT_SYSINFO_EHDR), NULL);
}

int find_vvar(struct specimen *s)
{
	return take_vma(s, NULL, "[vvar]");
}

/* ---- before: readied, but not touched by the process ---- */

static int advise(struct specimen *s, int advice, const char *what)
{
	return madvise(s->start, s->length, advice) ? lacks(s, what) : 0;
}

int lock_pages(struct specimen *s)
{
	return mlock(s->start, s->length) ? lacks(s, "mlock()") : 0;
}

int lock_on_fault(struct specimen *s)
{
	return mlock2(s->start, s->length, MLOCK_ONFAULT) ? lacks(s, "mlock2(MLOCK_ONFAULT)") : 0;
}

int populate_read(struct specimen *s)
{
	return advise(s, MADV_POPULATE_READ, "madvise(MADV_POPULATE_READ)");
}

int populate_write(struct specimen *s)
{
	return advise(s, MADV_POPULATE_WRITE, "madvise(MADV_POPULATE_WRITE)");
}

int mark_mergeable(struct specimen *s)
{
	return advise(s, MADV_MERGEABLE, "madvise(MADV_MERGEABLE)");
}

int mark_wipe_on_fork(struct specimen *s)
{
	return advise(s, MADV_WIPEONFORK, "madvise(MADV_WIPEONFORK)");
}

int set_name(struct specimen *s)
{
	return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, s->start, s->length, "specimen")
		? lacks(s, "prctl(PR_SET_VMA_ANON_NAME)") : 0;
}

int install_guards(struct specimen *s)
{
	return advise(s, MADV_GUARD_INSTALL, "madvise(MADV_GUARD_INSTALL)");
}

int install_and_remove_guards(struct specimen *s)
{
	return install_guards(s) ? -1 : advise(s, MADV_GUARD_REMOVE, "madvise(MADV_GUARD_REMOVE)");
}

static int open_uffd(struct specimen *s, unsigned long features, unsigned long mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { (unsigned long)s->start, s->length }, .mode = mode,
	};

	s->fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (s->fd < 0)
		return lacks(s, "userfaultfd()");
	if (ioctl(s->fd, UFFDIO_API, &api))
		return lacks(s, "ioctl(UFFDIO_API)");
	return ioctl(s->fd, UFFDIO_REGISTER, &reg) ? lacks(s, "ioctl(UFFDIO_REGISTER)") : 0;
}

int register_uffd(struct specimen *s)
{
	return open_uffd(s, 0, UFFDIO_REGISTER_MODE_MISSING);
}

int fill_uffd_zeropage(struct specimen *s)
{
	struct uffdio_zeropage zero = { .range = { (unsigned long)s->start, s->length } };

	if (register_uffd(s))
		return -1;
	return ioctl(s->fd, UFFDIO_ZEROPAGE, &zero) ? lacks(s, "ioctl(UFFDIO_ZEROPAGE)") : 0;
}

int fill_uffd_copy(struct specimen *s)
{
	struct uffdio_copy copy = { .dst = (unsigned long)s->start, .len = s->length };
	int err;

	if (register_uffd(s))
		return -1;
	copy.src = (unsigned long)calloc(1, s->length);
	err = copy.src ? ioctl(s->fd, UFFDIO_COPY, &copy) : -1;
	free((void *)(unsigned long)copy.src);
	return err ? lacks(s, "ioctl(UFFDIO_COPY)") : 0;
}

int protect_uffd(struct specimen *s)
{
	struct uffdio_writeprotect wp = {
		.range = { (unsigned long)s->start, s->length },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	if (open_uffd(s, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED,
		      UFFDIO_REGISTER_MODE_WP))
		return -1;
	return ioctl(s->fd, UFFDIO_WRITEPROTECT, &wp) ? lacks(s, "ioctl(UFFDIO_WRITEPROTECT)") : 0;
}

int register_io_uring_buffer(struct specimen *s)
{
	struct io_uring_params params = { 0 };
	struct iovec buffer = { s->start, s->length };
	int ring = syscall(SYS_io_uring_setup, 8, &params);

	if (ring < 0)
		return lacks(s, "io_uring_setup()");
	return syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1)
		? lacks(s, "io_uring_register(IORING_REGISTER_BUFFERS)") : 0;
}

int wake_shared_futex(struct specimen *s)
{
	return syscall(SYS_futex, s->start, FUTEX_WAKE, 1, NULL, NULL, 0) < 0
		? lacks(s, "futex(FUTEX_WAKE)") : 0;
}

/* ---- touch ---- */

int touch_pages(struct specimen *s)
{
	apply_touch(s->touch, s->start, s->length);
	return 0;
}

/* For what is in use already, and not ours to write to. */
int touch_nothing(struct specimen *s)
{
	(void)s;
	return 0;
}

static int expect(struct specimen *s, ssize_t got, const char *what)
{
	if (got >= 0 && (size_t)got < s->length)
		errno = EIO;
	return (size_t)got == s->length ? 0 : lacks(s, what);
}

int touch_by_write2(struct specimen *s)
{
	int fd = memfd_create("sink", MFD_CLOEXEC);
	int err = expect(s, write(fd, s->start, s->length), "write()");

	close(fd);
	return err;
}

int touch_by_o_direct(struct specimen *s)
{
	struct specimen file = { .kind = s->kind, .fd = -1 };
	char path[64];
	int fd, err;

	if (open_disk_file(&file)) {
		memcpy(s->missing, file.missing, sizeof(s->missing));
		return -1;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file.fd);
	fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	err = fd < 0 ? lacks(s, "open(O_DIRECT)")
		     : expect(s, write(fd, s->start, s->length), "write() with O_DIRECT");
	close(fd);
	close(file.fd);
	return err;
}

static int copy_by_process_vm(struct specimen *s, bool write)
{
	struct iovec remote = { s->start, s->length }, local = { calloc(1, s->length), s->length };
	ssize_t got = write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0)
			    : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	free(local.iov_base);
	return expect(s, got, write ? "process_vm_writev()" : "process_vm_readv()");
}

int touch_by_process_vm_readv(struct specimen *s)
{
	return copy_by_process_vm(s, false);
}

int touch_by_process_vm_writev(struct specimen *s)
{
	return copy_by_process_vm(s, true);
}

static int copy_by_proc_mem(struct specimen *s, bool write)
{
	int fd = open("/proc/self/mem", (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	char *local = calloc(1, s->length);
	ssize_t got = write ? pwrite(fd, local, s->length, (off_t)s->start)
			    : pread(fd, local, s->length, (off_t)s->start);

	free(local);
	close(fd);
	return expect(s, got, write ? "write to /proc/self/mem" : "read from /proc/self/mem");
}

int touch_by_proc_mem_read(struct specimen *s)
{
	return copy_by_proc_mem(s, false);
}

int touch_by_proc_mem_write(struct specimen *s)
{
	return copy_by_proc_mem(s, true);
}

int touch_by_read2(struct specimen *s)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int err = expect(s, read(fd, s->start, s->length), "read()");

	close(fd);
	return err;
}

/* ---- after: changed when touched ---- */

int protect_none(struct specimen *s)
{
	return mprotect(s->start, s->length, PROT_NONE) ? lacks(s, "mprotect(PROT_NONE)") : 0;
}

int protect_readonly(struct specimen *s)
{
	return mprotect(s->start, s->length, PROT_READ) ? lacks(s, "mprotect(PROT_READ)") : 0;
}

int split_middle(struct specimen *s)
{
	s->start += 2 * page_size();
	s->length -= 4 * page_size();
	return protect_readonly(s);
}

int drop_pages(struct specimen *s)
{
	return advise(s, MADV_DONTNEED, "madvise(MADV_DONTNEED)");
}

int free_pages(struct specimen *s)
{
	return advise(s, MADV_FREE, "madvise(MADV_FREE)");
}

/* slot() leaves a gap of more than a specimen's length behind each. */
int grow_in_place(struct specimen *s)
{
	if (munmap(s->start + s->length, s->length) ||
	    mremap(s->start, s->length, 2 * s->length, 0) == MAP_FAILED)
		return lacks(s, "mremap()");
	s->length *= 2;
	return 0;
}

static int move(struct specimen *s, int flags, const char *what, bool follow)
{
	char *to = slot(s->length, page_size());

	if (!to || mremap(s->start, s->length, s->length, flags, to) == MAP_FAILED)
		return lacks(s, what);
	if (follow)
		s->start = to;
	return 0;
}

int move_away(struct specimen *s)
{
	return move(s, MREMAP_MAYMOVE | MREMAP_FIXED, "mremap(MREMAP_FIXED)", true);
}

#define DONTUNMAP (MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)

int leave_old_behind(struct specimen *s)
{
	return move(s, DONTUNMAP, "mremap(MREMAP_DONTUNMAP)", false);
}

int move_to_new(struct specimen *s)
{
	return move(s, DONTUNMAP, "mremap(MREMAP_DONTUNMAP)", true);
}
