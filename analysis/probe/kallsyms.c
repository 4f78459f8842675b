// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel symbols: 200,000 lines, whose text takes the kernel longer to write
 * than it takes us to look through, so it is read once and kept.
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
	const char *name;
	const char *module;		/* "[name]"; NULL of the kernel's own */
};

static struct {
	char *text;
	struct symbol *symbols;
	size_t count;
} table;

/* The whole file, ended by a NUL, of SIZE bytes; NULL if it cannot be read. */
static char *read_text(size_t *size)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	char *text = NULL, *grown;
	size_t room = 0, got;

	*size = 0;
	/* stdio reads 1,024 bytes a call of what has no size. */
	if (file)
		setvbuf(file, NULL, _IONBF, 0);
	do {
		room = room ? room * 2 : 8 << 20;
		grown = file ? realloc(text, room) : NULL;
		if (!grown)
			break;
		text = grown;
		got = fread(text + *size, 1, room - *size - 1, file);
		*size += got;
		text[*size] = '\0';
	} while (*size == room - 1);
	if (file)
		fclose(file);
	return text;
}

/* One line, "ffffffff81000000 T name\t[module]", made a symbol in place; false if it is none. */
static bool parse_symbol(char *line, struct symbol *symbol)
{
	char *rest;

	symbol->address = strtoull(line, &rest, 16);
	if (rest[0] != ' ' || rest[1] == '\0' || rest[2] != ' ')
		return false;
	symbol->type = rest[1];
	symbol->name = rest + 3;
	rest += 3 + strcspn(rest + 3, "\t");
	symbol->module = *rest ? rest + 1 : NULL;
	*rest = '\0';
	return true;
}

static void forget_symbols(void)
{
	free(table.symbols);
	free(table.text);
	memset(&table, 0, sizeof(table));
}

/* Every symbol, in the kernel's order; none if they cannot be read. */
static const struct symbol *read_symbols(size_t *count)
{
	size_t size, lines = 0;
	char *line, *save;

	if (!table.text && (table.text = read_text(&size))) {
		for (line = table.text; (line = memchr(line, '\n', table.text + size - line)); line++)
			lines++;
		table.symbols = calloc(lines + 1, sizeof(*table.symbols));
		for (line = strtok_r(table.text, "\n", &save); line && table.symbols;
		     line = strtok_r(NULL, "\n", &save))
			if (table.count <= lines)
				table.count += parse_symbol(line, &table.symbols[table.count]);
	}
	*count = table.count;
	return table.symbols;
}

void kallsyms_addresses(const char *const *names, size_t count, __u64 *addresses)
{
	size_t symbols, missing = count;
	const struct symbol *symbol = read_symbols(&symbols);

	memset(addresses, 0, count * sizeof(*addresses));
	for (; symbols && missing; symbol++, symbols--)
		for (size_t i = 0; i < count; i++)
			if (!addresses[i] && symbol->address && !strcmp(symbol->name, names[i])) {
				addresses[i] = symbol->address;
				missing--;
			}
}

__u64 kallsyms_address(const char *name)
{
	__u64 address;

	kallsyms_addresses(&name, 1, &address);
	return address;
}

void kallsyms_ranges(const char *const *names, size_t count, __u64 (*ranges)[2])
{
	size_t symbols;
	const struct symbol *symbol = read_symbols(&symbols);
	__u64 begins[count];

	kallsyms_addresses(names, count, begins);
	for (size_t i = 0; i < count; i++) {
		ranges[i][0] = begins[i];
		ranges[i][1] = begins[i] ? ~0ULL : 0;
	}
	for (; symbols; symbol++, symbols--)
		for (size_t i = 0; i < count; i++)
			if (begins[i] && symbol->address > begins[i] && symbol->address < ranges[i][1])
				ranges[i][1] = symbol->address;
}

static int compare_addresses(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

bool kallsyms_names(const __u64 *addresses, size_t count,
		    void (*found)(void *arg, size_t index, const char *name), void *arg)
{
	size_t symbols, missing = count;
	const struct symbol *symbol = read_symbols(&symbols);
	bool *seen = calloc(count + 1, sizeof(*seen)), visible = false;
	const __u64 *match;

	for (; symbols && missing && seen; symbol++, symbols--) {
		visible |= symbol->address != 0;
		match = bsearch(&symbol->address, addresses, count, sizeof(*addresses),
				compare_addresses);
		/* __pfx_ is the padding before a function, not the function (6.2 on). */
		if (!match || !symbol->address || !strncmp(symbol->name, "__pfx_", 6))
			continue;
		found(arg, match - addresses, symbol->name);
		missing -= !seen[match - addresses];
		seen[match - addresses] = true;
	}
	free(seen);
	return visible;
}

static int compare_symbols(const void *a, const void *b)
{
	return compare_addresses(a, b);	/* the address comes first */
}

/* All functions of the kernel, by address. */
static struct symbol *sorted_functions(size_t *count)
{
	size_t symbols;
	const struct symbol *symbol;
	struct symbol *functions;

	/* Programs and modules that were loaded since are among them. */
	forget_symbols();
	symbol = read_symbols(&symbols);
	functions = calloc(symbols + 1, sizeof(*functions));
	*count = 0;
	for (; symbols && functions; symbol++, symbols--)
		if ((symbol->type == 't' || symbol->type == 'T') && symbol->address)
			functions[(*count)++] = *symbol;
	if (functions)
		qsort(functions, *count, sizeof(*functions), compare_symbols);
	return functions;
}

bool kallsyms_functions(const __u64 *addresses, size_t count,
			void (*found)(void *arg, size_t index, const char *name,
				      const char *module), void *arg)
{
	size_t functions, at = 0;
	struct symbol *function = sorted_functions(&functions);

	for (size_t i = 0; i < count && functions; i++) {
		while (at + 1 < functions && function[at + 1].address <= addresses[i])
			at++;
		if (function[at].address <= addresses[i])
			found(arg, i, function[at].name, function[at].module);
	}
	free(function);
	return functions;
}
