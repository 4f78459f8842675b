# SPDX-License-Identifier: GPL-2.0-only
"""The lock path as an experiment: its numbers by hand, its error rate, and the real thing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import run_here

from anonvma.base.errors import ParameterError
from anonvma.compare import cost, cost_bound
from anonvma.compare.cost import Verdict
from anonvma.report import cost_report
from anonvma.run.manifest import Command
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, to_table
from anonvma.study import cost_experiment
from anonvma.target.local import Local
from anonvma.target.target import Target

PAGE = os.sysconf("SC_PAGE_SIZE")
ANONVMA = Path(sys.executable).with_name("anonvma")


def rows_of(speeds: dict[int, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Rows of the table lock_cost with these throughputs, by threads and way."""
    nothing = dict.fromkeys(cost.USAGE, 0)
    return [
        {"repeat": block, "threads": threads, "way": way, "bytes": 64 << 20, "mib_per_s": speed}
        | nothing
        | {"voluntary_ctxt": 800 if way == "kernel" else 9}
        for threads, ways in speeds.items()
        for way, each in ways.items()
        for block, speed in enumerate(each, 1)
    ]


def waits_of(threads: int, acquired: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of the table lock_waits where page faults acquired mmap_lock so often, by way."""
    shared = {"repeat": 1, "threads": threads, "mean_ns": 0.0, "longest_ns": 0, "lost": 0}
    return [
        {**shared, "way": way, "caller": caller, "mode": mode, "acquisitions": float(count),
         "contended": 0.0, "wait_ms": wait}
        for way, faults in acquired.items()
        for caller, mode, count, wait in (
            ("page fault", "read", faults, faults / 1e4), ("mmap", "write", 1639, 0.3),
            ("brk", "write", 5, 0.0001), ("exit", "write", 2, 0.0001),
        )
    ]  # fmt: skip


def run_of(
    directory: Path, rows: list[dict[str, Any]], waits: list[dict[str, Any]] | None = None
) -> Run:
    tables = {"lock_cost": to_table(rows, SCHEMAS["lock_cost"])}
    if waits:
        tables["lock_waits"] = to_table(waits, SCHEMAS["lock_waits"])
    with RunWriter(directory, "cost") as writer:
        return writer.finish(
            tables,
            {
                "target": {"cpus": 2, "kernel_release": "6.18.0", "page_size": 4096},
                "workload": Command(name="small-allocs-mt", argv=["vmload"]),
                "parameters": {"cpus": None},
                "repeats": 3,
                "features": {},
                "unobserved": [],
                "losses": {},
                "notes": [],
            },
        )


SLOWER = {
    1: {"user": [110, 112, 108, 110], "kernel": [100, 101, 99, 100]},
    2: {"user": [200, 202, 198, 200], "kernel": [100, 101, 99, 100]},
    4: {"user": [205, 195, 202, 198], "kernel": [90, 91, 89, 90]},
}
PAGES = (64 << 20) // 4096


def test_numbers_of_threads() -> None:
    assert cost_experiment.numbers_of_threads(1) == (1, 2)
    assert cost_experiment.numbers_of_threads(2) == (1, 2, 4)
    assert cost_experiment.numbers_of_threads(6) == (1, 2, 4, 6, 8, 12)
    assert cost_experiment.numbers_of_threads(200)[-3:] == (200, 256, 400)


def test_the_ratio_and_its_verdict(tmp_path: Path) -> None:
    run = run_of(tmp_path, rows_of(SLOWER), waits_of(2, {"user": 10, "kernel": PAGES + 10}))
    found = cost.of_run(run)
    assert (found.verdict, found.judged, found.pages) == (Verdict.SLOWER, 2, PAGES)
    assert found.table.loc[2, "ratio"] == pytest.approx(2.0)
    assert found.table.loc[2, "low"] < 2 < found.table.loc[2, "high"]
    assert found.acquired == {"user": 10, "kernel": PAGES + 10} and found.paths_differ
    assert found.voluntary == {"user": 9, "kernel": 800}
    words = " ".join(cost_report.sentences(found))
    for number in ("have 2 times", "n = 4", "become 800", f"{PAGES:,} pages", "ratio is 1.10 ("):
        assert number in words


def test_other_verdicts(tmp_path: Path) -> None:
    def verdict(user: list[float], kernel: list[float]) -> Verdict:
        return cost.of_run(run_of(tmp_path, rows_of({2: {"user": user, "kernel": kernel}}))).verdict

    assert verdict([100, 101, 99], [200, 202, 198]) is Verdict.FASTER
    assert verdict([100, 120, 80], [101, 119, 81]) is Verdict.NOT_SHOWN
    assert verdict([100, 101], [50, 51]) is Verdict.TOO_FEW
    assert verdict([100], [50]) is Verdict.TOO_FEW


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("acquired", [None, {"user": 9, "kernel": 20000}, {"user": 0, "kernel": 0}])
@pytest.mark.parametrize("other", ["kernel", cost.AGAIN])
def test_there_are_words_for_everything(
    tmp_path: Path, verdict: Verdict, acquired: dict[str, int] | None, other: str
) -> None:
    speeds = {
        Verdict.SLOWER: ([100.0, 101, 99], [50.0, 51, 49]),
        Verdict.FASTER: ([50.0, 51, 49], [100.0, 101, 99]),
        Verdict.NOT_SHOWN: ([100.0, 101, 99], [100.0, 102, 98]),
        Verdict.TOO_FEW: ([100.0], [50.0]),
    }[verdict]
    rows = rows_of({3: {"user": speeds[0], other: speeds[1]}})
    waits = waits_of(3, {"user": acquired["user"], other: acquired["kernel"]}) if acquired else None
    run = run_of(tmp_path, rows, waits)
    assert cost.of_run(run).verdict is verdict
    for section in cost_report.sections(run):
        assert all(words and "nan" not in words for words in section.paragraphs)


def test_where_both_ways_take_mmap_lock_the_ratio_is_not_its_cost(tmp_path: Path) -> None:
    """As on a kernel with the early check, or without per-VMA locks."""
    run = run_of(tmp_path, rows_of(SLOWER), waits_of(2, {"user": PAGES, "kernel": PAGES}))
    assert cost.of_run(run).paths_differ is False
    assert any(
        "not the cost of that lock" in words for words in cost_report.sentences(cost.of_run(run))
    )


def test_who_waits_adds_up(tmp_path: Path) -> None:
    acquired = {"user": 10, "kernel": PAGES}
    run = run_of(tmp_path, rows_of(SLOWER), waits_of(2, acquired))
    table, raw = cost.waits(run), run.table("lock_waits")
    assert set(table["caller"]) == {"page fault (read)", "mmap (write)", "others"}
    for way in acquired:
        assert (
            table.loc[table["way"] == way, "acquired"].sum()
            == raw.loc[raw["way"] == way, "acquisitions"].sum()
        )


def test_nothing_compared_with_nothing_claims_no_more_than_stated() -> None:
    """300 experiments in which nothing differs: any number of threads may claim, 5 % together."""
    rng = np.random.default_rng(20240426)
    experiments, claims = 300, 0
    for _ in range(experiments):
        speeds = {n: dict(zip(("user", cost.AGAIN), rng.normal(100, 8, (2, 6)), strict=True))
                  for n in (1, 2, 4)}  # fmt: skip
        table = cost.ratios(pd.DataFrame(rows_of(speeds)))  # type: ignore[arg-type]
        claims += bool(((table["low"] > 1) | (table["high"] < 1)).any())
    # 15 are expected at most; 27 are three standard deviations more.
    assert 1 <= claims <= 27


def test_stopping_when_it_is_narrow_claims_no_more(build: Path, tmp_path: Path) -> None:
    """Twenty experiments, user against user, each as long as its intervals are wide."""
    rng = np.random.default_rng(20240427)
    plan = cost_experiment.Plan(against="user", precision=0.06, budget_s=1e9)
    claims, blocks = 0, set()
    for _ in range(20):
        work = cost_experiment._Experiment(None, plan, tmp_path, lambda share, text: None)  # type: ignore[arg-type]
        work.threads = (1, 2, 4)
        work._execute = lambda threads, way: {  # type: ignore[method-assign]
            "threads": threads, "way": way, "mib_per_s": rng.normal(100, 6),
        }  # fmt: skip
        work.compare()
        table = cost.ratios(pd.DataFrame(work.rows))
        claims += bool(((table["low"] > 1) | (table["high"] < 1)).any())
        blocks.add(work.blocks)
    # One is expected at most; 4 are three standard deviations more.
    assert claims <= 4 and len(blocks) > 3


def test_the_bound_is_that_of_the_recorded_pair(tmp_path: Path) -> None:
    bound = cost_bound.recorded()
    assert bound and bound.tasks == 8
    path, check, between = bound.lock_path, bound.early_check, bound.between
    assert between.ratio == pytest.approx(check.ratio / path.ratio)
    assert path.low < path.ratio < path.high and between.low < between.ratio < between.high
    # The check sends the same faults to the same lock, and looks at more before it does.
    assert check.ratio > 1 and path.ratio > 1
    (told,) = cost_bound.sentences(bound)
    assert told in cost_report.sentences(cost.of_run(run_of(tmp_path, rows_of(SLOWER))))
    assert "2 virtual CPUs on 2 real" in told


def test_a_plan_that_cannot_be_is_refused(build: Path) -> None:
    for wrong in (
        {"workload": "small-alocs-mt"}, {"threads": ()}, {"threads": (0,)}, {"budget_s": 0},
        {"precision": 1.5}, {"least": 1},
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            cost_experiment.Plan(**wrong)  # type: ignore[arg-type]


# ---- the real thing ----


def measured(target: Target, directory: Path, **plan: Any) -> Run:
    """An experiment as short as can be; how long that takes is the machine's business."""
    plan = {"threads": (1, 3), "budget_s": 0.001, **plan}
    return cost_experiment.measure(target, cost_experiment.Plan(**plan), out=directory)


def test_on_this_machine(build: Path, tmp_path: Path) -> None:
    with Local() as here:
        run = measured(here, tmp_path)
    found = cost.of_run(Run.open(run.path))
    rows = run.table("lock_cost")
    assert rows.groupby(["threads", "way"]).size().to_dict() == {
        (threads, way): 3 for threads in (1, 3) for way in ("user", "kernel")
    }
    # Nothing differs but the lock: as many bytes, and as many faults but for those of starting.
    assert rows.groupby("threads")["bytes"].nunique().eq(1).all()
    pages = rows["bytes"] / PAGE
    assert (rows["minor_faults"] - pages).between(0, 500).all()
    assert found.paths_differ and found.acquired
    assert found.acquired["user"] < 100 and 0 <= found.acquired["kernel"] - found.pages < 100
    assert [path.name for path in tmp_path.iterdir()] == [run.id]


def test_the_command_tells_every_value(build: Path, tmp_path: Path) -> None:
    figure = tmp_path / "cost.png"
    words = ["cost", "--threads", "1,2", "--budget", "0.001", "--against", "user", "--json"]
    done = subprocess.run(
        [ANONVMA, *words, "--figure", figure], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert len(told["lock_cost"]) == 2 * 2 * 3 and told["lock_paths_differ"] is None
    assert {row["way"] for row in told["lock_cost"]} == {"user", cost.AGAIN}
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--threads", "1,x"], "1,x"),
        (["--workload", "small-alocs-mt"], "small-alocs-mt"),
        (["--budget", "0"], "budget"),
        (["--cpus", "9999-1"], "--cpus"),
    ],
)
def test_mistakes_are_told_in_a_sentence(build: Path, words: list[str], part: str) -> None:
    done = run_here("cost", *words)
    assert done.returncode in (1, 2) and part in done.stderr


def test_interrupted_it_leaves_nothing(build: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ANONVMA_RUNS": str(tmp_path)}
    with subprocess.Popen(
        [ANONVMA, "cost", "--budget", "600", "--threads", "2"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (vmloads := _children(process.pid)):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130, told
    assert not any(Path(f"/proc/{pid}").exists() for pid in vmloads)
    assert not list(tmp_path.glob("*cost*"))


def _children(pid: int) -> list[int]:
    """The processes below one that are vmload."""
    below = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        below.append((int(stat.parent.name), int(rest.split()[1]), name))
    wanted = {pid}
    for _ in below:
        wanted |= {child for child, parent, _ in below if parent in wanted}
    return [child for child, _, name in below if child in wanted and name == "vmload"]
