/* SPDX-License-Identifier: GPL-2.0-only */
/* What this kernel allows this user, by trying it. */
#ifndef FEATURES_H
#define FEATURES_H

/* Loads and attaches one program of features.bpf.c alone; STEP is how far that came. */
int try_program(const char *name, const char **step);

#endif
