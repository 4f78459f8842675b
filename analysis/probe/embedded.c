// SPDX-License-Identifier: GPL-2.0-only
/* The BPF objects, embedded by the assembler. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <bpf/libbpf.h>
#include "embedded.h"

#define EMBED(name, file)						\
	__asm__(".section .rodata\n.balign 8\n"				\
		".globl " #name "_start\n.globl " #name "_end\n"	\
		#name "_start:\n.incbin \"" file "\"\n" #name "_end:\n"	\
		".byte 0\n.previous\n")

EMBED(census_bpf, CENSUS_BPF_OBJECT);
EMBED(features_bpf, FEATURES_BPF_OBJECT);
EMBED(locks_bpf, LOCKS_BPF_OBJECT);
EMBED(time_bpf, TIME_BPF_OBJECT);
EMBED(faults_handled_bpf, FAULTS_HANDLED_BPF_OBJECT);
EMBED(faults_tracepoint_bpf, FAULTS_TRACEPOINT_BPF_OBJECT);

/* Not for whoever has no privilege but by this file's. */
const char *foreign_types(void)
{
	return secure_getenv("VMAPROBE_BTF");
}

struct bpf_object *open_embedded(const char *name, const char *start, const char *end)
{
	const char *types = foreign_types();
	/*
	 * Named, since libbpf looks for a type that these lack in the modules, too, unless told
	 * where types are; and only CAP_SYS_ADMIN may list modules' BTF.
	 */
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = name,
		    .btf_custom_path = types ? types : "/sys/kernel/btf/vmlinux");

	struct bpf_object *object = bpf_object__open_mem(start, end - start, &opts);
	struct bpf_map *map;

	/* Where it is the types that are tried, little is counted, and each entry is made now. */
	if (types && object)
		bpf_object__for_each_map(map, object)
			if (bpf_map__type(map) == BPF_MAP_TYPE_PERCPU_HASH)
				bpf_map__set_max_entries(map, 1024);
	return object;
}
