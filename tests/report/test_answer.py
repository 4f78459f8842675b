# SPDX-License-Identifier: GPL-2.0-only
"""The answer and its report, on runs of every shape: what they say is in their tables."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import ChangedRun

from anonvma.base import paths, tabular
from anonvma.base.errors import RunError
from anonvma.base.numerals import number, percent
from anonvma.base.section import Section, Whole
from anonvma.probe.faults_file import STATES
from anonvma.report import (
    answer,
    evidence,
    kernel_facts,
    layout,
    mail,
    mail_body,
    mail_lint,
    redaction,
    reproduction,
    run_report,
)
from anonvma.report import verdict as verdict_module
from anonvma.report.subject import Subject
from anonvma.run import catalogue, runs
from anonvma.tables import census, faults, locks, specimens

REPEATS = 4  # of three or more there are intervals
EACH = range(1, REPEATS + 1)
RECORDED = runs.find("small-allocs-mt")
TABLES = {name: RECORDED.table(name) for name in ("census", "tracing", "locks", "perf_stat")}
FAULTS = RECORDED.table("faults")
TYPES = {
    name: "category" if isinstance(kind, pd.CategoricalDtype) else kind
    for name, kind in FAULTS.dtypes.items()
}


def run_of(tables: dict[str, pd.DataFrame], **manifest: Any) -> Any:
    """A run with these tables, else like the recorded one."""
    held = {name: RECORDED.manifest.tables[name] for name in tables}
    told = {"tables": held, "repeats": REPEATS, "unobserved": [], **manifest}
    told["workload"] = RECORDED.manifest.workload.model_copy(update={"maps": None})  # any program
    copied = RECORDED.manifest.model_copy(update=told)
    return ChangedRun(RECORDED, tables, copied)


def one_fault(**values: Any) -> dict[str, Any]:
    like = FAULTS.iloc[0].to_dict()
    return like | values


FAULT = st.builds(
    one_fault,
    repeat=st.integers(1, REPEATS),
    origin=st.sampled_from(["heap", "stack", "private /dev/zero"]),
    mode=st.sampled_from(["user", "kernel", "gup"]),
    access=st.sampled_from(["read", "write", "exec"]),
    before=st.sampled_from(STATES),
    after=st.sampled_from(STATES),
    path=st.sampled_from(["vma", "mmap", "retry", "unknown"]),
    result=st.sampled_from(["minor", "major", "error"]),
    count=st.integers(1, 10**6),
)


@st.composite
def made(draw: st.DrawFn) -> Any:
    """A run whose census, faults and locks are anything that they can be."""
    census_of = TABLES["census"]
    rows = draw(st.integers(0, 40))
    vmas = census_of[census_of["repeat"] <= REPEATS].groupby("repeat").tail(rows).copy()
    tables = {"census": vmas, "perf_stat": TABLES["perf_stat"]}
    if draw(st.booleans()):
        tracing = TABLES["tracing"][TABLES["tracing"]["repeat"] <= REPEATS].copy()
        traced = tracing["traced"].isin(["faults", "events"])
        tracing.loc[traced, "unseen_gup"] = draw(st.integers(0, 10**5))
        found = pd.DataFrame(draw(st.lists(FAULT, max_size=12)), columns=FAULTS.columns)
        tables |= {"tracing": tracing, "faults": found.astype(TYPES)}
        tables["locks"] = TABLES["locks"].head(draw(st.integers(0, 40)))
    told: dict[str, Any] = {}
    if draw(st.booleans()):
        told["losses"] = {"went_on": draw(st.integers(0, 3))}
    if draw(st.booleans()):
        told["parameters"] = {"workload": "pid:1", "seconds": 5.0}
    told["features"] = {"regime": {"name": draw(st.sampled_from(["none", "early", "delayed"]))}}
    return run_of(tables, **told)


def check(run: Any) -> None:
    """What holds of every report, however little or odd the run."""
    parts = run_report.sections(run)
    for part in parts:
        if part.whole is None or part.table is None:
            continue
        named(part.whole, part.table, part.title)
    figures = evidence.table(run)  # counts, times and rates
    assert not (figures[["mean", "low", "high"]] < 0).any(axis=None)
    assert figures.loc[figures["n"] < 3, ["low", "high"]].isna().all(axis=None)
    bounded = figures.dropna(subset=["low"])
    assert (bounded["low"] <= bounded["mean"]).all()
    assert (bounded["mean"] <= bounded["high"]).all()
    said = answer.sentences(run)
    assert numbers(" ".join(said)) <= printed(parts) | beside(run)
    for share in re.findall(r"([\d.,]+) ?%", layout.text(parts, "t")):
        assert float(share.replace(",", "")) <= 100
    body = mail_body.body(parts, asked=True)
    sent = mail.compose(body, subject=answer.finding(run), sender="a@b.org", to=["c@d.org"])
    assert mail_lint.check(sent.as_bytes()) == []


def named(whole: Whole, table: pd.DataFrame, title: str) -> None:
    """The rows add up to their whole, or it is named what is left out."""
    rest = whole.left_out(table)
    assert rest >= 0 and (rest == 0 or whole.rest), title
    assert number(whole.total) in whole.said(table)


def numbers(text: str) -> set[str]:
    """The numbers of a text that measure something: not releases, dates or bits of names."""
    text = re.sub(
        r"\d{4}-\d{2}-\d{2}|pid:\S+|process \d+|x86_64|Linux [\d.]\S*(?: to [\d.]+)?|6\.10",
        "",
        text,
    )
    return set(re.findall(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?", text))


def printed(parts: list[Section]) -> set[str]:
    """Every number of the tables of a report, as it is printed."""
    tables = [part.table for part in parts if part.table is not None]
    return numbers(" ".join(line for table in tables for line in tabular.lines(table)))


def beside(run: Any) -> set[str]:
    """What a sentence may have that no printed table has: the setting, each repeat, shares."""
    manifest = run.manifest
    told = {manifest.target["cpus"], manifest.repeats, manifest.losses.get("went_on", 0), 1}
    vmas = run.table("census")
    bare = vmas[vmas["class"] == "zero-page"]
    told |= {int((bare["repeat"] == repeat).sum()) for repeat in range(1, manifest.repeats + 1)}
    shares: list[float] = []
    if "faults" in manifest.tables:
        traced = run.table("faults")
        traced = traced[(traced["result"] != "error") & (traced["mode"] != "gup")]
        left = traced[(traced["before"] == "bare") & (traced["after"] == "bare")]
        paths = left.groupby(left["path"].astype("object"))["count"].sum()
        shares = [left["count"].sum() / max(traced["count"].sum(), 1)]
        shares += [count / left["count"].sum() for count in paths]
    found = {number(value) for value in told} | {percent(share).strip("<> %") for share in shares}
    return found | {f"{manifest.parameters.get('seconds', 1):g}"}


@pytest.mark.slow  # dozens of made-up runs
@settings(deadline=None, max_examples=100)
@given(st.lists(FAULT, max_size=12), st.integers(1, 4))
def test_tables_of_faults_add_up_to_their_wholes(rows: list[dict[str, Any]], most: int) -> None:
    """Those that the command line shows; where some are left out it is said which."""
    found = pd.DataFrame(rows, columns=FAULTS.columns).astype(TYPES)
    tables = {"transitions": faults.transitions, "by_origin": faults.by_origin,
              "by_mode": faults.by_mode, "lock_paths": faults.lock_paths,
              "counterfactual": faults.counterfactual}  # fmt: skip
    wholes = faults.wholes(found)
    assert set(wholes) == set(tables)
    for name, make in tables.items():
        named(wholes[name], make(found), name)
    handled = found[found["result"] != "error"]
    shown = {row["mode"] for row in handled.to_dict("records")} <= {"user"}
    if len(handled) == len(found) and shown:  # nothing to leave out
        assert not any(whole.left_out(tables[n](found)) for n, whole in wholes.items())


@pytest.mark.slow  # dozens of made-up runs
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.lists(st.sampled_from(["a", "all", "b"]), min_size=1, max_size=5))
def test_a_census_adds_up_whatever_its_processes_are_called(rows: int, names: list[str]) -> None:
    vmas = TABLES["census"].tail(rows).copy()
    chosen = [n % len(names) for n in range(len(vmas))]
    vmas = vmas.assign(tgid=chosen, comm=[names[n] for n in chosen])
    for most in (1, len(names)):
        wholes = census.wholes(vmas, most)
        named(wholes["by_class"], census.by_class(vmas), "by_class")
        named(wholes["by_origin"], census.by_origin(vmas), "by_origin")
        named(wholes["by_process"], census.by_process(vmas, most), "by_process")


@settings(deadline=None, max_examples=50)
@given(st.integers(0, len(TABLES["locks"])), st.integers(1, 9))
def test_acquisitions_add_up(rows: int, most: int) -> None:
    taken = TABLES["locks"].head(rows)
    named(locks.whole(taken, most), locks.callers(taken).head(most), "callers")
    assert locks.whole(taken).left_out(locks.callers(taken)) == 0


@pytest.mark.slow  # dozens of made-up runs
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(made())
def test_whatever_a_run_has_its_report_adds_up(run: Any) -> None:
    check(run)


def figure_of(n: int, low: float) -> pd.DataFrame:
    return pd.DataFrame([{"figure": "x", "n": n, "mean": 1.0, "low": low, "high": 3.0, "from": ""}])


_WHOLE = Whole("n", 2.0, "things")
_ODD = {
    "a number that no table has": Section("Answer", ["Of 123,457 VMAs none is bare."]),
    "a share of another population": Section("x", ["They account for 437.96 % of them."]),
    "rows that do not add up": Section("x", [], pd.DataFrame({"n": [1]}), whole=_WHOLE),
    "rows in several": Section("x", [], pd.DataFrame({"n": [3]}), whole=_WHOLE),
    "a count with a negative bound": Section("Evidence", [], figure_of(3, -1.0)),
    "an interval of two": Section("Evidence", [], figure_of(2, 0.0)),
}


@pytest.mark.parametrize("odd", _ODD)
def test_the_check_of_reports_can_fail(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of({name: TABLES[name] for name in ("census", "perf_stat")}, repeats=5)
    check(run)
    part, sections = _ODD[odd], run_report.sections
    monkeypatch.setattr(run_report, "sections", lambda run: [*sections(run), part])
    if part.title == "Answer":
        monkeypatch.setattr(answer, "sentences", lambda run: part.paragraphs)
    if part.title == "Evidence":
        monkeypatch.setattr(evidence, "table", lambda run: part.table)
    with pytest.raises(AssertionError):
        check(run)


@pytest.mark.parametrize(
    "name",
    [
        "small-allocs-mt",
        "specimens",
        "early-anon-w-seq-mt-1",
        "delayed-small-allocs-mt-1",
        "other-plain-1",
    ],
)
def test_recorded_reports_add_up(name: str) -> None:
    for part in run_report.sections(runs.find(name)):
        if part.whole is not None and part.table is not None:
            named(part.whole, part.table, part.title)


# ---- one population ----


def gup_run(unseen: int, faults_seen: list[dict[str, Any]]) -> Any:
    tracing = TABLES["tracing"][TABLES["tracing"]["repeat"] <= REPEATS].copy()
    tracing.loc[tracing["traced"].isin(["faults", "events"]), "unseen_gup"] = unseen
    found = pd.DataFrame(faults_seen, columns=FAULTS.columns).astype(TYPES)
    vmas = TABLES["census"][TABLES["census"]["repeat"] <= REPEATS].groupby("repeat").tail(200)
    return run_of({"census": vmas, "tracing": tracing, "faults": found})


def test_pages_by_get_user_pages_are_told_as_such() -> None:
    few = [one_fault(repeat=r, count=61, before="vm_ops", after="vm_ops") for r in EACH]
    first, *_ = answer.sentences(gup_run(2000, few))
    assert first.startswith("Yes. ")
    assert "No page fault brought them: that was get_user_pages(), with 2,000 faults" in first
    assert "page faults have filled" not in first and "%" not in first
    parts = {part.title: part for part in run_report.sections(gup_run(2000, few))}
    assert "2,061 faults" in parts["Who took them"].words[-1]
    taken = parts["Who took them"].table
    assert taken is not None and taken["faults"].tolist() == [61, 2000]


def test_a_source_that_shows_get_user_pages_says_the_same() -> None:
    seen = [one_fault(repeat=r, count=2000, mode="gup", before="bare", after="bare") for r in EACH]
    run = gup_run(0, seen)
    verdict = verdict_module.of_run(run)
    assert verdict.traced is not None
    assert (verdict.traced.faults, verdict.traced.stayed, verdict.traced.gup) == (0, 0, 2000)
    assert "No page fault brought them" in answer.sentences(run)[0]


def test_what_went_on_is_said() -> None:
    run = run_of({"census": TABLES["census"]}, losses={"went_on": 1})
    assert "1 process that the command left running" in answer.sentences(run)[1]


def test_the_negative_answer_reads_as_well() -> None:
    vmas = TABLES["census"]
    vmas = vmas[(vmas["repeat"] <= REPEATS) & (vmas["class"] != "zero-page")]
    makes = [one_fault(repeat=r, count=7, before="bare", after="anon_vma") for r in EACH]
    run = gup_run(0, makes)
    tables = {"census": vmas, "tracing": run.table("tracing"), "faults": run.table("faults")}
    said = answer.sentences(run_of(tables))
    assert said[0].startswith("Not here. After ")
    assert said[1] == (
        "Of 7 page faults (traced apart, mean of a repeat) none found a bare VMA and left it bare."
    )
    assert said[2].startswith(
        "An early check costs next to nothing here: all 7 faults of user mode "
    )


# ---- nothing at all ----


def test_every_figure_is_drawn_of_nothing() -> None:
    """No fault, no lock, no VMA, no specimen: a figure says so."""
    none, vmas = FAULTS.head(0), TABLES["census"].head(0)
    events = RECORDED.table("fault_events").head(0)
    mapped = specimens.observed(runs.find("specimens").table("specimens"), vmas).head(0)
    for draw, arguments in (
        (faults.plot_transitions, [none]),
        (faults.plot_lock_paths, [none]),
        (faults.plot_over_time, [events]),
        (locks.plot_callers, [TABLES["locks"].head(0)]),
        (census.plot_by_class, [vmas]),
        (census.plot_by_origin, [vmas]),
        (specimens.plot_observed, [mapped]),
    ):
        drawn, ax = plt.subplots()
        draw(*arguments, ax=ax)  # type: ignore[operator]
        drawn.canvas.draw()
        plt.close(drawn)


def test_a_report_of_a_process_that_takes_no_fault() -> None:
    tables = {"census": TABLES["census"], "tracing": TABLES["tracing"], "faults": FAULTS.head(0)}
    tables["locks"] = TABLES["locks"].head(0)
    run = run_of(tables, parameters={"workload": "pid:1", "seconds": 5.0}, repeats=5)
    check(run)
    assert (
        "The process took no page fault in the 5 s that its faults were traced."
        in answer.sentences(run)
    )
    for drawn in Subject({"x": [run]}).figures().values():
        for draw in drawn:
            plt.close(draw()[0])


def test_a_process_that_takes_no_lock_is_a_finding() -> None:
    tables = {"tracing": TABLES["tracing"], "locks": TABLES["locks"].head(0)}
    rows = evidence.table(run_of(tables, repeats=5)).set_index("figure")
    assert rows.loc["mmap_lock taken for reading", ["n", "mean"]].tolist() == [5, 0]


def test_a_process_that_runs_already_is_called_by_its_number() -> None:
    parameters = {"workload": "pid:4711", "seconds": 5.0}
    run = run_of({"census": TABLES["census"]}, parameters=parameters)
    release = run.manifest.target["kernel_release"]
    assert answer.finding(run).endswith(f": process 4711 on {release}")
    assert "In process 4711 on Linux" in answer.sentences(run)[0]
    assert redaction.Wall.around([]).scrub("pid:4711 process 4711") == "pid:4711 process 4711"


@pytest.mark.parametrize(
    ("traced", "watched", "said"),
    [
        ({"faults", "locks"}, False, "then ran three times more, in turns: untraced, with every"),
        ({"events"}, False, "ran twice more, in turns: untraced and with every page fault traced."),
        ({"faults", "time"}, True, "watched twice more: with every page fault traced and to see"),
        ({"faults"}, True, "watched once more: with every page fault traced."),
    ],
)
def test_how_often_it_ran_is_what_was_traced(traced: set[str], watched: bool, said: str) -> None:
    tracing = pd.DataFrame({"traced": sorted(traced)})
    tables = {"census": TABLES["census"], "faults": FAULTS.head(0), "tracing": tracing}
    parameters = {"workload": "pid:1", "seconds": 5.0} if watched else {"workload": "x"}
    run = run_of(tables, parameters=parameters)
    assert any(said in paragraph for paragraph in run_report._method(run))


# ---- the kernel ----


@pytest.mark.parametrize(
    ("release", "prepare", "hook"),
    [
        ("6.1.176", "anon_vma_prepare", "mmap_zero()"),
        ("6.12.117-delayed", "vmf_anon_prepare", "mmap_zero()"),
        ("6.18.44-fc", "vmf_anon_prepare", "mmap_zero()"),
        ("7.3.4", "vmf_anon_prepare", "mmap_zero_prepare()"),
    ],
)
def test_functions_are_those_of_the_release(release: str, prepare: str, hook: str) -> None:
    assert f" {prepare}()" in kernel_facts.zero_page(release)
    assert hook in kernel_facts.dev_zero(release)


# ---- the newest that fits ----


def test_latest_is_the_newest_that_has_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path))
    for name, has in (("1-a", "census"), ("2-imported", "samples"), ("3-specimens", "census")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"tables": {has: {}}}))
    assert catalogue.place("latest").name == "2-imported"
    assert catalogue.place("latest", ["census"]).name == "1-a"
    with pytest.raises(RunError, match=r"2-imported has no table census.* yours that has is 1-a"):
        catalogue.place("2-imported", ["census"])
    with pytest.raises(RunError, match=r"none of the 3 runs .* \(locks\); the newest, 2-imported"):
        catalogue.place("latest", ["locks"])


# ---- the project's address ----


def section_of_repeating(run: runs.Run) -> str:
    """A mail that says how to repeat a run, as it is published here and now."""
    repeated = reproduction.section([run], analysed=True)
    body = mail_body.body([Section("Answer", ["Yes."]), repeated], asked=True)
    return redaction.Wall.around([run]).scrub(body)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ('[project.urls]\nRepository = "https://git.example.org/~me/anonvma"\n',
         "https://git.example.org/~me/anonvma"),
        ('[project]\nname = "anonvma"\n', None),
        ('[project]\nurls = "https://git.example.org"\n', None),
        ("[project.urls]\nRepository = 5\n", None),
        ('[project.urls]\nRepository = ""\n', None),
        ('[project.urls]\nRepository = "git@example.org:me/x.git"\n', None),
        ("[project.urls\n", None),
        (None, None),
    ],
)  # fmt: skip
def test_the_address_is_one_setting_and_a_mail_reads_well_without_it(
    settings: str | None, address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings is not None:
        (tmp_path / "pyproject.toml").write_text(settings)
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    monkeypatch.setattr(paths, "_repository", paths._repository.__wrapped__)
    assert paths.project_url() == address
    shared = section_of_repeating(RECORDED)
    assert shared.count(address or "https://") == (2 if address else 0)
    assert f"In a new clone of {address or 'anonvma'}, on a " in " ".join(shared.split())
    assert "None" not in shared.split() and not shared.endswith("\n\n")
    for url, told in (
        ("https://a.org/x", "https://a.org/x"),
        ("no address", None),
        ("", address),
    ):
        monkeypatch.setenv("ANONVMA_URL", url)
        assert paths.project_url() == told
        words = " ".join(section_of_repeating(RECORDED).split())
        assert f"In a new clone of {told or 'anonvma'}, on a " in words


# ---- rows and their whole ----


@pytest.mark.parametrize(
    ("what", "one"),
    [
        ("bare VMAs", "bare VMA"),
        ("page faults that acquired mmap_lock", "page fault that acquired mmap_lock"),
        ("ms of waiting", "ms of waiting"),
        ("forks", "fork"),
    ],
)
def test_a_whole_of_one_is_in_the_singular(what: str, one: str) -> None:
    said = Whole("n", 1.0, what).said(pd.DataFrame({"n": [1]}))
    assert said == f"The rows add up to 1 {one}."


@given(st.lists(st.integers(0, 10**9), max_size=9), st.integers(0, 10**9))
def test_a_whole_names_what_no_row_has(rows: list[int], more: int) -> None:
    table = pd.DataFrame({"what": ["x"] * len(rows), "n": rows})
    whole = Whole("n", float(sum(rows) + more), "things", "elsewhere")
    assert whole.left_out(table) == pytest.approx(more)
    summed = pd.concat([table, pd.DataFrame({"what": ["all"], "n": [sum(rows)]})])
    with_sum = dataclasses.replace(whole, summed_up=True)
    assert with_sum.left_out(summed) == pytest.approx(more)
    said = Section("t", [], table, whole=whole).words[-1]
    assert ("Not in the table" in said) == (more > 0)
    assert number(sum(rows) + more) in said
