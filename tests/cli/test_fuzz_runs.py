# SPDX-License-Identifier: GPL-2.0-only
"""Runs with something wrong in them: every command gives an answer or one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "helpers" / "fuzz.py"
# A thousand, which takes three quarters of an hour: make test ROUNDS=20 ARGS='-k test_fuzz_runs'.
ROUNDS = int(os.environ.get("ROUNDS") or 1)
SPOILED = 5 if ROUNDS == 1 else 50 * ROUNDS


def test_an_answer_or_a_sentence() -> None:
    """In a process of its own, whose streams and signals it changes."""
    words = ["--rounds", str(SPOILED), "--publish-every", "25" if ROUNDS > 1 else "0"]
    done = subprocess.run(
        [sys.executable, FUZZ, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
