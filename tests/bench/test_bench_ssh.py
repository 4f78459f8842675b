# SPDX-License-Identifier: GPL-2.0-only
"""bench_ssh.py prints a number for every way. No time is judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tools

BENCH = Path(__file__).with_name("bench_ssh.py")
NUMBERS = r" +\d[\d.]* \[\d[\d.]*, \d[\d.]*\] +\d[\d.]*$"

pytestmark = pytest.mark.usefixtures("build")


def test_every_way_has_its_numbers() -> None:
    tools.lay()
    words = [sys.executable, BENCH, "--rounds", "1", "--mib", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert len(re.findall(NUMBERS, done.stdout, re.M)) == 8, done.stdout
    assert len(re.findall(rf"anonvma.*{NUMBERS}", done.stdout, re.M)) == 3
