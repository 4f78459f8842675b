# SPDX-License-Identifier: GPL-2.0-only
"""perf: the tool, recordings, counters, profiles and flame graphs."""
