# SPDX-License-Identifier: GPL-2.0-only
"""Counts of the kernel pair side by side, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import MadeRun

from anonvma.base.errors import RunError
from anonvma.compare import counts
from anonvma.run import runs
from anonvma.tables import faults, locks


def a_run(faults: list[int], counters: dict[str, list[int]], kb: list[int]) -> Any:
    repeats = range(1, len(faults) + 1)
    tables = {
        "repeats": pd.DataFrame(
            {
                "repeat": repeats,
                "minor_faults": pd.array(faults, "Int64"),
                "major_faults": pd.array([0] * len(faults), "Int64"),
                "voluntary_ctxt": pd.array([3] * len(faults), "Int64"),
                "involuntary_ctxt": pd.array([1] * len(faults), "Int64"),
            }
        ),
        "vmstat": pd.DataFrame(
            [
                {"repeat": repeat, "counter": name, "after": value, "difference": value}
                for name, values in counters.items()
                for repeat, value in zip(repeats, values, strict=True)
            ],
            columns=["repeat", "counter", "after", "difference"],
        ),
        "throughput": pd.DataFrame({"repeat": repeats, "task": 0, "kb_per_s": kb, "bytes": 0}),
    }
    return MadeRun(tables)


def test_means_ranges_and_ratio_worked_out_by_hand() -> None:
    early = [
        a_run([100, 110], {"vma_lock_abort": [50, 70], "vma_lock_success": [5, 5]}, [1024, 3072]),
        a_run([120, 120], {"vma_lock_abort": [90, 90], "vma_lock_success": [7, 7]}, [4096, 4096]),
    ]
    delayed = [
        a_run([90, 90], {"vma_lock_abort": [0, 0], "vma_lock_success": [60, 60]}, [6144] * 2)
    ]
    table = counts.side_by_side({"early": early, "delayed": delayed})
    columns = ["early", "early low", "early high", "early n", "delayed", "delayed n", "ratio"]
    faults = table.loc["page faults", columns].tolist()
    assert faults == pytest.approx([112.5, 105, 120, 2, 90, 1, 0.8])
    aborted = table.loc["aborted, to mmap_lock", columns].tolist()
    assert aborted == pytest.approx([75, 60, 90, 2, 0, 1, 0])
    assert table.loc["throughput, MiB/s", "early"] == pytest.approx(3)
    assert table.loc["throughput, MiB/s", "ratio"] == pytest.approx(2)
    assert table.loc["context switches", "early"] == 4


def test_what_a_kernel_does_not_count_is_null_and_not_zero() -> None:
    table = counts.side_by_side({"a": [a_run([1], {}, [1024])], "b": [a_run([1], {}, [1024])]})
    assert np.isnan(table.loc["aborted, to mmap_lock", "a"])
    assert table.loc["aborted, to mmap_lock", "a n"] == 0
    assert np.isnan(table.loc["aborted, to mmap_lock", "ratio"])


def test_a_ratio_to_nothing_is_null() -> None:
    counters = {"vma_lock_abort": [0]}
    both = {"a": [a_run([1], counters, [1])], "b": [a_run([1], {"vma_lock_abort": [5]}, [1])]}
    assert np.isnan(counts.side_by_side(both).loc["aborted, to mmap_lock", "ratio"])


PAIR = [
    (kernel, load)
    for kernel in ("early", "delayed")
    for load in ("small-allocs-mt", "anon-w-seq-mt")
]


@pytest.mark.parametrize(("kernel", "load"), PAIR)
def test_recorded_pair_is_what_was_worked_out(kernel: str, load: str) -> None:
    """256 MiB and 16 MiB, in eight tasks: 820 and 52 mappings of ten pages each."""
    found = counts.expected(runs.find_all(f"{kernel}-{load}-*"))
    assert len(found) >= 2
    assert set(found["regime"]) == {kernel}
    pages, mappings = {"small-allocs-mt": (65536, 6560), "anon-w-seq-mt": (4096, 416)}[load]
    assert set(found["pages"]) == {pages} and set(found["mappings"]) == {mappings}
    first = pages if load == "small-allocs-mt" else mappings
    aborts = first if kernel == "early" else 0
    assert set(found["aborts expected"]) == {aborts}
    assert found["faults more"].between(0, 100).all()
    # The counter is the machine's; the workload's own faults are in its trace.
    assert found["aborts more"].between(0, 100 if kernel == "early" else 10).all()


@pytest.mark.parametrize(("load", "bare"), [("small-allocs-mt", 65536), ("anon-w-seq-mt", 416)])
def test_what_one_kernel_predicts_the_other_does(load: str, bare: int) -> None:
    """Found bare in user mode: each page read, or the first one written of each mapping."""
    pair = {name: runs.find_all(f"{name}-{load}-*") for name in ("early", "delayed")}
    table = faults.prediction(pair).set_index("kernel")
    assert 0 <= table.loc["delayed", "predicted"] - bare <= 10
    assert table.loc["early", "to mmap_lock"] == table.loc["delayed", "predicted"]
    assert table.loc["early", "predicted"] == table.loc["delayed", "predicted"]
    assert table.loc["delayed", "to mmap_lock"] == 0
    assert 0 <= table.loc["early", "aborts"] - table.loc["early", "to mmap_lock"] <= 100
    callers = locks.callers_side_by_side(pair).set_index(["asked_by", "mode"])
    # For an anon_vma the delayed check takes it too, by trying.
    spared = {"small-allocs-mt": -65536, "anon-w-seq-mt": 0}[load]
    assert callers.loc[("page fault", "read"), "difference"] == pytest.approx(spared, abs=10)


def test_recorded_specimens_are_the_same_on_both_kernels() -> None:
    """The early check costs a lock; what a fault leaves behind is the same."""
    from anonvma.tables import census, specimens

    grids = []
    for kernel in ("early", "delayed"):
        run = runs.find(f"{kernel}-specimens-1")
        table = specimens.observed(run.table("specimens"), census.last(run))
        grids.append(specimens.grid(table))
    assert grids[0].equals(grids[1])
    assert grids[0].loc["private-devzero", "read"] == "zero-page"


def test_no_run_of_that_name() -> None:
    with pytest.raises(RunError, match="no run is called 'nothing-\\*'"):
        runs.find_all("nothing-*")
