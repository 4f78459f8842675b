/* SPDX-License-Identifier: GPL-2.0-only */
/* What vmaprobe does, one function each: its arguments in, its exit code out. */
#ifndef SUBCOMMANDS_H
#define SUBCOMMANDS_H

#include <stdbool.h>

int run_census(int argc, char **argv);
int run_faults(int argc, char **argv);
int run_locks(int argc, char **argv);
int run_time(int argc, char **argv);
int run_consequences(int argc, char **argv);
int features_print(bool json);

#endif
