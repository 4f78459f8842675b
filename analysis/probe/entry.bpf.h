/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The registers that an entry into the kernel has saved.
 */
#ifndef ENTRY_BPF_H
#define ENTRY_BPF_H

#include "maple_tree.bpf.h"

/* arch/arm64/include/uapi/asm/ptrace.h: PSR_MODE_MASK; 0 is PSR_MODE_EL0t */
#define ARM64_MODE		0x0f

/* user_mode() of either architecture. */
static bool is_of_user_mode(__u64 regs)
{
	if (HAS(struct pt_regs___x86, cs))
		return (PEEK(struct pt_regs___x86, regs, cs) & 3) == 3;
	return !HAS(struct pt_regs___entry, pstate) ||
	       !(PEEK(struct pt_regs___entry, regs, pstate) & ARM64_MODE);
}

#endif /* ENTRY_BPF_H */
