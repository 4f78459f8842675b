# SPDX-License-Identifier: GPL-2.0-only
"""The report: what it says of a run, and how it is set."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made import ChangedRun

from anonvma.base import statistics, tabular
from anonvma.base.section import Section
from anonvma.report import answer, evidence, layout, output, run_report, sources, verdict
from anonvma.run import runs
from anonvma.run.runs import Run


@pytest.fixture(scope="module")
def run() -> Run:
    return runs.find("small-allocs-mt")


@pytest.fixture(scope="module")
def made() -> Run:
    return runs.find("specimens")


def test_answer_of_the_recorded_run(run: Run) -> None:
    """800 MiB in units of 40 KiB are 20,480 VMAs of ten pages each."""
    first, why, cost, traced, other = answer.sentences(run)
    assert first.startswith("Yes. After a run of small-allocs-mt on Linux ")
    assert (
        f"on {run.manifest.created:%Y-%m-%d}, 20,480 of 20,495 VMAs are bare (vm_ops is NULL"
        in first
    )
    assert "the same in each of 5 repeats" in first
    assert "all of them private /dev/zero" in first
    assert "All 204,800 pages that they span are present, each the zero page." in first
    assert "do_anonymous_page()" in why and "mmap_zero()" in why
    assert "do_huge_pmd_anonymous_page()" in why
    assert "lock_vma_under_rcu()" in cost
    assert "204,800 (99.97 %) found a bare VMA and left it bare" in traced
    assert "All of those were taken under their VMA's own lock." in traced
    assert "204,800 of them make no anon_vma" in other
    assert answer.finding(run).startswith("20,480 of 20,495 VMAs read, but without an anon_vma: ")


def test_answer_is_no_when_nothing_was_read(run: Run) -> None:
    census = run.table("census")
    written = census["class"] == "zero-page"
    census = census.assign(
        anon_vma=census["anon_vma"] | written,
        bare=census["bare"] & ~written,
        **{"class": census["class"].where(~written)},
    )
    said, *_ = answer.sentences(ChangedRun(run, {"census": census}))
    assert said.startswith("Not here. After a run of small-allocs-mt")
    assert "2 are bare (vm_ops is NULL, and so is anon_vma): 2 guard (no access permitted" in said


def test_repeats_that_disagree_are_shown(run: Run) -> None:
    census = run.table("census")
    fewer = census[(census["repeat"] != 2) | (census.groupby("repeat").cumcount() % 2 == 0)]
    first, *_ = answer.sentences(ChangedRun(run, {"census": fewer}))
    assert "and 20,480 in 5 repeats" in first


def test_figures_are_those_of_the_tables(run: Run) -> None:
    figures = evidence.table(run).set_index("figure")
    faults = run.table("perf_stat").query("event == 'page-faults'")["value"].astype(float)
    assert figures.loc["page faults", "n"] == 5
    assert figures.loc["page faults", "mean"] == pytest.approx(np.mean(faults))
    # Student's t for four degrees of freedom, from a table.
    margin = 2.776 * np.std(faults, ddof=1) / 5**0.5
    assert figures.loc["page faults", "high"] - np.mean(faults) == pytest.approx(margin, rel=1e-3)
    speed = run.table("throughput").groupby("repeat")["kb_per_s"].sum().mean() / 1024
    assert figures.loc["throughput, MiB/s", "mean"] == pytest.approx(speed)


def test_one_repeat_has_no_interval() -> None:
    row = statistics.estimate(pd.Series([3.0]))
    assert (row.n, row.mean) == (1, 3.0)
    assert np.isnan(row.low)
    assert tabular.cell(row.low) == "-"


def test_text_is_fit_for_a_terminal(run: Run, made: Run) -> None:
    parts = run_report.sections(run, made, "A note.")
    text = layout.text(parts, run_report.title(run), split=layout.COLUMNS)
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[5] == "A note."
    assert "165 mappings of 83 kinds" in text
    assert "/dev/zero" in text


def test_what_could_not_be_observed_is_said(run: Run) -> None:
    (part,) = [p for p in run_report.sections(run) if p.title == "What could not be observed"]
    assert len(part.paragraphs) == len(run.manifest.unobserved)
    for lack, said in zip(run.manifest.unobserved, part.paragraphs, strict=True):
        assert lack.what in said and lack.reason in said and lack.remedy in said


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (np.uint64(1 << 63), "9,223,372,036,854,775,808"),
        (1234.5, "1,234"),
        (0.125, "0.125"),
        (-2.0, "-2"),
        (float("nan"), "-"),
        (None, "-"),
        (pd.NA, "-"),
        (True, "True"),
        ("a", "a"),
    ],
)
def test_cell(value: object, shown: str) -> None:
    assert tabular.cell(value) == shown


def test_hostile_words_are_shown_harmlessly() -> None:
    name = "\x1b[31m<script>\u202e\nX"
    part = Section("T", [name], pd.DataFrame({"comm": [name]}))
    text = layout.text([part], name)
    assert "\x1b" not in text and "\u202e" not in text
    assert "\\x1b[31m" in text
    shown = output.styled(pd.DataFrame({"comm": [name]})).data
    assert "<script>" not in shown and "&lt;script&gt;" in shown


def test_mappings_of_dev_zero_that_have_no_file(run: Run) -> None:
    """The census of a kernel that keeps no file for them."""
    census = run.table("census")
    mapped = census["origin"] == "private /dev/zero"
    origin = census["origin"].astype(object).mask(mapped, "private anonymous")
    other = ChangedRun(run, {"census": census.assign(origin=origin)})
    command = run.manifest.workload.model_copy(
        update={"maps": "private /dev/zero", "mappings": 20480}
    )
    other.manifest = run.manifest.model_copy(update={"workload": command})
    first, why, _, mapped_said, *_ = answer.sentences(other)
    assert "all of them private anonymous" in first
    assert "mmap_zero" not in why
    assert mapped_said.startswith("small-allocs-mt mapped /dev/zero, privately, 20,480 times. This")
    assert "vm_file is NULL" in mapped_said
    # Where the census has them by that name there is nothing to say.
    named = ChangedRun(run, {"census": census})
    named.manifest = other.manifest
    assert verdict.of_run(named).unnamed is None
    assert verdict.of_run(run).unnamed is None


def test_alarm_comes_first(run: Run) -> None:
    census = run.table("census")
    wrong = census["class"] == "zero-page"
    census = census.assign(
        zero=census["zero"].mask(wrong, census["zero"] - 1),
        note=census["note"].astype(object).mask(wrong, "pages that are not the zero page"),
    )
    first, *_ = answer.sentences(ChangedRun(run, {"census": census}))
    assert first.startswith("Beware: 20,480 bare VMAs hold 20,480 pages that are not the zero page")


def test_numbered_runs_are_named_by_the_first_and_the_last() -> None:
    held = [f"early-{n}/census.parquet" for n in (1, 2, 10, 3, 12)]
    held += ["specimens/census.parquet", "early-1/faults.parquet", "pid-295/census.parquet"]
    assert sources.sources_said(Section("x", [], sources=tuple(held))) == (
        "early-1: census.parquet, faults.parquet; "
        "early-2 to -3, -10, -12, specimens, pid-295: census.parquet"
    )
