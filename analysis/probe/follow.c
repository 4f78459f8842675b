// SPDX-License-Identifier: GPL-2.0-only
/*
 * Following a command, to see each of its processes at the end of its life.
 *
 * PTRACE_O_TRACEEXIT stops a task early in do_exit(), before exit_mm(): its
 * mappings are all there and nothing will touch them again. Tasks are followed
 * through fork, vfork and clone; no system call is traced, so a workload that
 * neither forks nor takes signals runs at full speed.
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
#include "vmaprobe.h"

#define FOLLOW	(PTRACE_O_TRACEEXIT | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | \
		 PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

/* Tasks that have stopped in their exit: they hold an mm, but will not use it. */
static struct {
	__u32 *tids;
	size_t count, room;
} exited;

static bool has_exited(__u32 tid)
{
	for (size_t i = 0; i < exited.count; i++)
		if (exited.tids[i] == tid)
			return true;
	return false;
}

static bool note_exited(__u32 tid)
{
	if (exited.count == exited.room) {
		size_t room = exited.room ? exited.room * 2 : 64;
		__u32 *grown = realloc(exited.tids, room * sizeof(*grown));

		if (!grown)
			return false;
		exited.tids = grown;
		exited.room = room;
	}
	exited.tids[exited.count++] = tid;
	return true;
}

/* The kernel may now give this number to another task. */
static void forget_exited(__u32 tid)
{
	for (size_t i = 0; i < exited.count; i++)
		if (exited.tids[i] == tid)
			exited.tids[i] = exited.tids[--exited.count];
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
			if (status >> 16 == PTRACE_EVENT_EXIT && note_exited(tid) &&
			    !(skip_root && tid == root))
				code = census_take_exiting(census, tid, has_exited);
			resume(tid, status);
			continue;
		}
		forget_exited(tid);
		if (tid == root) {
			*command_status = WIFEXITED(status) ? WEXITSTATUS(status) :
					  128 + WTERMSIG(status);
			*used = of_task;
		}
	}
	free(exited.tids);
	/* On failure or interruption PTRACE_O_EXITKILL ends the command with us. */
	return code;
}
