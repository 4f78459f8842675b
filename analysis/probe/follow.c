// SPDX-License-Identifier: GPL-2.0-only
/*
 * Following a command, to see each of its processes at the end of its life.
 *
 * PTRACE_O_TRACEEXIT stops a task early in do_exit(), before exit_mm(): its
 * mappings are all there and nothing will touch them again. Tasks are followed
 * through fork, vfork and clone; no system call is traced, so a workload that
 * neither forks nor takes signals runs at full speed.
 *
 * The end is that of the command itself, as it is for perf stat and for the
 * tracers. What it leaves running then, such as a daemon, is let go unseen and
 * counted: its pages would stand beside counts that have none of its faults.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "command.h"
#include "common.h"
#include "follow.h"
#include "take_census.h"

#define FOLLOW	(PTRACE_O_TRACEEXIT | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | \
		 PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

struct tasks {
	__u32 *tids;
	size_t count, room;
};

/* All that are followed; and those stopped in their exit: they hold an mm, but will not use it. */
static struct tasks followed, exited;

static bool is_among(const struct tasks *tasks, __u32 tid)
{
	for (size_t i = 0; i < tasks->count; i++)
		if (tasks->tids[i] == tid)
			return true;
	return false;
}

static bool has_exited(__u32 tid)
{
	return is_among(&exited, tid);
}

static bool note(struct tasks *tasks, __u32 tid)
{
	if (is_among(tasks, tid))
		return true;
	if (tasks->count == tasks->room) {
		size_t room = tasks->room ? tasks->room * 2 : 64;
		__u32 *grown = realloc(tasks->tids, room * sizeof(*grown));

		if (!grown)
			return false;
		tasks->tids = grown;
		tasks->room = room;
	}
	tasks->tids[tasks->count++] = tid;
	return true;
}

/* The kernel may now give this number to another task. */
static void forget(struct tasks *tasks, __u32 tid)
{
	for (size_t i = 0; i < tasks->count; i++)
		if (tasks->tids[i] == tid)
			tasks->tids[i] = tasks->tids[--tasks->count];
}

/* ptrace(2), "Group-stop": such a stop must be listened to, or it would be undone. */
static void resume(pid_t tid, int status)
{
	int event = status >> 16, signal = WSTOPSIG(status);

	if (event == PTRACE_EVENT_STOP && (signal == SIGSTOP || signal == SIGTSTP ||
					   signal == SIGTTIN || signal == SIGTTOU))
		ptrace(PTRACE_LISTEN, tid, 0, 0);
	else
		ptrace(PTRACE_CONT, tid, 0, event ? 0 : signal);
}

static int seize(struct command *command)
{
	if (ptrace(PTRACE_SEIZE, command->pid, 0, FOLLOW))
		return complain(EXIT_PRIVILEGE, "cannot follow the command: ptrace: %s; is it already "
				"being traced, or forbidden by a security module?", strerror(errno));
	return command_begin(command);
}

static bool is_leader(pid_t tid)
{
	char path[64], line[128];
	int tgid = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	file = fopen(path, "re");
	while (file && !tgid && fgets(line, sizeof(line), file))
		sscanf(line, "Tgid: %d", &tgid);
	if (file)
		fclose(file);
	return tgid == tid;
}

/* Lets go of all that runs on: each must stop for that first. How many processes they were. */
static __u32 let_go(void)
{
	__u32 processes = 0;
	int status;
	pid_t tid;

	for (size_t i = 0; i < followed.count; i++)
		ptrace(PTRACE_INTERRUPT, followed.tids[i], 0, 0);
	while (!interrupted) {
		tid = waitpid(-1, &status, __WALL);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			break;		/* ECHILD: none is ours any more */
		if (!WIFSTOPPED(status))
			continue;
		processes += is_leader(tid);
		ptrace(PTRACE_DETACH, tid, 0, status >> 16 ? 0 : WSTOPSIG(status));
	}
	return processes;
}

int follow_command(struct census *census, char **argv, bool skip_root, int *command_status,
		   struct rusage *used)
{
	struct command command = {};
	struct rusage of_task;
	int status, code = command_prepare(&command, argv, false);
	pid_t root = command.pid, tid;

	if (!code)
		code = seize(&command);
	while (!code && !interrupted) {
		tid = wait4(-1, &status, __WALL, &of_task);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			break;		/* ECHILD: all of them are gone */
		if (WIFSTOPPED(status)) {
			if (!note(&followed, tid))
				code = complain(EXIT_OTHER, "out of memory");
			if (status >> 16 == PTRACE_EVENT_EXIT && note(&exited, tid) &&
			    !(skip_root && tid == root))
				code = census_take_exiting(census, tid, has_exited);
			resume(tid, status);
			continue;
		}
		forget(&exited, tid);
		forget(&followed, tid);
		if (tid == root) {
			*command_status = WIFEXITED(status) ? WEXITSTATUS(status) :
					  128 + WTERMSIG(status);
			*used = of_task;
			census_went_on(census, let_go());
			break;
		}
	}
	free(exited.tids);
	free(followed.tids);
	/* On failure or interruption PTRACE_O_EXITKILL ends the command with us. */
	return code;
}
