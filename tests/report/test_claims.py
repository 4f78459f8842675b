# SPDX-License-Identifier: GPL-2.0-only
"""The notebooks claim nothing that the runs beside their words do not show.

They are executed on runs with another answer than those that they open by default: a writer, two
sets of boots of one kernel, an imported profile, a run without tracing.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

from anonvma.base import paths
from anonvma.collect.importing import import_files
from anonvma.report import notebooks

SHOWN = ["02-census", "03-faults", "04-profile", "05-compare", "06-report"]
WRITER = "delayed-anon-w-seq-mt-1"
TRACED = {"call_paths", "faults", "fault_events", "locks", "time", "time_totals", "tracing"}
PROFILE = """bench   100   10.000100:    1000000 cpu-clock:
\t            1234 spin+0x4 (/srv/bench)
\t            1300 main+0x10 (/srv/bench)
"""


def words_of(notebook: nbformat.NotebookNode) -> str:
    """What a notebook says: its Markdown, written or computed, and what it printed."""
    words = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            words.append(cell.source)
        for output in cell.get("outputs", []):
            words.append(output.get("text", ""))
            words.append(output.get("data", {}).get("text/markdown", ""))
    return re.sub(r"\\([\W_])", r"\1", "\n".join(words))  # as Markdown shows it


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The words of each notebook, executed on such a run."""
    place = tmp_path_factory.mktemp("claims")
    (place / "perf.txt").write_text(PROFILE)
    imported = import_files([place / "perf.txt"], place / "runs")
    beside = ("control", "scaled", "profiled", "overcommitted")
    nothing_beside: dict[str, Any] = {name: [] for name in beside}
    given: dict[str, dict[str, Any]] = {
        "02-census": {"run": WRITER},
        "03-faults": {"run": WRITER},
        "04-profile": {
            "run": str(imported.path), "base": "early-profile-1*", "head": "early-profile-6",
        },
        "05-compare": {"base": "other-plain-*", "head": "other-again-*", **nothing_beside},
        "06-report": {"run": str(without_tracing(place)), "specimens": ""},
    }  # fmt: skip
    with notebooks.one_kernel():
        done = {
            name: notebooks.execute(name, place / f"{name}.ipynb", parameters)
            for name, parameters in given.items()
        }
    yield {name: words_of(notebook) for name, notebook in done.items()}


def without_tracing(place: Path) -> Path:
    """The writer, as if nothing of it had been traced."""
    run = place / "untraced"
    shutil.copytree(paths.recorded() / WRITER, run)
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["tables"] = {
        name: about for name, about in manifest["tables"].items() if name not in TRACED
    }
    for left in run.glob("*.parquet"):
        if left.name not in {about["file"] for about in manifest["tables"].values()}:
            left.unlink()
    file.write_text(json.dumps(manifest))
    return run


def test_a_writer_leaves_no_vma_bare(executed: Mapping[str, str]) -> None:
    for name in ("02-census", "06-report"):
        assert "Not here." in executed[name] and "Yes." not in executed[name]


def test_the_faults_of_a_writer_are_not_said_to_leave_one_bare(
    executed: Mapping[str, str],
) -> None:
    words = executed["03-faults"]
    assert "none found a bare VMA and left it bare" in words or re.search(
        r"\(<?0?\.\d+ %\) found a bare VMA and left it bare", words
    )


def test_an_imported_profile_is_not_said_to_be_of_the_pair(executed: Mapping[str, str]) -> None:
    words = executed["04-profile"]
    assert "No faults were traced in this run." in words
    assert not re.search("delayed|lock_mm_and_find_vma|under emulation", words)


def test_boots_of_one_kernel_are_not_said_to_differ(executed: Mapping[str, str]) -> None:
    words = executed["05-compare"]
    assert "took mmap_lock as often, as far as these runs show" in words
    assert "are VMAs explain" not in words
    # A check may be early or delayed; no condition here is.
    assert not re.search(r"\b(?:in|of|on) (?:early|delayed)\b(?! check)", words)


def test_what_was_not_traced_is_not_told(executed: Mapping[str, str]) -> None:
    words = executed["06-report"]
    assert not re.search("page faults? \\(traced|What tracing cost|Who took mmap_lock", words)


# A workload, a release, a condition by its name, or what the recorded pair ran on.
_OF_SOME_RUN = re.compile(
    r"small-allocs-mt|anon-w-seq-mt|\b\d+\.\d+\.\d+|`(?:early|delayed)` (?:is|has)"
    r"|under emulation|two processors|eight threads|n = \d"
)


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_written_beforehand_names_no_run(name: str) -> None:
    file = paths.root() / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    written = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert [words for words in written if _OF_SOME_RUN.search(words)] == []
