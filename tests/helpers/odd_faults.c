// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults of the kinds a tracer might get wrong. "steps" prints what it did,
 * and when: a label, the time before and after (CLOCK_MONOTONIC), the address and
 * the number of pages; then it runs a command, if it was given one, whose output is
 * standard error. The other kinds read so many pages of a private /dev/zero.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGES	8
#define MANY	64
#define STEPS	2048

static long page;
static char *program;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *map(void *at, long pages, int prot, int flags, const char *file)
{
	int fd = file ? open(file, O_RDONLY) : -1;
	void *area = mmap(at, pages * page, prot, flags | (file ? 0 : MAP_ANONYMOUS), fd, 0);

	if (area == MAP_FAILED)
		fail(file ? file : "mmap");
	if (file)
		close(fd);
	return area;
}

static void look(const volatile char *area, long pages)
{
	for (long i = 0; i < pages; i++)
		(void)area[i * page];
}

static void put(volatile char *area, long pages)
{
	for (long i = 0; i < pages; i++)
		area[i * page] = 1;
}

/* ---- steps ---- */

static struct step {
	char label[32];
	unsigned long long begin, end;
	void *area;
	long pages;
} steps[STEPS];
static int step_count;

static unsigned long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static void begin(const char *label, void *area, long pages)
{
	struct step *step = &steps[step_count++];

	if (step_count == STEPS)
		exit(3);
	snprintf(step->label, sizeof(step->label), "%s", label);
	step->area = area;
	step->pages = pages;
	step->begin = now();
}

static void end(void)
{
	steps[step_count - 1].end = now();
}

static void read_step(const char *label, void *area, long pages)
{
	begin(label, area, pages);
	look(area, pages);
	end();
}

static void write_step(const char *label, void *area, long pages)
{
	begin(label, area, pages);
	put(area, pages);
	end();
}

/* One place, and a mapping of another kind in it each time. */
static void replace(char *place, char **files)
{
	const int all = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_FIXED;

	map(place, PAGES, all, flags, NULL);
	read_step("anonymous", place, PAGES);
	munmap(place, PAGES * page);
	for (int i = 0; i < 2; i++) {
		map(place, PAGES, all, flags, files[i]);
		write_step(i ? "file-1" : "file-0", place, PAGES);
		munmap(place, PAGES * page);
	}
	map(place, PAGES, all, flags, "/dev/zero");
	read_step("zero", place, PAGES);
	map(place, PAGES, all, flags, NULL);	/* no munmap() this time */
	write_step("anonymous-written", place, PAGES);
	map(place, PAGES, all, MAP_SHARED | MAP_FIXED, NULL);
	read_step("shared", place, PAGES);
	map(place, PAGES, PROT_NONE, flags, NULL);
}

static void split(void)
{
	char *area = map(NULL, 3 * PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, "/dev/zero");
	char *middle = area + PAGES * page, *last = middle + PAGES * page;

	read_step("split-before", area, 3 * PAGES);
	mprotect(middle, PAGES * page, PROT_READ);
	write_step("split-first", area, PAGES);
	madvise(middle, PAGES * page, MADV_DONTNEED);
	read_step("split-middle", middle, PAGES);
	write_step("split-last", last, PAGES);
	madvise(last, PAGES * page, MADV_DONTNEED);
	read_step("split-last-again", last, PAGES);
}

static void move(void)
{
	char *area = map(NULL, PAGES, PROT_READ, MAP_PRIVATE, "/dev/zero");

	look(area, PAGES);
	area = mremap(area, PAGES * page, 2 * PAGES * page, MREMAP_MAYMOVE);
	read_step("moved", area + PAGES * page, PAGES);
	madvise(area, PAGES * page, MADV_DONTNEED);
	read_step("moved-again", area, PAGES);
}

static __attribute__((noinline)) void deepen(void)
{
	char *area = alloca(2 * MANY * page);	/* the upper half may have been used before */

	area = (char *)(((unsigned long)area + page) & -page);
	begin("stack", area, MANY);
	for (long i = MANY; i--;)
		((volatile char *)area)[i * page] = 1;
	end();
}

