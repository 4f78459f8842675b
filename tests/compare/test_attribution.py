# SPDX-License-Identifier: GPL-2.0-only
"""Cause: the kernel pair is explained by bare VMAs, and whatever has another cause is not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import MadeRun

from anonvma.compare import attribution, conditions, design, time_attribution
from anonvma.compare.attribution import words as attribution_words
from anonvma.run import runs
from anonvma.run.runs import Run
from anonvma.study import experiment
from anonvma.tables.mapping_time import BEHIND


def pair(load: str) -> dict[str, list[Run]]:
    return conditions.find([f"early=early-{load}-[1-5]", f"delayed=delayed-{load}-[1-5]"])


# ---- the pair ----


def test_pair_is_explained_by_read_faults_on_private_dev_zero_that_stay_bare() -> None:
    found = attribution.explain(pair("small-allocs-mt"))
    assert found.verdict == "bare VMAs"
    assert found.bare_share is not None and found.bare_share >= 0.95
    assert found.unexplained_share is not None and abs(found.unexplained_share) <= 0.05
    assert -65700 < found.low < found.change < found.high < -65400
    first = found.table.iloc[0]
    assert first[["cause", "origin", "access", "state"]].tolist() == [
        "lock path", "private /dev/zero", "read", "stays bare",
    ]  # fmt: skip
    # 256 MiB are 65,536 pages, in 8 x 820 mappings of ten.
    assert first["faults_base"] == first["faults_head"] == first["taken_base"] == 65536
    assert first["taken_head"] == 0 and first["vmas_base"] == first["vmas_head"] == 6560
    words = " ".join(found.sentences)
    assert (
        "read faults on private /dev/zero VMAs that stay bare (the census has 6,560 such" in words
    )
    assert "So bare VMAs explain 100 % of the change" in words


def test_rows_add_up_to_the_change_for_every_recorded_pair() -> None:
    for base, head in (
        ("early-small-allocs-mt-*", "delayed-small-allocs-mt-*"),
        ("early-anon-w-seq-mt-*", "delayed-anon-w-seq-mt-*"),
        ("other-plain-*", "other-pages-*"),
        ("scaling-early-t16-*", "scaling-delayed-t16-*"),
        ("scaling-early-t1-*", "scaling-early-t4-*"),
    ):
        found = attribution.explain(conditions.find([f"base={base}", f"head={head}"]))
        assert found.table["change"].sum() == pytest.approx(found.change)
        assert found.table["cause"].iloc[-1] == "unexplained"


def test_writing_takes_the_lock_as_often_on_either_kernel() -> None:
    """The delayed check takes mmap_lock for the anon_vma too, by trying: once a mapping."""
    found = attribution.explain(pair("anon-w-seq-mt"))
    assert found.verdict == "no change" and found.bare_share is None
    assert "as often" in found.sentences[0]


def test_more_tasks_do_not_change_the_explanation() -> None:
    found = attribution.explain(
        conditions.find(["early=scaling-early-t16-*", "delayed=scaling-delayed-t16-*"])
    )
    assert found.verdict == "bare VMAs" and found.bare_share is not None
    assert found.bare_share >= 0.95


def test_like_with_like_has_nothing_to_explain() -> None:
    found = attribution.explain(conditions.find(["a=other-again-*", "b=other-plain-*"]))
    assert found.verdict == "no change"


# ---- other causes, recorded on the kernel with the early check ----


def test_twice_the_pages_are_more_faults_and_not_another_lock() -> None:
    """All of them find bare VMAs and take mmap_lock; that is so on both sides."""
    found = attribution.explain(conditions.find(["plain=other-plain-*", "pages=other-pages-*"]))
    assert found.verdict == "not bare VMAs" and found.bare_share == pytest.approx(0, abs=1e-6)
    first, second = found.table.iloc[0], found.table.iloc[1]
    assert first["cause"] == "number" and first["change"] == pytest.approx(4096)
    assert second[["cause", "origin", "mode"]].tolist() == ["calls", "mmap", "write"]
    assert second["change"] == pytest.approx(410)
    assert "This is not explained by bare VMAs" in " ".join(found.sentences)


def test_larger_mappings_are_fewer_calls_of_mmap() -> None:
    found = attribution.explain(conditions.find(["plain=other-plain-*", "unit=other-unit-*"]))
    assert found.verdict == "not bare VMAs"
    assert found.table.iloc[0][["cause", "origin"]].tolist() == ["calls", "mmap"]
    # 410 mappings of ten pages, 42 of a hundred.
    assert found.table.iloc[0]["change"] == pytest.approx(-368)
    assert "not explained by bare VMAs" in " ".join(found.sentences)


def test_a_busy_neighbour_does_not_change_who_takes_the_lock() -> None:
    sides = conditions.find(["plain=other-plain-*", "busy=other-busy-*"])
    found = attribution.explain(sides)
    assert found.verdict == "no change" and found.bare_share is None
    # Had throughput fallen clearly, nothing of it would be laid on VMAs.
    slowed = pd.Series({"metric": "vm-scalability.throughput", "verdict": "lower", "ratio": 0.5})
    one, other = (attribution.Side(name, each) for name, each in sides.items())
    said = attribution_words._primary_said(one, other, found.verdict, slowed)
    assert "not explained by bare VMAs" in said and "all of it is unexplained" in said


# ---- made by hand ----


def made(faults: Sequence[dict[str, Any]], locks: Sequence[tuple[str, str, int]]) -> Any:
    """A run with these faults and acquisitions, and nothing else that counts."""
    zero = {"origin": "private /dev/zero", "mode": "user", "access": "read", "before": "bare",
            "after": "bare", "path": "mmap", "result": "minor", "time_ns": 1000.0}  # fmt: skip
    tables = {
        "faults": pd.DataFrame(
            [{"repeat": 1, **zero, "log2_ns": [row["count"]], **row} for row in faults]
        ),
        "locks": pd.DataFrame(
            [
                {
                    "repeat": 1, "process": 3, "asked_by": by, "mode": mode, "success": True,
                    "waited_for": True, "count": count, "contended": 0, "wait_ns": 10 * count,
                }
                for by, mode, count in locks
            ]
        ),
        "throughput": pd.DataFrame({"repeat": [1], "kb_per_s": [1000], "bytes": [8]}),
        "repeats": pd.DataFrame(
            {
                "repeat": [1], "seconds": [1.0], "user_s": [0.5], "system_s": [0.5],
                "voluntary_ctxt": [1], "involuntary_ctxt": [1], "minor_faults": [1],
                "major_faults": [0],
            }
        ),
    }  # fmt: skip
    return MadeRun(tables)


def explained(base: Any, head: Any) -> attribution.Cause:
    return attribution.explain({"base": [base] * 2, "head": [head] * 2})


def test_what_the_faults_do_not_account_for_is_unexplained_with_its_size() -> None:
    """Half of the acquisitions have no fault: 500 were seen, and the lock was taken 1,000 times."""
    base = made([{"count": 500}], [("page fault", "read", 1000)])
    head = made([{"count": 500, "path": "vma"}], [("page fault", "read", 0)])
    found = explained(base, head)
    assert found.change == -1000
    assert found.bare_share == pytest.approx(0.5)
    assert found.unexplained_share == pytest.approx(0.5)
    assert "Unexplained: 500 (50 %)." in " ".join(found.sentences)
    assert found.table.iloc[-1]["change"] == pytest.approx(-500)


def test_an_unknown_lock_path_is_not_guessed() -> None:
    base = made([{"count": 800, "path": "unknown"}], [("page fault", "read", 800)])
    head = made([{"count": 800, "path": "vma"}], [("page fault", "read", 0)])
    found = explained(base, head)
    assert found.verdict == "not bare VMAs" and found.unexplained_share == pytest.approx(1)
    assert "lock path of 800 faults of base is unknown" in " ".join(found.sentences)


def test_another_lock_path_of_vmas_that_are_not_bare_is_not_laid_on_bare_ones() -> None:
    """As with a driver whose faults cannot be taken under the VMA's lock."""
    kind = {"count": 900, "before": "vm_ops", "after": "vm_ops", "origin": "private file"}
    base = made([kind], [("page fault", "read", 900)])
    head = made([{**kind, "path": "vma"}], [("page fault", "read", 0)])
    found = explained(base, head)
    assert found.verdict == "not bare VMAs" and found.bare_share == 0
    assert found.table.iloc[0]["cause"] == "lock path"


