/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a workload tells whoever traces it when it starts its clock, and each of its tasks when the
 * work that it times begins and ends: by system calls of numbers that no architecture has. They do
 * nothing (ENOSYS), and raw_syscalls:sys_enter shows them. Not within __X32_SYSCALL_BIT.
 */
#ifndef ANONVMA_WINDOW_H
#define ANONVMA_WINDOW_H

#define CLOCK_STARTS	0x2a414e01
#define WINDOW_BEGINS	0x2a414e02
#define WINDOW_ENDS	0x2a414e03

#endif
