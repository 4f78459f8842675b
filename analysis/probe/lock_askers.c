// SPDX-License-Identifier: GPL-2.0-only
/* Who asks for mmap_lock, by a function on the kernel's stack: the first of these that is there. */
#include <stdbool.h>
#include <string.h>
#include "lock_askers.h"

static const struct {
	const char *function, *who;
} askers[] = {
	{ "lock_mm_and_find_vma", "page fault" },
	{ "exc_page_fault", "page fault" },
	{ "do_user_addr_fault", "page fault" },
	{ "do_page_fault", "page fault" },	/* arm64 */
	{ "handle_mm_fault", "page fault" },
	{ "fixup_user_fault", "page fault" },
	{ "dup_mm", "fork" },
	{ "copy_process", "fork" },
	{ "begin_new_exec", "exec" },
	{ "do_execveat_common", "exec" },
	{ "do_exit", "exit" },
	{ "do_group_exit", "exit" },
	{ "__mm_populate", "populate" },
	{ "__x64_sys_mremap", "mremap" },
	{ "__do_sys_mremap", "mremap" },
	{ "__x64_sys_munmap", "munmap" },
	{ "__vm_munmap", "munmap" },
	{ "ksys_mmap_pgoff", "mmap" },
	{ "vm_mmap_pgoff", "mmap" },
	{ "__x64_sys_mmap", "mmap" },
	{ "do_mprotect_pkey", "mprotect" },
	{ "do_madvise", "madvise" },
	{ "__do_sys_brk", "brk" },
	{ "__x64_sys_brk", "brk" },
	{ "do_mlock", "mlock" },
	{ "do_shmat", "shmat" },
	{ "userfaultfd_ioctl", "userfaultfd" },
	{ "bpf_iter_", "BPF iterator" },
	{ "bpf_seq_read", "BPF iterator" },
	{ "task_vma_seq_", "BPF iterator" },
	{ "proc_pid_cmdline_read", "reader of /proc" },
	{ "environ_read", "reader of /proc" },
	{ "pagemap_", "reader of /proc" },
	{ "do_pagemap_", "reader of /proc" },
	{ "m_start", "reader of /proc" },
	{ "show_smaps_rollup", "reader of /proc" },
	{ "access_remote_vm", "access to another process" },
	{ "process_vm_rw", "access to another process" },
	{ "task_numa_work", "NUMA balancing" },
	{ "khugepaged", "khugepaged" },
	{ "internal_get_user_pages_fast", "get_user_pages" },
	{ "__gup_longterm_locked", "get_user_pages" },
	{ "__get_user_pages", "get_user_pages" },
	{ "prctl_set_", "prctl" },
	{ "__do_sys_prctl", "prctl" },
};

/* A name ending in _ stands for all that begin so. */
static bool is_named(const char *function, const char *name)
{
	size_t length = strlen(name);

	return !strncmp(function, name, length) &&
	       (name[length - 1] == '_' || strchr(". ", function[length]));
}

const char *lock_asker(char *const *frames, size_t depth)
{
	for (size_t a = 0; a < sizeof(askers) / sizeof(askers[0]); a++)
		for (size_t i = 0; i < depth; i++)
			if (is_named(frames[i], askers[a].function))
				return askers[a].who;
	/* At least the system call that it was in. */
	for (size_t i = depth; i--;)
		if (!strncmp(frames[i], "__x64_sys_", 10) || !strncmp(frames[i], "__arm64_sys_", 12))
			return strstr(frames[i], "sys_") + 4;
	return "other";
}
