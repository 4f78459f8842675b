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
#include "kallsyms.h"

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

void kallsyms_addresses(const char *const *names, size_t count, __u64 *addresses)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	struct symbol symbol;
	size_t missing = count;

	memset(addresses, 0, count * sizeof(*addresses));
	while (file && missing && next_symbol(file, &symbol))
		for (size_t i = 0; i < count; i++)
			if (!addresses[i] && symbol.address && !strcmp(symbol.name, names[i])) {
				addresses[i] = symbol.address;
				missing--;
			}
	if (file)
		fclose(file);
}

__u64 kallsyms_address(const char *name)
{
	__u64 address;

	kallsyms_addresses(&name, 1, &address);
	return address;
}

void kallsyms_ranges(const char *const *names, size_t count, __u64 (*ranges)[2])
{
	__u64 begins[count];
	struct symbol symbol;
	FILE *file;

	kallsyms_addresses(names, count, begins);
	for (size_t i = 0; i < count; i++) {
		ranges[i][0] = begins[i];
		ranges[i][1] = begins[i] ? ~0ULL : 0;
	}
	file = fopen("/proc/kallsyms", "re");
	while (file && next_symbol(file, &symbol))
		for (size_t i = 0; i < count; i++)
			if (begins[i] && symbol.address > begins[i] && symbol.address < ranges[i][1])
				ranges[i][1] = symbol.address;
	if (file)
		fclose(file);
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
