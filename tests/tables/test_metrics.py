# SPDX-License-Identifier: GPL-2.0-only
"""Metrics: against the tables of recorded runs read another way, and runs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made import MadeRun

from anonvma.run import runs
from anonvma.tables import metrics


def made(tables: dict[str, pd.DataFrame], release: str = "6.12") -> Any:
    """A run of nothing but some tables."""
    repeats = sorted({int(n) for table in tables.values() for n in table["repeat"]}) or [1]
    columns = ["seconds", "user_s", "system_s", "voluntary_ctxt", "involuntary_ctxt"]
    columns += ["minor_faults", "major_faults"]
    empty = pd.DataFrame({"repeat": repeats, **dict.fromkeys(columns, pd.NA)})
    every = {"repeats": empty, **tables}
    return MadeRun(every, release)


def vmstat(rows: list[tuple[int, str, int, int]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["repeat", "counter", "before", "after"])
    return table.assign(difference=table["after"] - table["before"])


def test_every_source_of_a_run_is_in_one_long_frame() -> None:
    run = runs.find("small-allocs-mt")
    found = metrics.of(run)
    assert list(found.columns) == ["repeat", "metric", "value"]
    assert found.dtypes.astype(str).tolist() == ["int64", "str", "float64"]
    assert not found.duplicated(["repeat", "metric"]).any() and found["value"].notna().all()
    sources = {str(name).split(".")[0] for name in found["metric"]}
    assert sources >= {
        "vm-scalability", "perf-stat", "proc-vmstat", "mmap-lock", "faults", "census",
    }  # fmt: skip
    assert not found["metric"].str.contains(r"\s").any()


@pytest.mark.parametrize("name", ["early-small-allocs-mt-1", "delayed-anon-w-seq-mt-2"])
def test_numbers_are_those_of_the_files(name: str) -> None:
    """The same sums, by pyarrow from the Parquet files."""
    run = runs.find(name)
    found = metrics.of(run).set_index(["repeat", "metric"])["value"]
    locks = pq.read_table(run.path / "locks.parquet").to_pylist()
    for repeat in {row["repeat"] for row in locks}:
        asked = [r for r in locks if r["repeat"] == repeat and r["process"] and r["waited_for"]]
        mine = [r for r in asked if r["success"]]
        assert found[repeat, "mmap-lock.acquired"] == sum(r["count"] for r in mine)
        mmaps = [r["count"] for r in mine if r["asked_by"] == "mmap" and r["mode"] == "write"]
        assert found[repeat, "mmap-lock.acquired.mmap.write"] == sum(mmaps)
        faults = pq.read_table(run.path / "faults.parquet").to_pylist()
        mine = [r for r in faults if r["repeat"] == repeat]
        assert found[repeat, "faults.total"] == sum(r["count"] for r in mine)
        under = sum(r["count"] for r in mine if r["path"] == "mmap")
        assert found[repeat, "faults.by-lock.mmap"] == under
        census = pq.read_table(run.path / "census.parquet").to_pylist()
        bare = [r for r in census if r["repeat"] == repeat and r["bare"]]
        assert found[repeat, "census.bare"] == len(bare)
        tasks = pq.read_table(run.path / "throughput.parquet").to_pylist()
        speed = sum(r["kb_per_s"] for r in tasks if r["repeat"] == repeat)
        assert found[repeat, "vm-scalability.throughput"] == speed


def test_counters_are_differences_and_levels_are_levels() -> None:
    run = made({"vmstat": vmstat([
        (1, "pgfault", 100, 130), (1, "nr_anon_pages", 50, 40),
        (1, "vma_lock_success", 0, 30), (1, "vma_lock_abort", 5, 15),
        (1, "vma_lock_retry", 0, 0), (1, "vma_lock_miss", 0, 0),
    ])})  # fmt: skip
    found = metrics.of(run).set_index("metric")["value"]
    assert found["proc-vmstat.pgfault"] == 30
    assert found["proc-vmstat.nr_anon_pages"] == 40
    assert found["vma-lock.abort%"] == 25 and found["vma-lock.success%"] == 75


def test_what_was_looked_at_and_did_not_occur_is_0_and_nothing_else_is() -> None:
    """A counter is listed when it changed: 0 in other runs of that kernel, unknown elsewhere."""
    moved = [(1, "pgfault", 0, 8), (1, "oom_kill", 0, 4), (2, "pgfault", 0, 8)]
    still = [(1, "pgfault", 0, 6)]
    same = [made({"vmstat": vmstat(rows)}, "6.12") for rows in (moved, still)]
    other = made({"vmstat": vmstat(still)}, "6.18")
    without = made({})
    table = metrics.matrix([*same, other, without])
    assert table["proc-vmstat.oom_kill"].iloc[:2].tolist() == [2.0, 0.0]  # mean of 4 and nothing
    assert table["proc-vmstat.oom_kill"].iloc[2:].isna().all()
    assert table["proc-vmstat.pgfault"].iloc[:3].tolist() == [8, 6, 6]
    assert np.isnan(table["proc-vmstat.pgfault"].iloc[3])


def test_kinds_of_faults_that_a_traced_run_lacks_are_0_and_of_an_untraced_one_unknown() -> None:
    def faults(path: str, count: int) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {
                    "repeat": 1, "origin": None, "access": "read", "before": "vm_ops and anon_vma",
                    "after": "bare", "path": path, "result": "minor", "count": count,
                }
            ]
        )  # fmt: skip

    table = metrics.matrix([made({"faults": faults("vma", 3)}), made({"faults": faults("mmap", 2)}),
                            made({})])  # fmt: skip
    name = "faults.no-VMA.read.vm_ops-and-anon_vma->bare"
    assert table[f"{name}.vma"].iloc[:2].tolist() == [3, 0]
    assert table[f"{name}.mmap"].iloc[:2].tolist() == [0, 2]
    assert table.iloc[2].isna().all()


def test_the_run_is_the_unit() -> None:
    table = metrics.matrix(runs.find_all("early-small-allocs-mt-*"))
    assert len(table) > 8
    run = runs.find_all("early-small-allocs-mt-*")[1]
    speed = run.table("throughput").groupby("repeat")["kb_per_s"].sum().mean()
    assert table.loc[1, "vm-scalability.throughput"] == pytest.approx(speed)