static void name_it(void)
{
	char *area = map(NULL, 2 * PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);

	read_step("unnamed", area, PAGES);
	if (prctl(0x53564d41, 0, area, 2 * PAGES * page, "odd"))	/* PR_SET_VMA */
		return;			/* without CONFIG_ANON_VMA_NAME */
	read_step("named", area + PAGES * page, PAGES);
}

static char *forbidden;

static void allow(int number)
{
	(void)number;
	mprotect(forbidden, page, PROT_READ);
}

static void forbid(void)
{
	signal(SIGSEGV, allow);
	forbidden = map(NULL, 1, PROT_NONE, MAP_PRIVATE, NULL);
	read_step("forbidden", forbidden, 1);
	signal(SIGSEGV, SIG_DFL);
}

/* Pages that the kernel wants. */
static void by_the_kernel(void)
{
	char *area = map(NULL, PAGES, PROT_READ, MAP_PRIVATE, "/dev/zero");
	int ends[2];

	if (pipe(ends))
		fail("pipe");
	begin("written-from", area, PAGES);
	if (write(ends[1], area, PAGES * page) != PAGES * page)
		fail("write");
	end();
	close(ends[0]);
	close(ends[1]);
	begin("populated", NULL, MANY);
	area = map(NULL, MANY, PROT_READ, MAP_PRIVATE | MAP_POPULATE, "/dev/zero");
	steps[step_count - 1].area = area;
	look(area, MANY);
	end();
	area = map(NULL, MANY, PROT_READ, MAP_PRIVATE, "/dev/zero");
	begin("locked", area, MANY);
	if (mlock(area, MANY * page))
		fail("mlock");
	look(area, MANY);
	end();
}

struct server {
	int fd;
	char *area;
};

static void *serve(void *arg)
{
	static char content[65536] __attribute__((aligned(65536)));
	struct server *server = arg;
	struct uffd_msg message;

	for (int i = 0; i < PAGES; i++) {
		struct uffdio_copy copy = { .src = (unsigned long)content, .len = page };

		if (read(server->fd, &message, sizeof(message)) != sizeof(message))
			fail("userfaultfd");
		copy.dst = message.arg.pagefault.address & -page;
		if (ioctl(server->fd, UFFDIO_COPY, &copy))
			fail("UFFDIO_COPY");
	}
	return NULL;
}

static void from_user_space(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register place = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct server server = { .fd = syscall(SYS_userfaultfd, O_CLOEXEC) };
	pthread_t thread;

	if (server.fd < 0)
		return;
	server.area = map(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);
	place.range.start = (unsigned long)server.area;
	place.range.len = PAGES * page;
	if (ioctl(server.fd, UFFDIO_API, &api) || ioctl(server.fd, UFFDIO_REGISTER, &place))
		fail("userfaultfd");
	pthread_create(&thread, NULL, serve, &server);
	read_step("userfault", server.area, PAGES);
	pthread_join(thread, NULL);
}

static void *thread_deepens(void *arg)
{
	deepen();
	return arg;
}

static void all_steps(long rounds, char **files)
{
	char *place;
	pthread_t thread;

	put((char *)steps, (sizeof(steps) + page - 1) / page);
	memset(steps, 0, sizeof(steps));
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	place = map(NULL, 3 * PAGES, PROT_NONE, MAP_PRIVATE, NULL);
	for (long i = 0; i < rounds; i++)
		replace(place + PAGES * page, files);
	split();
	move();
	deepen();
	pthread_create(&thread, NULL, thread_deepens, NULL);
	pthread_join(thread, NULL);
	strcpy(steps[step_count - 1].label, "thread-stack");
	name_it();
	forbid();
	by_the_kernel();
	from_user_space();
	for (int i = 0; i < step_count; i++)
		printf("%s %llu %llu %lu %ld\n", steps[i].label, steps[i].begin, steps[i].end,
		       (unsigned long)steps[i].area, steps[i].pages);
}

