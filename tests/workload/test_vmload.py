# SPDX-License-Identifier: GPL-2.0-only
"""vmload against the kernel's own witnesses: /proc/PID/maps, status, pagemap, and fault counts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import alive, wait_until_gone
from waiting import PATIENCE, until

from anonvma.collect.workload_output import parse_used

PAGE = os.sysconf("SC_PAGE_SIZE")
UNIT = 10 * PAGE
LINE = re.compile(r"(\d+) bytes / (\d+) usecs = (\d+) KB/s")


@pytest.fixture
def vmload(build: Path) -> Path:
    return build / "vmload"


def run(vmload: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [vmload, *map(str, options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def rates(text: str) -> list[tuple[int, int, int]]:
    """Bytes, microseconds and KB/s of every line, each of which must be usemem's."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [(int(m[1]), int(m[2]), int(m[3])) for m in found if m]


@contextlib.contextmanager
def held(vmload: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """vmload --hold, stopped at its hold line; the process and its workers' pids."""
    with subprocess.Popen(
        [vmload, "--hold", *map(str, options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            lines = iter(process.stdout.readline, "")
            hold = next((line for line in lines if line.startswith("hold:")), None)
            assert hold, "vmload ended without a hold line"
            yield process, [int(pid) for pid in hold.split()[1:]]
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(timeout=PATIENCE)


def mappings(pid: int, path: str) -> list[tuple[int, int, str]]:
    """Start, end and permissions of the mappings of one path."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == path:
            start, end = (int(part, 16) for part in fields[0].split("-"))
            found.append((start, end, fields[1]))
    return found


def anonymous_kb(pid: int) -> int:
    """Anonymous memory by a walk of the page tables; the RSS of status is only approximate."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.M)
    assert match
    return int(match[1])


def present_pages(pid: int, start: int, end: int) -> set[int]:
    """Which pages of a range are present, by their number in it."""
    count = (end - start) // PAGE
    with open(f"/proc/{pid}/pagemap", "rb") as f:
        f.seek(start // PAGE * 8)
        entries = struct.unpack(f"={count}Q", f.read(count * 8))
    return {i for i, entry in enumerate(entries) if entry >> 63}


def ticks(pid: int) -> int:
    """The time in user mode."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def minor_faults(vmload: Path, *options: object) -> int:
    """Page faults of vmload and all its workers, from the kernel's accounting of the dead."""
    process = subprocess.Popen([vmload, *map(str, options)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_minflt


def case_names() -> list[str]:
    return [
        f"{pattern}-{order}{mt}"
        for pattern in ("anon-r", "anon-w", "anon-cow", "mmap-pread")
        for order in ("seq", "rand")
        for mt in ("", "-mt")
    ] + ["small-allocs", "small-allocs-mt"]


def test_cases_lists_every_case_with_its_options(vmload: Path) -> None:
    rows = dict(line.split("\t") for line in run(vmload, "--cases").stdout.splitlines())
    assert sorted(rows) == sorted(case_names())
    cpus = os.sysconf("SC_NPROCESSORS_ONLN")
    assert rows["small-allocs-mt"] == f"-t {cpus} --readonly --unit {UNIT}"


@pytest.mark.parametrize("case", case_names())
def test_each_task_prints_usemems_line(vmload: Path, case: str) -> None:
    """Bytes are all words plus an eighth for the mapping; KB/s follows from bytes and time."""
    size = 1 << 20
    tasks = ["-t", 3] if case.endswith("-mt") else ["-n", 3]
    result = run(vmload, "--case", case, *tasks, size)
    assert (result.returncode, result.stderr) == (0, "")
    lines = rates(result.stdout)
    assert len(lines) == 3
    for n_bytes, usecs, rate in lines:
        assert n_bytes == size + size // 8
        assert rate == (n_bytes * 1_000_000 >> 10) // usecs


@pytest.mark.parametrize(
    ("text", "size"), [("1m", 1 << 20), ("0x20000", 1 << 17), ("64K", 1 << 16), ("4096", 4096)]
)
def test_sizes(vmload: Path, text: str, size: int) -> None:
    assert rates(run(vmload, text).stdout)[0][0] == size + size // 8


def test_step_and_repeat_change_what_is_accessed(vmload: Path) -> None:
    size = 1 << 20
    (n_bytes, _, _) = rates(run(vmload, "--step", 4096, "--repeat", 5, size).stdout)[0]
    assert n_bytes == size // 8 + 5 * 8 * size // 4096


def test_small_allocs_mt_makes_one_vma_a_unit(vmload: Path) -> None:
    """Private /dev/zero does not merge, so the maps show exactly what was asked for."""
    size = 100 * UNIT + PAGE
    with held(vmload, "--case", "small-allocs-mt", "-t", 3, size) as (_, pids):
        (pid,) = pids
        found = mappings(pid, "/dev/zero")
        present = sum(len(present_pages(pid, start, end)) for start, end, _ in found)
    assert len(found) == 3 * 101
    assert {perms for *_, perms in found} == {"r--p"}
    assert sorted({end - start for start, end, _ in found}) == [PAGE, UNIT]
    assert present == 3 * size // PAGE


def test_processes_hold_their_own_mappings(vmload: Path) -> None:
    with held(vmload, "--case", "small-allocs", "-n", 3, 20 * UNIT) as (_, pids):
        assert len(pids) == 3
        assert [len(mappings(pid, "/dev/zero")) for pid in pids] == [20, 20, 20]


def test_anonymous_units_merge(vmload: Path) -> None:
    """What --anonymous changes: the kernel merges the units, so /dev/zero is not a detail."""
    with held(vmload, "-O", "--readonly", "--unit", UNIT, 500 * UNIT) as (_, (pid,)):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        assert not mappings(pid, "/dev/zero")
    assert len(lines) < 40


@pytest.mark.parametrize("tasks", [("-t", 2), ("-n", 2)])
def test_ten_faults_a_vma_and_nothing_beside(vmload: Path, tasks: tuple[str, int]) -> None:
    """Two runs, the second with 400 VMAs more: the difference is 10 faults for each, no more."""
    options = ("--readonly", "--unit", UNIT, *tasks)
    few = minor_faults(vmload, *options, 100 * UNIT)
    many = minor_faults(vmload, *options, 300 * UNIT)
    assert 2 * 1000 <= few < 2 * 1000 + 250
    assert abs(many - few - 10 * 400) <= 20


def test_reads_leave_no_memory_and_writes_do(vmload: Path) -> None:
    """Zero pages are nobody's memory; that they are there is pagemap's to say."""
    size = 64 * UNIT
    with held(vmload, "--readonly", "--unit", UNIT, size) as (_, (pid,)):
        read_kb = anonymous_kb(pid)
        found = mappings(pid, "/dev/zero")
        assert sum(len(present_pages(pid, s, e)) for s, e, _ in found) == size // PAGE
    with held(vmload, "--unit", UNIT, size) as (_, (pid,)):
        written_kb = anonymous_kb(pid)
        assert {perms for *_, perms in mappings(pid, "/dev/zero")} == {"rw-p"}
    assert read_kb < 256
    assert written_kb >= size // 1024


def test_prealloc_is_one_mapping_made_before_the_fork(vmload: Path) -> None:
    with held(vmload, "-P", "-F", "-n", 2, "--unit", UNIT, 50 * UNIT) as (_, pids):
        maps = [mappings(pid, "/dev/zero") for pid in pids]
    assert len(maps[0]) == 1
    assert maps[0] == maps[1]


def test_file_is_mapped_shared(vmload: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(16 * PAGE))
    with held(vmload, "-f", file, 16 * PAGE) as (_, (pid,)):
        assert [perms for *_, perms in mappings(pid, str(file))] == ["rw-s"]
    words = struct.unpack(f"={16 * PAGE // 8}Q", file.read_bytes())
    assert words == tuple(range(len(words)))


def test_sparse_file_of_a_case_leaves_no_name(
    vmload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with held(vmload, "--case", "mmap-pread-seq-mt", "-t", 1, 1 << 20) as (_, (pid,)):
        assert f"{tmp_path}/vmload-" in Path(f"/proc/{pid}/maps").read_text()
        assert not list(tmp_path.iterdir())


def test_random_order_follows_the_seed(vmload: Path) -> None:
    def pages(seed: int) -> set[int]:
        options = ("--random", "--step", 16 * PAGE, "--seed", seed, 1024 * PAGE)
        with held(vmload, *options) as (_, (pid,)):
            ((start, end, _),) = mappings(pid, "/dev/zero")
            return present_pages(pid, start, end)

    assert pages(7) == pages(7)
    assert pages(7) != pages(8)
    assert 40 < len(pages(7)) <= 64


def test_read_again_prints_a_second_line(vmload: Path) -> None:
    first, second = run(vmload, "-Z", "--unit", UNIT, 10 * UNIT).stdout.splitlines()
    assert LINE.fullmatch(first)
    again = LINE.fullmatch(second.removeprefix("read again "))
    assert again
    assert int(again[1]) == 10 * UNIT


def test_runtime_ends_a_task(vmload: Path) -> None:
    done = LINE.match(run(vmload, "-T", 1, "-r", 1_000_000, 64 << 20).stdout)
    assert done and 0 < int(done[1]) < 1_000_000 * (64 << 20)


@pytest.mark.parametrize("text", ["", "\n"])
def test_hold_ends_with_a_line_or_with_stdin(vmload: Path, text: str) -> None:
    with held(vmload, "-n", 3, "-t", 2, 1 << 20) as (process, pids):
        time.sleep(0.2)
        assert all(alive(pid) for pid in (process.pid, *pids))
        assert process.stdin
        if text:
            process.stdin.write(text)
            process.stdin.flush()
            assert process.wait(timeout=PATIENCE) == 0
    assert process.returncode == 0
    wait_until_gone(pids)


def test_hold_with_a_closed_stdin_ends_at_once(vmload: Path) -> None:
    shell = subprocess.run(
        ["sh", "-c", 'exec "$0" --hold 4096 <&-', vmload], capture_output=True, timeout=PATIENCE
    )
    assert shell.returncode == 0


def test_killing_the_parent_leaves_no_worker(vmload: Path) -> None:
    with held(vmload, "-n", 3, "-t", 2, 1 << 20) as (process, pids):
        process.kill()
        process.wait()
        wait_until_gone(pids)


def test_killing_the_parent_stops_work_under_way(vmload: Path) -> None:
    """Not at a gate, but in the middle of the loop."""
    process = subprocess.Popen([vmload, "-n", "2", "-t", "2", "-r", "1000000000", "1m"])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: len(children.read_text().split()) == 2)
    pids = [int(pid) for pid in children.read_text().split()]
    # In the loop, which alone takes this long.
    until(lambda: all(ticks(pid) >= 5 for pid in pids))
    process.kill()
    process.wait()
    try:
        wait_until_gone(pids)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_worker_ends_the_run(vmload: Path) -> None:
    process = subprocess.Popen(
        [vmload, "--hold", "-n", "3", "--sleep", "60", "1m"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    assert process.stdout
    for _ in range(3):
        process.stdout.readline()
    pids = [int(pid) for pid in children.read_text().split()]
    assert len(pids) == 3
    os.kill(pids[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr.startswith(f"vmload: worker process {pids[1]} was killed by signal 9")
    wait_until_gone(pids)


@pytest.mark.xdist_group("max_map_count")
def test_too_many_vmas_is_one_sentence(vmload: Path) -> None:
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    if limit > 1 << 21:
        pytest.skip(f"vm.max_map_count is {limit}: reaching it would take gigabytes of VMAs")
    asked = limit + 10
    result = run(vmload, "--readonly", "-t", 1, "--unit", PAGE, "--step", PAGE, asked * PAGE)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"asks for {asked} VMAs" in result.stderr
    assert f"vm.max_map_count is {limit}" in result.stderr
    assert int(Path("/proc/sys/vm/max_map_count").read_text()) == limit


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "SIZE is missing"),
        (["1q"], "not '1q'"),
        (["-1"], "no option '-1'"),
        (["--", "-1"], "not '-1'"),
        (["99999999999t"], "SIZE must be a size"),
        (["0"], "at least 8 bytes"),
        (["1m", "2m"], "'2m' follows"),
        (["-n", "x", "1m"], "--nproc must be a whole number, not 'x'"),
        (["-n", "0", "1m"], "at least 1"),
        (["--unit"], "--unit needs a value"),
        (["-t"], "-t needs a value"),
        (["--frobnicate", "1m"], "no option '--frobnicate'"),
        (["-k", "1m"], "no option '-k'"),
        (["--case", "nonesuch", "1m"], "no case 'nonesuch'"),
        (["-f", "/nonesuch", "1m"], "could not open /nonesuch"),
        (["-f", __file__, "1g"], "the mapping would need 1073741824"),
        (["-y", "-u", "4k", "1m"], "--sync-rw needs --unit to equal SIZE"),
        (["--offset", "5", "1m"], "multiple of the page size"),
        (["--detach", "1m"], "option --detach is not supported by vmload"),
        (["-x", "1m"], "option --sync-free is not supported by vmload"),
        (["--punch-holes", "1m"], "option --punch-holes is not supported by vmload"),
        (["-m", "5"], "option -m is not supported by vmload"),
    ],
)
def test_bad_usage_is_one_sentence(vmload: Path, options: list[str], says: str) -> None:
    result = run(vmload, *options)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("vmload: ")
    assert result.stderr.endswith(".\n")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


def test_explicit_options_override_a_case(vmload: Path) -> None:
    result = run(vmload, 1 << 20, "--unit", 1 << 19, "--case", "small-allocs", "-n", 1)
    assert len(rates(result.stdout)) == 1
    with held(vmload, "--unit", 1 << 19, "--case", "small-allocs", "-n", 1, 1 << 20) as (_, (p,)):
        assert len(mappings(p, "/dev/zero")) == 2


def test_help_names_every_option_of_our_own(vmload: Path) -> None:
    text = run(vmload, "--help").stdout
    assert all(option in text for option in ("--case ", "--cases", "--hold", "--seed"))
    assert run(vmload, "--version").stdout.startswith("vmload ")


def test_switches_of_threads_that_have_ended_are_told(vmload: Path) -> None:
    """All threads but the last to come sleep at the starting gate, and none of them is left."""
    with subprocess.Popen(
        [vmload, "--hold", "-t", "8", "--unit", "40k", "1m"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        told = parse_used(process.stdout.read())
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    assert 7 <= told["voluntary_ctxt"] <= used.ru_nvcsw
    assert told["involuntary_ctxt"] <= used.ru_nivcsw
    assert 0 < told["user_s"] + told["system_s"] <= used.ru_utime + used.ru_stime
