# SPDX-License-Identifier: GPL-2.0-only
"""Changes over time: how often they are found where there are none, and where they are."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run_here
from scipy import stats

from anonvma.base import paths
from anonvma.base.errors import StoreError
from anonvma.study import trend
from anonvma.study.store import Store

Draw = Callable[[np.random.Generator, int], np.ndarray]
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda random, n: random.standard_normal(n),
    "without a mean": lambda random, n: random.standard_cauchy(n),
    "counts with ties": lambda random, n: random.integers(0, 3, n).astype(float),
}


@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_error_rate_is_the_one_stated(kind: str, n: int) -> None:
    """600 series without a change: no more false ones than chance allows at ALPHA."""
    random = np.random.default_rng(n)
    draw = DISTRIBUTIONS[kind]
    wrong = sum(bool(trend.change_points(draw(random, n), permutations=199)) for _ in range(600))
    assert wrong <= stats.binom.isf(1e-5, 600, trend.ALPHA)


def test_steps_are_found_where_they_are() -> None:
    random = np.random.default_rng(1)
    found = [
        trend.change_points(np.r_[random.normal(0, 1, 20), random.normal(3, 1, 15)])
        for _ in range(50)
    ]
    assert sum(bool(cuts) for cuts in found) >= 49
    assert sum(any(abs(cut - 20) <= 2 for cut in cuts) for cuts in found) >= 45
    assert trend.change_points(np.repeat([0.0, 1.0, 0.0], 20)) == [20, 40]
    assert trend.change_points(np.repeat([4107.0, 0.0], 6)) == [6]


def test_what_is_no_change() -> None:
    assert trend.change_points(np.full(100, 3.0)) == []
    assert trend.change_points(np.r_[np.zeros(20), 1e9, np.zeros(20)]) == []  # an outlier
    assert trend.change_points([]) == trend.change_points([1.0, 2.0]) == []
    assert trend.change_points(np.repeat([0.0, 1.0], 5)) == []  # too few


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty nights of two kernels, of recorded runs; from the 21st one is a fifth slower."""
    root = tmp_path_factory.mktemp("nights")
    random = np.random.default_rng(3)
    for night in range(30):
        when = datetime.datetime(2026, 10, 1, 2, tzinfo=datetime.UTC) + datetime.timedelta(night)
        for kernel in ("early", "delayed"):
            place = root / f"{when:%F}" / "cells" / kernel
            shutil.copytree(paths.recorded() / f"{kernel}-small-allocs-mt-1", place)
            slower = 0.8 if kernel == "delayed" and night >= 20 else 1.0
            _edit(place, when, int(300_000 * slower * random.normal(1, 0.02)))
            axes = {"target": "guest", "kernel": kernel}
            told = {"study": "nightly", "name": kernel, "axes": axes}
            (place / "cell.json").write_text(json.dumps(told))
    return root


def _edit(place: Path, when: datetime.datetime, speed: int) -> None:
    file = place / "throughput.parquet"
    table = pq.read_table(file)
    column = table.schema.get_field_index("kb_per_s")
    values = pa.array([speed] * len(table), pa.int64())
    pq.write_table(table.set_column(column, table.schema.field(column), values), file)
    manifest = json.loads((place / "manifest.json").read_bytes())
    manifest["created"] = manifest["finished"] = when.isoformat()
    manifest["tables"]["throughput"]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest))


def test_nights(nights: Path) -> None:
    with Store([nights]) as store:
        rows = trend.series(store)
        with pytest.raises(StoreError, match="no run has a metric 'speed'"):
            trend.series(store, ["speed"])
    assert sorted(set(rows["series"])) == [
        "small-allocs-mt bytes=256m threads=8, guest delayed",
        "small-allocs-mt bytes=256m threads=8, guest early",
    ]
    found = trend.changes(rows)
    (change,) = found.itertuples(index=False)
    assert change.series.endswith("delayed") and change.metric == "vm-scalability.throughput"
    assert f"{change.since:%F}" == "2026-10-21"
    row = found.iloc[0]
    assert (row["n before"], row["n after"]) == (20, 10)
    assert row["low"] < -20 < row["high"]


def test_command_line(nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def anonvma(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return run_here("trend", *words)

    monkeypatch.chdir(tmp_path)
    done = anonvma("--in", nights, "--chart", "trend.png")
    assert done.returncode == 0, done.stderr
    assert "1 in 1 series." in done.stdout and "2026-10-21 02:00  20+10" in done.stdout
    assert (tmp_path / "trend.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(anonvma("--in", nights, "--json").stdout)
    assert len(told["changes"]) == 1 and len(told["runs"]) >= 30 * 2 * 4
    done = anonvma("--in", nights, "--chart", "trend.xyz")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    (tmp_path / "empty").mkdir()
    done = anonvma("--in", "empty", "--chart", "none.png")
    assert done.returncode == 0 and "Trend of 0 runs" in done.stdout
