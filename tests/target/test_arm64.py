# SPDX-License-Identifier: GPL-2.0-only
"""A guest of another architecture than the host: Debian's arm64 kernels, stock, under TCG."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guests
import pytest
from maps import from_census, from_maps

from anonvma.collect import regime
from anonvma.tables import census
from anonvma.target.guest import Guest

pytestmark = [pytest.mark.kernels, pytest.mark.xdist_group("guests")]

BARE = 3  # FOUND_VMA | FOUND_ANON: analysis/probe/faults.h
PAGES = 4096
LOAD = ["vmload", "--case", "small-allocs-mt", "-t", "8", f"{PAGES // 8}p"]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """With pages of 16 KiB, for whatever is counted in pages; and nothing may be missed there,
    where it is fully preemptible and there are more threads than processors.
    """
    image = guests.stock_arm64("7.3", "arm64-16k")
    with Guest(image, accel="tcg", append="preempt=full") as booted:
        yield booted


def traced(guest: Guest, what: str) -> dict[str, Any]:
    output = guest.place(what)
    done = guest.run([guest.place("vmaprobe"), what, "--output", output, "--", *LOAD])
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(guest.read(output))
    return told


def test_the_machine_is_the_image_s(guest: Guest) -> None:
    facts = guest.facts()
    assert (facts["architecture"], facts["link"]) == ("aarch64", "virtio")
    assert facts["page_size"] == 16384
    assert regime.observe(guest).name == "delayed"


def test_the_census_equals_maps(guest: Guest, tmp_path: Path) -> None:
    """Of init and of processes that hold mappings of 32 pages."""
    words = ["vmload", "--case", "small-allocs", "-n", "2", "--hold", "32p"]
    probe, output = guest.place("vmaprobe"), guest.place("census")
    with guest.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        while not (line := process.stdout.readline()).startswith(b"hold:"):
            assert line
        pids = [b"1", *line.split()[1:]]
        assert len(pids) >= 3
        for pid in map(bytes.decode, pids):
            done = guest.run([probe, "census", "--pid", pid, "--output", output])
            assert done.returncode == 0, done.stderr
            (tmp_path / "census").write_bytes(guest.read(output))
            (tmp_path / "maps").write_bytes(guest.read(f"/proc/{pid}/maps"))
            found = census.read(tmp_path / "census")
            assert from_census(found) == from_maps(str(tmp_path / "maps"))


def test_no_fault_is_missed(guest: Guest) -> None:
    told = traced(guest, "faults")
    assert told["source"] == "kprobe"  # there is no tracepoint of page faults
    changes: Counter[tuple[int, int]] = Counter()
    for group in told["groups"]:
        if (group["mode"], group["access"], group["path"]) == ("user", "read", "vma"):
            changes[group["before"], group["after"]] += group["count"]
    assert changes[BARE, BARE] >= PAGES
    used = told["minor_faults"] + told["major_faults"] - told["faults_before"]
    ended = sum(each["count"] for each in told["groups"] if each["result"] != "error")
    assert (used - ended, told["unseen_gup"], told["faults_lost"]) == (0, 0, 0)


def test_who_asks_for_mmap_lock(guest: Guest) -> None:
    told = traced(guest, "locks")
    asked: Counter[str] = Counter()
    for group in told["groups"]:
        if group["process"]:
            asked[group["asked_by"]] += group["count"]
    assert {"page fault", "mmap", "exec", "exit"} <= set(asked) and not asked["other"]
    assert PAGES // 10 <= asked["mmap"] < PAGES // 10 + 60