def test_faults_of_bare_vmas_that_were_repeated_are_contention_and_not_the_check() -> None:
    base = made([{"count": 900, "path": "vma"}], [("page fault", "read", 0)])
    head = made(
        [{"count": 600, "path": "vma"}, {"count": 300, "path": "retry"}],
        [("page fault", "read", 300)],
    )
    found = explained(base, head)
    assert found.verdict == "not bare VMAs"
    assert found.table.iloc[0]["cause"] == "repeated" and found.table.iloc[0]["change"] == 300


def test_a_change_of_both_number_and_share_is_taken_apart_by_hand() -> None:
    """1,000 faults all under mmap_lock, then 500 of which 100: shares 1 and 0.2, mean 750 and 0.6.

    750 * -0.8 = -600 by the share, 0.6 * -500 = -300 by the number: together 100 - 1,000.
    """
    base = made([{"count": 1000}], [("page fault", "read", 1000)])
    head = made([{"count": 100}, {"count": 400, "path": "vma"}], [("page fault", "read", 100)])
    found = explained(base, head)
    changes = found.table.set_index("cause")["change"]
    assert changes["lock path"] == pytest.approx(-600)
    assert changes["number"] == pytest.approx(-300)
    assert found.bare_share == pytest.approx(2 / 3) and found.verdict == "bare VMAs"


