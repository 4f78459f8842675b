# SPDX-License-Identifier: GPL-2.0-only
"""bench_perf.py prints a number, or a reason, for every way. No time is judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import recordings

BENCH = Path(__file__).with_name("bench_perf.py")
SPREAD = r"\d[\d.]* \[\d[\d.]*, \d[\d.]*\]"


def test_every_way_has_its_numbers_or_a_reason() -> None:
    recordings.require_perf()
    words = [sys.executable, BENCH, "--rounds", "1", "--samples", "20000"]
    done = subprocess.run(words, capture_output=True, text=True)
    if "ermission" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert re.search(r"^2\d,\d\d\d samples with stacks", done.stdout, re.M), done.stdout
    for way in ("our fields", "as it is", "anonvma", "Perl"):
        row = rf"^perf script.*{way} +({SPREAD} +{SPREAD} +\d+|not measured: .*)$"
        assert re.search(row, done.stdout, re.M), done.stdout
    assert re.search(r"^Aim: ours adds .*, (not )?met$", done.stdout, re.M)
