# SPDX-License-Identifier: GPL-2.0-only
"""Errors, paths, text and statistics: what everything else may use, and nothing of ours below."""
