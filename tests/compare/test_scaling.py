# SPDX-License-Identifier: GPL-2.0-only
"""Scaling: the law's numbers come back from throughput that was made of them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from anonvma.base.errors import RunError
from anonvma.cli import main
from anonvma.compare import conditions, scaling
from anonvma.run import runs

RECORDED = ["early=scaling-early-*", "delayed=scaling-delayed-*"]


def throughput(
    tasks: list[int], rate: float, serial: float, crosstalk: float, noise: float, n: int = 5
) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = [
        ("a", number, f"{number}-{run}", scaling.THROUGHPUT,
         1024 * float(scaling.law(number, rate, serial, crosstalk)) * np.exp(noise * rng.normal()))
        for number in tasks
        for run in range(n)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["condition", "tasks", "run", "metric", "value"])


def test_law_worked_out_by_hand() -> None:
    assert scaling.law(1, 100, 0.5, 0.1) == 100
    assert scaling.law(4, 100, 0.0, 0.0) == 400
    # 400 / (1 + 0.5 * 3) = 160; with crosstalk 400 / (1 + 1.5 + 0.1 * 12).
    assert scaling.law(4, 100, 0.5, 0.0) == pytest.approx(160)
    assert scaling.law(4, 100, 0.5, 0.1) == pytest.approx(400 / 3.7)


@pytest.mark.parametrize(
    ("serial", "crosstalk"), [(0.0, 0.0), (0.05, 0.0), (0.3, 0.01), (0.02, 0.005), (1.0, 0.0)]
)
def test_serial_share_comes_back(serial: float, crosstalk: float) -> None:
    exact = scaling.fit(throughput([1, 2, 4, 8, 16], 700, serial, crosstalk, 0.0)).iloc[0]
    assert exact["rate"] == pytest.approx(700, rel=1e-3)
    assert exact["serial"] == pytest.approx(serial, abs=1e-3)
    assert exact["crosstalk"] == pytest.approx(crosstalk, abs=1e-3)
    noisy = scaling.fit(throughput([1, 2, 4, 8, 16], 700, serial, crosstalk, 0.02)).iloc[0]
    assert noisy["serial_low"] - 0.02 <= serial <= noisy["serial_high"] + 0.02
    assert noisy["serial_low"] <= noisy["serial"] <= noisy["serial_high"]


def test_peak_is_where_the_law_has_it() -> None:
    found = scaling.fit(throughput([1, 2, 4, 8, 16], 100, 0.1, 0.02, 0.0)).iloc[0]
    tasks = np.arange(1, 40)
    best = tasks[np.argmax(scaling.law(tasks, 100, 0.1, 0.02))]
    assert abs(found["best"] - best) <= 1


def test_what_cannot_be_fitted_is_null_and_said() -> None:
    two = scaling.fit(throughput([1, 2], 100, 0.1, 0.0, 0.0))
    assert np.isnan(two["serial"].iloc[0])
    assert scaling.said(two) == ["a: three different numbers of tasks are needed for a fit."]
    single = scaling.fit(throughput([1, 2, 4], 100, 0.1, 0.0, 0.0, n=1))
    assert single["serial"].iloc[0] == pytest.approx(0.1, abs=1e-3)
    assert np.isnan(single["serial_low"].iloc[0])
    assert "without an interval" in scaling.said(single)[0]


def test_recorded_waits_grow_with_tasks_where_faults_take_the_lock() -> None:
    table = scaling.by_threads(conditions.find(RECORDED)).set_index(["condition", "tasks"])
    assert table["n"].min() >= 3
    waits = table["wait_ms"]
    assert waits["early", 1] < waits["early", 2] < waits["early", 4] < waits["early", 16]
    for tasks in (2, 4, 16):
        assert waits["early", tasks] > 2 * waits["delayed", tasks]
    assert table.loc[("early", 1), "speedup"] == 1
    mean = table.loc[("early", 4), ["low", "throughput", "high"]].tolist()
    assert mean == sorted(mean)


def test_emulation_in_turns_is_said() -> None:
    said = " ".join(scaling.caveats(conditions.find(RECORDED)))
    assert "emulated in turns" not in said and "16 tasks on 2 CPUs" in said
    old = " ".join(scaling.caveats({"plain": runs.find_all("other-plain-*")}))
    assert "emulated in turns" in old
    assert scaling.caveats({"here": [runs.find("small-allocs-mt")]}) == []


def test_a_run_without_tasks_is_one_sentence() -> None:
    with pytest.raises(RunError, match="has no number of threads"):
        scaling.points({"a": [runs.find("specimens")]})


def test_figure_has_every_point() -> None:
    found = conditions.find(RECORDED)
    figure = Figure()
    fits = scaling.fit(scaling.points(found))
    speed, wait = scaling.plot_by_threads(scaling.by_threads(found), fits, figure.subplots(1, 2))
    for ax in (speed, wait):
        shown = [container.lines[0].get_xdata() for container in ax.containers]  # type: ignore[attr-defined]
        assert [list(x) for x in shown] == [[1, 2, 4, 8, 16]] * 2


def test_command_has_table_fit_and_words() -> None:
    told = json.loads(CliRunner().invoke(main, ["scaling", "--json", *RECORDED]).output)
    assert len(told["by_threads"]) == 10 and {row["condition"] for row in told["fit"]} == {
        "early", "delayed",
    }  # fmt: skip
    text = CliRunner().invoke(main, ["scaling", *RECORDED]).output
    assert "a serial share of" in text and "More tasks than processors" in " ".join(text.split())
