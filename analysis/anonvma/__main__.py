# SPDX-License-Identifier: GPL-2.0-only
"""``anonvma``, and ``python -m anonvma``, which does the same."""

from __future__ import annotations

import signal


def main() -> None:
    """Carry out a command; until it begins, Ctrl-C ends us as it ends a program in C: silently."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from anonvma.cli import main as command

    command()


if __name__ == "__main__":
    main()
