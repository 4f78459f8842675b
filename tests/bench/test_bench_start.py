# SPDX-License-Identifier: GPL-2.0-only
"""bench_start.py prints a number for what it is asked, and what it times does not fail."""

from __future__ import annotations

import re
import subprocess
import sys

import bench_start

from anonvma.base import paths


def test_a_line_has_its_numbers() -> None:
    words = [sys.executable, bench_start.__file__, "--rounds", "1", "--only", "anonvma --help"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert re.search(r"^anonvma --help +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", done.stdout, re.M)


def test_what_is_timed_is_done_and_the_typo_is_refused() -> None:
    for name, code in (("import of all tables", 0), ("anonvma compare", 0),
                       ("anonvma with a typo", 2)):  # fmt: skip
        words = [sys.executable, *bench_start.ROWS[name][0]]
        done = subprocess.run(words, capture_output=True, text=True, cwd=paths.root())
        assert done.returncode == code, done.stderr
