# SPDX-License-Identifier: GPL-2.0-only
"""What bareness costs beside page faults: tried here, against a second count of the locks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from waiting import PATIENCE

from anonvma.base.tabular import LACKING
from anonvma.probe import consequences_file, locks_file
from anonvma.run import runs
from anonvma.run.schema import columns
from anonvma.tables import consequences

TRIALS, PAGES = 64, 16


@pytest.fixture(scope="module")
def tried(build: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Every operation, on this machine."""
    place = tmp_path_factory.mktemp("tried")
    files = ["--census", str(place / "census"), "--output", str(place / "outcomes")]
    subprocess.run([build / "vmaprobe", "consequences", *files], check=True, timeout=PATIENCE)
    rows, _ = consequences_file.read(place / "outcomes", place / "census")
    return pd.DataFrame(rows).set_index(["operation", "bare"])


def test_every_operation_is_tried_and_what_decides_is_known(tried: pd.DataFrame) -> None:
    assert list(tried.reset_index()) and set(tried.reset_index()) == set(columns("consequences"))
    assert set(tried.index.get_level_values(0)) == set(consequences.DECISIONS)


def test_the_child_of_fork_faults_every_zero_page_again(tried: pd.DataFrame) -> None:
    # getrusage() in the child: vma_needs_copy() copied the page tables of the other VMA only.
    assert tried.loc[("fork", True), "child_faults"] == PAGES
    assert tried.loc[("fork", False), "child_faults"] == 0


def test_what_became_of_the_vmas(tried: pd.DataFrame) -> None:
    left_bare = tried["anon_vma"].eq(False)
    for operation in ("MADV_DONTNEED", "MADV_FREE", "mremap, move", "munmap of a part", "fork"):
        assert left_bare[operation, True] and not left_bare[operation, False]
    for operation in ("MADV_POPULATE_WRITE", "mlock"):
        assert not left_bare[operation, True]
    assert left_bare["mremap, MREMAP_DONTUNMAP", False]
    assert (tried.loc["munmap of a part", "vmas"] == 2).all()
    assert (tried.loc["mprotect of a part", "vmas"] == 3).all()
    assert (tried.loc["mprotect of it, back", "vmas"] == 1).all()


def test_the_locks_of_userfaultfd_are_those_of_the_tracer(build: Path, tmp_path: Path) -> None:
    """The BPF tracer counts on its own: its program keeps perf's events from counting."""
    files = ["--census", tmp_path / "census", "--output", tmp_path / "outcomes"]
    words = [build / "vmaprobe", "consequences", *files, "--only", "UFFDIO_COPY"]
    subprocess.run(words, check=True, timeout=PATIENCE)
    told = json.loads((tmp_path / "outcomes").read_bytes())
    if told["uncounted"]:
        pytest.skip(told["uncounted"])
    counted = sum(each["reads"] for each in told["outcomes"] if not each["error"])
    tracer = [build / "vmaprobe", "locks", "--output", tmp_path / "locks", "--", *words]
    done = subprocess.run(tracer, capture_output=True, timeout=PATIENCE)
    if done.returncode:
        pytest.skip(f"mmap_lock cannot be traced here: {done.stderr.decode()}")
    locks = locks_file.read_locks((tmp_path / "locks").read_bytes()).locks
    reads = locks[(locks["asked_by"] == "userfaultfd") & (locks["mode"] == "read")]
    assert abs(int(reads["count"].sum()) - counted) <= 2  # the perf event's own page faults
    again = json.loads((tmp_path / "outcomes").read_bytes())
    assert again["uncounted"] and all(each["reads"] is None for each in again["outcomes"])


@pytest.fixture
def instance() -> Iterator[Path]:
    """A trace buffer of our own, which says the stack of each event."""
    place = Path("/sys/kernel/tracing/instances", f"consequences-{os.getpid()}")
    place.mkdir()
    (place / "buffer_size_kb").write_text("16384")
    for option in ("options/stacktrace", "events/mmap_lock/mmap_lock_acquire_returned/enable"):
        (place / option).write_text("1")
    yield place
    (place / "events/enable").write_text("0")
    place.rmdir()


