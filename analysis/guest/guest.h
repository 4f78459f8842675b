/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "link.h"

#define PROGRAMS	"/anonvma"	/* where the host puts programs and files */

/* ---- init.c and agent.c ---- */

/* Says what failed, with errno, and ends the guest or the agent. */
void die(const char *what) __attribute__((noreturn));

/* Becomes whoever logged in; nothing in a guest. 0, or -1 and errno. */
int become_user(void);

/* ---- serve.c ---- */

/*
 * Starts commands and carries their streams: for ever, or, if there is a
 * PATIENCE (ms), until the link ends or nothing has come for so long. Returns
 * with what runs still running, and none of its streams open.
 */
void serve(int in, int out, int patience);

/* ---- tools.c ---- */

/* Small tools, for the host: ends with the number of what went wrong, and 0 if nothing did. */
int tool(int argc, char **argv);

/* ---- raise.c ---- */

/*
 * Raises the sysctl whose file is PATH to VALUE, and puts it back at the end of
 * standard input, whatever signals come meanwhile. WHO is the process that others
 * are told to wait for; we wait for another for PATIENCE ms.
 */
#define RAISE_PATIENCE	60000
int raise_sysctl(const char *path, const char *value, int who, int patience);

/* ---- claim.c ---- */

/* Has the machine for this process alone; false while somebody else has it. */
bool claim(void);

/* Who has it, for how long and what runs there, in words for FRAME_BUSY. */
void describe_holder(char *text, size_t size);

/* ---- sha256.c ---- */

struct sha256 {
	uint32_t state[8];
	uint64_t length;
	uint8_t block[64];
};

void sha256_begin(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const void *bytes, size_t length);
/* In hexadecimal digits, with a NUL. */
void sha256_end(struct sha256 *hash, char digits[65]);

/* ---- keep.c ---- */

/* What keep() tells through its pipe: once when the command has begun, once when it is over. */
struct report {
	struct started started;
	struct ended ended;
};

/*
 * Starts a process that runs a command with these streams and ends, after a
 * report, when nothing is left of the command. SIGTERM makes it kill the command.
 * AS is one of AS_*. Returns its pid.
 */
pid_t keep(char **argv, int as, const int streams[3], int reports);

/* The parent of a process, 0 if there is none. */
pid_t parent_of(pid_t pid);

/* Calls EACH for all processes there are. */
void each_process(void (*each)(pid_t pid, void *context), void *context);

#endif
