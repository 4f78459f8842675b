# SPDX-License-Identifier: GPL-2.0-only
"""Kernels side by side: outcomes, what changed between neighbours, and why."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.compare import kernel_architectures, kernel_changes, kernel_picture, outcomes
from anonvma.compare.kernel_changes import Cause, between, kernels
from anonvma.compare.outcomes import VARIES, Outcome
from anonvma.report import identities, kernel_report, redaction, subject
from anonvma.run import jobs, runs
from anonvma.tables import census, faults


def found(**kernels: tuple[str, dict[str, str | None]]) -> pd.DataFrame:
    """Outcomes of a few kernels: the state of some specimens, by release."""
    rows = [
        (name, release, "state", subject, outcome, None)
        for name, (release, seen) in kernels.items()
        for subject, outcome in seen.items()
    ]
    names = ["kernel", "release", "part", "subject", "outcome", "note"]
    return pd.DataFrame(rows, columns=names).astype("object")


def changes(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    table = between(frame)[["old", "new", "before", "after"]]
    return [tuple(row) for row in table.to_numpy()]


# ---- neighbours ----


def test_each_is_compared_with_the_one_before() -> None:
    frame = found(
        a=("6.1.0", {"x": "bare"}), b=("6.12.3", {"x": "bare"}), c=("7.0.1", {"x": "anon_vma"})
    )
    assert changes(frame) == [("b", "c", "bare", "anon_vma")]


def test_where_the_version_falls_another_series_begins() -> None:
    frame = found(
        a=("7.0.1", {"x": "bare"}),
        early=("6.12.3-early", {"x": "anon_vma"}),
        delayed=("6.12.3-delayed", {"x": "guard"}),
    )
    assert list(kernels(frame)["series"]) == [0, 1, 1]
    assert changes(frame) == [("early", "delayed", "anon_vma", "guard")]


def test_what_is_not_known_of_a_kernel_is_passed_over() -> None:
    frame = found(a=("6.1.0", {"x": "bare"}), b=("6.12.3", {"x": None}), c=("7.0", {"x": "guard"}))
    assert changes(frame) == [("a", "c", "bare", "guard")]


def test_what_varies_on_any_kernel_tells_none_from_another() -> None:
    seen = {"a": ("6.1.0", "24"), "b": ("6.12.3", "34"), "c": ("7.0.1", VARIES)}
    frame = found(**{name: (release, {"x": word}) for name, (release, word) in seen.items()})
    assert changes(frame) == [] and kernel_changes.differing(frame) == []
    counted = kernel_changes.counts(frame).loc["state"]
    assert tuple(counted) == (1, 0, 0, 1)


def test_a_kernel_without_a_run_keeps_its_place() -> None:
    run = runs.find("early-specimens-1")
    frame = outcomes.of_runs({"6.12": [run], "7.9": []}, {"7.9": "it panicked"})
    about = kernels(frame)
    assert list(about.index) == ["6.12", "7.9"] and about["why_not"]["7.9"] == "it panicked"
    assert list(kernel_changes.table(frame).columns) == ["6.12", "7.9"]
    assert kernel_report.lacking_said(frame)[0] == "7.9: did not boot: it panicked."
    assert kernel_report.newest(frame) is None


def test_boots_that_do_not_agree_tell_no_kernel_from_another() -> None:
    one, two = Outcome("faults", "x", "24"), Outcome("faults", "x", "34", "more")
    assert outcomes._agreed([one, one]) == [one]
    (both,) = outcomes._agreed([one, two])
    assert both.outcome == VARIES and both.note == "24; more"


# ---- why ----


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two causes: of Linux 6.13, and of a distribution."""
    rows = [
        Cause("state", "x*|z", "bare", "", "6.13", "", "", "0123456789ab", "it was changed"),
        Cause("state", "", "", "guard", "", "*+deb12*", "*+deb13*", "", "it was configured"),
    ]
    monkeypatch.setattr(kernel_changes, "causes", lambda: rows)


@pytest.mark.parametrize(
    ("old", "new", "outcome", "why"),
    [
        ("6.12.9", "6.13.0", "anon_vma", "it was changed"),
        ("6.12.9", "6.16.1", "anon_vma", "it was changed"),
        ("6.13.0", "6.16.1", "anon_vma", None),
        ("6.1.0", "6.12.99", "anon_vma", None),
        ("6.18.1+deb12", "6.19.1+deb13", "guard", "it was configured"),
        ("6.18.1+deb13", "6.19.1+deb13", "guard", None),
    ],
)
def test_a_cause_holds_between_its_kernels_only(
    known: None, old: str, new: str, outcome: str, why: str | None
) -> None:
    frame = found(a=(old, {"x1": "bare"}), b=(new, {"x1": outcome}))
    assert list(between(frame)["why"]) == [why]


