# SPDX-License-Identifier: GPL-2.0-only
"""Frames in, tables out, and the figure of each beside it."""
