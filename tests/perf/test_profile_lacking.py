# SPDX-License-Identifier: GPL-2.0-only
"""Every table, figure and export of a profile, of recordings that have next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from anonvma.base.errors import ProfileError
from anonvma.collect.importing import import_files
from anonvma.compare import changes
from anonvma.perf import counters, export, flame
from anonvma.perf import profile as perf_profile
from anonvma.perf.script import read
from anonvma.report import changes as report_changes
from anonvma.report import output
from anonvma.run.runs import Run
from anonvma.tables import metrics

HEAD = "bench   100   10.000100:    1000000 cpu-clock: \n"
FRAMES = "\t            1234 spin+0x4 (/srv/bench)\n\t            1300 main+0x10 (/srv/bench)\n"
FAULT = "".join(
    f"\tffffffff81000001 {name}+0x1 ([kernel.kallsyms])\n"
    for name in ("clear_page_erms", "asm_exc_page_fault")
)
TEXTS = {
    "no processor": (HEAD + FRAMES + "\n") * 2,
    "one sample": HEAD + FRAMES,
    "no stack": HEAD * 2,
    "no call graph": "bench 100 [001] 10.000100: 5 cycles:  1234 spin+0x4 (/srv/bench)\n",
    "no period": f"bench 100 10.000100: cycles:u: \n{FRAMES}",
    "an event without periods": f"bench 100 10.0001000: 0 cycles: \n{FRAMES}\n"
    f"bench 100 10.000200: 5 instructions: \n{FRAMES}",
    "no symbol": "bench 100 10.000100: 5 cycles: \n\tffff [unknown] ([unknown])\n",
    "no thread": f"bench -1 10.000100: 5 cycles: \n{FAULT}",
    "no name": f" 100 10.000100: 5 cycles: \n{FRAMES}",
}
NOTHING = f"bench 100 10.000100: 0 cycles: \n{FRAMES}"


def imported(text: str, directory: Path) -> Run:
    path = directory / "perf.txt"
    path.write_text(text)
    return import_files([path], directory / "runs")


def fault_callers(run: Run) -> Any:
    paths = perf_profile.fault_callers(perf_profile.of_run(run)[1], most=30)
    assert 0 <= paths.loc[paths["waiting"], "percent"].sum() <= 100.001
    return output.styled(paths[~paths["waiting"]])


WAYS: dict[str, Callable[[Run], Any]] = {
    "metrics": metrics.of,
    "counters": lambda run: output.told(counters.counters(run), counters.lacking_said(run)),
    "absent": lambda run: output.told(counters.absent(run), counters.lacking_said(run)),
    "intervals": counters.plot_intervals,
    "sentences": perf_profile.sentences,
    "parts": lambda run: output.styled(perf_profile.mean(run, perf_profile.parts)),
    "classes": lambda run: output.told(perf_profile.by_vma_class(run), "none"),
    "figure": flame.plot,
    "page": flame.interactive,
    "two pages": lambda run: flame.interactive(run, run),
    "callers": fault_callers,
    "tables": lambda run: perf_profile.tables({"this": run}),
    "two tables": lambda run: perf_profile.tables({"this": run, "that": run}),
    "bars": lambda run: perf_profile.plot_parts({"this": run}),
    "comparison": lambda run: report_changes.sections({"one": [run], "two": [run]}),
}


@pytest.mark.parametrize("text", TEXTS)
def test_whatever_a_recording_lacks(text: str, tmp_path: Path) -> None:
    run = imported(TEXTS[text], tmp_path)
    for way in WAYS.values():
        assert way(run) is not None
        plt.close("all")
    profile = perf_profile.of_run(run)[1]
    for write in (export.folded, export.firefox):
        assert write(profile)
    again = read([export.firefox(profile).encode()], theirs=True)
    assert len(again.samples) == len(perf_profile.select(profile).samples)
    assert again.samples["cpu"].isna().all() == profile.samples["cpu"].isna().all()
    for shares in (perf_profile.self_, perf_profile.children, perf_profile.parts):
        assert shares(profile).between(0, 100.001).all()


def test_samples_that_stand_for_nothing_are_said(tmp_path: Path) -> None:
    run = imported(NOTHING, tmp_path)
    assert metrics.of(run).empty
    with pytest.raises(ProfileError, match="period of 0"):
        perf_profile.sentences(run)
    for write in (export.folded, export.firefox):
        assert write(perf_profile.of_run(run)[1])


def test_counters_alone(tmp_path: Path) -> None:
    path = tmp_path / "stat.csv"
    path.write_text("44,,page-faults,306721,100.00,,\n")
    run = import_files([path], tmp_path / "runs")
    assert perf_profile.sentences(run) == [] and len(counters.counters(run)) == 1
    assert len(changes.table({"one": [run], "two": [run]}))
    assert counters.absent(run).empty and "lacks none" in counters.lacking_said(run)
