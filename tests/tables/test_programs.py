# SPDX-License-Identifier: GPL-2.0-only
"""Programs side by side, on the recorded ones, worked out again from the rows of their tables."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.run.runs import Run
from anonvma.study import survey as surveys
from anonvma.tables import programs


@pytest.fixture(scope="module")
def found() -> dict[str, Run]:
    return surveys.find("programs-*", programs.NEEDED).runs


def counted(run: Run, **values: object) -> int:
    """The faults of a run that ended well and have these values in their columns."""
    rows = run.arrow("faults").to_pylist()
    return sum(
        row["count"] for row in rows
        if row["result"] != "error" and all(row[name] == value for name, value in values.items())
    )  # fmt: skip


def test_there_are_a_dozen(found: dict[str, Run]) -> None:
    assert len(found) >= 12
    assert {"redis", "postgresql", "sqlite", "nginx", "openjdk", "chromium"} <= set(found)


def test_each_number_is_that_of_the_rows(found: dict[str, Run]) -> None:
    table = programs.survey(found)
    for name, run in found.items():
        row, every = table.loc[name], counted(run)
        left = counted(run, before="bare", after="bare")
        assert row["faults"] == every
        assert row["left bare"] == pytest.approx(left / every)
        assert row["found bare"] == pytest.approx(counted(run, before="bare") / every)
        spared = counted(run, before="bare", after="bare", mode="user")
        assert row["early adds"] == pytest.approx(1000 * spared / every)
        vmas = run.arrow("census").to_pylist()
        assert row["vmas"] == len(vmas) and row["bare"] == sum(vma["bare"] for vma in vmas)
        assert row["zero-page"] == sum(vma["class"] == "zero-page" for vma in vmas)
        taken = [lock for lock in run.arrow("locks").to_pylist() if lock["process"]]
        taken = [lock for lock in taken if lock["waited_for"] and lock["success"]]
        acquired = sum(lock["count"] for lock in taken)
        assert row["acquired"] == pytest.approx(1000 * acquired / every)
        links = Counter(link["anon_vma"] for link in run.arrow("anon_vma_chains").to_pylist())
        assert row["anon_vmas"] == len(links)
        assert row["unshared"] == pytest.approx(sum(n == 1 for n in links.values()) / len(links))


def test_callers_and_reasons_add_up(found: dict[str, Run]) -> None:
    table, each = programs.survey(found), programs.reasons(found)
    for name, rows in each.groupby("program"):
        others = rows.loc[rows["reason"].isna(), "per_thousand"].sum()
        row = table.loc[name]
        assert others == pytest.approx(row["acquired"] - row["by faults"])


def test_the_surprising_ones_stand_first_and_each_has_a_sentence(found: dict[str, Run]) -> None:
    missing = {"absent": "there is no program 'absent'"}
    table, said = programs.survey(found, missing), programs.explained(found, missing)
    assert table["left bare"].iloc[:-1].is_monotonic_decreasing
    assert list(table.index) == list(said.index) and table.index[-1] == "absent"
    assert said.loc["absent", "what"] == missing["absent"]
    assert said["what"].is_unique


def test_what_is_missing_has_its_reason(found: dict[str, Run], tmp_path: Path) -> None:
    """The directory of a study: one job done, one that failed twice, one that was not tried."""
    names = ("redis", "failed", "never")
    cells = [{"name": f"{name}-1", "axes": {"workload": name}} for name in names]
    (tmp_path / "cells.json").write_text(json.dumps({"cells": cells}))
    shutil.copytree(found["redis"].path, tmp_path / "cells" / "redis-1")
    for number in (1, 2):
        (tmp_path / "failed" / f"failed-1.{number}").mkdir(parents=True)
        file = tmp_path / "failed" / f"failed-1.{number}" / "failure.json"
        file.write_text(json.dumps({"reason": f"try {number} failed"}))
    there, missing = surveys.find(str(tmp_path), programs.NEEDED)
    assert list(there) == ["redis"]
    assert missing == {"failed": "try 2 failed", "never": "It has not been run yet."}
    assert surveys.find(str(tmp_path), ["time"]).missing["redis"].endswith("no table time.")
    (tmp_path / "cells.json").write_text("{}")
    with pytest.raises(RunError, match="not the plan of a study"):
        surveys.find(str(tmp_path))
    assert paths.recorded() in found["redis"].path.parents
