// SPDX-License-Identifier: GPL-2.0-only
/*
 * What libelf.a of elfutils 0.192 (Debian 13) forgot to bring: it calls these
 * four functions, which were left in a library that is not installed
 * (sourceware bug 32293). Weak, so that a libelf.a that has them is used.
 *
 * The locking that elfutils adds is for programs with threads; this one has none.
 */
#include <search.h>
#include <stddef.h>

struct search_tree {
	void *root;
};

typedef int (*compare_fn)(const void *, const void *);

__attribute__((weak)) void eu_search_tree_init(struct search_tree *tree)
{
	tree->root = NULL;
}

__attribute__((weak)) void eu_search_tree_fini(struct search_tree *tree, void (*release)(void *))
{
	(void)tree;
	(void)release;
}

__attribute__((weak)) void *eu_tsearch(const void *key, struct search_tree *tree, compare_fn compare)
{
	return tsearch(key, &tree->root, compare);
}

__attribute__((weak)) void *eu_tdelete(const void *key, struct search_tree *tree, compare_fn compare)
{
	return tdelete(key, &tree->root, compare);
}
