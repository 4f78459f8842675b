/* SPDX-License-Identifier: GPL-2.0-only */
/* The BPF objects, embedded by the assembler. */
#ifndef EMBEDDED_H
#define EMBEDDED_H

struct bpf_object;

extern const char census_bpf_start[], census_bpf_end[];
extern const char features_bpf_start[], features_bpf_end[];
extern const char locks_bpf_start[], locks_bpf_end[];
extern const char time_bpf_start[], time_bpf_end[];
extern const char faults_handled_bpf_start[], faults_handled_bpf_end[];
extern const char faults_tracepoint_bpf_start[], faults_tracepoint_bpf_end[];

/* For tests: the file of another kernel's types, to relocate programs against; or NULL. */
const char *foreign_types(void);
struct bpf_object *open_embedded(const char *name, const char *start, const char *end);

#endif
