# SPDX-License-Identifier: GPL-2.0-only
"""bench_compare.py prints both ways and that they agree. No time is judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).with_name("bench_compare.py")


def test_both_ways_have_their_numbers_and_agree() -> None:
    words = [sys.executable, BENCH, "--runs", "40", "--metrics", "60", "--rounds", "1"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^anonvma compare +\d+\.\d\d s$", done.stdout, re.M), done.stdout
    assert re.search(r"^groupby .* \d+\.\d\d s +\d+\.\d x ours$", done.stdout, re.M)
    apart = re.search(r"largest difference of a p-value: ([\d.e-]+)", done.stdout)
    assert apart and float(apart[1]) < 0.02
    assert re.search(r"^Aim: 40 runs x 60 metrics in seconds: .*, (not )?met$", done.stdout, re.M)
