# SPDX-License-Identifier: GPL-2.0-only
"""Where things run: this machine, one that ssh reaches, a guest; one small protocol."""
