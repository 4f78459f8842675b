# SPDX-License-Identifier: GPL-2.0-only
"""One run on one target: the workload, and everything that observes it."""
