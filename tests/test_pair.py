# SPDX-License-Identifier: GPL-2.0-only
"""The pair that `make kernels` built, booted: expected counts against the kernel's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonvma import counts, faults, pair, runs
from anonvma.errors import RunError


def test_order_is_abba() -> None:
    assert list(pair._order(["a", "b"], 3)) == [
        ("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 3), ("b", 3),
    ]  # fmt: skip


def test_without_the_kernels_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    with pytest.raises(RunError, match="run 'make kernels' first"):
        pair.kernels()


@pytest.mark.kernels
def test_counts_are_those_worked_out_beforehand(build: Path, tmp_path: Path) -> None:
    """16 MiB of 4 KiB pages in mappings of ten: 4,096 faults on 2 x 205 mappings."""
    collected = pair.collect_pair(pair.kernels(), tmp_path, boots=1)
    assert len(collected) == 6
    found = counts.expected(
        [run for run in collected if run.manifest.workload.name != "specimens"]
    ).set_index("run")
    assert found.loc["early-small-allocs-mt-1", "aborts expected"] == 4096
    assert found.loc["early-anon-w-seq-mt-1", "aborts expected"] == 410
    for kernel in ("early", "delayed"):
        rows = found[found["regime"] == kernel]
        assert len(rows) == 2
        assert (rows["faults expected"] == 4096).all()
        assert rows["faults more"].between(0, 100).all()
        # The counters are the machine's, and the programs of the guest fault too: on the delayed
        # kernel three times in some boots and never in others, alike in each run of a boot.
        assert rows["aborts more"].between(0, 100).all()
    # The workload's own, traced, with nobody else's among them.
    for load, bare in (("small-allocs-mt", 4096), ("anon-w-seq-mt", 410)):
        traced = faults.prediction(
            {
                kernel: [runs.find(tmp_path / f"{kernel}-{load}-1")]
                for kernel in ("early", "delayed")
            }
        ).set_index("kernel")
        assert traced["predicted"].between(bare, bare + 10).all()
        assert traced.loc["early", "to mmap_lock"] == traced.loc["early", "predicted"]
        assert traced.loc["delayed", "to mmap_lock"] == 0
    success = {
        kernel: counts.side_by_side({kernel: runs.find_all(f"{tmp_path}/{kernel}-small*")})
        for kernel in ("early", "delayed")
    }
    assert success["delayed"].loc["under the VMA's lock", "delayed"] >= 4096
    assert success["early"].loc["under the VMA's lock", "early"] < 1000
    # What is there already is not run again.
    assert pair.collect_pair(pair.kernels(), tmp_path, boots=1) == []