def test_the_kernels_own_faults_are_not_the_checks_doing() -> None:
    """write(2) from bare memory: such a fault never tries the VMA's lock."""
    kind = {"mode": "kernel", "count": 700}
    base = made([kind], [("page fault", "read", 700)])
    head = made([{**kind, "path": "vma"}], [("page fault", "read", 0)])
    assert explained(base, head).verdict == "not bare VMAs"


def test_a_vanished_kind_of_fault_is_a_change_of_number() -> None:
    base = made([{"count": 700}], [("page fault", "read", 700)])
    head = made([{"count": 3, "origin": "heap"}], [("page fault", "read", 3)])
    found = explained(base, head)
    assert set(found.table["cause"]) == {"number", "unexplained"}
    assert found.verdict == "not bare VMAs"


def test_without_traces_it_says_what_is_lacking() -> None:
    run = made([{"count": 1}], [("page fault", "read", 1)])
    del run.manifest.tables["locks"]
    found = explained(run, run)
    assert found.verdict == "unknown" and np.isnan(found.change)
    assert "has no table 'locks'" in found.sentences[0] and "Remedy" in found.sentences[0]
    assert attribution.printed(found.table).empty


def test_a_single_run_a_side_is_explained_without_an_interval() -> None:
    base = made([{"count": 9}], [("page fault", "read", 9)])
    head = made([{"count": 9, "path": "vma"}], [("page fault", "read", 0)])
    found = attribution.explain({"base": [base], "head": [head]})
    assert np.isnan(found.low) and found.verdict == "bare VMAs"
    assert "a single run has no interval" in found.sentences[0]


def test_printed_has_the_large_rows_and_the_rest_in_one() -> None:
    found = attribution.explain(pair("small-allocs-mt"))
    printed = attribution.printed(found.table)
    assert printed.iloc[0]["faults"] == "65,536 > 65,536"
    assert printed.iloc[0]["taken"] == "65,536 > 0"
    assert printed["change"].sum() == pytest.approx(found.change)
    assert printed["cause"].tolist()[-1] == "unexplained"


# ---- other causes, here and now ----


@pytest.fixture(scope="module")
def odd_unmap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("odd") / "odd_unmap"
    source = Path(__file__).parents[1] / "helpers" / "odd_unmap.c"
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source]
    subprocess.run(words, check=True)
    return program


Compared = Callable[[Path, dict[str, str], int], dict[str, list[Run]]]


@pytest.fixture(scope="module")
def compared(build: Path, odd_unmap: Path) -> Compared:
    """Run programs in turns on this machine, traced, in so many blocks.

    Beside "beside" as many processes burn as there are CPUs: enough that somebody waits for one.
    """

    def go(out: Path, words: dict[str, str], blocks: int) -> dict[str, list[Run]]:
        each = [
            design.Condition(
                name=name,
                target="local",
                parameters={"workload": f"{odd_unmap} {word}"},
                busy=min(os.cpu_count() or 1, 64) if name == "beside" else 0,
            )
            for name, word in words.items()
        ]
        plan = design.Plan(conditions=each, warmups=0, least=blocks, most=blocks, repeats=1)
        experiment.run(plan, out)
        return design.conditions(out)

    return go


