# SPDX-License-Identifier: GPL-2.0-only
"""Conditions side by side: what changed, how sure that is, and what caused it."""