static void go_on_as(char **command)
{
	fflush(stdout);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	execv(command[0], command);
	fail(command[0]);
}

/* ---- processes ---- */

static void touch(long pages)
{
	look(map(NULL, pages, PROT_READ, MAP_PRIVATE, "/dev/zero"), pages);
}

static void children(long count, long pages)
{
	for (long i = 0; i < count; i++) {
		pid_t pid = fork();

		if (!pid) {
			touch(pages + i);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
}

/* A forking server: workers side by side, each with one child after the other for what is asked. */
static void server(long workers, long requests)
{
	for (long i = 0; i < workers; i++)
		if (!fork()) {
			children(requests, PAGES);
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
}

/* A grandchild in a session of its own goes on when its parent has ended. */
static void daemonise(long pages)
{
	int ends[2];
	char end;

	if (pipe(ends))
		fail("pipe");
	if (!fork()) {
		pid_t parent = setsid();

		if (fork())
			_exit(0);
		while (getppid() == parent)
			usleep(1000);
		touch(pages);
		_exit(0);
	}
	wait(NULL);
	close(ends[1]);
	if (read(ends[0], &end, 1))	/* all copies of the other end are closed */
		fail("read");
}

static void *touch_later(void *pages)
{
	usleep(50000);
	touch((long)pages);
	return NULL;
}

static void leader_exits(long pages)
{
	pthread_t thread;

	pthread_create(&thread, NULL, touch_later, (void *)pages);
	pthread_exit(NULL);
}

static void *exec_touch(void *pages)
{
	execl(program, program, "touch", pages, NULL);
	fail("exec");
	return NULL;
}

/* The kernel writes there when a thread exits. */
static void *exit_into(void *place)
{
	pthread_detach(pthread_self());
	syscall(SYS_set_tid_address, place);
	syscall(SYS_exit, 0);
	return NULL;
}

static void threads_exit(long count)
{
	char *area = map(NULL, count, PROT_READ | PROT_WRITE, MAP_PRIVATE, "/dev/zero");
	unsigned char present = 0;
	pthread_t thread;

	for (long i = 0; i < count; i++) {
		pthread_create(&thread, NULL, exit_into, area + i * page);
		while (mincore(area + i * page, page, &present) || !present)
			usleep(100);
	}
}

static void thread_execs(char *pages)
{
	pthread_t thread;

	pthread_create(&thread, NULL, exec_touch, pages);
	pause();
}

static void vfork_exec(char *pages)
{
	pid_t pid = vfork();

	if (!pid) {
		execl(program, program, "touch", pages, NULL);
		_exit(1);
	}
	waitpid(pid, NULL, 0);
}

static void *touch_slowly(void *pages)
{
	const volatile char *area = map(NULL, (long)pages, PROT_READ, MAP_PRIVATE, "/dev/zero");

	for (long i = 0; i < (long)pages; i++, usleep(10))
		(void)area[i * page];
	return NULL;
}

/* Threads that live before the word to go is given on standard input, and until its end. */
static void on_demand(long threads, long pages)
{
	pthread_t ids[16];
	char word[16];

	printf("%d\n", getpid());
	fflush(stdout);
	while (read(0, word, 1) == 1) {
		for (long i = 0; i < threads; i++)
			pthread_create(&ids[i], NULL, touch_slowly, (void *)pages);
		for (long i = 0; i < threads; i++)
			pthread_join(ids[i], NULL);
		touch(pages);
		if (write(1, "done\n", 5) != 5)
			fail("write");
	}
}

static void named(const char *name, long pages)
{
	prctl(PR_SET_NAME, name);
	if (!fork()) {
		touch(pages);
		_exit(0);
	}
	wait(NULL);
}

/* ---- faults that are errors, and exceptions that are no faults ---- */

static sigjmp_buf back;

static void jump_back(int number)
{
	(void)number;
	siglongjmp(back, 1);
}

/* Each read ends in a signal: what a safepoint or a moving collector's barrier does. */
static void guarded(long count)
{
	const volatile char *area = map(NULL, 1, PROT_NONE, MAP_PRIVATE, NULL);

	signal(SIGSEGV, jump_back);
	for (volatile long i = 0; i < count; i++)
		if (!sigsetjmp(back, 1))
			(void)*area;
}

/* Written to a file, untouched: the kernel first tries to copy with page faults disabled. */
static void copied(long pages)
{
	char *area = map(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);
	char name[] = "/tmp/odd_faults.XXXXXX";
	int fd = mkstemp(name);

	if (fd < 0 || unlink(name))
		fail(name);
	for (long i = 0; i < pages; i++)
		if (pwrite(fd, area + i * page, 100, 0) != 100)
			fail("pwrite");
}

/* ---- mmap_lock ---- */

static void calls(long count)
{
	for (long i = 0; i < count; i++) {
		char *area = map(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);

		mprotect(area, page, PROT_NONE);
		madvise(area, PAGES * page, MADV_DONTFORK);
		syscall(SYS_brk, (char *)syscall(SYS_brk, 0) + (i % 2 ? -page : page));
		munmap(area, PAGES * page);
	}
}

static void *contend(void *count)
{
	for (long i = 0; i < (long)count; i++) {
		char *area = map(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, NULL);

		put(area, PAGES);
		munmap(area, PAGES * page);
	}
	return NULL;
}

static void contention(long threads, long count)
{
	pthread_t ids[16];

	for (long i = 0; i < threads; i++)
		pthread_create(&ids[i], NULL, contend, (void *)count);
	for (long i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
}

/* A command, and /proc/vmstat right before and after it, each with its time, when all is done. */
static void counted(char **command)
{
	static char texts[2][65536];
	unsigned long long times[2];
	pid_t child;

	put(texts[0], sizeof(texts) / page);
	for (int i = 0; i < 2; i++) {
		int fd = open("/proc/vmstat", O_RDONLY);

		times[i] = now();
		if (fd < 0 || read(fd, texts[i], sizeof(texts[i]) - 1) < 0)
			fail("/proc/vmstat");
		close(fd);
		if (i)
			break;
		child = fork();
		if (!child) {
			execv(command[0], command);
			_exit(127);
		}
		if (waitpid(child, NULL, 0) != child)
			fail("waitpid");
	}
	for (int i = 0; i < 2; i++)
		printf("vmstat %llu\n%s", times[i], texts[i]);
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";
	long first = argc > 2 ? atol(argv[2]) : 0, second = argc > 3 ? atol(argv[3]) : 0;

	page = sysconf(_SC_PAGESIZE);
	program = argv[0];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(kind, "steps")) {
		all_steps(first, argv + 3);
		if (argc > 5)
			go_on_as(argv + 5);
	} else if (!strcmp(kind, "touch"))
		touch(first);
	else if (!strcmp(kind, "children"))
		children(first, second);
	else if (!strcmp(kind, "server"))
		server(first, second);
	else if (!strcmp(kind, "daemon"))
		daemonise(first);
	else if (!strcmp(kind, "leader-exits"))
		leader_exits(first);
	else if (!strcmp(kind, "threads-exit"))
		threads_exit(first);
	else if (!strcmp(kind, "thread-execs"))
		thread_execs(argv[2]);
	else if (!strcmp(kind, "vfork"))
		vfork_exec(argv[2]);
	else if (!strcmp(kind, "on-demand"))
		on_demand(first, second);
	else if (!strcmp(kind, "named"))
		named(argv[2], second);
	else if (!strcmp(kind, "guarded"))
		guarded(first);
	else if (!strcmp(kind, "copied"))
		copied(first);
	else if (!strcmp(kind, "counted"))
		counted(argv + 2);
	else if (!strcmp(kind, "calls"))
		calls(first);
	else if (!strcmp(kind, "contention"))
		contention(first, second);
	else
		return 2;
	return 0;
}
