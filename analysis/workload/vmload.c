// SPDX-License-Identifier: GPL-2.0-only
/*
 * vmload - make the mappings and take the page faults of vm-scalability's usemem
 *
 * Tasks (processes, or threads in them) each map SIZE bytes, one mmap() per unit, and read or write
 * every 8-byte word. By default the mapping is a private one of /dev/zero: anonymous memory to the
 * kernel (vm_ops is NULL), which does not merge with its neighbours. Options, their meaning and the
 * line each task prints are usemem's. What is new: --case, --hold, --seed, --touch, --cpus, and that
 * every mapping stays until the task exits.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "gate.h"
#include "vmload.h"
#include "window.h"

#define NSEC_PER_SEC 1000000000UL

/* One loop of accesses: what it works on, and where its random numbers stand. */
struct task {
	uint64_t random_state;
	bool out_of_time;
};

struct piece {
	unsigned long *start;
	unsigned long bytes;
};

static int file_fd = -1;
static unsigned long *preallocated;
static struct timespec start_time;
static struct gate start_gate, hold_gate;

/* ---- time ---- */

static unsigned long nsec_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - then->tv_sec) * NSEC_PER_SEC + now.tv_nsec - then->tv_nsec;
}

static bool runtime_over(void)
{
	return opt.runtime_secs && nsec_since(&start_time) >= opt.runtime_secs * NSEC_PER_SEC;
}

/* ---- mapping ---- */

static unsigned long tasks_per_process(void)
{
	return opt.threads ? opt.threads : 1;
}

static unsigned long units_per_task(void)
{
	return opt.prealloc ? 1 : (opt.bytes + opt.unit - 1) / opt.unit;
}

/* Without stdio, whose buffer would need memory when there is none to map. */
static unsigned long max_map_count(void)
{
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	char text[32] = "";

	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			*text = '\0';
		close(fd);
	}
	return strtoul(text, NULL, 10);
}

static void __attribute__((noreturn)) fail_mmap(unsigned long bytes)
{
	int err = errno;
	unsigned long asked = units_per_task() * tasks_per_process();
	unsigned long limit = max_map_count();

	if (opt.map_flags & MAP_HUGETLB)
		fail(1, "mmap of %lu bytes of huge pages failed: %s; --hugetlb needs --anonymous "
		     "and free 2 MB pages (vm.nr_hugepages).", bytes, strerror(err));
	if (err == ENOMEM && asked >= limit)
		fail(1, "mmap failed: %s; this run asks for %lu VMAs in one process and "
		     "vm.max_map_count is %lu: raise it, or take a larger --unit or a smaller "
		     "SIZE.", strerror(err), asked, limit);
	fail(1, "mmap of %lu bytes failed: %s; this run asks for %lu VMAs in one process, fewer "
	     "than vm.max_map_count (%lu).", bytes, strerror(err), asked, limit);
}

static unsigned long *allocate(unsigned long bytes)
{
	bool read_only = opt.readonly && !opt.open_rw;
	unsigned long *p;

	if (opt.use_malloc) {
		p = malloc(bytes);
		if (!p)
			fail(1, "malloc of %lu bytes failed: %s.", bytes, strerror(errno));
		return p;
	}
	p = mmap(NULL, bytes, read_only ? PROT_READ : PROT_READ | PROT_WRITE, opt.map_flags,
		 opt.map_flags & MAP_ANONYMOUS ? -1 : file_fd, opt.offset);
	if (p == MAP_FAILED)
		fail_mmap(bytes);
	return p;
}

/* ---- access ---- */

/* Not inlined: this is the name profiles of vm-scalability show as the faulting function. */
static void __attribute__((noinline)) do_access(unsigned long *p, unsigned long idx, bool read)
{
	volatile unsigned long *word = p + idx;

	if (read)
		(void)*word;
	else
		*word = idx;
}

/*
 * Have the kernel access a word on the task's behalf, by a system call that changes nothing:
 * rt_sigprocmask() copies the new set from user memory before it looks at @how, which is none of
 * SIG_BLOCK, SIG_UNBLOCK and SIG_SETMASK (sigprocmask() then returns -EINVAL); without a new set it
 * copies the present one, which is empty, to user memory. A page fault taken in there is one of
 * kernel mode, which never takes a VMA's lock: do_user_addr_fault() goes to mmap_lock unless
 * FAULT_FLAG_USER is set (6.4 on).
 */
