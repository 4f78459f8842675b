# SPDX-License-Identifier: GPL-2.0-only
"""The explorer: widgets, the live view and the picture of an address space."""
