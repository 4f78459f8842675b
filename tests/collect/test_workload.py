# SPDX-License-Identifier: GPL-2.0-only
"""anonvma.collect.workload: what it refuses, what it runs, what it expects."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anonvma.base.errors import SetupError, WorkloadError
from anonvma.collect.workload import Workload, cases, parse_size
from anonvma.collect.workload_output import held_pids, parse_throughput, parse_used
from anonvma.target.local import Local

pytestmark = pytest.mark.usefixtures("build")


@pytest.fixture
def target() -> Iterator[Local]:
    with Local() as local:
        yield local


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        (4096, 4096),
        ("40k", 40960),
        ("800M", 800 << 20),
        ("2g", 2 << 30),
        ("1t", 1 << 40),
        ("0x1000", 4096),
        (" 8k ", 8192),
    ],
)
def test_sizes_are_read_as_usemem_reads_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5m", "4kb", "0", "0k", "9999999t", None, True])
def test_what_is_not_a_size_is_refused(text: Any) -> None:
    with pytest.raises(WorkloadError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": -2}, "threads is -2"),
        ({"threads": "two"}, "threads 'two' is not a whole number"),
        ({"threads": 1.5}, "threads 1.5 is not a whole number"),
        ({"threads": True}, "threads True is not a whole number"),
        ({"threads": 3, "bytes": "800m"}, "do not divide into 3 tasks.*multiple of 12288"),
        ({"bytes": "1k"}, "do not divide"),
        ({"bytes": 0}, "bytes 0 is not a size"),
        ({"unit": 0}, "unit 0 is not a size"),
        ({"unit": "many"}, "unit 'many' is not a size"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": "nan"}, "seconds is nan"),
        ({"seconds": "soon"}, "seconds 'soon' is not a number"),
        ({"workload": ""}, "workload is empty"),
        ({"workload": None}, "workload is empty"),
        ({"workload": "small-alocs-mt"}, "did you mean 'small-allocs-mt'"),
        ({"workload": "specimen"}, "did you mean 'specimens'"),
        ({"workload": "pid:"}, "names no process"),
        ({"workload": "pid:0"}, "names no process"),
        ({"workload": "pid:x"}, "names no process"),
        ({"workload": "sh -c 'true"}, "is not a command line: No closing quotation"),
        ({"workload": "a\0b"}, "NUL byte"),
        ({"thread": 2}, "thread: Extra inputs"),
    ],
)
def test_impossible_parameters_are_refused_in_one_sentence(
    parameters: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(WorkloadError, match=sentence) as caught:
        Workload(**parameters)
    assert "\n" not in str(caught.value)


def test_only_case_parameters_have_to_divide() -> None:
    assert Workload(workload="specimens", threads=3).parameters == {"workload": "specimens"}


def test_an_absent_program_is_refused_where_it_would_run(target: Local) -> None:
    with pytest.raises(WorkloadError, match="no program 'no-such-thing' on target local"):
        Workload(workload="no-such-thing --fast").check(target)


def test_a_dead_process_is_refused(target: Local) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(WorkloadError, match="has ended already"):
        Workload(workload=f"pid:{process.pid}").check(target)
    process.wait()
    with pytest.raises(WorkloadError, match="there is no process"):
        Workload(workload=f"pid:{process.pid}").check(target)
    Workload(workload=f"pid:{os.getpid()}").check(target)


def test_the_command_gives_each_task_its_share() -> None:
    threads = Workload(workload="small-allocs-mt", threads=4, bytes="1g", unit="40k")
    assert threads.argv("/somewhere/vmload", hold=True) == [
        *("/somewhere/vmload", "--hold", "--case", "small-allocs-mt"),
        *("-t", "4", "--unit", "40960", str(256 << 20)),
    ]
    processes = Workload(workload="small-allocs", threads=2, bytes="8k")
    assert processes.argv() == ["vmload", "--case", "small-allocs", "-n", "2", "4096"]


def test_a_command_line_is_words_and_no_shell() -> None:
    workload = Workload(workload="/usr/bin/printf '%s' '$(id)' ; true")
    assert workload.kind == "command"
    assert workload.name == "printf"
    assert workload.argv("/bin/printf") == ["/bin/printf", "%s", "$(id)", ";", "true"]


def _witness(workload: Workload, build: Path) -> tuple[int, int]:
    """VMAs of /dev/zero in the held processes, and faults taken, as others see them."""
    process = subprocess.Popen(
        workload.argv(str(build / "vmload"), hold=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout and process.stdin
    pids = None
    while pids is None:
        pids = held_pids(process.stdout.readline())
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in pids]
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    process.stdin.close()
    process.stdout.close()
    assert process.wait() == 0
    vmas = sum(len(re.findall(r"/dev/zero$", text, re.MULTILINE)) for text in maps)
    return vmas, sum(int(fields[7]) for fields in stats)


@pytest.mark.parametrize(
    "parameters",
    [
        {"workload": "small-allocs-mt", "threads": 2, "bytes": "16m"},
        {"workload": "small-allocs-mt", "threads": 2, "bytes": "16m", "unit": "36k"},
        {"workload": "small-allocs", "threads": 2, "bytes": "16m", "unit": "6k"},
        {"workload": "anon-r-seq-mt", "threads": 2, "bytes": "16m"},
        {"workload": "anon-r-seq", "threads": 1, "bytes": "8m", "unit": "1g"},
    ],
)
def test_expected_vmas_and_pages_are_what_the_kernel_shows(
    parameters: dict[str, Any], build: Path
) -> None:
    workload = Workload(**parameters)
    vmas, faults = _witness(workload, build)
    assert vmas == workload.expected_vmas
    assert workload.expected_pages is not None
    # A process needs some faults to start, and for its own stacks and heap.
    assert 0 <= faults - workload.expected_pages < 150 * workload.threads


def test_what_cannot_be_known_beforehand_is_none() -> None:
    assert Workload(workload="anon-r-rand-mt").expected_pages is None
    assert Workload(workload="anon-r-rand-mt").expected_vmas == 2
    assert Workload(workload="anon-cow-rand-mt").expected_vmas == 1
    assert Workload(workload="specimens").expected_vmas is None
    assert Workload(workload="true").expected_pages is None
    assert Workload(workload="true").needed_map_count == 0


def test_a_case_counts_in_the_pages_of_the_machine() -> None:
    load = Workload(workload="small-allocs-mt", threads=2, bytes="20m")
    assert (load.expected_vmas, load.expected_pages) == (512, 5120)
    there = load.where_pages_are(1 << 14)
    assert (there.expected_vmas, there.expected_pages) == (128, 1280)
    assert there.parameters == load.parameters
    with pytest.raises(WorkloadError, match="whole pages: use a multiple of 131072"):
        Workload(threads=2, bytes="40k").where_pages_are(1 << 16)


def test_the_needed_map_count_is_a_process_s() -> None:
    assert Workload(workload="small-allocs-mt").needed_map_count >= 20480
    assert Workload(workload="small-allocs").needed_map_count < 20480


def test_every_case_can_be_described() -> None:
    for name in cases():
        workload = Workload(workload=name)
        assert workload.kind == "case"
        assert workload.expected_vmas


def test_a_recorded_run_s_workload_is_described_without_vmload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    cases.cache_clear()
    workload = Workload(workload="small-allocs-mt")
    assert workload.name == "small-allocs-mt"
    with pytest.raises(SetupError, match="vmload is not built"):
        workload.argv()


def test_throughput_lines_are_found_among_others() -> None:
    text = b"hello\n100 bytes / 7 usecs = 13 KB/s\nx 1 bytes / 2 usecs = 3 KB/s\n1 bytes / 2 usecs"
    assert parse_throughput(text) == [{"task": 0, "bytes": 100, "usecs": 7, "kb_per_s": 13}]


def test_hold_lines_of_both_programs() -> None:
    assert held_pids(b"hold: 12 13\n") == [12, 13]
    assert held_pids(b'{"hold": true, "pids": [7]}\n') == [7]
    assert held_pids(b"12 bytes / 3 usecs = 3 KB/s\n") is None


def test_what_processes_used_is_summed() -> None:
    text = (
        b"1 bytes / 2 usecs = 3 KB/s\nused: 12 0.5 0.25 7 2\nused: 13 1.0 0.25 1 0\nhold: 12 13\n"
    )
    assert parse_used(text) == {
        "user_s": 1.5, "system_s": 0.5, "voluntary_ctxt": 8, "involuntary_ctxt": 2,
    }  # fmt: skip
    assert parse_used(b"hold: 12 13\n") == {}


def test_vmload_that_cannot_be_started_is_not_to_be_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is wrong with the file is mended by building it."""
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    vmload = tmp_path / "vmload"
    for script, said in (
        ("", r"Exec format error\): build it again\.$"),
        ("#!/bin/sh\nkill -KILL $$\n", "was killed by signal 9 when it was to list"),
        ("#!/bin/sh\nexit 3\n", "ended with exit status 3 when it was to list"),
    ):
        vmload.write_text(script)
        vmload.chmod(0o755)
        cases.cache_clear()
        with pytest.raises(SetupError, match=said):
            cases()
    cases.cache_clear()
