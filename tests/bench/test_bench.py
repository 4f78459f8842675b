# SPDX-License-Identifier: GPL-2.0-only
"""bench.py prints a number for everything, and leaves nothing behind. No time is judged."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from waiting import PATIENCE

BENCH = Path(__file__).with_name("bench.py")
LIMIT = Path("/proc/sys/vm/max_map_count")
SPREAD = r"\d[\d.]* \[\d[\d.]*, \d[\d.]*\]"
WAYS = [
    "bare iterator read",
    "the same, and its pages",
    "vmaprobe census",
    "census as a DataFrame",
    "/proc/PID/maps parsed",
    "/proc/PID/smaps parsed",
]

pytestmark = [pytest.mark.usefixtures("build"), pytest.mark.xdist_group("max_map_count")]


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, BENCH, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_row_has_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    limit, file = LIMIT.read_text(), tmp_path / "bench.json"
    vmas = 70_000  # more than Linux allows unless told to
    bench = start("--vmas", vmas, "--rounds", 2, "--bytes", "8m", "--json", file)
    text, progress = bench.communicate(timeout=PATIENCE)
    assert bench.returncode == 0, progress
    assert [line for line in text.splitlines() if len(line) > 80] == []
    for way in WAYS:
        row = rf"{way} +{SPREAD} +[\d.]+ +([\d.]+|in it) +(<= )?\d+ +[\d.]+"
        assert re.search(rf"^{row}$", text, re.M), text
    for row in ("with perf stat", "without perf stat", "with / without"):
        assert re.search(rf"^{row} +{SPREAD}", text, re.M) or "not measured: " in text
    for aim in ("at most 1.5", "at least 5"):
        assert re.search(rf"{aim} +{SPREAD}  (not )?met$", text, re.M), text
    assert LIMIT.read_text() == limit
    assert list(tmp_path.iterdir()) == [file]
    check_figures(json.loads(file.read_text()), vmas)


def check_figures(found: dict[str, dict[str, list[dict[str, float]]]], vmas: int) -> None:
    assert list(found["costs"]) == WAYS
    for of_way in found["costs"].values():
        assert len(of_way) == 2
        for cost in of_way:
            assert vmas <= cost["vmas"] < vmas + 100
            assert cost["seconds"] > 0
            assert cost["cpu_s"] >= 0
            assert cost["peak_kib"] > 1000
    assert all(len(rates) == 2 for rates in found["observing"]["mib_per_s"].values())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    token = processes.new_token()
    monkeypatch.setenv(processes.VARIABLE, token)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    limit = LIMIT.read_text()
    with start("--vmas", 70_000, "--rounds", 100) as bench:
        assert bench.stderr
        assert bench.stderr.readline().startswith("bench: round 1 of 100")
        assert processes.carriers(token)
        bench.send_signal(number)
        _, said = bench.communicate(timeout=PATIENCE)
    assert bench.returncode == status
    assert "Traceback" not in said
    assert processes.survivors(token) == []
    assert LIMIT.read_text() == limit
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rounds", "0"], "--rounds 0"),
        (["--vmas", "-5"], "--vmas -5"),
        (["--vmas", "many"], "'many'"),
        (["--bytes", "9x"], "9x"),
        (["--json", "/nonesuch/file"], "/nonesuch/file"),
    ],
)
def test_bad_usage_is_said_before_anything_runs(words: list[str], says: str) -> None:
    bench = start(*words)
    text, said = bench.communicate(timeout=PATIENCE)
    assert (bench.returncode, text) == (2, "")
    assert says in said.splitlines()[-1]
    assert "round" not in said.replace("--rounds", "")
    assert os.path.basename(BENCH) in said
