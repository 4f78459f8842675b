// SPDX-License-Identifier: GPL-2.0-only
/*
 * The loop that carries frames between the link and the commands' streams.
 *
 * It never waits for a command: input that one does not take is kept here, no
 * more of it than the host was allowed to send; output that the host has not
 * made room for stays in its pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "guest.h"

#define MAX_COMMANDS	64
#define BEAT_MS		1000

struct command {
	uint32_t id;
	pid_t keeper, pid;		/* keeper 0: this place is free */
	int reports;
	int streams[3];			/* our ends; -1: none, or at its end */
	uint32_t credit[3];		/* of stdout and stderr: what we may still send */
	struct sha256 sent[3];		/* of them: what we have sent */
	char input[WINDOW];		/* for its stdin, not taken yet */
	size_t input_length;
	bool input_ends, over;
	struct report report;
};

static struct command commands[MAX_COMMANDS];
static int link_in, link_out;
static int patience;		/* ms of silence that end it; 0: none does */
static long long heard;		/* when the host was last seen to live */
static bool claiming, over;

static long long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* ---- sending ---- */

static void send_bytes(const void *bytes, size_t length)
{
	bool full = false;

	while (length && !over) {
		ssize_t count = write(link_out, bytes, length);
		struct pollfd room = { .fd = link_out, .events = POLLOUT };

		if (count < 0 && errno != EAGAIN && errno != EINTR) {
			if (!patience)
				die("the link to the host");
			over = true;
		} else if (count > 0) {
			bytes = (const char *)bytes + count;
			length -= count;
			/*
			 * We do not listen meanwhile, but somebody takes it. That there was room all
			 * along says nothing: there is for a while behind a link that is cut, too.
			 */
			if (full)
				heard = milliseconds();
		} else {
			full = true;
			poll(&room, 1, BEAT_MS);
			over = patience && milliseconds() - heard > patience;
		}
	}
}

/* A frame goes out in one piece: a virtio port makes one transfer of each write. */
static void send_frame(uint8_t type, uint8_t stream, uint32_t id, const void *bytes,
		       uint32_t length)
{
	static char whole[sizeof(struct frame) + FRAME_MAX];
	struct frame head = { .type = type, .stream = stream, .magic = FRAME_MAGIC, .id = id,
			      .length = length };

	memcpy(whole, &head, sizeof(head));
	if (length)
		memcpy(whole + sizeof(head), bytes, length);
	send_bytes(whole, sizeof(head) + length);
}

static void send_number(uint8_t type, uint8_t stream, uint32_t id, uint32_t number)
{
	send_frame(type, stream, id, &number, sizeof(number));
}

/* ---- commands ---- */

static struct command *find(uint32_t id)
{
	for (int i = 0; i < MAX_COMMANDS; i++)
		if (commands[i].keeper && commands[i].id == id)
			return &commands[i];
	return NULL;
}

static void close_stream(struct command *command, int stream)
{
	if (command->streams[stream] >= 0)
		close(command->streams[stream]);
	command->streams[stream] = -1;
}

static void refuse(uint32_t id, int error)
{
	struct started started = { .error = error };

	send_frame(FRAME_STARTED, 0, id, &started, sizeof(started));
}

