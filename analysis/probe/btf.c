// SPDX-License-Identifier: GPL-2.0-only
/* What the running kernel's own type information tells. */
#include <stdio.h>
#include <string.h>
#include <bpf/btf.h>
#include "btf.h"

/* Read once: it is a few megabytes. */
static const struct btf *kernel_btf(void)
{
	static struct btf *btf;

	if (!btf)
		btf = btf__load_vmlinux_btf();
	return btf;
}

unsigned int tracepoint_arguments(const char *name)
{
	const struct btf *btf = kernel_btf();
	const struct btf_type *type = NULL;
	unsigned int count = 0;
	char full[96];
	int id;

	snprintf(full, sizeof(full), "btf_trace_%s", name);
	id = btf ? btf__find_by_name_kind(btf, full, BTF_KIND_TYPEDEF) : -1;
	if (id > 0)
		type = btf__type_by_id(btf, id);
	/* A typedef of a pointer to the function, whose first argument is the tracer's own. */
	if (type)
		type = btf__type_by_id(btf, type->type);
	if (type && btf_is_ptr(type))
		type = btf__type_by_id(btf, type->type);
	if (type && btf_is_func_proto(type) && btf_vlen(type))
		count = btf_vlen(type) - 1;
	return count;
}

bool has_function(const char *name)
{
	const struct btf *btf = kernel_btf();

	return btf && btf__find_by_name_kind(btf, name, BTF_KIND_FUNC) > 0;
}

static bool has_member(const struct btf *btf, const char *type, const char *member)
{
	int id = btf__find_by_name_kind(btf, type, BTF_KIND_STRUCT);
	const struct btf_type *t = id > 0 ? btf__type_by_id(btf, id) : NULL;
	const struct btf_member *m = t ? btf_members(t) : NULL;

	for (int i = 0; t && i < btf_vlen(t); i++)
		if (!strcmp(btf__name_by_offset(btf, m[i].name_off), member))
			return true;
	return false;
}

int has_vma_locks(void)
{
	const struct btf *btf = kernel_btf();

	return btf ? has_member(btf, "vm_area_struct", "vm_lock_seq") : -1;
}
