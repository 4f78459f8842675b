// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a kernel lacks that the BPF programs rely on, by name. libbpf finds
 * every member in the kernel's type information; where it cannot, it makes the
 * instruction an invalid one, and says which when the verifier has refused it.
 * A member that is asked for first, with bpf_core_field_exists(), leaves such
 * instructions only where the verifier sees that they are never reached.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lacking.h"

static char lacking[160];

/* "<byte_off> [24] struct task_struct.min_flt (0:5 @ offset 100)": without the rest. */
static void note(const char *name, const char *ends)
{
	size_t length = strcspn(name, ends);

	if (!lacking[0])
		snprintf(lacking, sizeof(lacking), "%.*s", (int)length, name);
}

int listen_to_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	static const char member[] = "failed to resolve CO-RE relocation ";
	static const char target[] = "failed to find kernel BTF type ID of '";
	const char *found;
	char *text = NULL;
	int length;

	if (level != LIBBPF_WARN && !getenv("VMAPROBE_DEBUG"))
		return 0;
	length = vasprintf(&text, format, args);
	if (length < 0)
		return 0;
	if (getenv("VMAPROBE_DEBUG"))
		fputs(text, stderr);
	found = strstr(text, member);
	found = found ? strstr(found, "] ") : NULL;
	if (found)
		note(found + 2, "(=\n");
	found = strstr(text, target);
	if (found)
		note(found + sizeof(target) - 1, "'");
	free(text);
	return length;
}

const char *what_is_lacking(void)
{
	size_t length = strlen(lacking);

	while (length && lacking[length - 1] == ' ')
		lacking[--length] = '\0';
	return length ? lacking : NULL;
}
