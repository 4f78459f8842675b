# SPDX-License-Identifier: GPL-2.0-only
"""The pair that `make kernels` built, booted: expected counts against the kernel's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonvma.base.errors import RunError
from anonvma.compare import changes, cost_bound, counts
from anonvma.run import processors, runs
from anonvma.study import pair
from anonvma.tables import faults


def test_what_a_boot_runs() -> None:
    def names(plan: pair.Plan, boot: int) -> list[str]:
        return [name for name, _ in pair._loads(plan, "early", boot)]

    plan = pair.Plan(cpus=2)
    assert (plan.reading.threads, plan.reading.bytes) == (8, 256 << 20)
    assert names(plan, 1) == ["early-small-allocs-mt-1", "early-anon-w-seq-mt-1"]
    assert names(pair.Plan(cpus=2, profile=True), 1)[2:] == ["early-specimens-1", "early-profile-1"]
    assert names(plan, 2) == ["early-small-allocs-mt-2"]
    every = pair.Plan(cpus=1, traced=2, profile=True, also=("scaling", "bound"))
    assert names(every, 2) == [
        "early-small-allocs-mt-2", "early-anon-w-seq-mt-2", "early-profile-2",
        "scaling-early-t1-2", "scaling-early-t2-2", "scaling-early-t4-2", "scaling-early-t8-2",
        "bound-early-user-2", "bound-early-kernel-2",
    ]  # fmt: skip
    loads = {load.workload.touch for _, load in pair._loads(every, "early", 3)}
    assert loads == {None, "user", "kernel"}


@pytest.mark.parametrize("cpus", [1, 2, 3, 7, 64])
def test_bytes_divide_for_any_number_of_cpus(cpus: int) -> None:
    plan = pair.Plan(cpus=cpus, also=("scaling",))
    for _, load in pair._loads(plan, "early", 1):
        assert load.workload.parameters  # which its making has checked


def test_a_plan_that_cannot_be_is_refused() -> None:
    for wrong in ({"boots": 0}, {"budget_s": 0}, {"precision": 1.0}):
        with pytest.raises(RunError):
            pair.Plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("boots", "spent", "wide", "enough"),
    [(2, 999, 0.01, False), (3, 1, 0.2, False), (3, 1, 0.09, True), (3, 200, 0.2, True)],
)
def test_boots_go_on_until_the_ratio_is_known_or_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    boots: int, spent: float, wide: float, enough: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(pair, "width", lambda *words: wide)
    plan = pair.Plan(budget_s=130)
    assert pair._enough(plan, {}, tmp_path, boots, spent) is enough
    assert pair._enough(pair.Plan(boots=5), {}, tmp_path, 5, 0.0)
    assert not pair._enough(pair.Plan(boots=5), {}, tmp_path, 4, 9999.0)


def test_without_the_kernels_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    with pytest.raises(RunError, match="run 'make kernels' first"):
        pair.kernels()


@pytest.mark.kernels
def test_counts_are_those_worked_out_beforehand(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On fresh boots: reading, writing, and both locks by who touches a page first."""
    plan = pair.Plan(boots=1, cpus=2, also=("bound",))
    made = pair.collect_pair(pair.kernels(), tmp_path, plan)
    assert len(made) == 2 * (2 + 2)
    found = counts.expected(made).set_index("run")
    pages, mappings = 65536, 8 * 820
    assert found.loc["early-small-allocs-mt-1", "aborts expected"] == pages
    assert found.loc["early-small-allocs-mt-1", "mappings"] == mappings
    assert found.loc["early-anon-w-seq-mt-1", "aborts expected"] == 8 * 52
    for kernel in ("early", "delayed"):
        rows = found[found["regime"] == kernel]
        assert rows["faults more"].between(0, 100).all()
    # The counters are the machine's, and the programs of the guest fault too: on the delayed
    # kernel three times in some boots and never in others, alike in each run of a boot. What the
    # kernel touches first never tries the VMA's lock.
    by_task = found[[not name.startswith("bound") or "-user-" in name for name in found.index]]
    assert by_task["aborts more"].between(0, 100).all()
    for kernel in ("early", "delayed"):
        aborts = found.loc[f"bound-{kernel}-kernel-1", "aborts counted"]
        assert 0 <= aborts < 100
    # The workload's own, traced, with nobody else's among them.
    for load, bare in (("small-allocs-mt", pages), ("anon-w-seq-mt", 8 * 52)):
        traced = faults.prediction(
            {
                kernel: [runs.find(tmp_path / f"{kernel}-{load}-1")]
                for kernel in ("early", "delayed")
            }
        ).set_index("kernel")
        assert traced["predicted"].between(bare, bare + 10).all()
        assert traced.loc["early", "to mmap_lock"] == traced.loc["early", "predicted"]
        assert traced.loc["delayed", "to mmap_lock"] == 0
    # What a boot costs in throughput is told, and no test of counts.
    with capsys.disabled():
        sides = {k: runs.find_all(f"{tmp_path}/{k}-small*") for k in ("early", "delayed")}
        print("", *changes.primary_said(changes.primary_rows(sides), "early"), sep="\n")
        print(
            *processors.said(sides),
            *cost_bound.sentences(cost_bound.of_directory(tmp_path)),
            sep="\n",
        )
    # What is there already is not run again.
    assert pair.collect_pair(pair.kernels(), tmp_path, plan) == []
