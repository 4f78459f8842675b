# SPDX-License-Identifier: GPL-2.0-only
"""vmaprobe time: where the time of tasks goes, beside other clocks and counts of the same."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tracing import demand, on_demand, one_sentence, require, tracing
from waiting import PATIENCE

from anonvma.base.errors import FaultsError
from anonvma.collect.tracing import workload_processes
from anonvma.collect.workload import Workload
from anonvma.collect.workload_output import parse_throughput
from anonvma.probe.time_file import LOCKS, Times, read
from anonvma.run.vocabulary import CONTEXTS, CPUS

TICK = 10_000_000  # ns: what the scheduler's accounts may lag behind, for each task
SMALL = Workload(workload="small-allocs-mt", threads=4, bytes="16m", unit="40k")


Trace = Callable[..., tuple[Times, bytes]]


@pytest.fixture
def trace(build: Path, tmp_path: Path) -> Trace:
    def traced(*command: str | Path) -> tuple[Times, bytes]:
        """Trace a command, and see that what is told of it is consistent."""
        words = [build / "vmaprobe", "time", "--output", tmp_path / "times", "--", *command]
        done = subprocess.run(words, capture_output=True, timeout=PATIENCE)
        require(done)
        assert done.returncode == 0, done.stderr
        text = (tmp_path / "times").read_bytes()
        mine = workload_processes(check(text).processes, Path(command[0]).name)
        return read(text, mine), done.stdout

    return traced


def check(text: bytes) -> Times:
    found = read(text)
    assert not any(found.losses.values()), found.losses
    states = json.loads(text)["cells"]
    for cell in states:
        assert cell["context"] in CONTEXTS and cell["lock"] in LOCKS and cell["cpu"] in CPUS
        assert 0 < cell["ns"] <= 1 << 62
    totals = found.totals
    assert totals["faults_ended"] <= totals["faults_begun"]
    # By the scheduler's own accounts; tasks that go on are told to the last tick.
    lag = TICK * (totals["tasks"] + len(found.processes))
    assert abs(totals["ran_ns"] - totals["exec_ns"]) <= lag + totals["exec_ns"] // 20
    if totals["run_delay_ns"] is not None:
        assert totals["run_delay_ns"] == pytest.approx(totals["queued_ns"], rel=0.05, abs=lag)
    return found


def spent(found: Times, **wanted: str) -> int:
    table = found.times
    for column, value in wanted.items():
        table = table[table[column] == value]
    return int(table["ns"].sum())


def test_times_add_up_to_the_workloads_own_clock(trace: Trace, build: Path) -> None:
    found, said = trace(*SMALL.argv(str(build / "vmload")))
    totals = found.totals
    clock = 1000 * sum(row["usecs"] for row in parse_throughput(said))
    known = found.times["ns"].sum() + totals["before_ns"] + totals["tracer_ns"]
    assert totals["in_window"] and totals["tasks"] == 4
    # Between reading its clock and its mark a task may be kept from its CPU, on a busy machine.
    assert 0.5 * clock < known < 1.02 * clock
    # Every mapping and every fault of the work, and nothing else.
    assert totals["mmaps"] == SMALL.expected_vmas and totals["munmaps"] == 0
    assert totals["faults_begun"] == totals["faults_ended"] == SMALL.expected_pages
    assert totals["faults_charged"] == SMALL.expected_pages
    contexts = set(found.times["context"])
    assert {"user", "fault", "mmap"} <= contexts <= {"user", "fault", "mmap", "other call"}
    # mmap() takes it for writing, and each of its CPUs was somebody's, or nobody's.
    assert spent(found, context="mmap", lock="writing") > 0
    cpus = sum(totals[f"cpu_{who}_ns"] for who in ("traced", "others", "idle"))
    assert cpus == pytest.approx(totals["cpus"] * totals["window_ns"], rel=0.05)


@pytest.mark.parametrize(("who", "context"), [("user", "fault"), ("kernel", "kernel fault")])
def test_faults_count_as_what_takes_them(trace: Trace, build: Path, who: str, context: str) -> None:
    found, _ = trace(*SMALL.argv(str(build / "vmload")), "--touch", who)
    assert found.totals["faults_ended"] == SMALL.expected_pages
    # A fault of kernel mode never takes a VMA's own lock.
    assert spent(found, context=context) > 0
    assert (spent(found, lock="reading") > 0) == (who == "kernel")
    if who == "kernel":
        assert spent(found, context="fault") == 0
        assert spent(found, context="kernel fault", lock="waiting") > 0


def test_sleep_is_sleep(trace: Trace) -> None:
    found, _ = trace("sleep", "0.5")
    asleep = spent(found, context="other call", lock="none", cpu="sleeping")
    assert asleep >= 500_000_000
    ended = found.header["ended_ns"] - found.header["begun_ns"]
    assert not found.totals["in_window"] and asleep <= ended


def test_the_time_of_children_is_told(trace: Trace) -> None:
    found, _ = trace("bash", "-c", "for i in 1 2 3; do (sleep 0.2) & done; wait")
    assert spent(found, cpu="sleeping") > 3 * 200_000_000  # bash waits, too, if not as long
    assert found.totals["tasks"] >= 4


def test_waits_for_mmap_lock(trace: Trace, odd_faults: Path) -> None:
    found, _ = trace(odd_faults, "contention", "4", "3000")
    assert spent(found, context="mmap", lock="waiting") > 0
    assert spent(found, context="munmap", lock="waiting") > 0
    assert found.totals["mmaps"] >= 3000 and found.totals["munmaps"] >= 3000


@pytest.mark.parametrize("kind", ["guarded", "copied", "thread-execs", "leader-exits", "vfork"])
def test_odd_processes_are_followed(trace: Trace, odd_faults: Path, kind: str) -> None:
    """Faults that fail or are refused, a thread that becomes another program, and such."""
    found, _ = trace(odd_faults, kind, "100")
    assert found.totals["faults_begun"] >= 100


def test_a_process_that_runs_already(build: Path, odd_faults: Path) -> None:
    with (
        on_demand(odd_faults, 2, 50) as process,
        tracing(build, "time", "--pid", str(process.pid)) as probe,
    ):
        for _ in range(3):
            demand(process)
        probe.send_signal(signal.SIGINT)
        told, said = probe.communicate(timeout=PATIENCE)
    assert (probe.returncode, said) == (0, b"")
    found = check(told)
    assert found.totals["faults_ended"] >= 100
    # It slept when it was named, in what is not known until that ends.
    assert spent(found, context="unknown", cpu="sleeping") > 0


def test_who_else_has_the_cpus(trace: Trace) -> None:
    """Two tasks of one CPU: what one waits while the other runs is told as that."""
    pin = ["taskset", "-c", "0"]
    spin = [*pin, "sh", "-c", "while :; do :; done"]
    alone = [*pin, "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]
    with subprocess.Popen(spin) as other:
        try:
            found, _ = trace(*alone)
        finally:
            other.kill()
    times = Counter(dict(found.times.groupby("cpu")["ns"].sum()))
    behind = times["preempted, behind others"] + times["woken, behind others"]
    waited = behind + times["preempted"] + times["woken"]
    assert behind > waited / 2 > 0
    assert times["running"] > 0 and found.totals["cpu_others_ns"] >= behind * 0.9


def test_bad_words_and_damaged_times(build: Path) -> None:
    done = subprocess.run([build / "vmaprobe", "time"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 2
    one_sentence(done.stderr, b"time needs --pid PID or -- COMMAND")
    good: dict[str, Any] = {"cells": [], "sums": []}
    for text, said in (
        (b"{", "not whole JSON"),
        (b"[]", "not what vmaprobe writes"),
        (json.dumps(good).encode(), "damaged"),
    ):
        with pytest.raises(FaultsError, match=said):
            read(text)
