// SPDX-License-Identifier: GPL-2.0-only
/*
 * Works in one library, closes it, works in another that is mapped where the first was: the same
 * addresses of the same process, with other names. Says whether they were at the same place.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void *work(const char *path, long rounds)
{
	void *library = dlopen(path, RTLD_NOW);
	long (*function)(long) = library ? (long (*)(long))dlsym(library, NAME) : NULL;

	if (!function) {
		fprintf(stderr, "maps_change: %s\n", dlerror());
		exit(1);
	}
	function(rounds);
	dlclose(library);
	return (void *)function;
}

int main(int count, char **words)
{
	void *first;

	if (count != 4)
		return 2;
	first = work(words[1], atol(words[3]));
	puts(first == work(words[2], atol(words[3])) ? "same" : "other");
	return 0;
}