def test_causes_name_what_there_is() -> None:
    for cause in kernel_changes.causes():
        assert cause.part in outcomes.PARTS and cause.why
        assert re.fullmatch(r"([0-9a-f]{12})?", cause.commit)
        assert re.fullmatch(r"(\d+\.\d+)?", cause.since)
        assert cause.since or (cause.from_ and cause.to)


# ---- what is recorded ----


def test_outcomes_are_what_the_tables_say() -> None:
    """By the tables that 03-faults shows, which count acquisitions fault by fault."""
    for name in ("early-specimens-1", "delayed-specimens-1"):
        run = runs.find(name)
        names = ("specimens", "fault_events")
        made, events = map(run.table, names)
        each = faults.of_specimens(made, census.last(run), events)
        frame = outcomes.of_runs({"k": [run]}).set_index(["part", "subject"])["outcome"]
        for row in each.itertuples():
            what = f"{row.kind}, {row.touch}"
            assert frame["state", what] == row.state
            assert frame["faults", what] == str(row.faults)
            acquired = bool({"mmap", "retry"} & set(frame["lock", what].split(", ")))
            assert acquired == (row.acquired > 0)


def test_recorded_survey() -> None:
    frame = outcomes.find("kernels")
    about = kernels(frame)
    assert len(about) >= 3 and about["release"].notna().all()
    changed = between(frame)
    arm64 = outcomes.of_runs({"arm64-7.3": [runs.find("arm64-specimens")]})
    used = {*changed["why"], *kernel_architectures.side_by_side(frame, arm64)["why"]}
    assert {cause.why for cause in kernel_changes.causes()} <= used  # none is of nothing
    # The early check is between 6.4 and 6.10, and what else is compared leaves the state as it is.
    assert set(about["regime"]) <= {"none", "early", "delayed"}
    ax = kernel_picture.plot(frame)
    assert len(ax.get_yticks()) == len(kernel_changes.differing(frame))


def test_a_name_that_is_no_survey_is_a_sentence(tmp_path: Path) -> None:
    for name in ("nothing", str(tmp_path)):
        with pytest.raises(RunError, match="there are no outcomes"):
            outcomes.find(name)


# ---- of a study ----


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The directory of a study, as anonvma batch leaves it: two kernels and one that failed."""
    cells = []
    for place, (kernel, run) in enumerate(
        [("early", "early-specimens-1"), ("delayed", "delayed-specimens-1"), ("next", None)]
    ):
        name = f"{kernel}-specimens-1"
        axes, given = {"kernel": kernel}, {"workload": "specimens"}
        cells.append({"name": name, "place": place, "repeat": 1, "axes": axes, "parameters": given})
        if run:
            shutil.copytree(paths.recorded() / run, tmp_path / "cells" / name)
    (tmp_path / "cells.json").write_text(json.dumps({"cells": cells}))
    failed = tmp_path / "failed" / "next-specimens-1.1"
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text(json.dumps({"reason": "it panicked"}))
    return tmp_path


def test_a_study_is_one_report(study: Path) -> None:
    assert jobs.is_survey(study) and not jobs.is_survey(study / "cells")
    about = subject.find(study)
    assert isinstance(about, subject.Survey)
    assert list(about.conditions) == ["early", "delayed", "next"]
    changed = between(about.found)
    said = f"Linux 6.12.117-delayed after 6.12.117-early: {len(changed)} of "
    assert about.finding.startswith(said)
    sections = {part.title: part for part in about.sections()}
    assert "it panicked" in sections["What could not be observed"].paragraphs[0]
    table = sections["Each kernel against the one before"].table
    assert table is not None and table["count"].sum() == len(changed)


def test_what_is_shared_names_nobody(study: Path) -> None:
    (study / "failed/next-specimens-1.1/failure.json").write_text(
        json.dumps({"reason": "boxofalice went away"})
    )
    about = subject.find(study)
    hashes = {value for run in about.runs for value in identities.hashes_of(run)}
    shared = about.shared(redaction.Wall([("host", "boxofalice")], hashes))
    assert isinstance(about, subject.Survey) and isinstance(shared, subject.Survey)
    assert "boxofalice" in about.found.to_string()
    assert "boxofalice" not in shared.found.to_string()
    assert list(shared.found["outcome"].dropna()) == list(about.found["outcome"].dropna())
