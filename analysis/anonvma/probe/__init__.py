# SPDX-License-Identifier: GPL-2.0-only
"""vmaprobe: how it is run, and what it writes, as frames."""