/* Makes one of the command's streams; its end is theirs, ours is kept. */
static int make_stream(int stream, int mode, int theirs[3], int *ours)
{
	int ends[2], our_end = stream ? 0 : 1;

	*ours = -1;
	if (mode == STREAM_STDOUT && stream == 2) {
		theirs[2] = theirs[1];
		return 0;
	}
	if (mode == STREAM_NULL) {
		theirs[stream] = open("/dev/null", (stream ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
		return theirs[stream] < 0 ? -1 : 0;
	}
	if (pipe2(ends, O_CLOEXEC))
		return -1;
	*ours = ends[our_end];
	theirs[stream] = ends[!our_end];
	fcntl(*ours, F_SETFL, O_NONBLOCK);
	return 0;
}

static int start(struct command *command, const char *modes, int as, char **argv)
{
	int theirs[3] = { -1, -1, -1 }, reports[2] = { -1, -1 }, error = 0;

	for (int stream = 0; stream < 3 && !error; stream++)
		if (make_stream(stream, modes[stream], theirs, &command->streams[stream]))
			error = errno;
	if (!error && pipe2(reports, O_CLOEXEC))
		error = errno;
	if (!error) {
		command->reports = reports[0];
		command->credit[1] = command->credit[2] = WINDOW;
		sha256_begin(&command->sent[1]);
		sha256_begin(&command->sent[2]);
		command->keeper = keep(argv, as, theirs, reports[1]);
		if (command->keeper < 0)
			error = errno;
	}
	if (theirs[2] == theirs[1])
		theirs[2] = -1;
	for (int stream = 0; stream < 3; stream++) {
		if (theirs[stream] >= 0)
			close(theirs[stream]);
		if (error)
			close_stream(command, stream);
	}
	if (reports[1] >= 0)
		close(reports[1]);
	if (error)
		command->keeper = 0;
	return error;
}

static void on_start(const struct frame *head, char *bytes)
{
	char *argv[FRAME_MAX / 2 + 1], *end = bytes + head->length, *word = bytes + 4;
	struct command *command = NULL;
	size_t count = 0;
	int error = EAGAIN;

	while (word < end && memchr(word, 0, end - word)) {
		argv[count++] = word;
		word += strlen(word) + 1;
	}
	argv[count] = NULL;
	for (int i = 0; i < MAX_COMMANDS && !command; i++)
		if (!commands[i].keeper)
			command = &commands[i];
	if (command) {
		memset(command, 0, sizeof(*command));
		command->id = head->id;
		error = count ? start(command, bytes, bytes[3], argv) : EINVAL;
	}
	if (error)
		refuse(head->id, error);
}

/* Gives the command what it takes, and the host room for as much. */
static void feed(struct command *command)
{
	ssize_t count = 0;

	if (command->streams[0] >= 0 && command->input_length)
		count = write(command->streams[0], command->input, command->input_length);
	if (count < 0 && errno != EAGAIN && errno != EINTR) {
		close_stream(command, 0);	/* EPIPE: it does not want any more */
		count = 0;
	}
	if (command->streams[0] < 0)
		count = command->input_length;	/* nobody will take it */
	if (count <= 0 && !command->input_ends)
		return;
	if (count > 0) {
		command->input_length -= count;
		memmove(command->input, command->input + count, command->input_length);
		send_number(FRAME_CREDIT, 0, command->id, count);
	}
	if (command->input_ends && !command->input_length)
		close_stream(command, 0);
}

static void on_input(const struct frame *head, const char *bytes)
{
	struct command *command = find(head->id);

	if (!command)
		return;			/* it ended while this was under way */
	if (head->length > sizeof(command->input) - command->input_length)
		die("the host sent more input than it may");
	memcpy(command->input + command->input_length, bytes, head->length);
	command->input_length += head->length;
	command->input_ends |= !head->length;
	feed(command);
}

static void on_number(const struct frame *head, const char *bytes)
{
	struct command *command = find(head->id);
	uint32_t number;

	if (!command || head->length != sizeof(number))
		return;
	memcpy(&number, bytes, sizeof(number));
	if (head->type == FRAME_CREDIT && head->stream < 3)
		command->credit[head->stream] += number;
	else if (head->type == FRAME_SIGNAL && !number) {
		close_stream(command, 0);	/* a guard of a sysctl ends in no other way */
		kill(command->keeper, SIGTERM);
	} else if (head->type == FRAME_SIGNAL && command->pid > 0 && !command->over)
		kill(command->pid, number);
}

/* ---- from commands ---- */

static void carry_output(struct command *command, int stream)
{
	static char buffer[FRAME_MAX];
	size_t room = command->credit[stream] < sizeof(buffer) ? command->credit[stream] :
								 sizeof(buffer);
	ssize_t count = read(command->streams[stream], buffer, room);

	if (count < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (count <= 0) {
		char digits[65];

		count = 0;
		sha256_end(&command->sent[stream], digits);
		send_frame(FRAME_HASH, stream, command->id, digits, 64);
	}
	sha256_add(&command->sent[stream], buffer, count);
	send_frame(FRAME_DATA, stream, command->id, buffer, count);
	command->credit[stream] -= count;
	if (!count)
		close_stream(command, stream);
}

static void on_report(struct command *command)
{
	struct report *report = &command->report;

	if (read(command->reports, report, sizeof(*report)) != sizeof(*report)) {
		/* Its keeper was killed: nothing more can be known. */
		report->ended.status = SIGKILL;
		command->over = true;
	} else if (!command->pid) {
		command->pid = report->started.pid;
		send_frame(FRAME_STARTED, 0, command->id, &report->started, sizeof(report->started));
		command->over = report->started.error;
	} else {
		command->over = true;
	}
}

/* When it is over and its last output is sent. */
static void finish(struct command *command)
{
	if (!command->over || command->streams[1] >= 0 || command->streams[2] >= 0)
		return;
	if (!command->report.started.error)
		send_frame(FRAME_ENDED, 0, command->id, &command->report.ended,
			   sizeof(command->report.ended));
	close_stream(command, 0);
	close(command->reports);
	waitpid(command->keeper, NULL, 0);
	command->keeper = 0;
}

/* ---- from the host ---- */

static void try_to_claim(void)
{
	char text[256];

	if (claim()) {
		claiming = false;
		send_frame(FRAME_CLAIMED, 0, 0, NULL, 0);
	} else {
		describe_holder(text, sizeof(text));
		send_frame(FRAME_BUSY, 0, 0, text, strlen(text));
	}
}

static void on_frame(const struct frame *head, char *bytes)
{
	switch (head->type) {
	case FRAME_START:
		on_start(head, bytes);
		break;
	case FRAME_DATA:
		on_input(head, bytes);
		break;
	case FRAME_CREDIT:
	case FRAME_SIGNAL:
		on_number(head, bytes);
		break;
	case FRAME_CLAIM:
		claiming = true;
		try_to_claim();
		break;
	case FRAME_BEAT:
		break;
	default:
		errno = EPROTO;
		die("the host sent an unknown frame");
	}
}

static void on_link(void)
{
	static char buffer[2 * (sizeof(struct frame) + FRAME_MAX)];
	static size_t length;
	ssize_t count = read(link_in, buffer + length, sizeof(buffer) - length);
	size_t at = 0;

	if (count <= 0) {
		/* A virtio port is at its end as long as the host has not opened its own. */
		if (!patience)
			poll(NULL, 0, 10);
		else
			over = !count || (errno != EAGAIN && errno != EINTR);
		return;
	}
	heard = milliseconds();
	length += count;
	while (length - at >= sizeof(struct frame)) {
		struct frame head;

		memcpy(&head, buffer + at, sizeof(head));
		if (head.magic != FRAME_MAGIC || head.length > FRAME_MAX) {
			errno = EPROTO;
			die("the link to the host");
		}
		if (length - at < sizeof(head) + head.length)
			break;
		on_frame(&head, buffer + at + sizeof(head));
		at += sizeof(head) + head.length;
	}
	length -= at;
	memmove(buffer, buffer + at, length);
}

/* ---- the loop ---- */

/* What to wait for, of one command; entries beyond its own are those not waited for (fd -1). */
static void watch(struct command *command, struct pollfd *wanted)
{
	bool used = command->keeper;

	wanted[0] = (struct pollfd){ .fd = used && command->input_length ? command->streams[0] : -1,
				     .events = POLLOUT };
	for (int stream = 1; stream < 3; stream++)
		wanted[stream] = (struct pollfd){
			.fd = used && command->credit[stream] ? command->streams[stream] : -1,
			.events = POLLIN };
	wanted[3] = (struct pollfd){ .fd = used && !command->over ? command->reports : -1,
				     .events = POLLIN };
}

static void attend(struct command *command, const struct pollfd *ready)
{
	if (ready[0].revents)
		feed(command);
	for (int stream = 1; stream < 3; stream++)
		if (ready[stream].revents && command->streams[stream] >= 0)
			carry_output(command, stream);
	if (ready[3].revents)
		on_report(command);
	finish(command);
}

/* Orphans of orphans come to init; the keepers are waited for by finish(). */
static void reap_strays(void)
{
	siginfo_t ended = {};

	while (!waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) && ended.si_pid) {
		for (int i = 0; i < MAX_COMMANDS; i++)
			if (commands[i].keeper == ended.si_pid)
				return;		/* attended to through its reports */
		waitpid(ended.si_pid, NULL, WNOHANG);
		ended.si_pid = 0;
	}
}

static void beat(void)
{
	send_frame(FRAME_BEAT, 0, 0, NULL, 0);
	reap_strays();
	if (claiming)
		try_to_claim();
}

/* So that who waits for the end of its input sees it, and what is kept is killed. */
static void let_go(void)
{
	for (int i = 0; i < MAX_COMMANDS; i++) {
		if (!commands[i].keeper)
			continue;
		for (int stream = 0; stream < 3; stream++)
			close_stream(&commands[i], stream);
		kill(commands[i].keeper, SIGTERM);
	}
}

void serve(int in, int out, int silence)
{
	static struct pollfd wanted[1 + 4 * MAX_COMMANDS];
	long long next = 0;

	link_in = in;
	link_out = out;
	patience = silence;
	heard = milliseconds();
	signal(SIGPIPE, SIG_IGN);
	send_number(FRAME_HELLO, 0, 0, LINK_VERSION);
	while (!over) {
		long long now = milliseconds();

		if (now >= next) {
			beat();
			next = now + BEAT_MS;
		}
		wanted[0] = (struct pollfd){ .fd = link_in, .events = POLLIN };
		for (int i = 0; i < MAX_COMMANDS; i++)
			watch(&commands[i], wanted + 1 + 4 * i);
		if (poll(wanted, 1 + 4 * MAX_COMMANDS, next - now) < 0)
			continue;
		for (int i = 0; i < MAX_COMMANDS; i++)
			if (commands[i].keeper)
				attend(&commands[i], wanted + 1 + 4 * i);
		if (wanted[0].revents)
			on_link();
		if (patience && milliseconds() - heard > patience)
			over = true;
	}
	let_go();
}
