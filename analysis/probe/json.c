// SPDX-License-Identifier: GPL-2.0-only
/* The little of JSON that is written here. */
#include "json.h"

void json_string(FILE *file, const char *text)
{
	putc('"', file);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fprintf(file, "\\%c", *text);
		else if ((unsigned char)*text < 0x20)
			fprintf(file, "\\u%04x", *text);
		else
			putc(*text, file);
	}
	putc('"', file);
}

void json_pair(FILE *file, const char *key, const char *value, const char *after)
{
	fprintf(file, "\"%s\": ", key);
	if (value && *value)
		json_string(file, value);
	else
		fputs("null", file);
	fputs(after, file);
}
