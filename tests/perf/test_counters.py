# SPDX-License-Identifier: GPL-2.0-only
"""The rows of perf stat by hand-worked numbers, and what perf stat itself writes in any format."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import recordings

from anonvma.collect.importing import import_files
from anonvma.perf import counters, formulas, stat_file
from anonvma.run import runs
from anonvma.run.runs import Run

# As perf 6.1 prints it on a machine with counters: 2 s in two whole intervals and a short last one.
# cache-misses shared their counter and were counted for a quarter of the time.
COLUMNS = ("cycles", "instructions", "cache-references", "cache-misses", "branches")
INTERVALS = (
    (1.0, (2_000_000, 1_000_000, 40_000, 10_000, 200_000)),
    (2.0, (4_000_000, 3_000_000, 60_000, 20_000, 600_000)),
    (2.1, (999, 333, 30, 10, 100)),
)


def line(seconds: float | None, event: str, value: object, share: float = 100.0) -> str:
    when = "" if seconds is None else f'"interval" : {seconds:.9f}, '
    return (
        f'{{{when}"counter-value" : "{value}", "unit" : "", "event" : "{event}", '
        f'"event-runtime" : 1000000, "pcnt-running" : {share:.2f}, "metric-value" : 0.000000, '
        '"metric-unit" : ""}'
    )


def output() -> str:
    lines = ["# started on Tue Nov 24 22:57:48 2026", ""]
    for seconds, values in INTERVALS:
        for event, value in zip(COLUMNS, values, strict=True):
            lines.append(line(seconds, event, f"{value}.000000", 25 if "misses" in event else 100))
        lines.append(line(seconds, "branch-misses", "<not counted>"))
        lines.append(line(seconds, "LLC-loads", "<not supported>"))
    return "\n".join(lines) + "\n"


Imported = Callable[[str], Run]


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    def take(text: str) -> Run:
        path = tmp_path / "stat.txt"
        path.write_text(text)
        return import_files([path], tmp_path / "runs")

    return take


def rows_of(run: Run) -> dict[str, float]:
    table = counters.metrics(run)
    assert table.dtypes.astype(str).to_dict() == {
        "repeat": "int64",
        "metric": "str",
        "value": "float64",
    }
    return dict(zip(table["metric"], table["value"], strict=True))


def test_rows_by_hand(imported: Imported) -> None:
    rows = rows_of(imported(output()))
    total = {"cycles": 6_000_999, "instructions": 4_000_333, "cache-misses": 30_010}
    for event, value in total.items():
        assert rows[f"perf-stat.total.{event}"] == value
        assert rows[f"perf-stat.ps.{event}"] == pytest.approx(value / 2.1)
    assert rows["perf-stat.overall.cpi"] == pytest.approx(6_000_999 / 4_000_333)
    assert rows["perf-stat.overall.ipc"] == pytest.approx(4_000_333 / 6_000_999)
    assert rows["perf-stat.overall.MPKI"] == pytest.approx(1000 * 30_010 / 4_000_333)
    assert rows["perf-stat.overall.cycles-between-cache-misses"] == pytest.approx(
        6_000_999 / 30_010
    )
    assert rows["perf-stat.overall.cache-miss-rate%"] == pytest.approx(100 * 30_010 / 100_030)
    # Means over the whole intervals: (2 M + 4 M) / 2 a second; (0.5 + 0.75) / 2.
    assert rows["perf-stat.i.cycles"] == pytest.approx(3_000_000)
    assert rows["perf-stat.i.ipc"] == pytest.approx(0.625)
    assert rows["perf-stat.i.cpi"] == pytest.approx((2 + 4 / 3) / 2)
    assert rows["perf-stat.i.cache-miss-rate%"] == pytest.approx((25 + 100 / 3) / 2)
    # What was not counted is not there, not 0.
    assert not [name for name in rows if "branch-miss" in name or "LLC" in name]


def test_ratios_by_hand() -> None:
    counts = {"dTLB-loads": 900.0, "dTLB-load-misses": 100.0, "cpu-cycles": 10.0}
    counts |= {"cpu/instructions/": 20.0, "branch-instructions": 50.0, "branch-misses": 5.0}
    counts |= {"iTLB-load-misses": 4.0, "cache-misses": 0.0}
    assert formulas.derived(counts) == {
        "cpi": 0.5,
        "ipc": 2.0,
        "MPKI": 0.0,
        "branch-miss-rate%": 10.0,
        "instructions-per-iTLB-miss": 5.0,
        "dTLB-load-miss-rate%": 10.0,
    }


@pytest.mark.parametrize(
    ("counts", "ratios"),
    [
        # Kinds of cores are added up, as the kernel test robot does it.
        ({"cpu_core/cycles/": 10, "cpu_atom/cycles/": 5,
          "cpu_core/instructions/": 20, "cpu_atom/instructions/": 2.5}, {"ipc": 1.5}),
        ({"armv8_cortex_a53/cycles/": 10, "armv8_cortex_a72/cycles/": 10,
          "armv8_cortex_a53/instructions/": 5, "armv8_cortex_a72/instructions/": 35}, {"ipc": 2}),
        # Not if one kind lacks an event of the ratio, or another unit has one of that name.
        ({"cpu_core/cycles/": 10, "cpu_atom/cycles/": 5, "cpu_core/instructions/": 20}, {}),
        ({"arm_dsu_0/cycles/": 10, "instructions": 20}, {}),
        ({"arm_dsu_0/cycles/": 99, "cycles": 10, "instructions": 20}, {"ipc": 2}),
        # Modes are kept apart.
        ({"instructions:u": 10, "cycles:u": 5, "cycles:k": 90}, {"ipc:u": 2}),
        ({"instructions": 10, "cycles:u": 5}, {}),
        ({"instructions:uk": 10, "cpu/cycles/ku": 5}, {"ipc:ku": 2}),
        ({"cpu_core/instructions/u": 10, "cpu_core/cycles:u/": 5}, {"ipc:u": 2}),
        # How precise an address is has to do with sampling; a second name counts the same.
        ({"instructions:pp": 10, "cycles:P": 5, "cpu-cycles": 7}, {"ipc": 2}),
        # A tracepoint's name has a colon, too.
        ({"sched:sched_switch": 3, "cycles": 5}, {}),
    ],
)  # fmt: skip
def test_ratios_are_of_counters_that_belong_together(
    counts: dict[str, float], ratios: dict[str, float]
) -> None:
    found = formulas.derived(counts)
    assert {name: ratio for name, ratio in found.items() if name.startswith("ipc")} == ratios
    turned = {name: 1 / ratio for name, ratio in found.items() if name.startswith("cpi")}
    assert {name.replace("cpi", "ipc"): ratio for name, ratio in turned.items()} == ratios


def test_a_ratio_of_one_mode_says_so(imported: Imported) -> None:
    text = "".join(
        line(None, event, value) + "\n"
        for event, value in (("cache-misses:u", 1), ("cache-references:u", 4), ("cycles:k", 7))
    )
    run = imported(text)
    assert rows_of(run)["perf-stat.overall.cache-miss-rate:u%"] == 25
    table = counters.absent(run).set_index("metric")
    assert table.loc["perf-stat.overall.cpi:k", "lacking"] == "instructions"


def test_cores_that_differ_are_said(imported: Imported) -> None:
    events = ("cpu_core/cycles/", "cpu_atom/cycles/", "cpu_core/instructions/")
    run = imported("".join(line(None, event, 5) + "\n" for event in events))
    table = counters.absent(run).set_index("metric")
    assert "same cores" in table.loc["perf-stat.overall.ipc", "reason"]


def test_a_multiplexed_counter_carries_its_share(imported: Imported) -> None:
    table = counters.counters(imported(output())).set_index("event")
    assert table.loc["cache-misses", "running_share"] == 0.25
    assert table.loc["cycles", "running_share"] == 1
    assert table.loc["cycles", "n"] == 1 and pd.isna(table.loc["cycles", "sd"])


def test_rows_that_cannot_be_say_why(imported: Imported) -> None:
    table = counters.absent(imported(output())).set_index("metric")
    rate = table.loc["perf-stat.overall.branch-miss-rate%"]
    assert rate["lacking"] == "branch-misses" and "never came to count" in rate["reason"]
    assert rate["formula"] == "100 * branch-misses / branches"
    assert "perf-stat.overall.cpi" not in table.index
    here = counters.absent(runs.find("small-allocs-mt")).set_index("metric")
    assert "does not offer" in here.loc["perf-stat.overall.ipc", "reason"]


def test_intervals_of_a_recorded_run() -> None:
    run = runs.find("small-allocs-mt")
    table = counters.intervals(run)
    faults = table[table["event"] == "page-faults"].groupby("repeat")["value"].sum()
    totals = run.table("perf_stat").set_index(["event", "repeat"])["value"]["page-faults"]
    # Two executions of the same.
    assert (faults / totals).between(0.999, 1.001).all()
    assert (table.groupby("repeat")["whole"].sum() > 0).all()
    assert (table["length"] > 0).all()
    assert counters.metrics(runs.find("early-specimens-1")).empty


# ---- what perf stat itself writes ----

EVENTS = "task-clock,page-faults,context-switches"
FORMATS = {"plain": [], "json": ["-j"], "fields": ["-x", ","], "semicolons": ["-x", ";"]}


@pytest.mark.parametrize("interval", [[], ["-I", "50"], ["-I", "50", "--summary"]])
@pytest.mark.parametrize("form", FORMATS)
def test_real_output_is_read(form: str, interval: list[str], tmp_path: Path) -> None:
    recordings.require_perf()
    path = tmp_path / "stat"
    words = ["perf", "stat", "-o", path, "-e", EVENTS, *FORMATS[form], *interval]
    busy = "x = [bytearray(4096) for _ in range(20000)]\nfor i in range(3000000): pass"
    subprocess.run([*words, "--", "/usr/bin/python3", "-c", busy], check=True)
    (found,) = stat_file.read(path.read_bytes())
    totals = {row["event"]: row for row in found.totals}
    assert set(totals) == set(EVENTS.split(","))
    assert totals["page-faults"]["value"] > 10_000
    assert totals["task-clock"]["value"] > 1 and totals["task-clock"]["unit"] == "msec"
    assert bool(found.intervals) == bool(interval)
    if interval:
        # On a busy machine nothing runs in some interval, and perf says that it counted nothing.
        faults = [row["value"] for row in found.intervals if row["event"] == "page-faults"]
        counted = sum(value for value in faults if value is not None)
        assert counted == pytest.approx(totals["page-faults"]["value"], rel=0.01)
        assert found.seconds and found.seconds >= found.intervals[-1]["seconds"] * 0.999
    elif form == "plain":
        assert found.seconds and found.seconds > 0
