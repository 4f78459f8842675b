# SPDX-License-Identifier: GPL-2.0-only
"""bench_faults.py prints a number, or a reason, for every way. No time is judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).with_name("bench_faults.py")
SPREAD = r"\d[\d.]* \[\d[\d.]*, \d[\d.]*\]"

pytestmark = pytest.mark.usefixtures("build")


@pytest.mark.xdist_group("max_map_count")
def test_every_way_has_its_numbers_or_a_reason() -> None:
    words = [sys.executable, BENCH, "--rounds", "1", "--bytes", "8m"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    locks = ("vmaprobe locks", "  mmap_lock alone", "  and names", "  and vmas", "  and forks")
    for way in ("untraced", "vmaprobe faults", "vmaprobe faults --events", *locks):
        row = rf"^{way} +{SPREAD} +{SPREAD} +(-|2,\d\d\d)$"
        assert re.search(row, done.stdout, re.M), done.stdout
    for way in ("perf record", "perf trace", "bpftrace"):
        row = rf"^{way}.*(2,\d\d\d$|not measured: )"
        assert re.search(row, done.stdout, re.M), done.stdout
    assert re.search(r"^1,000,\d\d\d faults from the probe to a DataFrame", done.stdout, re.M)
    assert len(re.findall(r"^Aim: .*, (not )?met$", done.stdout, re.M)) == 3