@pytest.mark.parametrize(
    ("operation", "function"),
    [("MADV_GUARD_INSTALL", "do_madvise"), ("UFFDIO_COPY", "userfaultfd_ioctl")],
)
def test_the_locks_are_those_that_the_kernel_traces(
    build: Path, tmp_path: Path, instance: Path, operation: str, function: str
) -> None:
    """By tracefs, which has nothing of ours, and perf's events not either."""
    probe = [build / "vmaprobe", "consequences", "--census", tmp_path / "census"]
    words = [*probe, "--output", tmp_path / "outcomes", "--only", operation]
    alone = f'echo $$ > {instance}/set_event_pid && exec "$@"'
    subprocess.run(["sh", "-c", alone, "sh", *words], check=True, timeout=PATIENCE)
    told = json.loads((tmp_path / "outcomes").read_bytes())
    if told["uncounted"]:
        pytest.skip(told["uncounted"])
    events = (instance / "trace").read_text().split("mmap_lock_acquire_returned:")[1:]
    reads = [text for text in events if "write=false success=true" in text]
    traced = sum(f"=> {function}" in text for text in reads)
    # The VMA that is not bare was emptied by MADV_DONTNEED, before 6.17 under mmap_lock.
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    emptied = TRIALS if function == "do_madvise" and release < (6, 17) else 0
    own = sum(each["reads"] for each in told["outcomes"]) + emptied
    assert 0 <= own - traced <= 2  # a page fault of its own now and then


def outcome(operation: str, bare: bool, **other: Any) -> dict[str, Any]:
    usual = {"trials": TRIALS, "median_ns": 1000, "reads": 0.0, "writes": 0.0, "faults": 0.0}
    usual |= {"faults_after": 0.0, "child_faults": None, "dumped": None, "pages": None, "vmas": 1}
    usual |= {"anon_vma": not bare, "error": None}
    return {"operation": operation, "bare": bare, **usual, **other}


def test_only_what_differs_by_bareness_is_told_to_differ() -> None:
    rows = pd.DataFrame(
        [
            outcome("MADV_DONTNEED", True, reads=0.02),
            outcome("MADV_DONTNEED", False),
            outcome("UFFDIO_COPY", True, reads=1.0, anon_vma=True),
            outcome("UFFDIO_COPY", False),
            outcome("MADV_COLLAPSE", True, error="EINVAL"),
            outcome("MADV_COLLAPSE", False),
            outcome("fork", True, child_faults=16),
            outcome("fork", False, child_faults=0),
            outcome("core dump", True, dumped=0),
            outcome("core dump", False, dumped=65536),
            outcome("KSM", True, pages=0),
            outcome("KSM", False, pages=16),
            outcome("swap-out", True, trials=0, error="swap", vmas=None),
            outcome("swap-out", False, trials=0, error="swap", vmas=None),
        ]
    )
    table = consequences.differing(rows)
    assert list(table.index) == ["UFFDIO_COPY", "MADV_COLLAPSE", "fork", "core dump", "KSM"]
    told = consequences.side_by_side(rows).loc["UFFDIO_COPY"]
    assert (told["locks, bare"], told["locks, anon_vma"]) == ("1r", "0")
    assert table.loc["MADV_COLLAPSE", "became, bare"] == "EINVAL"
    assert table.loc["KSM", "became, anon_vma"] == "anon_vma, 16 pages merged"
    untried = consequences.side_by_side(rows).loc["swap-out", "became, bare"]
    assert untried == "not tried: no swap"
    consequences.plot_times(rows)


def test_a_fault_now_and_then_is_not_the_operation_s() -> None:
    children = pd.array([16, None], "Int64")
    rows = pd.DataFrame([outcome("fork", True), outcome("MADV_DONTNEED", True)])
    rows = rows.assign(child_faults=children, faults_after=[0.0, 15 + 1 / 64])
    faults = consequences.side_by_side(rows)["faults, bare"]
    assert faults.to_dict() == {"fork": 16, "MADV_DONTNEED": 15}


def test_a_run_from_before_says_so() -> None:
    rows = consequences.last(runs.find("early-specimens-1"))
    assert rows.empty and consequences.side_by_side(rows).attrs[LACKING]
    assert consequences.differing(rows).empty
    consequences.plot_times(rows)
