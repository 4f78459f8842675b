# SPDX-License-Identifier: GPL-2.0-only
"""bench_explore.py prints a number for everything it claims. No time is judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).with_name("bench_explore.py")
SPREAD = r"\d[\d.,]* \[\d[\d.,]*, \d[\d.,]*\]"

pytestmark = pytest.mark.usefixtures("build")


def test_every_claim_has_its_numbers() -> None:
    words = [sys.executable, BENCH, "--rounds", "1", "--vmas", "20000"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert re.search(r"^20,0\d\d VMAs, n = 1, ", done.stdout, re.M)
    for name in ("opened, s", "filter, map, s", "filter, a row looked at, s", "peak memory, MiB"):
        row = rf"^{re.escape(name)} +{SPREAD} +{SPREAD} +(?:[\d.]+|-)$"
        assert re.search(row, done.stdout, re.M), done.stdout
    assert len(re.findall(r"^Aim: .* [\d.]+, (not )?met$", done.stdout, re.M)) == 3
