/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel lacks, in the words of libbpf. */
#ifndef LACKING_H
#define LACKING_H

#include <stdarg.h>
#include <bpf/libbpf.h>

/* For libbpf_set_print(). With VMAPROBE_DEBUG set all that libbpf says is shown. */
int listen_to_libbpf(enum libbpf_print_level level, const char *format, va_list args);
/* What the kernel lacks that a program relies on, by name, if libbpf has said so; else NULL. */
const char *what_is_lacking(void);

#endif