static void __attribute__((noinline)) access_in_kernel(unsigned long *word, bool read)
{
	if (read)
		syscall(SYS_rt_sigprocmask, -1, word, NULL, sizeof(*word));
	else
		syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, word, sizeof(*word));
}

/* The first access to a page: the same two accesses either way, and one fault, in another mode. */
static void access_page(unsigned long *p, unsigned long idx, bool read)
{
	if (opt.touch == TOUCH_KERNEL)
		access_in_kernel(p + idx, read);
	do_access(p, idx, read);
	if (opt.touch == TOUCH_USER)
		access_in_kernel(p + idx, read);
}

/* A number in [0, @bound), by the splitmix64 generator; 0 if @bound is 0. */
static unsigned long random_below(struct task *task, unsigned long bound)
{
	uint64_t z = task->random_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	z ^= z >> 31;
	return (unsigned __int128)z * bound >> 64;
}

static void delay(unsigned long *p, unsigned long idx, bool read)
{
	struct timespec begin;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		do_access(p, idx, read);
	} while (nsec_since(&begin) < opt.delay_ns);
}

/* Access the words of one unit once; returns the bytes accessed. */
static unsigned long access_words(struct task *task, unsigned long *p, unsigned long bytes,
				  bool read)
{
	unsigned long words = bytes / sizeof(*p), stride = opt.step / sizeof(*p);
	unsigned long page_bytes = sysconf(_SC_PAGESIZE);
	unsigned long i, accessed = 0, last_page = ULONG_MAX;
	bool by_page = opt.touch || opt.delay_ns;

	for (i = 0; i < words; i += stride) {
		unsigned long idx = opt.random ? random_below(task, words - 1) : i;
		unsigned long page = by_page ? (uintptr_t)(p + idx) / page_bytes : last_page;

		if (page == last_page) {
			do_access(p, idx, read);
		} else {
			access_page(p, idx, read);
			if (opt.delay_ns)
				delay(p, idx, read);
			last_page = page;
		}
		accessed += sizeof(*p);
		if (!(i & 0xffff) && runtime_over()) {
			task->out_of_time = true;
			break;
		}
	}
	return accessed;
}

static unsigned long access_repeatedly(struct task *task, const struct piece *piece, bool read)
{
	unsigned long i, accessed = 0;

	for (i = 0; i < opt.repeat && !task->out_of_time; i++) {
		accessed += access_words(task, piece->start, piece->bytes, read);
		if (opt.msync_flags && msync(piece->start, piece->bytes, opt.msync_flags))
			fail(1, "msync failed: %s.", strerror(errno));
	}
	return accessed;
}

/* ---- a task ---- */

/* usemem's line, in one write so that lines of many tasks do not mix. */
static void print_rate(const char *intro, unsigned long bytes, const struct timespec *since)
{
	unsigned long usecs = nsec_since(since) / 1000;
	unsigned long rate = ((unsigned __int128)bytes * 1000000 >> 10) / (usecs ? usecs : 1);
	char line[160];
	int len = snprintf(line, sizeof(line), "%s%lu bytes / %lu usecs = %lu KB/s\n",
			   intro, bytes, usecs, rate);

	if (write(STDOUT_FILENO, line, len) != len)
		fail(1, "could not write the result to stdout: %s.", strerror(errno));
}

static void bind_to_cpu(unsigned long number)
{
	unsigned long cpu = number * opt.bind % sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail(1, "could not bind task %lu to CPU %lu: %s.", number, cpu, strerror(errno));
}

/*
 * Where the mappings are is only remembered if an option asks to come back to them, in memory that
 * is present before the start gate: the run must make no mapping and take no fault but usemem's.
 */
static struct piece *make_record(void)
{
	struct piece *pieces;

