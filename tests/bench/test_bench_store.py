# SPDX-License-Identifier: GPL-2.0-only
"""bench_store.py prints a number for everything, and what it sets side by side is the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import bench_store

BENCH = Path(__file__).with_name("bench_store.py")
SPREAD = r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]"


def test_every_line_has_its_numbers() -> None:
    words = [sys.executable, BENCH, "--rounds", "1", "--runs", "24"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for what in ("list all", "compare kernels' aborts", "faults on bare VMAs"):
        assert re.search(rf"^{what} +{SPREAD} +{SPREAD} +\d+\.\d$", done.stdout, re.M), done.stdout
    alone = ("open one, checked", "open one, its metrics", "open 500, their metrics")
    for what in (*alone, "open all, checked", "trend, with changes"):
        assert re.search(rf"^{what} +{SPREAD} +-$", done.stdout, re.M), done.stdout


def test_both_ways_say_the_same(tmp_path: Path) -> None:
    bench_store.copies(tmp_path, 24)
    keys = ["regime", "workload"]
    ours = bench_store.asked(tmp_path, bench_store.ABORTS).sort_values(keys)
    usual = bench_store.aborts_by_pandas(tmp_path).sort_values(keys)
    assert ours["aborts"].tolist() == usual["mean"].tolist()
    assert ours["n"].tolist() == usual["size"].tolist()
    faults = bench_store.asked(tmp_path, bench_store.BARE)
    assert faults["faults"].sum() == bench_store.bare_by_pandas(tmp_path)["count"].sum() > 0
