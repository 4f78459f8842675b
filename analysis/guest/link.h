/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What travels between a target (a guest's init, or the agent that ssh started)
 * and its host, in both directions: frames of a header and LENGTH bytes,
 * little-endian. analysis/anonvma/target/link.py is the other end and has the same numbers.
 *
 * A command is known by an id that the host chooses. Nobody sends more than he
 * has been given room for: an output stream of the target's, and the standard
 * input of a command, each start with WINDOW bytes; CREDIT gives more of them
 * as they are taken away. So a slow reader delays one stream and never the link,
 * and a serial port without flow control is never overrun.
 */
#ifndef LINK_H
#define LINK_H

#include <stdint.h>

#define LINK_VERSION	2
#define FRAME_MAX	32768	/* bytes of payload */
#define WINDOW		32768	/* bytes under way, a stream */

struct frame {
	uint8_t type;		/* FRAME_* */
	uint8_t stream;		/* 0, 1, 2: stdin, stdout, stderr */
	uint16_t magic;
	uint32_t id;
	uint32_t length;
};

#define FRAME_MAGIC	0xa50f

enum {
	/* host to target: three STREAM_* bytes, an AS_* byte, then the words, each with its NUL */
	FRAME_START	= 1,
	/* both: bytes of a stream; none at its end, of a target's after a FRAME_HASH */
	FRAME_DATA	= 2,
	/* both: u32, bytes that may be sent beyond those allowed so far */
	FRAME_CREDIT	= 3,
	/* host to target: u32, a signal for the command; 0 kills it with all it started */
	FRAME_SIGNAL	= 4,
	/* target to host: struct started */
	FRAME_STARTED	= 5,
	/* target to host: struct ended, after the last byte of its streams */
	FRAME_ENDED	= 6,
	/* target to host, first of all: u32 LINK_VERSION */
	FRAME_HELLO	= 7,
	/* both: nothing; the target each second, and to an agent the host, too */
	FRAME_BEAT	= 8,
	/* host to agent: nothing; it wants the machine for itself */
	FRAME_CLAIM	= 9,
	/* agent to host: nothing; it has it */
	FRAME_CLAIMED	= 10,
	/* agent to host, each second until then: who has it, for how many seconds, what runs there */
	FRAME_BUSY	= 11,
	/* target to host: the SHA-256 of all that the stream was, in hexadecimal digits */
	FRAME_HASH	= 12,
};

enum {
	AS_USER		= 0,	/* who logged in */
	AS_ROOT		= 1,	/* whoever the target's own process is */
	/* no command, but a sysctl's file and a value: see raise.c */
	AS_GUARD	= 2,
};

enum {
	STREAM_NULL	= 0,
	STREAM_PIPE	= 1,
	STREAM_STDOUT	= 2,	/* of stderr: the same as stdout */
};

struct started {
	int32_t pid;
	int32_t error;		/* errno of execve(); there is no FRAME_ENDED then */
};

struct ended {
	int32_t status;		/* as wait4() has it */
	uint32_t unused;
	/* of the command and of all children it waited for, getrusage(2) */
	uint64_t user_us, system_us, minor_faults, major_faults, voluntary, involuntary;
};

#endif
