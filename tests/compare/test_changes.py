# SPDX-License-Identifier: GPL-2.0-only
"""Conditions side by side: verdicts, what is shown, and that nothing is found where nothing is."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.cli import main
from anonvma.compare import changes, conditions, design, reference
from anonvma.perf import profile as perf_profile
from anonvma.report import changes as report_changes
from anonvma.report import layout, notebooks
from anonvma.run import runs

PROFILED = ["early=early-profile-*", "delayed=delayed-profile-*"]
PAIR = ["early=early-small-allocs-mt-[1-5]", "delayed=delayed-small-allocs-mt-[1-5]"]


def of(columns: dict[str, list[float]], labels: list[str]) -> pd.DataFrame:
    return changes.of_matrix(pd.DataFrame(columns, dtype=float), labels).set_index("metric")


SIX = ["a"] * 3 + ["b"] * 3


def test_verdicts() -> None:
    nan = float("nan")
    found = of(
        {
            "faults.more": [100, 101, 100, 200, 201, 200],
            "faults.less": [200, 201, 200, 100, 101, 100],
            "x.alike": [100.0, 100.1, 99.9, 100.0, 100.1, 99.9],
            "x.unclear": [100, 50, 150, 110, 60, 160],
            "faults.constant": [7, 7, 7, 7, 7, 7],
            "x.only-a": [1, 2, 3, nan, nan, nan],
            "x.only-b": [nan, nan, nan, 1, 2, 3],
            "x.one": [1, 2, 3, nan, 9, nan],
            "x.never": [nan] * 6,
        },
        SIX,
    )
    assert found["verdict"].to_dict() == {
        "faults.more": "higher", "faults.less": "lower", "x.alike": "equivalent",
        "x.unclear": "inconclusive", "faults.constant": "equivalent", "x.only-a": "one side",
        "x.only-b": "one side", "x.one": "n = 1",
    }  # fmt: skip
    assert found.loc["x.one", ["n_base", "n"]].tolist() == [3, 1]
    assert found.loc["faults.more", "change"] == pytest.approx(100 * 100 / 100.333, abs=0.1)


def test_shares_change_by_a_difference() -> None:
    found = of({"vma-lock.abort%": [95, 96, 95, 1, 0, 1]}, SIX).iloc[0]
    assert found["absolute"] and found["change"] == found["difference"]
    assert changes.is_absolute("perf-profile.self.cycles-pp.x")
    assert not changes.is_absolute("perf-stat.overall.ipc")


def test_correction_is_over_all_rows_and_all_conditions() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(100, 1, (9, 40)), columns=[f"x.{n}" for n in range(40)])
    two = changes.of_matrix(values.iloc[:6], SIX)
    three = changes.of_matrix(values, [*SIX, "c", "c", "c"])
    assert len(three) == 80
    same = three[three["condition"] == "b"].reset_index(drop=True)
    assert same["p"].tolist() == two["p"].tolist()
    from scipy import stats

    wanted = stats.false_discovery_control(three["p"])
    assert three["q"].tolist() == pytest.approx(wanted.tolist())


def test_shown_are_the_primary_metric_and_what_changed_and_is_not_small() -> None:
    found = of(
        {
            "vm-scalability.throughput": [100, 150, 50, 110, 160, 60],
            "faults.small": [10000, 10001, 10000, 10050, 10051, 10050],
            "faults.large": [10, 10, 10, 90, 90, 90],
            "faults.gone": [500, 500, 500, 0, 0, 0],
            "vma-lock.abort%": [50.0, 50.0, 50.001, 50.05, 50.05, 50.051],
            "x.noise": [1, 2, 3, 2, 3, 4],
        },
        SIX,
    ).reset_index()
    assert (found.set_index("metric").loc["faults.small"]["verdict"]) == "higher"
    assert changes.shown(found)["metric"].tolist() == [
        "vm-scalability.throughput", "faults.gone", "faults.large",
    ]  # fmt: skip
    assert changes.shown(found, "x.noise")["metric"].tolist()[0] == "x.noise"
    assert changes.most_said(found, "a") == (
        "Of 6 rows that were looked at 2 changed; most of all faults.gone from 500 in a to 0 in b "
        "and faults.large from 10 in a to 90 in b."
    )


def test_the_primary_metric_needs_no_correction_and_says_what_it_cannot_tell() -> None:
    values = {f"x.{n}": [1.0, 2, 3, 3, 1, 2] for n in range(200)}
    values["vm-scalability.throughput"] = [100.0, 101, 102, 106, 107, 108]
    found = of(values, SIX).reset_index()
    row = found.set_index("metric").loc["vm-scalability.throughput"]
    assert row["p"] < 0.05 < row["q"] and row["verdict"] == "inconclusive"
    # The table shows it as the answer has it.
    kept = changes.shown(found).set_index("metric")
    assert kept.loc["vm-scalability.throughput", "verdict"] == "higher"
    assert changes.most_said(found, "a") == "None of the 201 rows that were looked at changed."
    every = changes.with_primary(found)["verdict"]
    assert (every == "higher").sum() == 1
    first = changes.primary_of(found)
    assert first["verdict"].tolist() == ["higher"]
    assert first["half_width"].iloc[0] == pytest.approx(
        (row["high"] - row["low"]) / 2 / row["ratio"]
    )
    said = changes.primary_said(first, "a")[0]
    assert "throughput of b is higher: 1.06 times that of a" in said and "n = 3 and 3" in said
    with pytest.raises(RunError, match="no run has the metric 'nonsense'"):
        changes.primary_of(found, "nonsense")
    single = changes.primary_of(of({"vm-scalability.throughput": [1, 2]}, ["a", "b"]).reset_index())
    assert "one run per side shows no change" in changes.primary_said(single, "a")[0]


def test_text_keeps_within_100_columns_whatever_the_names_and_numbers() -> None:
    names = ["x", "y" * 60, "evil\n\x1b[31m" + "z" * 200, "vma-lock.abort%", "vm-scalability.q"]
    sizes = [1e-9, 1.0, 5e11, 50.0, 1e6]
    columns = {
        name: [size, size * 1.01, size, size * 40, size * 41, size * 30]
        for name, size in zip(names, sizes, strict=True)
    }
    values = pd.DataFrame({**columns, "x.gone": [5, 5, 5, 0, 0, 0], "x.one": [1, None, None] * 2})
    for labels in (SIX, ["a", "a", "b", "b", "c", "c"]):
        text = changes.text(changes.of_matrix(values.astype(float), labels))
        assert max(map(len, text.splitlines())) <= 100
        assert "\x1b" not in text and "verdict" in text.splitlines()[0]
        ends = ("higher", "lower", "equivalent", "inconclusive", "n = 1", "one side")
        numbers = [line[38:] for line in text.splitlines() if line.endswith(ends)]
        # Six to nine words: an interval may have one or two, a verdict up to three.
        assert len(numbers) >= 7 and all(6 <= len(line.split()) <= 9 for line in numbers)
    row = next(line for line in changes.text(of({"x.a": [1, 1.1, 0.9, 2, 2.1, 1.9]}, SIX)
               .reset_index()).splitlines() if line.startswith("x.a"))  # fmt: skip
    assert row.split() == ["x.a", "1", "2", "+100", "%", "+68.6", "+142.0", "%", "3", "higher"]


# ---- recorded runs ----


def test_pair_is_found_without_a_hint() -> None:
    found = conditions.find(PAIR)
    conditions.check(found)
    rows = changes.table(found)
    kept = changes.shown(rows).set_index("metric")
    assert kept.loc["proc-vmstat.vma_lock_abort", "verdict"] == "lower"
    assert kept.loc["mmap-lock.acquired", "verdict"] == "lower"
    assert kept.loc["mmap-lock.acquired", "ratio"] == pytest.approx(6605 / 72141, rel=0.01)
    # The faults themselves are as many, and so are the VMAs they leave bare.
    unmoved = rows.set_index("metric")["verdict"]
    assert (
        unmoved["census.bare.zero-page"] == "equivalent" and unmoved["faults.total"] == "equivalent"
    )
    assert "private-/dev/zero.read.bare->bare.mmap" in changes.most_said(rows, "early")


def test_sections_have_the_answer_first_and_render_as_text() -> None:
    parts = report_changes.sections(conditions.find(PAIR))
    assert parts[0].title == "Answer"
    text = layout.text(parts, "title")
    assert "So bare VMAs explain 100 % of the change in mmap_lock" in text.replace("\n", " ")
    assert [part.title for part in parts if part.title.startswith("Which VMAs")] == [
        "Which VMAs caused it: early to delayed"
    ]
    assert "The conditions took turns" in text.replace("\n", " ")
    three = report_changes.sections(
        conditions.find(["plain=other-plain-*", "a=other-again-*", PAIR[1]])
    )
    assert len([part for part in three if part.title.startswith("Which VMAs")]) == 2


EARLY = ["other-again-1", "other-again-2", "other-again-3",
         "other-plain-1", "other-plain-2", "other-plain-3", "other-plain-4"]  # fmt: skip


def test_boots_of_one_kernel_against_each_other_find_nothing() -> None:
    """Every way to deal seven real boots of the same kernel and workload to three and four."""
    each = [runs.find(name) for name in EARLY]
    from anonvma.tables import metrics

    values = metrics.matrix(each)
    claims = rows = 0
    ways = list(itertools.combinations(range(7), 3))
    for chosen in ways:
        labels = ["a" if place in chosen else "b" for place in range(7)]
        order = sorted(range(7), key=lambda place: labels[place])
        found = changes.of_matrix(values.iloc[order], [labels[place] for place in order])
        claims += bool((found["q"] < 0.05).any())
        rows += len(found)
    # One split is by when they were recorded, hours apart, so it may differ truly.
    assert len(ways) == 35 and rows > 2000 and claims <= 0.05 * len(ways) + 1


# Another's raise of it would be a difference of the runs.
@pytest.mark.xdist_group("max_map_count")
def test_this_kernel_against_itself_in_turns(build: Path, tmp_path: Path) -> None:
    """Three runs a side, A and B the same in everything, made by the command."""
    words = ["experiment", str(tmp_path / "aa"), "--condition", "a=local", "--condition", "b=local",
             "--bytes", "8m", "--warmups", "0", "--most", "3", "--repeats", "1",
             "--no-trace"]  # fmt: skip
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = design.conditions(tmp_path / "aa")
    assert {name: len(each) for name, each in found.items()} == {"a": 3, "b": 3}
    conditions.check(found)
    assert design.interleaving(found) == (True, "The conditions took turns: a, b, b, a, a, b.")
    table = changes.table(found)
    assert (table["verdict"].isin(["higher", "lower"])).mean() <= 0.05
    # Started again it has nothing left to do; with another plan it refuses.
    before = (tmp_path / "aa" / "experiment.json").read_text()
    assert CliRunner().invoke(main, words).exit_code == 0
    assert json.loads(before)["order"] == design.read(tmp_path / "aa")["order"]  # type: ignore[index]
    other = CliRunner().invoke(main, [*words, "--threads", "1"])
    assert other.exit_code == 1 and "holds another experiment" in other.output
    # Without traces no cause is told, and it says why.
    shown = CliRunner().invoke(main, ["compare", str(tmp_path / "aa")])
    assert shown.exit_code == 0 and "has no table 'faults'" in " ".join(shown.output.split())
    assert max(map(len, shown.output.splitlines())) <= 100


def test_single_runs_are_compared_without_a_claim() -> None:
    parts = report_changes.sections(conditions.find(["early-specimens-1", "delayed-specimens-1"]))
    words = " ".join(parts[0].paragraphs)
    assert "one run per side shows no change" in words
    assert "can be judged: that takes two runs per side" in words
    assert not any(part.title.startswith("Which VMAs") for part in parts)


# ---- what may be compared ----


def test_what_differs_unasked_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        RunError, match="differ in their parameters: bytes is 16777216 and 33554432"
    ):
        conditions.check(conditions.find(["plain=other-plain-*", "pages=other-pages-*"]))
    found = conditions.find(["plain=other-plain-*", "pages=other-pages-*"])
    conditions.check(found, ["parameters"])
    with pytest.raises(RunError, match="differ in their machine: kind is guest and local"):
        conditions.check(conditions.find(["plain=other-plain-*", "here=small-allocs-mt"]))
    with pytest.raises(RunError, match="differ in their workload"):
        conditions.check(conditions.find([PAIR[0], "b=early-anon-w-seq-mt-*"]))
    with pytest.raises(RunError, match="the runs of mixed are not of one condition: the kernel"):
        conditions.check(conditions.find(["plain=other-plain-*", "mixed=*-small-allocs-mt-1"]))
    with pytest.raises(RunError, match="'moon' cannot be the condition"):
        conditions.check(found, ["moon"])


def test_names_and_patterns_of_conditions() -> None:
    found = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    assert list(found) == ["early", "delayed"]
    assert list(conditions.find(["scaling-early-t1-*", "scaling-delayed-t1-*"])) == list(found)
    path = str(paths.recorded() / "early-small-allocs-mt-*")
    assert list(conditions.find([path, PAIR[1]])) == ["early-small-allocs-mt", "delayed"]
    assert list(conditions.find([path, str(paths.recorded() / "other-plain-*")])) == [
        "early-small-allocs-mt", "other-plain",
    ]  # fmt: skip
    assert conditions.are_recorded(found)
    for patterns, why in (
        (["a=early-small-allocs-mt-*", "a=delayed-small-allocs-mt-*"], "two conditions are called"),
        (["a=early-small-allocs-mt-*", "b=early-small-allocs-mt-1"], "is of a and of b"),
        (["a=nothing-*", PAIR[0]], "no run is called"),
        (["nowhere"], "is no experiment"),
        (["\x1b[31m=early-small-allocs-mt-*", PAIR[0]], "a name has up to 40 letters"),
        (["<b>=early-small-allocs-mt-*", PAIR[0]], "a name has up to 40 letters"),
    ):
        with pytest.raises(RunError, match=why):
            conditions.find(patterns)


def test_differences_between_conditions_are_shown() -> None:
    table = conditions.differences(conditions.find(PAIR)).set_index("fact")
    assert table.loc["regime", ["early", "delayed"]].tolist() == ["early", "delayed"]
    assert set(table["aspect"]) == {"kernel"}


# ---- the command ----


def command(*words: str) -> Any:
    return CliRunner().invoke(main, ["compare", *words])


def test_command_prints_json_tsv_and_the_robots_table() -> None:
    told = json.loads(command("--json", *PAIR).output)
    assert told["causes"]["delayed"]["verdict"] == "bare VMAs" and told["interleaved"]
    assert {row["metric"] for row in told["rows"]} >= {"mmap-lock.acquired"}
    assert "NaN" not in command("--json", *PAIR).output
    lines = command("--tsv", *PAIR).output.splitlines()
    assert lines[0].split("\t")[:3] == ["metric", "condition", "n_base"]
    assert len(lines) == len(told["rows"]) + 1
    assert command("--lkp", *PAIR).output.startswith("=" * 89)
    everything = command("--all", *PAIR).output
    assert "census.bare.guard" in everything and max(map(len, everything.splitlines())) <= 112
    assert command("--lkp", "--json", *PAIR).exit_code == 2


def test_exit_code_tells_whether_the_primary_metric_moved() -> None:
    assert command("--exit-code", *PAIR).exit_code == 10
    unsure = ["plain=other-plain-*", "again=other-again-*"]
    assert command("--exit-code", *unsure).exit_code == 11
    same = ("--exit-code", "--metric", "census.bare.zero-page", "--lkp")
    assert command(*same, *PAIR).exit_code == 0
    assert command("--exit-code", "other-plain-*", "other-pages-*").exit_code == 1


def test_a_damaged_run_is_one_sentence(tmp_path: Path) -> None:
    for name in ("a-1", "b-1"):
        shutil.copytree(paths.recorded() / "early-small-allocs-mt-1", tmp_path / name)
    (tmp_path / "b-1" / "locks.parquet").write_bytes(b"nonsense")
    done = command(f"{tmp_path}/a-*", f"{tmp_path}/b-*")
    assert done.exit_code == 1 and done.output.count("\n") == 1 and "was changed" in done.output


# ---- the notebook ----


def test_notebook_with_the_users_own_runs(tmp_path: Path) -> None:
    """Two conditions of their own: nothing recorded is set beside them."""
    for number in (1, 2, 3):
        for name, source in (("old", "early"), ("new", "delayed")):
            place = paths.recorded() / f"{source}-small-allocs-mt-{number}"
            shutil.copytree(place, tmp_path / f"{name}-{number}")
    told = {"base": str(tmp_path / "old-*"), "head": f"newer={tmp_path}/new-*"}
    notebook = notebooks.execute("05-compare", tmp_path / "out.ipynb", told)
    shown = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "newer" in shown and "So bare VMAs explain 1" in shown
    assert "serial share" not in shown and "over 3x" not in shown
    refused = {"base": "other-plain-*", "head": "other-pages-*"}
    with pytest.raises(RunError, match="differ in their parameters"):
        notebooks.execute("05-compare", tmp_path / "out.ipynb", refused)


# ---- the mail's figures ----


def test_mails_rows_beside_ours_of_the_same_name() -> None:
    sides = conditions.find(PROFILED)
    table = reference.beside(sides).set_index("metric")
    assert len(table) == 19 and table["theirs"].iloc[0] == "over 3x"
    missing = table[table["direction"] == "not measured"]
    # What takes hardware counters says so; nothing is left out without a word.
    assert (missing["note"] != "").all()
    needs = table.loc["perf-stat.overall.cycles-between-cache-misses"]
    assert "cache-misses" in needs["note"] and "machine" in needs["note"]
    spinning = [name for name in table.index if "native_queued_spin_lock_slowpath" in name]
    assert "interrupts are off" in table.loc[spinning[0], "note"]
    assert reference.agreement(table.reset_index()).startswith("Of the mail's 19 rows ")


def test_a_call_path_is_the_share_of_the_samples_that_have_it() -> None:
    """Worked out anew from the stacks themselves, whatever lies beyond the path's end."""
    sides = conditions.find(PROFILED)
    table = reference.beside(sides).set_index("metric")
    path = ["vm_mmap_pgoff", "ksys_mmap_pgoff", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]
    each = []
    for run in sides["early"]:
        for profile in perf_profile.of_run(run).values():
            names = profile.frames["symbol"].tolist()
            ends = zip(profile.offsets, profile.offsets[1:], strict=False)
            stacks = [[names[i] for i in profile.frame_ids[a:b]] for a, b in ends]
            has = [any(s[i : i + 4] == path for i in range(len(s))) for s in stacks]
            period = profile.samples["period"].to_numpy()
            mine = np.array(has)[profile.samples["stack"].to_numpy()]
            each.append((run.id, 100 * period[mine].sum() / period.sum()))
    mean = pd.DataFrame(each).groupby(0)[1].mean().mean()
    name = f"perf-profile.calltrace.cycles-pp.{'.'.join(path)}"
    assert table.loc[name, "base"] == pytest.approx(mean) and mean > 1


def test_size_is_our_ratio_over_theirs() -> None:
    name = "vm-scalability.time.voluntary_context_switches"
    trace = next(name for name in reference.mail()["metric"] if "osq_lock" in name)
    values = pd.DataFrame({name: [1000.0, 1001, 999, 266, 266, 266], trace: [3.0] * 3 + [50.0] * 3})
    table = reference.beside_values(values, SIX).set_index("metric")
    row = table.loc[name]
    assert row["direction"] == "same"
    assert row["size"] == pytest.approx(0.266 / (14697764 / 1.105e8))
    # Of a share the difference, as it is quoted.
    assert table.loc[trace, "size"] == pytest.approx(47 / 94)
    upwards = values.iloc[::-1].reset_index(drop=True)
    table = reference.beside_values(upwards, SIX).set_index("metric")
    assert table.loc[name, "direction"] == "other"


def test_damaged_reference_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot read"):
        reference.mail(tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="is damaged"):
        reference.mail(tmp_path / "odd.csv")
