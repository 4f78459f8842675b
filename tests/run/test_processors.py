# SPDX-License-Identifier: GPL-2.0-only
"""Processors behind a guest's, and what becomes of a comparison when there are too few."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from made import MadeRun
from matplotlib.figure import Figure

from anonvma.base.errors import RunError
from anonvma.compare import changes, conditions, overcommitment
from anonvma.report import changes as report_changes
from anonvma.report import comparison
from anonvma.run import processors, runs
from anonvma.run.processors import Backing
from anonvma.run.runs import Run

OVER = ["early=over-early-8-*", "delayed=over-delayed-8-*"]


def on(target: dict[str, Any]) -> Run:
    """A recorded run, as if it had been made on another machine."""
    run = runs.find("early-small-allocs-mt-1")
    update = {"target": {**run.manifest.target, "real_cpus": None, **target}}
    return Run(run.path, run.manifest.model_copy(update=update))


@pytest.mark.parametrize(
    ("target", "backing"),
    [
        ({"cpus": 2, "real_cpus": 2, "qemu_threads": "multi"}, Backing.REAL),
        ({"cpus": 2, "real_cpus": 64, "qemu_threads": "multi"}, Backing.REAL),
        ({"cpus": 8, "real_cpus": 2, "qemu_threads": "multi"}, Backing.OVERCOMMITTED),
        ({"cpus": 8, "real_cpus": 8, "qemu_threads": "single"}, Backing.TURNS),
        ({"cpus": 2, "accel": "tcg"}, Backing.TURNS),
        ({"cpus": 2, "accel": "kvm"}, Backing.UNKNOWN),
        ({"cpus": 2, "qemu_threads": "multi"}, Backing.UNKNOWN),
    ],
)
def test_what_stands_behind_virtual_cpus(target: dict[str, Any], backing: Backing) -> None:
    run = on({"qemu_threads": None, **target})
    found = processors.of_run(run)
    assert found and (found.virtual, found.backing) == (target["cpus"], backing)
    (told,) = processors.said({"a": [run], "b": [run, run]})
    assert str(target["cpus"]) in told and not told.startswith("a")


def test_no_guest_has_none() -> None:
    assert processors.of_run(on({"kind": "local"})) is None
    assert processors.said({"a": [on({"kind": "local"})]}) == []


def test_conditions_that_differ_are_named() -> None:
    two = on({"cpus": 2, "real_cpus": 2, "qemu_threads": "multi"})
    eight = on({"cpus": 8, "real_cpus": 2, "qemu_threads": "multi"})
    told = processors.said({"two": [two], "eight": [eight]})
    assert [sentence.split(":")[0] for sentence in told] == ["two", "eight"]
    with pytest.raises(RunError, match="differ in their machine: cpus is 2 and 8"):
        conditions.check({"two": [two], "eight": [eight]})


def test_the_primary_metric_of_overcommitted_guests_says_so() -> None:
    sides = conditions.find(OVER)
    (told,) = processors.said(sides)
    assert told.startswith("Overcommitted: 8 virtual CPUs on 2 real")
    assert told in report_changes.sections(sides)[0].paragraphs[0]
    row = changes.primary_rows(sides).iloc[0]
    if row["verdict"] in ("higher", "lower"):
        assert comparison.finding(sides).endswith("8 virtual CPUs on 2")
    own = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    assert "2 virtual CPUs on 2 real." in report_changes.sections(own)[0].paragraphs[0]


def by_level() -> dict[float, dict[str, list[Run]]]:
    names = ("early", "delayed")
    return overcommitment.levels(
        {
            name: [
                *runs.find_all(f"{name}-small-allocs-mt-*"), *runs.find_all(f"over-{name}-*")
            ]
            for name in names
        }
    )  # fmt: skip


def test_recorded_levels_and_their_ratios() -> None:
    found = by_level()
    assert list(found) == [1, 2, 4]
    table = overcommitment.ratios(found)
    assert table["virtual"].tolist() == [2, 4, 8] and set(table["real"]) == {2}
    for row in table.to_dict(orient="records"):
        assert row["ratio"] == pytest.approx(row["mean"] / row["base"])
    waits = overcommitment.waiting(found)
    assert len(waits) == 6 and (waits["n"] >= 1).all()
    shares = waits[["spinning", "asleep", "without a CPU", "at work"]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(100) and (shares >= 0).all(axis=None)
    told = overcommitment.said(found)
    assert len(told) == 4 and "spinning" in told[-1]
    assert [f"{ratio:.2g}" in words for ratio, words in zip(table["ratio"], told, strict=False)]
    ax = overcommitment.plot_ratios(found, Figure().subplots())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2 on 2", "4 on 2", "8 on 2"]


def test_shares_worked_out_by_hand() -> None:
    rows = [
        ("fault", "waiting", "running", 10), ("mmap", "waiting", "sleeping", 20),
        ("mmap", "waiting", "woken", 5), ("user", "none", "preempted", 15),
        ("user", "none", "running", 40), ("mmap", "writing", "sleeping", 10),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["context", "lock", "cpu", "ns"]).assign(repeat=1)
    found = overcommitment._shares(MadeRun({"time": table}))  # type: ignore[arg-type]
    assert found == {"spinning": 10, "asleep": 25, "without a CPU": 15}


def test_what_does_not_say_its_real_cpus_is_refused() -> None:
    with pytest.raises(RunError, match="does not say how many real CPUs"):
        overcommitment.levels({"a": [on({"cpus": 2, "qemu_threads": "multi"})]})
