# SPDX-License-Identifier: GPL-2.0-only
"""Commands of anonvma, in this process: where none of their own is what a test is about."""

from __future__ import annotations

import subprocess
from pathlib import Path

from click.testing import CliRunner

from anonvma.cli import main


def run_here(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command; what a process of its own would have ended as and written."""
    argv = [str(word) for word in words]
    done = CliRunner().invoke(main, argv)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(argv, done.exit_code, done.stdout, done.stderr)
