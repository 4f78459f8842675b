# SPDX-License-Identifier: GPL-2.0-only
"""``anonvma``, and ``python -m anonvma``, which does the same."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Carry out a command; until it begins, Ctrl-C ends us as it ends a program in C: silently."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    from anonvma.cli import main as command

    command()


def _open_streams() -> None:
    """Open what was closed (``>&-``), or the next file that is opened would be standard output.

    Nothing can be written to that, which is said as a full disk is; what nobody reads is dropped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            flags = os.O_WRONLY if name == "stderr" else os.O_RDONLY
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


if __name__ == "__main__":
    main()