	if (opt.prealloc || !(opt.read_again || opt.mlock))
		return NULL;
	pieces = mmap(NULL, units_per_task() * sizeof(*pieces), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (pieces == MAP_FAILED)
		fail(1, "no memory to record %lu mappings: %s.", units_per_task(), strerror(errno));
	return pieces;
}

static void revisit(struct task *task, const struct piece *pieces, unsigned long count)
{
	unsigned long i, bytes = 0;
	struct timespec begin;

	if (opt.read_again) {
		clock_gettime(CLOCK_MONOTONIC, &begin);
		for (i = 0; i < count; i++)
			bytes += access_repeatedly(task, &pieces[i], true);
		print_rate("read again ", bytes, &begin);
	}
	for (i = 0; opt.mlock && i < count; i++)
		if (mlock(pieces[i].start, pieces[i].bytes))
			fail(1, "mlock failed: %s; see RLIMIT_MEMLOCK.", strerror(errno));
}

static void run_task(unsigned long number)
{
	struct task task = { .random_state = opt.seed * 0x2545f4914f6cdd1d + number };
	struct piece whole = { preallocated, opt.bytes }, *pieces = make_record();
	unsigned long left = opt.bytes, units = 0;
	/* usemem counts an eighth of what is mapped as the mapping's own share of the work. */
	unsigned long bytes = opt.prealloc ? opt.bytes / 8 : 0;

	if (opt.bind)
		bind_to_cpu(number);
	if (!opt.sync_rw)
		gate_pass(&start_gate);
	syscall(WINDOW_BEGINS);
	do {
		struct piece piece = { preallocated, left < opt.unit ? left : opt.unit };

		if (!opt.prealloc) {
			piece.start = allocate(piece.bytes);
			bytes += piece.bytes / 8;
		}
		if (pieces)
			pieces[units++] = piece;
		if (opt.sync_rw)
			gate_pass(&start_gate);
		bytes += access_repeatedly(&task, &piece, opt.readonly);
		left -= piece.bytes;
	} while (left && !task.out_of_time && !runtime_over());

	syscall(WINDOW_ENDS);
	print_rate("", bytes, &start_time);
	task.out_of_time = false;
	revisit(&task, pieces ? pieces : &whole, pieces ? units : opt.prealloc);
	if (opt.sleep_secs)
		sleep(opt.sleep_secs);
}

/* ---- processes and threads ---- */

static void *run_thread(void *number)
{
	run_task((uintptr_t)number);
	return NULL;
}

static void run_threads(unsigned long process)
{
	pthread_t *threads = calloc(opt.threads, sizeof(*threads));
	unsigned long i;
	int err = threads ? 0 : ENOMEM;

	for (i = 0; !err && i < opt.threads; i++)
		err = pthread_create(&threads[i], NULL, run_thread,
				     (void *)(uintptr_t)(process * opt.threads + i));
	if (err)
		fail(1, "could not start %lu threads: %s.", opt.threads, strerror(err));
	for (i = 0; i < opt.threads; i++)
		pthread_join(threads[i], NULL);
	free(threads);
}

/* No file of /proc has the context switches of threads that have ended; getrusage() has them. */
static void print_used(void)
{
	struct rusage used;
	char line[160];
	int len;

	getrusage(RUSAGE_SELF, &used);
	len = snprintf(line, sizeof(line), "used: %d %.6f %.6f %ld %ld\n", getpid(),
		       used.ru_utime.tv_sec + used.ru_utime.tv_usec / 1e6,
		       used.ru_stime.tv_sec + used.ru_stime.tv_usec / 1e6,
		       used.ru_nvcsw, used.ru_nivcsw);
	if (write(STDOUT_FILENO, line, len) != len)
		fail(1, "could not write what it used to stdout: %s.", strerror(errno));
}

static void __attribute__((noreturn)) run_worker(unsigned long process, pid_t parent)
{
	sigset_t none;

	die_with_parent(parent);
	gate_visitor(&start_gate);
	gate_visitor(&hold_gate);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (opt.threads)
		run_threads(process);
	else
		run_task(process);
	if (opt.hold) {
		print_used();
		gate_pass(&hold_gate);
	}
	exit(0);
}

static void on_sigchld(int sig)
{
	(void)sig;	/* only there to interrupt ppoll() */
}

static void __attribute__((noreturn)) end_all(const pid_t *pids, unsigned long count)
{
	siginfo_t dead = { 0 };
	unsigned long i;

	if (!waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) && dead.si_pid &&
	    dead.si_code != CLD_EXITED)
		dprintf(STDERR_FILENO, "vmload: worker process %d was killed by signal %d before "
			"its work was done.\n", dead.si_pid, dead.si_status);
	for (i = 0; i < count; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	_exit(1);
}

/* Wait until @tasks have arrived at @gate. If a worker dies instead, the whole run ends. */
static void await_tasks(struct gate *gate, unsigned long tasks, const pid_t *pids,
			unsigned long count)
{
	struct pollfd pfd = { .fd = gate->arrived[0], .events = POLLIN };
	siginfo_t dead = { 0 };
	sigset_t none;
	char bytes[256];
	ssize_t got;

	sigemptyset(&none);
	while (tasks) {
		if (waitid(P_ALL, 0, &dead, WEXITED | WNOHANG | WNOWAIT) || dead.si_pid)
			end_all(pids, count);
		if (ppoll(&pfd, 1, NULL, &none) < 1)	/* SIGCHLD is only let in here */
			continue;
		got = read(gate->arrived[0], bytes, tasks < sizeof(bytes) ? tasks : sizeof(bytes));
		if (got > 0)
			tasks -= got;
	}
}

static void hold(const pid_t *pids, unsigned long count)
{
	unsigned long i;

	await_tasks(&hold_gate, count, pids, count);
	printf("hold:");
	for (i = 0; i < count; i++)
		printf(" %d", pids[i]);
	printf("\n");
	fflush(stdout);
	wait_for_release();
	gate_open(&hold_gate);
}

static int run_processes(void)
{
	struct sigaction action = { .sa_handler = on_sigchld, .sa_flags = SA_NOCLDSTOP };
	pid_t parent = getpid(), *pids = calloc(opt.processes, sizeof(*pids));
	sigset_t sigchld;
	unsigned long i;
	int status, failed = 0;

	sigemptyset(&sigchld);
	sigaddset(&sigchld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &sigchld, NULL);
	sigaction(SIGCHLD, &action, NULL);
	if (!pids || gate_init(&start_gate) || gate_init(&hold_gate))
		fail(1, "could not prepare %lu processes: %s.", opt.processes, strerror(errno));

	for (i = 0; i < opt.processes; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			run_worker(i, parent);
		if (pids[i] < 0) {
			dprintf(STDERR_FILENO, "vmload: could not fork process %lu of %lu: %s.\n",
				i + 1, opt.processes, strerror(errno));
			end_all(pids, i);
		}
	}
	await_tasks(&start_gate, opt.processes * tasks_per_process(), pids, opt.processes);
	gate_open(&start_gate);
	if (opt.hold)
		hold(pids, opt.processes);
	for (i = 0; i < opt.processes; i++)
		if (waitpid(pids[i], &status, 0) < 0 || status)
			failed = 1;
	return failed;
}

/* ---- the file ---- */

/* A file of holes that no name leads to: reading it makes page cache, not disk blocks. */
static int make_sparse_file(void)
{
	const char *dir = getenv("TMPDIR");
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/vmload-XXXXXX", dir && *dir ? dir : "/var/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		fail(1, "could not make a sparse file %s: %s; set TMPDIR or give --file.",
		     path, strerror(errno));
	unlink(path);
	if (ftruncate(fd, opt.offset + opt.bytes))
		fail(1, "could not make a sparse file of %lu bytes: %s.", opt.bytes,
		     strerror(errno));
	return fd;
}

static void open_file(void)
{
	struct stat st;

	if (opt.file == sparse_file) {
		file_fd = make_sparse_file();
		return;
	}
	file_fd = open(opt.file, (opt.readonly && !opt.open_rw ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (file_fd < 0 || fstat(file_fd, &st))
		fail(2, "could not open %s: %s.", opt.file, strerror(errno));
	if (S_ISREG(st.st_mode) && (unsigned long)st.st_size < opt.offset + opt.bytes)
		fail(2, "%s has %lld bytes, but the mapping would need %lu.",
		     opt.file, (long long)st.st_size, opt.offset + opt.bytes);
}

int main(int argc, char **argv)
{
	fill_standard_streams();
	parse_options(argc, argv);
	if (opt.some_cpus && sched_setaffinity(0, sizeof(opt.cpus), &opt.cpus))
		fail(1, "could not run on these CPUs alone: %s.", strerror(errno));
	clock_gettime(CLOCK_MONOTONIC, &start_time);
	syscall(CLOCK_STARTS);
	if (!opt.use_malloc && !(opt.map_flags & MAP_ANONYMOUS))
		open_file();
	if (opt.prealloc)
		preallocated = allocate(opt.bytes);
	return run_processes();
}
