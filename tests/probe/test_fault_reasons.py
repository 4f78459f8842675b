# SPDX-License-Identifier: GPL-2.0-only
"""Why faults acquired mmap_lock: specimens that take eight of one reason each, and /proc/vmstat."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import guests
import numpy as np
import numpy.typing as npt
import pytest
from test_faults_program import WORDS, Faults, trace_in

from anonvma.run.vocabulary import NOT_TOLD
from anonvma.target.guest import Guest

pytestmark = pytest.mark.xdist_group("guests")

# By what was made and how it was touched: the reason, the path, and how many such faults.
SPECIMENS = {
    ("mapped-after-faults", "untouched"): ("nothing mapped", "mmap", 8),
    ("map-growsdown-grown", "read"): ("stack growth", "mmap", 1),
    ("read-while-write-locked", "read"): ("VMA write-locked", "mmap", 8),
    ("written-while-mmap-locked", "written"): ("anon_vma, mmap_lock busy", "retry", 8),
    ("file-not-cached", "read"): ("I/O", "retry", 8),
    ("userfaultfd-answered", "read"): ("userfaultfd", "retry", 8),
    ("secretmem", "read"): ("vm_ops without map_pages", "retry", 8),
    ("kernel-reads-write2", "read"): ("access by the kernel", "mmap", 8),
    ("populate-readonly", "untouched"): ("get_user_pages()", "mmap", 8),
    ("private-devzero", "read"): ("bare VMA", "mmap", 0),
}
# The early check comes before the handler could ask for an anon_vma or userfaultfd, and after
# the VMA's lock; once userfaultfd has filled a page, there is an anon_vma.
EARLY = {
    ("written-while-mmap-locked", "written"): ("anon_vma, mmap_lock busy", "retry", 0),
    ("userfaultfd-answered", "read"): ("userfaultfd", "retry", 7),
    ("private-devzero", "read"): ("bare VMA", "mmap", 8),
}
# These show in what is found and left; for the rest, the lookup would have to be seen.
BY_TRACEPOINTS = ("nothing mapped", "stack growth", "anon_vma, mmap_lock busy")
BY_TRACEPOINTS += ("access by the kernel",)


@contextlib.contextmanager
def booted(kernel: str, request: pytest.FixtureRequest, directory: Path) -> Iterator[Guest]:
    if kernel == "stock":
        guest = request.getfixturevalue("new")
        with guests.ram_disk(guest, directory):  # to read a page from; the pair has no such module
            yield guest
    else:
        with Guest(guests.built(kernel), accel="tcg") as guest:
            yield guest


def traced(guest: Guest, build: Path, odd_faults: Path, source: str) -> Faults:
    made = ",".join(dict.fromkeys(kind for kind, _ in SPECIMENS))
    words = [guest.push(odd_faults), "counted", guest.push(build / "specimens"), "--only", made]
    return trace_in(guest, build / "vmaprobe", source, *words)


def reasons(events: npt.NDArray[np.void]) -> Counter[tuple[str, str]]:
    """Of the faults that acquired mmap_lock, how many there are by reason and path."""
    words = [
        (WORDS["reason"][one["reason"]], WORDS["path"][one["path"]])
        for one in events
        if WORDS["path"][one["path"]] in ("mmap", "retry")
    ]
    return Counter(words)


def check_specimens(found: Faults, kernel: str) -> None:
    expected = SPECIMENS | (EARLY if kernel == "early" else {})
    lines = [json.loads(line) for line in found.printed.splitlines() if line.startswith("{")]
    made = {(line["kind"], line["touch"]): line for line in lines}
    for key, (reason, path, count) in expected.items():
        line = made[key]
        if key == ("file-not-cached", "read") and "missing" in line:
            assert kernel != "stock"
            continue
        start, end = int(line["start"], 16), int(line["end"], 16)
        of = found.events[(found.events["address"] >= start) & (found.events["address"] < end)]
        told = reasons(of)
        if found.told["source"] != "tracepoint":
            most = count + line.get("repeated", 0)
            assert count <= told[reason, path] <= most, (key, told, line)
        elif reason in BY_TRACEPOINTS:
            assert set(told) == {(reason, path)}, (key, told)
            assert count <= told[reason, path] <= count + line.get("repeated", 0), (key, told, line)
        else:
            assert {word for word, _ in told} <= {NOT_TOLD}, (key, told)


def check_vmstat(found: Faults, kernel: str) -> None:
    """Between its two readings nobody faulted but what was traced; the probe slept."""
    # uffd_lock_vma() looks the VMA up as a fault does, and first finds it bare.
    others = int(kernel == "early")
    times, texts = [], found.printed.split("vmstat ")[1:]
    counters: list[dict[str, int]] = []
    for text in texts:
        time, *lines = text.splitlines()
        times.append(int(time))
        counters.append({name: int(value) for name, value in map(str.split, lines)})
    grown = {name: counters[1][name] - counters[0][name] for name in counters[0]}
    begun = found.events["start_ns"]
    of = found.events[(begun > times[0]) & (begun < times[1]) & (found.events["mode"] == 1)]
    told = reasons(of)
    by_path = Counter({path: 0 for path in ("mmap", "retry")})
    for (_, path), count in told.items():
        by_path[path] += count
    assert not {reason for reason, _ in told} & {NOT_TOLD, "other", "VMA detached"}, told
    counted = [grown[f"vma_lock_{name}"] for name in ("abort", "retry", "miss")]
    assert counted == [by_path["mmap"] + others, by_path["retry"], 0], (counted, told)


@pytest.mark.parametrize(
    "kernel",
    ["stock", *(pytest.param(name, marks=pytest.mark.kernels) for name in ("early", "delayed"))],
)
def test_each_fault_that_acquired_mmap_lock_has_its_reason(
    kernel: str, request: pytest.FixtureRequest, build: Path, odd_faults: Path, tmp_path: Path
) -> None:
    with booted(kernel, request, tmp_path) as guest:
        # The pair is built without CONFIG_FPROBE, and with VMA-lock statistics.
        sources = ["fentry", *(["kprobe", "tracepoint"] if kernel == "stock" else [])]
        for source in sources:
            found = traced(guest, build, odd_faults, source)
            check_specimens(found, kernel)
            assert found.untold == 0
            if kernel != "stock":
                check_vmstat(found, kernel)
