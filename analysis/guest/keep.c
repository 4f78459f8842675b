// SPDX-License-Identifier: GPL-2.0-only
/*
 * One process for each command, between it and init or the agent. It is a
 * subreaper, so all that the command leaves behind becomes its child, and "no
 * child left" means that nothing is left. When the agent dies it kills the command.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "guest.h"

#define MAX_DESCRIPTORS	1024	/* the default limit, which init does not raise */

pid_t parent_of(pid_t pid)
{
	char path[300], line[512], *bracket;
	int parent = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	/* The name in brackets may hold anything, brackets too. */
	if (fgets(line, sizeof(line), file) && (bracket = strrchr(line, ')')))
		sscanf(bracket + 1, " %*c %d", &parent);
	fclose(file);
	return parent;
}

void each_process(void (*each)(pid_t pid, void *context), void *context)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;

	while (processes && (entry = readdir(processes)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			each(atoi(entry->d_name), context);
	if (processes)
		closedir(processes);
}

static void kill_child(pid_t pid, void *context __attribute__((unused)))
{
	if (parent_of(pid) == getpid())
		kill(pid, SIGKILL);
}

static void note_end(struct report *report, int status, const struct rusage *used)
{
	struct ended *ended = &report->ended;

	ended->status = status;
	ended->user_us = used->ru_utime.tv_sec * 1000000ull + used->ru_utime.tv_usec;
	ended->system_us = used->ru_stime.tv_sec * 1000000ull + used->ru_stime.tv_usec;
	ended->minor_faults = used->ru_minflt;
	ended->major_faults = used->ru_majflt;
	ended->voluntary = used->ru_nvcsw;
	ended->involuntary = used->ru_nivcsw;
}

/* Reaps what has ended; says whether the command was among it, and whether anything is left. */
static bool reap(pid_t command, struct report *report, bool *left)
{
	struct rusage used;
	bool found = false;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &used)) > 0)
		if (pid == command) {
			note_end(report, status, &used);
			found = true;
		}
	*left = !pid;
	return found;
}

static void run(char **argv, int as, const int streams[3], int failure)
{
	sigset_t none;

	for (int fd = 0; fd < 3; fd++)
		if (dup2(streams[fd], fd) < 0)
			goto failed;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* An ignored signal stays ignored across exec, and sshd or sudo may ignore some. */
	for (int number = 1; number < 32; number++)
		signal(number, SIG_DFL);
	if (as == AS_USER && become_user())
		goto failed;
	prctl(PR_SET_PDEATHSIG, SIGKILL);	/* last: a change of user clears it */
	execvp(argv[0], argv);
failed:
	if (write(failure, &errno, sizeof(errno)) < 0)
		_exit(126);
	_exit(127);
}

/* Returns the command's pid; report->started has what came of it. */
static pid_t begin(char **argv, int as, const int streams[3], struct report *report)
{
	int failure[2], error;
	pid_t command;

	if (pipe2(failure, O_CLOEXEC)) {
		report->started.error = errno;
		return 0;
	}
	command = fork();
	if (!command)
		run(argv, as, streams, failure[1]);
	if (command < 0)
		report->started.error = errno;
	close(failure[1]);
	/* exec closes the other end; only a failure says anything. */
	if (read(failure[0], &error, sizeof(error)) == sizeof(error))
		report->started.error = error;
	close(failure[0]);
	report->started.pid = command;
	return command;
}

static void tell(int reports, const struct report *report)
{
	if (write(reports, report, sizeof(*report)) != sizeof(*report))
		_exit(1);
}

/* Other commands' pipes among them: a copy here would keep their ends from being seen. */
static void close_all_but(const int streams[3], int reports)
{
	for (int fd = 3; fd < MAX_DESCRIPTORS; fd++)
		if (fd != streams[0] && fd != streams[1] && fd != streams[2] && fd != reports)
			close(fd);
}

static void keep_command(char **argv, int as, const int streams[3], int reports)
{
	struct report report = {};
	sigset_t signals;
	bool left = true, over = false;
	pid_t command;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	command = begin(argv, as, streams, &report);
	tell(reports, &report);
	if (report.started.error)
		_exit(0);
	for (int fd = 0; fd < 3; fd++)
		close(streams[fd]);	/* the command's alone: init must see them closed */
	while (!over && sigwaitinfo(&signals, NULL) != SIGTERM)
		over = reap(command, &report, &left);
	/* Again and again, since some may fork while we look. */
	while (left) {
		each_process(kill_child, NULL);
		usleep(1000);
		reap(command, &report, &left);
	}
	tell(reports, &report);
	_exit(0);
}

/* The keeper is itself what would be kept: it ends when its input does, and in no other way. */
static void keep_guard(char **argv, const int streams[3], int reports)
{
	struct report report = { .started.pid = getpid() };

	for (int fd = 0; fd < 3; fd++)
		if (dup2(streams[fd], fd) < 0)
			_exit(1);
	for (int fd = 0; fd < 3; fd++)
		close(streams[fd]);
	tell(reports, &report);
	report.ended.status = 1 << 8;
	if (argv[0] && argv[1])
		report.ended.status = raise_sysctl(argv[0], argv[1], getppid(), RAISE_PATIENCE) << 8;
	fclose(stdout);
	for (int fd = 0; fd < 3; fd++)
		close(fd);		/* the host waits for their ends first */
	tell(reports, &report);
	_exit(0);
}

pid_t keep(char **argv, int as, const int streams[3], int reports)
{
	pid_t parent = getpid(), pid = fork();

	if (pid)
		return pid;
	close_all_but(streams, reports);
	setsid();
	if (as == AS_GUARD)
		keep_guard(argv, streams, reports);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	keep_command(argv, as, streams, reports);
	_exit(1);
}
