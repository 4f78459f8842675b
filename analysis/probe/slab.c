// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/slabinfo. A cache that was merged with another (slab_nomerge keeps it from that) has no
 * line; anon_vma, whose objects are SLAB_TYPESAFE_BY_RCU, never is.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "slab.h"

void slab_read(struct slab_entry *anon_vma, struct slab_entry *anon_vma_chain)
{
	FILE *file = fopen("/proc/slabinfo", "re");
	long page = sysconf(_SC_PAGESIZE);
	char line[512], name[64];

	memset(anon_vma, 0, sizeof(*anon_vma));
	memset(anon_vma_chain, 0, sizeof(*anon_vma_chain));
	while (file && fgets(line, sizeof(line), file)) {
		struct slab_entry entry, *to;
		unsigned long pages;

		if (sscanf(line, "%63s %llu %llu %llu %*u %lu : tunables %*u %*u %*u : slabdata "
			   "%*u %llu", name, &entry.active, &entry.objects, &entry.object_size,
			   &pages, &entry.slabs) != 6)
			continue;
		to = !strcmp(name, "anon_vma") ? anon_vma :
		     !strcmp(name, "anon_vma_chain") ? anon_vma_chain : NULL;
		entry.slab_size = pages * page;
		if (to)
			*to = entry;
	}
	if (file)
		fclose(file);
}
