// SPDX-License-Identifier: GPL-2.0-only
/*
 * What serves a machine that is reached over ssh, on the standard input and
 * output of the command that ssh runs there:
 *
 *     anonvma-agent serve DIRECTORY USER PATIENCE LABEL
 *
 * DIRECTORY is its work directory, which goes when it ends. USER is whom to run
 * unprivileged commands as, UID:GID:GROUP,..., or "-" when it has no privilege
 * itself. PATIENCE is how many seconds of silence mean that the connection is
 * lost. LABEL says for whom it works to those who wait for the machine.
 *
 * It ends when the connection does, and with it everything it started. There are
 * two of it: one serves, and another, which nothing in the first can break, waits
 * for its end and clears up. Killing both at once leaves the directory alone,
 * which a later one removes.
 *
 *     anonvma-agent as USER COMMAND...
 *
 * runs a command as another, inside a privileged one;
 *
 *     anonvma-agent raise PATH VALUE WHO PATIENCE
 *
 * raises a sysctl (raise.c) on the machine that anonvma itself runs on; the rest is in tools.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "guest.h"

#define PREFIX		"anonvma-agent."	/* of a work directory; anonvma/target/ssh.py makes them */
#define MAX_GROUPS	1024
#define STALE_SECONDS	3600		/* so long the upload of an agent may take */
#define END_PATIENCE	10000		/* ms for what ends to be gone */

void die(const char *what)
{
	fprintf(stderr, "anonvma-agent: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the user ---- */

static struct {
	bool known;
	uid_t uid;
	gid_t gid;
	gid_t groups[MAX_GROUPS];
	size_t count;
} user;

static bool parse_user(const char *text)
{
	unsigned int uid, gid, group;
	int length;

	if (sscanf(text, "%u:%u:%n", &uid, &gid, &length) != 2)
		return false;
	user.known = true;
	user.uid = uid;
	user.gid = gid;
	for (text += length; user.count < MAX_GROUPS && sscanf(text, "%u%n", &group, &length) == 1;
	     text += *text == ',') {
		user.groups[user.count++] = group;
		text += length;
	}
	return !*text;
}

int become_user(void)
{
	if (!user.known)
		return 0;
	return setgroups(user.count, user.groups) || setgid(user.gid) || setuid(user.uid) ? -1 : 0;
}

static int run_as(char **words)
{
	if (!words[0] || !words[1] || !parse_user(words[0]) || become_user())
		die("becoming the user");
	/* Whoever started us may be killed; a change of user has cleared what it set. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(words[1], words + 1);
	die(words[1]);
}

/* sudo has cleared the environment; the user's is in a file, for its eyes only. */
static void take_environment(int directory)
{
	int fd = openat(directory, "environment", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	static char text[1 << 20];
	ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd < 0)
		return;
	close(fd);
	unlinkat(directory, "environment", 0);
	clearenv();
	for (char *at = text; at < text + length; at += strlen(at) + 1)
		if (strchr(at, '='))
			putenv(at);
}

/* Where the user sits is nothing that a program here is to print. */
static void forget_login(void)
{
	static const char *const names[] = { "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

/* ---- directories ---- */

static void remove_tree(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (directory && (entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(fd, entry->d_name, 0))
			remove_tree(fd, entry->d_name);
	}
	if (directory)
		closedir(directory);
	unlinkat(parent, name, AT_REMOVEDIR);
}

/* An agent holds a lock on its directory: one that nobody holds and that is not new is left over. */
static void remove_if_stale(int parent, const char *name, uid_t owner)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat about;

	if (fd < 0)
		return;
	if (!fstat(fd, &about) && about.st_uid == owner &&
	    time(NULL) - about.st_mtime > STALE_SECONDS && !flock(fd, LOCK_EX | LOCK_NB))
		remove_tree(parent, name);
	close(fd);
}

static void sweep(const char *path, uid_t owner)
{
	DIR *directory = opendir(path);
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (!strncmp(entry->d_name, PREFIX, strlen(PREFIX)))
			remove_if_stale(dirfd(directory), entry->d_name, owner);
	if (directory)
		closedir(directory);
}

/* ---- the end ---- */

static bool runs_us(pid_t pid)
{
	char path[64], ours[4096], theirs[4096];
	ssize_t one, two;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	one = readlink("/proc/self/exe", ours, sizeof(ours));
	two = readlink(path, theirs, sizeof(theirs));
	return one > 0 && one == two && !memcmp(ours, theirs, one);
}

/* A keeper kills what it keeps and ends; a guard of a sysctl has its own way of ending. */
static void end_child(pid_t pid, void *context)
{
	const bool *all = context;

	if (parent_of(pid) == getpid())
		kill(pid, runs_us(pid) && !*all ? SIGTERM : SIGKILL);
}

/* As subreapers we inherit what a killed keeper kept. */
static void end_children(void)
{
	for (int waited = 0; waited < 2 * END_PATIENCE; waited += 5) {
		bool all = waited > END_PATIENCE;
		pid_t pid;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0)
			return;
		each_process(end_child, &all);
		poll(NULL, 0, 5);
	}
}

/* ---- serving ---- */

/* Streams of our own that no command is to have. */
static int take_stream(int fd)
{
	int taken = fcntl(fd, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (taken < 0 || null < 0 || dup2(null, fd) < 0 || fcntl(taken, F_SETFL, O_NONBLOCK))
		die("the streams of the connection");
	close(null);
	return taken;
}

static void serve_session(int in, int out, int patience)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGTERM, SIG_DFL);
	serve(in, out, patience);
	end_children();
	exit(0);
}

static int session(char **words)
{
	const char *path = words[0], *name = strrchr(path, '/');
	int in = take_stream(0), out = take_stream(1), patience = atoi(words[2]) * 1000;
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), parent;
	char above[4096];
	struct stat about;
	pid_t server;

	if (directory < 0 || fstat(directory, &about) || flock(directory, LOCK_EX | LOCK_NB))
		die(path);
	if (!name || name - path >= (int)sizeof(above) || patience <= 0 ||
	    strncmp(name + 1, PREFIX, strlen(PREFIX)) ||
	    (strcmp(words[1], "-") && !parse_user(words[1]))) {
		errno = EINVAL;
		die("serve");
	}
	snprintf(above, sizeof(above), "%.*s", (int)(name - path), path);
	parent = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	take_environment(directory);
	forget_login();
	sweep(above, about.st_uid);
	/* Whatever ends the login's session shall not end us before we have cleared up. */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	server = fork();
	if (!server)
		serve_session(in, out, patience);
	close(in);
	close(out);
	while (server > 0 && waitpid(server, NULL, 0) < 0 && errno == EINTR)
		;
	end_children();
	remove_tree(parent, name + 1);
	return server < 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "serve"))
		return session(argv + 2);
	if (argc > 3 && !strcmp(argv[1], "as"))
		return run_as(argv + 2);
	if (argc == 6 && !strcmp(argv[1], "raise"))
		return raise_sysctl(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	return tool(argc, argv);
}