@pytest.fixture(scope="module")
def unmapped(compared: Compared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Run]]:
    """Of the same 4,000 faults: twice alike, page by page, and with a busy neighbour."""
    words = {"whole": "whole 400", "again": "whole 400 ", "bypage": "by-page 400",
             "beside": "whole 400  "}  # fmt: skip
    sides = compared(tmp_path_factory.mktemp("unmapped") / "out", words, 2)
    traced(sides)
    return sides


def of(sides: dict[str, list[Run]], *names: str) -> dict[str, list[Run]]:
    """Some of the sides, in that order."""
    return {name: sides[name] for name in names}


def traced(sides: dict[str, list[Run]]) -> None:
    lacking = {"faults", "locks"} - set(next(iter(sides.values()))[0].manifest.tables)
    if lacking:
        pytest.skip(f"this kernel cannot trace {', '.join(sorted(lacking))}")


def test_a_slowed_munmap_is_named(unmapped: dict[str, list[Run]]) -> None:
    """The same 4,000 faults; mappings of ten pages go page by page, ten times as many calls."""
    sides = of(unmapped, "whole", "bypage")
    found = attribution.explain(sides)
    assert found.verdict == "not bare VMAs"
    first = found.table.iloc[0]
    assert first[["cause", "origin", "mode"]].tolist() == ["calls", "munmap", "write"]
    # Only for writing: that it keeps the lock for reading meanwhile is no taking.
    assert first["change"] == pytest.approx(3600, abs=20)
    assert found.change == pytest.approx(3600, abs=40)
    assert "not explained by bare VMAs" in " ".join(found.sentences)
    # By its time, too, whatever else this machine does meanwhile.
    times = time_attribution.explain(sides)
    assert times is not None and times.table["made"].sum() == pytest.approx(times.change, abs=0.1)
    table = times.table.set_index("part")
    work = table[[part.endswith("at work") or "holding" in part for part in table.index]]
    assert work["made"].idxmax() == "munmap(), at work"


def test_another_page_size_is_another_number_of_faults(compared: Compared, tmp_path: Path) -> None:
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("transparent huge pages are switched off here")
    sides = compared(tmp_path / "out", {"small": "small 4", "huge": "huge 4"}, 1)
    traced(sides)
    found = attribution.explain(sides)
    groups = found.table[found.table["cause"] == "lock path"]
    assert found.verdict in ("not bare VMAs", "no change")
    assert groups["change"].abs().sum() <= 5
    huge = sides["huge"][0].table("faults")
    if int(huge.loc[huge["origin"] == "private anonymous", "count"].sum()) > 1000:
        pytest.skip("this machine gave no huge pages")
    assert "bare VMAs explain" not in " ".join(found.sentences)


def test_a_busy_neighbour_here_is_not_laid_on_bare_vmas(unmapped: dict[str, list[Run]]) -> None:
    """Processes burn the CPUs beside one side; how much slower that makes it is not judged."""
    sides = of(unmapped, "whole", "beside")
    found = attribution.explain(sides)
    assert found.verdict in ("no change", "not bare VMAs")
    words = " ".join(found.sentences)
    assert "So bare VMAs" not in words and "Bare VMAs explain" not in words
    if "times that of" in words:  # the primary metric moved
        assert "not explained by bare VMAs" in words
    times = time_attribution.explain(sides)
    assert times is not None and times.cause in (None, BEHIND)  # None: this machine was busy before
    assert times.table.set_index("part").loc[BEHIND, "head"] > 0


def test_this_kernel_against_itself_has_nothing_to_explain(unmapped: dict[str, list[Run]]) -> None:
    sides = of(unmapped, "whole", "again")
    found = attribution.explain(sides)
    assert found.verdict == "no change"
    assert not re.search("So bare VMAs", " ".join(found.sentences))
    assert runs.Run.open(sides["whole"][0].path).manifest.tables["environment"].rows > 20
