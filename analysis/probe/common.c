// SPDX-License-Identifier: GPL-2.0-only
/* Sentences on standard error, and the exit codes that go with them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common.h"
#include "lacking.h"

volatile sig_atomic_t interrupted;

int complain(int code, const char *format, ...)
{
	va_list args;

	fputs("vmaprobe: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return code;
}

int explain_load_failure(int error)
{
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		return complain(EXIT_KERNEL, "this kernel has no type information "
				"(/sys/kernel/btf/vmlinux): it must be built with CONFIG_DEBUG_INFO_BTF=y");
	/* The verifier, too, says EACCES of a program it does not follow. */
	if (error == -EPERM || (error == -EACCES && geteuid()))
		return complain(EXIT_PRIVILEGE, "BPF is refused to this user: run it as root or under "
				"sudo, or give it CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, "
				"CAP_DAC_READ_SEARCH and CAP_SYSLOG");
	if (what_is_lacking())
		return complain(EXIT_KERNEL, "this kernel has no %s, which the BPF programs rely on: "
				"it may be older than Linux 6.1 or newer than this program",
				what_is_lacking());
	return complain(EXIT_KERNEL, "this kernel does not accept the BPF programs (%s): Linux 6.1 "
			"or later is needed", strerror(-error));
}

int parse_pid(const char *text, __u32 *pid)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value <= 0 || value > 4194304)
		return complain(EXIT_USAGE, "--pid %s: not a process id", text);
	*pid = value;
	return 0;
}
