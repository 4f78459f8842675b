// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel symbols, read as a stream: a few addresses are wanted out of 200,000
 * lines, so no table is kept.
 *
 * With kptr_restrict=2, or without CAP_SYSLOG, every address reads as 0.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmaprobe.h"

struct symbol {
	__u64 address;
	char type;
	char name[512];		/* KSYM_NAME_LEN since 6.1 */
};

static bool next_symbol(FILE *file, struct symbol *symbol)
{
	char line[1024], *rest, *end;

	if (!fgets(line, sizeof(line), file))
		return false;
	symbol->address = strtoull(line, &rest, 16);
	if (rest[0] != ' ' || rest[1] == '\0' || rest[2] != ' ')
		return false;
	symbol->type = rest[1];
	end = strpbrk(rest + 3, "\t\n");
	snprintf(symbol->name, sizeof(symbol->name), "%.*s",
		 (int)(end ? end - rest - 3 : (long)strlen(rest + 3)), rest + 3);
	return true;
}

__u64 kallsyms_address(const char *name)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	struct symbol symbol;
	__u64 address = 0;

	if (!file)
		return 0;
	while (!address && next_symbol(file, &symbol))
		if (!strcmp(symbol.name, name))
			address = symbol.address;
	fclose(file);
	return address;
}

bool kallsyms_range(const char *name, __u64 range[2])
{
	FILE *file;
	struct symbol symbol;

	range[0] = kallsyms_address(name);
	range[1] = ~0ULL;
	file = range[0] ? fopen("/proc/kallsyms", "re") : NULL;
	while (file && next_symbol(file, &symbol))
		if (symbol.address > range[0] && symbol.address < range[1])
			range[1] = symbol.address;
	if (file)
		fclose(file);
	else
		range[1] = 0;
	return range[0];
}

static int compare_addresses(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

bool kallsyms_names(const __u64 *addresses, size_t count,
		    void (*found)(void *arg, size_t index, const char *name), void *arg)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	bool *seen = calloc(count + 1, sizeof(*seen)), visible = false;
	struct symbol symbol;
	const __u64 *match;
	size_t missing = count;

	if (!file || !seen) {
		free(seen);
		if (file)
			fclose(file);
		return false;
	}
	while (missing && next_symbol(file, &symbol)) {
		visible |= symbol.address != 0;
		match = bsearch(&symbol.address, addresses, count, sizeof(*addresses),
				compare_addresses);
		/* __pfx_ is the padding before a function, not the function (6.2 on). */
		if (!match || !symbol.address || !strncmp(symbol.name, "__pfx_", 6))
			continue;
		found(arg, match - addresses, symbol.name);
		missing -= !seen[match - addresses];
		seen[match - addresses] = true;
	}
	free(seen);
	fclose(file);
	return visible;
}

struct function {
	__u64 address;
	char *name;
};

static int compare_functions(const void *a, const void *b)
{
	return compare_addresses(a, b);	/* the address comes first */
}

/* All functions of the kernel, by address; a table is kept only here, where any may be wanted. */
static struct function *read_functions(size_t *count)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	struct function *functions = NULL;
	struct symbol symbol;
	size_t room = 0;

	*count = 0;
	while (file && next_symbol(file, &symbol)) {
		if ((symbol.type != 't' && symbol.type != 'T') || !symbol.address)
			continue;
		if (*count == room) {
			struct function *grown;

			room = room ? room * 2 : 1 << 17;
			grown = realloc(functions, room * sizeof(*functions));
			if (!grown)
				break;
			functions = grown;
		}
		functions[*count].address = symbol.address;
		functions[(*count)++].name = strdup(symbol.name);
	}
	if (file)
		fclose(file);
	qsort(functions, *count, sizeof(*functions), compare_functions);
	return functions;
}

bool kallsyms_functions(const __u64 *addresses, size_t count,
			void (*found)(void *arg, size_t index, const char *name), void *arg)
{
	size_t functions, at = 0;
	struct function *function = read_functions(&functions);

	for (size_t i = 0; i < count && functions; i++) {
		while (at + 1 < functions && function[at + 1].address <= addresses[i])
			at++;
		if (function[at].address <= addresses[i] && function[at].name)
			found(arg, i, function[at].name);
	}
	for (size_t i = 0; i < functions; i++)
		free(function[i].name);
	free(function);
	return functions;
}
