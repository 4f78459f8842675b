# SPDX-License-Identifier: GPL-2.0-only
"""Text from elsewhere, shown as it is and doing nothing."""

from __future__ import annotations

__all__ = ["printable"]


def printable(words: str) -> str:
    """Show control characters as escapes: a process may be named anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
