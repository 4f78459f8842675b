/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef JSON_H
#define JSON_H

#include <stdio.h>

/* A JSON string; what is not ASCII goes out as it is, for names are bytes to the kernel. */
void json_string(FILE *file, const char *text);
/* "key": "value", or null where there is none. */
void json_pair(FILE *file, const char *key, const char *value, const char *after);

#endif
