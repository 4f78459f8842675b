/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SLAB_H
#define SLAB_H

#include "census.h"

/* What /proc/slabinfo says of the anon_vmas and of their chains; all 0 where it says nothing. */
void slab_read(struct slab_entry *anon_vma, struct slab_entry *anon_vma_chain);

#endif
