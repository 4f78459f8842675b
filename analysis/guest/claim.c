// SPDX-License-Identifier: GPL-2.0-only
/*
 * Has a machine for one agent alone, whoever its user is.
 *
 * An agent with privilege holds the lock on a file that root alone can open, so
 * that nobody else can keep it waiting: on a file that all can read anybody may hold
 * a lock for ever. The others cannot open that one but see it: whether somebody holds
 * its lock, and who, stands in /proc/locks. Among themselves they lock a file of
 * /proc: it is there on every machine, nobody can make or remove it, and no file
 * system shared between machines is involved. That keeps them from disturbing each
 * other, not one who wants to. Either lock goes with the process that holds it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>
#include "guest.h"

#define ROOTS_FILE	"/run/anonvma.claim"
#define LOCK_FILE	"/proc/version"

static int lock_fd = -1;

static pid_t holder_of(const struct stat *about)
{
	FILE *locks = fopen("/proc/locks", "re");
	char line[256], wanted[64];
	int pid = 0;

	snprintf(wanted, sizeof(wanted), " %02x:%02x:%lu ", major(about->st_dev),
		 minor(about->st_dev), (unsigned long)about->st_ino);
	while (locks && !pid && fgets(line, sizeof(line), locks))
		if (strstr(line, wanted) && !strstr(line, "->"))
			sscanf(line, "%*d: FLOCK %*s %*s %d", &pid);
	if (locks)
		fclose(locks);
	return pid;
}

/* The agent with privilege that has the machine: 0 if there is none. */
static pid_t privileged_holder(void)
{
	struct stat about;

	return geteuid() && !lstat(ROOTS_FILE, &about) && !about.st_uid ? holder_of(&about) : 0;
}

static int open_lock(void)
{
	if (!geteuid())
		return open(ROOTS_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return open(LOCK_FILE, O_RDONLY | O_CLOEXEC);
}

bool claim(void)
{
	if (lock_fd < 0)
		lock_fd = open_lock();
	if (lock_fd < 0)
		die(geteuid() ? LOCK_FILE : ROOTS_FILE);
	return !privileged_holder() && !flock(lock_fd, LOCK_EX | LOCK_NB);
}

static pid_t find_holder(void)
{
	pid_t pid = privileged_holder();
	struct stat about;

	if (!pid && !fstat(lock_fd, &about))
		pid = holder_of(&about);
	return pid > 0 ? pid : 0;	/* in another pid namespace it has no number here */
}

/* The last word of its command line: an agent's says for whom it works. */
static void label_of(pid_t pid, char *label, size_t size)
{
	char path[64], words[4096], *last = words;
	ssize_t count;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	count = fd < 0 ? 0 : read(fd, words, sizeof(words) - 1);
	if (fd >= 0)
		close(fd);
	words[count > 0 ? count : 0] = '\0';
	for (char *at = words; count > 0 && at < words + count; at += strlen(at) + 1)
		last = at;
	snprintf(label, size, "%s", *last ? last : "?");
}

static long long seconds_of(pid_t pid)
{
	char path[64], line[1024], *bracket;
	unsigned long long ticks = 0;
	struct timespec now;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fgets(line, sizeof(line), file) && (bracket = strrchr(line, ')')))
		sscanf(bracket + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d "
		       "%*d %*d %*d %*d %*d %llu", &ticks);
	fclose(file);
	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec - ticks / sysconf(_SC_CLK_TCK);
}

struct command {
	pid_t agent;
	char name[32];
};

/* Between the agent and a command there is its keeper. */
static void note_command(pid_t pid, void *context)
{
	struct command *command = context;
	pid_t keeper = parent_of(pid);
	char path[64];
	FILE *file;

	if (!keeper || parent_of(keeper) != command->agent)
		return;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (file && !fgets(command->name, sizeof(command->name), file))
		command->name[0] = '\0';
	if (file)
		fclose(file);
	command->name[strcspn(command->name, "\n")] = '\0';
}

void describe_holder(char *text, size_t size)
{
	struct command command = { .agent = find_holder() };
	char label[128];

	if (!command.agent) {
		snprintf(text, size, "? 0 ");
		return;
	}
	label_of(command.agent, label, sizeof(label));
	each_process(note_command, &command);
	snprintf(text, size, "%s %lld %s", label, seconds_of(command.agent), command.name);
}
