// SPDX-License-Identifier: GPL-2.0-only
/* Running a command that begins only when whoever watches it is ready. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "command.h"
#include "common.h"
#include "output.h"

static void become(char **command, pid_t probe, bool aside)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != probe)
		_exit(127);
	if (aside)
		dup2(STDERR_FILENO, STDOUT_FILENO);
	signal(SIGPIPE, SIG_DFL);
	raise(SIGSTOP);			/* until it is watched; it takes no fault meanwhile */
	execvp(command[0], command);
	complain(EXIT_OTHER, "cannot run %s: %s", command[0], strerror(errno));
	_exit(127);
}

int command_prepare(struct command *command, char **argv, bool aside)
{
	pid_t probe = getpid();
	int status;

	command->pid = fork();
	if (!command->pid)
		become(argv, probe, aside);
	if (command->pid < 0)
		return complain(EXIT_OTHER, "fork: %s", strerror(errno));
	while (waitpid(command->pid, &status, WUNTRACED) < 0)
		if (errno != EINTR || interrupted)
			return interrupted ? 128 + interrupted :
			       complain(EXIT_OTHER, "wait: %s", strerror(errno));
	if (WIFSTOPPED(status))
		return 0;
	command->pid = 0;
	return complain(EXIT_OTHER, "the command's process died before it began");
}

int command_begin(struct command *command)
{
	return kill(command->pid, SIGCONT) ? complain(EXIT_OTHER, "the command's process died before "
						      "it began") : 0;
}

/*
 * What happens meanwhile is EACH's to do; it is called every few milliseconds. Without
 * it, too, the wait is not one: a signal that came just before would not end it.
 */
int command_wait(struct command *command, int (*each)(void *arg), void *arg)
{
	const struct timespec pause = { .tv_nsec = 5 * 1000 * 1000 };
	bool killed = false;
	int code = 0;
	pid_t pid;

	for (;;) {
		pid = wait4(command->pid, &command->status, WNOHANG, &command->used);
		command->ended_ns = monotonic_ns();
		if (pid == command->pid)
			break;
		if (pid < 0 && errno != EINTR)
			return complain(EXIT_OTHER, "wait: %s", strerror(errno));
		if (each && !code)
			code = each(arg);
		if ((interrupted || code) && !killed) {
			kill(command->pid, SIGKILL);
			killed = true;
		}
		nanosleep(&pause, NULL);
	}
	command->pid = 0;
	return code ? code : interrupted ? 128 + interrupted : 0;
}

int command_status(const struct command *command)
{
	return WIFEXITED(command->status) ? WEXITSTATUS(command->status) :
					    128 + WTERMSIG(command->status);
}

void command_close(struct command *command)
{
	if (command->pid > 0) {
		kill(command->pid, SIGKILL);
		waitpid(command->pid, NULL, 0);
	}
}
