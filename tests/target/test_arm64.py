# SPDX-License-Identifier: GPL-2.0-only
"""A guest of another architecture than the host: Debian's arm64 kernel, stock, under TCG; and ours.

Ours has pages of 64 KiB, which no kernel of Debian's has. It is tested where it was built: `make
kernels ARCH=arm64 PAGES=64k` takes longer than CI has.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guests
import numpy as np
import pytest
from maps import from_census, from_maps

from anonvma.collect import regime
from anonvma.probe.fault_events import EVENT, HEADER
from anonvma.tables import census
from anonvma.target.guest import Guest

pytestmark = [pytest.mark.kernels, pytest.mark.xdist_group("guests")]

# analysis/probe/faults.h
BARE = 3  # FOUND_VMA | FOUND_ANON
USER = 1  # MODE_USER
PAGES = 4096
LOAD = ["vmload", "--case", "small-allocs-mt", "-t", "8", f"{PAGES // 8}p"]


@pytest.fixture(scope="module", params=[16, 64], ids="{}k".format)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """With pages of 16 KiB and of 64, for whatever is counted in pages; and nothing may be missed
    where it is fully preemptible and there are more threads than processors.
    """
    if request.param == 16:
        image = guests.stock_arm64("7.3", "arm64-16k")
    else:
        image = guests.built_arm64("delayed", "arm64-64k")
    with Guest(image, accel="tcg", append="preempt=full") as booted:
        assert booted.facts()["page_size"] == request.param << 10
        yield booted


def traced(guest: Guest, what: str, *options: str) -> dict[str, Any]:
    output = guest.place(what)
    words = [guest.place("vmaprobe"), what, "--output", output, "--", *LOAD, *options]
    done = guest.run(words)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(guest.read(output))
    return told


def test_the_machine_is_the_image_s(guest: Guest) -> None:
    facts = guest.facts()
    assert (facts["architecture"], facts["link"]) == ("aarch64", "virtio")
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
            read = found.vmas[found.vmas["class"] == "zero-page"]
            if pid != "1":  # each of the two has read its pages, and nothing else maps zero pages
                assert (read["zero"].sum(), read["present"].sum()) == (32, 32)
                assert read["bytes"].sum() == 32 * guest.facts()["page_size"]


def test_no_fault_is_missed(guest: Guest) -> None:
    told = traced(guest, "faults")
    # There is no tracepoint of page faults; our own kernel is not preemptible, so fentry serves.
    assert told["source"] == {"full": "kprobe", "none": "fentry"}[told["preemption"]]
    changes: Counter[tuple[int, int]] = Counter()
    for group in told["groups"]:
        if (group["mode"], group["access"], group["path"]) == ("user", "read", "vma"):
            changes[group["before"], group["after"]] += group["count"]
    assert changes[BARE, BARE] >= PAGES
    used = told["minor_faults"] + told["major_faults"] - told["faults_before"]
    ended = sum(each["count"] for each in told["groups"] if each["result"] != "error")
    assert (used - ended, told["unseen_gup"], told["faults_lost"]) == (0, 0, 0)


def test_a_fault_in_kernel_mode_goes_to_mmap_lock(guest: Guest) -> None:
    """Which is what `anonvma cost` stands on: a page that a system call touches first."""
    told = traced(guest, "faults", "--touch", "kernel")
    locks: Counter[tuple[str, str]] = Counter()
    for group in told["groups"]:
        if (group["access"], group["before"], group["after"]) == ("read", BARE, BARE):
            locks[group["mode"], group["path"]] += group["count"]
    assert locks["kernel", "mmap"] == PAGES and not locks["kernel", "vma"]
    assert locks["user", "vma"] + locks["user", "retry"] < PAGES // 10


def test_a_fault_counts_to_its_vma(guest: Guest) -> None:
    """At a tagged address, in memory with tags, and where there is no VMA, each by itself."""
    output, events = guest.place("tagged"), guest.place("tagged-events")
    words = [guest.place("vmaprobe"), "faults", "--output", output, "--events", events, "--"]
    done = guest.run([*words, "specimens", "--only", "tagged-pointer,mte,mapped-after-faults"])
    assert done.returncode == 0, done.stderr
    made = [json.loads(line) for line in done.stdout.splitlines()]
    made = [each for each in made if "missing" not in each]
    assert {each["kind"] for each in made} >= {"tagged-pointer", "mapped-after-faults"}
    found = np.frombuffer(guest.read(events)[HEADER.itemsize :], EVENT)
    for each in made:
        start, end = int(each["start"], 16), int(each["end"], 16)
        own = found[(found["address"] >= start) & (found["address"] < end)]
        if each["kind"] == "mapped-after-faults":
            assert len(own) == 8 and (own["mode"] == USER).all() and not own["vm_start"].any()
            continue
        faults = {"untouched": 0, "read-written": 16}.get(each["touch"], 8)
        assert len(own) == faults and (own["vm_start"] == start).all(), each


def test_who_asks_for_mmap_lock(guest: Guest) -> None:
    told = traced(guest, "locks")
    asked: Counter[str] = Counter()
    for group in told["groups"]:
        if group["process"]:
            asked[group["asked_by"]] += group["count"]
    assert {"page fault", "mmap", "exec", "exit"} <= set(asked) and not asked["other"]
    assert PAGES // 10 <= asked["mmap"] < PAGES // 10 + 60
