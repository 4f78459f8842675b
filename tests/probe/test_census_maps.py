# SPDX-License-Identifier: GPL-2.0-only
"""The census against an independent witness: /proc/PID/maps, line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from maps import from_census, from_maps

from anonvma.tables import census
from anonvma.target import local as local_module


@pytest.fixture
def take(build: Path, tmp_path: Path) -> Callable[..., census.Census]:
    """A census of these pids by the real probe."""

    def take(*pids: int, pages: str = "scan") -> census.Census:
        output = tmp_path / "census"
        named = [word for pid in pids for word in ("--pid", str(pid))]
        command = [build / "vmaprobe", "census", "--pages", pages, *named, "--output", output]
        subprocess.run(command, check=True)
        return census.read(output)

    return take


Take = Callable[..., census.Census]
Start = Callable[..., list[int]]


def assert_equals_maps(found: census.Census, maps: str) -> None:
    ours, theirs = from_census(found), from_maps(maps)
    # Line by line: pytest would take minutes to compare two long lists that differ.
    for vma, line in zip(ours, theirs, strict=False):
        assert vma == line
    assert len(ours) == len(theirs)
    assert found.losses == dict.fromkeys(census.LOSSES, 0)


def test_ordinary_process(take: Take) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import numpy, time; time.sleep(60)"])
    try:
        while b"numpy" not in Path(f"/proc/{child.pid}/maps").read_bytes():
            assert child.poll() is None
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert_equals_maps(take(child.pid), f"/proc/{child.pid}/maps")
    finally:
        child.kill()
        child.wait()


@pytest.mark.xdist_group("max_map_count")
def test_hundred_thousand_mappings(take: Take, odd_process: Start) -> None:
    with local_module.Local() as local, local.sysctl_at_least("vm.max_map_count", 110_000):
        (pid,) = odd_process("many", "100000")
        found = take(pid)
    assert len(found.vmas) > 100_000
    assert_equals_maps(found, f"/proc/{pid}/maps")


def test_leader_thread_exited(take: Take, odd_process: Start) -> None:
    (pid,) = odd_process("leader-exits")
    (tid,) = [int(task) for task in os.listdir(f"/proc/{pid}/task") if int(task) != pid]
    assert not from_maps(f"/proc/{pid}/maps")  # the leader's mm is gone
    found = take(pid)
    assert_equals_maps(found, f"/proc/{pid}/task/{tid}/maps")
    assert found.mms["leader_gone"].tolist() == [True]
    assert set(found.vmas["tgid"]) == {pid}
    assert set(found.vmas["tid"]) == {tid}


def test_two_processes_sharing_an_mm(take: Take, odd_process: Start) -> None:
    other, pid = odd_process("shared-mm", pids=2)
    found = take(pid, other)
    assert_equals_maps(found, f"/proc/{pid}/maps")
    assert_equals_maps(take(other), f"/proc/{other}/maps")
    assert len(found.mms) == 1
    assert found.mms["tasks"].tolist() == [2]
    assert set(found.processes["tgid"]) == {pid, other}
    everything = take()
    assert everything.vmas["tgid"].isin([pid, other]).sum() == len(found.vmas)


HOSTILE = [
    b"new\nline",
    b"\x1b[31mred\x1b[0m",
    b"<script>alert(1)</script>".replace(b"/", b"\\"),
    b"not\xff\xfeutf8",
    "right-to-left\u202eend".encode(),
    b"trailing (deleted)",
    b" leading and  spaces ",
    b"\\012",
]


def test_hostile_file_names(take: Take, odd_process: Start, tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path)
    names = [os.path.join(directory, name) for name in HOSTILE]
    for name in [*names, os.path.join(directory, b"gone\n")]:
        with open(name, "wb") as file:
            file.write(b"x" * 4096)
    gone = os.path.join(directory, b"gone\n")
    (pid,) = odd_process("files", *names, gone)
    os.unlink(gone)
    found = take(pid)
    assert_equals_maps(found, f"/proc/{pid}/maps")
    paths = set(found.strings.values())
    assert set(names) <= paths
    assert gone + b" (deleted)" in paths


@pytest.mark.parametrize("name", [n[:15] for n in HOSTILE], ids=range(len(HOSTILE)))
def test_hostile_process_names(take: Take, odd_process: Start, name: bytes) -> None:
    (pid,) = odd_process("named", name)
    found = take(pid)
    assert set(found.records["comm"]) == {name}
    assert_equals_maps(found, f"/proc/{pid}/maps")


def test_file_seen_through_overlayfs(take: Take, odd_process: Start, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_bytes(b"x" * 4096)
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, merged]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"overlayfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        (pid,) = odd_process("files", merged / "file")
        found = take(pid)
        assert_equals_maps(found, f"/proc/{pid}/maps")
        assert os.fsencode(merged / "file") in found.strings.values()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        subprocess.run(["umount", "--lazy", merged], check=True)


def test_change_while_reading_is_counted(take: Take, odd_process: Start) -> None:
    (pid,) = odd_process("churn", "20000")
    found = take(pid)
    assert found.losses["mms_changed"] == 1
    assert found.mms["changed"].tolist() == [True]
    assert found.mms["attempts"].tolist() == [3]


def test_pagemap_finds_what_the_scan_finds(take: Take, build: Path) -> None:
    command = [build / "specimens", "--hold"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        assert any(line.startswith(b'{"hold"') for line in process.stdout)
        scan, pagemap = take(process.pid), take(process.pid, pages="pagemap")
        none = take(process.pid, pages="none")
        process.stdin.close()
    counts = ["start", "present", "zero", "swapped"]
    bare = scan.vmas.loc[scan.vmas["bare"], counts]
    assert bare["zero"].sum() > 0
    assert bare.equals(pagemap.vmas.loc[pagemap.vmas["bare"], counts])
    assert none.vmas["present"].isna().all()
    assert pagemap.header["pages_how"] == "pagemap and kpageflags"
