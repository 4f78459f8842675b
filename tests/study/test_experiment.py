# SPDX-License-Identifier: GPL-2.0-only
"""Experiments: order, when to stop, and going on. A real one is in test_compare.py."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from waiting import until

from anonvma.base.errors import RunError, WorkloadError
from anonvma.cli import main
from anonvma.compare import conditions, design
from anonvma.run import runs
from anonvma.study import experiment

SHARED = {"workload": "small-allocs-mt", "threads": 2, "bytes": "16m", "unit": None}


def plan(**changed: Any) -> design.Plan:
    each = [experiment.parse_condition(f"{name}=local", SHARED) for name in ("a", "b")]
    return design.Plan(**{"conditions": each, **changed})


def test_abba_weighs_a_drift_on_all_alike() -> None:
    names = ["a", "b", "c"]
    orders = [experiment.order(names, block) for block in (1, 2, 3)]
    assert orders == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]
    places = {name: sum(3 * b + orders[b].index(name) for b in (0, 1)) for name in names}
    assert len(set(places.values())) == 1


def test_random_order_is_the_seeds_and_no_other() -> None:
    names = ["a", "b", "c"]
    drawn = [tuple(experiment.order(names, block, "random", 7)) for block in range(1, 301)]
    again = [tuple(experiment.order(names, block, "random", 7)) for block in range(1, 301)]
    assert drawn == again
    assert drawn != [tuple(experiment.order(names, n, "random", 8)) for n in range(1, 301)]
    counts = Counter(drawn)
    assert len(counts) == 6 and min(counts.values()) > 25  # of 50 each


def test_conditions_are_read() -> None:
    text = "wide=guest:x/bzImage,cpus=4;unit=80k;busy=2;threads=4"
    found = experiment.parse_condition(text, SHARED)
    assert found.name == "wide" and found.target == "guest:x/bzImage,cpus=4" and found.busy == 2
    assert (
        experiment.workload_of(found).unit == 80 << 10
        and experiment.workload_of(found).threads == 4
    )
    command = experiment.parse_condition("c=local;workload=true --x=1", SHARED)
    assert command.parameters == {"workload": "true --x=1"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("local", "is not NAME=TARGET"),
        ("A=local", "is not NAME=TARGET"),
        ("a/b=local", "is not NAME=TARGET"),
        ("a=", "is not NAME=TARGET"),
        ("a=local;colour=red", "'colour' is not known"),
        ("a=local;threads=2;threads=3", "'threads' is given twice"),
        ("a=local;busy=many", "busy is 'many'"),
        ("a=local;busy=100", "busy"),
    ],
)
def test_a_condition_that_is_none_is_one_sentence(text: str, why: str) -> None:
    with pytest.raises(RunError, match=why):
        experiment.parse_condition(text, SHARED)


def test_a_plan_that_is_none_is_one_sentence() -> None:
    with pytest.raises(WorkloadError, match="threads"):
        experiment.parse_condition("a=local;threads=0", SHARED)
    with pytest.raises(RunError, match="precision"):
        plan(precision=2.0)
    with pytest.raises(RunError, match="two conditions are called 'a'"):
        plan(conditions=[experiment.parse_condition("a=local", SHARED)] * 2)
    with pytest.raises(RunError, match="conditions"):
        plan(conditions=[])
    done = CliRunner().invoke(main, ["experiment", "x", "--condition", "a=local"])
    assert done.exit_code == 2 and "at least two" in done.output


# ---- when to stop ----


def stopped(wanted: design.Plan, widths: list[float | None], block: int, spent: float) -> Any:
    state = {"intervals": [{"half_width": width} for width in widths], "spent_s": spent}
    work = experiment._Work(wanted, Path(), state, True, lambda text: None)
    return work._reason(block)


def test_it_stops_when_tight_when_made_and_when_time_is_up() -> None:
    wanted = plan(precision=0.02, least=3, most=6, budget_s=100.0)
    assert stopped(wanted, [0.05], 3, 10) is None
    assert stopped(wanted, [0.019], 3, 10) == "tight"
    assert stopped(wanted, [0.001], 2, 10) is None  # three blocks in any case
    assert stopped(wanted, [0.001, 0.05], 4, 10) is None  # every ratio
    assert stopped(wanted, [None], 4, 10) is None
    assert stopped(wanted, [], 1, 1000) is None
    assert stopped(wanted, [0.05], 3, 100) == "time"
    assert stopped(wanted, [0.05], 6, 10) == "runs"
    assert stopped(plan(most=2), [0.05], 2, 10) == "runs"


def test_it_says_why_it_stopped() -> None:
    wanted = json.loads(plan(precision=0.02, order="random", seed=9, budget_s=60).model_dump_json())
    state = {"plan": wanted, "blocks": 4, "intervals": [{"half_width": 0.013}]}
    told = {why: design.said({**state, "stopped": why}) for why in ("tight", "runs", "time")}
    assert "4 blocks of 2 conditions in an order drawn for each block (seed 9)" in told["tight"]
    assert (
        "tight enough: the ratio of the primary metric is known to ±1.3 %, 2 % was asked"
        in told["tight"]
    )
    assert "its 10 blocks were made" in told["runs"] and "its 60 s were spent" in told["time"]
    nothing = {**state, "intervals": [{"half_width": None}], "stopped": None}
    assert design.said(nothing).endswith("It has not ended yet.")


# ---- its file ----


def test_going_on_takes_what_is_there_and_more_of_it(tmp_path: Path) -> None:
    first = plan(most=3)
    state = experiment._resumed(first, tmp_path)
    experiment._write(tmp_path, {**state, "order": ["a-1"], "spent_s": 5.0})
    again = experiment._resumed(plan(most=9, precision=0.01), tmp_path)
    assert again["order"] == ["a-1"] and again["plan"]["most"] == 9 and again["spent_s"] == 5
    with pytest.raises(RunError, match="another experiment \\(its seed differs\\)"):
        experiment._resumed(plan(seed=2), tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"plan": {"conditions": 3}}', "\x00"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        design.read(tmp_path)


def test_runs_are_told_from_warm_ups_and_from_others(tmp_path: Path) -> None:
    experiment._write(tmp_path, experiment._resumed(plan(), tmp_path))
    source = runs.find("early-small-allocs-mt-1").path
    for name in ("a-1", "a-2", "a-10", "b-1", "warm-up-1-a", "a-x", "ab-1", "a-1.partial"):
        os.symlink(source, tmp_path / name)
    found = design.paths_of(tmp_path, "a")
    assert [path.name for path in found] == ["a-1", "a-2", "a-10"]
    (tmp_path / "b-1").unlink()
    with pytest.raises(RunError, match="condition 'b' has no run yet"):
        design.conditions(tmp_path)
    with pytest.raises(RunError, match="holds no experiment"):
        design.conditions(tmp_path / "nowhere")


def test_runs_that_did_not_take_turns_are_told() -> None:
    turns, said = design.interleaving(
        conditions.find(["early=early-small-allocs-mt-*", "delayed=delayed-small-allocs-mt-*"])
    )
    assert turns and "turns: early, delayed, delayed, early, early, delayed, " in said
    turns, said = design.interleaving(conditions.find(["then=other-again-*", "now=other-plain-*"]))
    assert not turns and "All runs of then were made before those of now" in said


# ---- a neighbour ----


def test_neighbours_burn_while_the_block_runs_and_not_after() -> None:
    def burning() -> list[str]:
        listed = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True
        )
        return [line.split()[0] for line in listed.stdout.splitlines() if "getppid" in line]

    with experiment._busy(2):
        pids = burning()
        assert len(pids) == 2
        spent = [_ticks(pid) for pid in pids]
        until(lambda: all(_ticks(pid) > s for pid, s in zip(pids, spent, strict=True)))
    assert burning() == []


def _ticks(pid: str) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
