// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first and only process of a guest that is not the workload's: it mounts
 * what programs expect, loads the modules it was given, and then starts and
 * watches commands for the host over a virtio port or a serial port.
 *
 * What it cannot do it says on the console and ends, upon which the kernel
 * panics and QEMU ends: the host needs to know no other way of failing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "guest.h"

#define PORT_NAME	"anonvma"	/* of the virtio port; analysis/anonvma/target/guest.py */
/* analysis/anonvma/target/machine.py looks for it on the console. */
#define NO_TIMER	"guest-init: no timer interrupt on processor"
#define PORT_PATIENCE	5000		/* ms for a virtio port to appear */
#define TIMER_PATIENCE	30		/* s for a sleep of a millisecond to end */

void die(const char *what)
{
	fprintf(stderr, "guest-init: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- what programs expect of a machine ---- */

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;			/* this kernel does not have it */
	if (write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "guest-init: %s to %s: %s\n", text, path, strerror(errno));
	close(fd);
}

static void mount_all(void)
{
	static const struct {
		const char *type, *where;
		bool needed;
	} mounts[] = {
		{ "proc", "/proc", true },
		{ "sysfs", "/sys", true },
		{ "devtmpfs", "/dev", false },	/* without it the nodes in the initramfs serve */
		{ "tmpfs", "/dev/shm", false },
		{ "tmpfs", "/tmp", false },
		{ "tracefs", "/sys/kernel/tracing", false },
		{ "debugfs", "/sys/kernel/debug", false },
		{ "bpf", "/sys/fs/bpf", false },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].where, 0755);
		if (mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL) &&
		    mounts[i].needed)
			die(mounts[i].where);
	}
}

/* A guest that is damaged or out of memory measures nothing any more: it shall end, and say why. */
static void panic_early(void)
{
	write_text("/proc/sys/kernel/panic", "-1");
	write_text("/proc/sys/kernel/panic_on_oops", "1");
	write_text("/proc/sys/vm/panic_on_oom", "1");
	/* One stall may be the host's: it was stopped, and its clock went on. */
	write_text("/proc/sys/kernel/max_rcu_stall_to_panic", "3");
	write_text("/proc/sys/kernel/panic_on_rcu_stall", "1");
}

/* ---- processors whose timer fires ---- */

static void sleep_on(int cpu)
{
	struct timespec briefly = { .tv_nsec = 1000000 };
	cpu_set_t *set = CPU_ALLOC(cpu + 1);
	size_t size = CPU_ALLOC_SIZE(cpu + 1);

	CPU_ZERO_S(size, set);
	CPU_SET_S(cpu, size, set);
	if (!sched_setaffinity(0, size, set))	/* else it is offline */
		nanosleep(&briefly, NULL);
	_exit(0);
}

/*
 * Under TCG a processor's timer may be dead from the start, though seldom. The guest
 * seems to be well then, until something waits for that processor's sleep or grace period, for
 * ever. Nothing is waited for here by a timer.
 */
static void check_timers(void)
{
	long count = sysconf(_SC_NPROCESSORS_CONF);
	pid_t sleepers[count];
	struct timespec from, now;

	for (long cpu = 0; cpu < count; cpu++) {
		sleepers[cpu] = fork();
		if (!sleepers[cpu])
			sleep_on(cpu);
	}
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (long cpu = 0; cpu < count; cpu++) {
		while (sleepers[cpu] > 0 && waitpid(sleepers[cpu], NULL, WNOHANG) == 0) {
			sched_yield();
			clock_gettime(CLOCK_MONOTONIC, &now);
			if (now.tv_sec - from.tv_sec > TIMER_PATIENCE) {
				fprintf(stderr, NO_TIMER " %ld\n", cpu);
				exit(1);
			}
		}
	}
}

/* The host wrote their names in the order they need one another. */
static void load_modules(void)
{
	FILE *list = fopen("/modules/order", "re");
	char name[256], path[300];

	while (list && fgets(name, sizeof(name), list)) {
		int fd;

		name[strcspn(name, "\n")] = '\0';
		snprintf(path, sizeof(path), "/modules/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			fprintf(stderr, "guest-init: %s: %s\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (list)
		fclose(list);
}

/* ---- the link ---- */

static bool read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "re");
	bool ok = file && fgets(line, size, file);

	if (file)
		fclose(file);
	if (ok)
		line[strcspn(line, "\n")] = '\0';
	return ok;
}

/* There is no udev: the port is found by its name in sysfs, and its node made here. */
static int open_port(const char *port)
{
	char path[300], line[64];
	unsigned int major, minor;

	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", port);
	if (!read_line(path, line, sizeof(line)) || strcmp(line, PORT_NAME))
		return -1;
	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/dev", port);
	if (!read_line(path, line, sizeof(line)) || sscanf(line, "%u:%u", &major, &minor) != 2)
		return -1;
	if (mknod("/link", S_IFCHR | 0600, makedev(major, minor)))
		return -1;
	return open("/link", O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static int find_port(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	int fd = -1;

	while (ports && fd < 0 && (entry = readdir(ports)))
		if (entry->d_name[0] != '.')
			fd = open_port(entry->d_name);
	if (ports)
		closedir(ports);
	return fd;
}

/* The second port, for the first is the console: of a PC, or of arm64's PL011. */
static int open_second_port(struct termios *mode)
{
	static const char *const ports[] = { "/dev/ttyS1", "/dev/ttyAMA1" };

	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		int fd = open(ports[i], O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

		/* A port that is not there can be opened, and no more. */
		if (fd >= 0 && !tcgetattr(fd, mode))
			return fd;
		if (fd >= 0)
			close(fd);
	}
	die("the second serial port");
}

static int open_serial(void)
{
	struct termios raw;
	int fd = open_second_port(&raw);

	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	raw.c_cflag |= CLOCAL | CREAD;
	if (tcsetattr(fd, TCSANOW, &raw))
		die("the second serial port");
	return fd;
}

static int open_link(void)
{
	int fd = find_port();

	/* Its device is probed in the background. */
	if (!access("/sys/bus/virtio/drivers/virtio_console", F_OK))
		for (int waited = 0; fd < 0 && waited < PORT_PATIENCE; waited += 10) {
			poll(NULL, 0, 10);
			fd = find_port();
		}
	return fd < 0 ? open_serial() : fd;
}

int become_user(void)
{
	return 0;			/* there is nobody else here */
}

int main(int argc, char **argv)
{
	/* Above every workload, however it keeps the processors busy: the host listens for us. */
	struct sched_param first = { .sched_priority = 1 };
	int link;

	if (getpid() != 1)
		return tool(argc, argv);
	umask(022);
	mount_all();
	panic_early();
	check_timers();
	load_modules();
	setenv("PATH", PROGRAMS, 1);
	setenv("HOME", "/", 1);
	setenv("TMPDIR", "/tmp", 1);
	sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first);
	link = open_link();
	serve(link, link, 0);
	return 1;
}
