# SPDX-License-Identifier: GPL-2.0-only
"""Text from elsewhere, shown as it is and doing nothing."""

from __future__ import annotations

_MOST = 300  # characters of what a program said


def printable(words: str) -> str:
    """Show control characters as escapes: a process may be named anything."""
    if words.isprintable():
        return words
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def last_line(text: bytes) -> str:
    """Return the last line of what a program said, fit to be shown."""
    lines = text.decode(errors="backslashreplace").strip().splitlines() or ["it said nothing."]
    shown = printable(lines[-1])
    return shown if len(shown) <= _MOST else shown[: _MOST - 1] + "…"
