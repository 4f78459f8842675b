# SPDX-License-Identifier: GPL-2.0-only
"""collect.regime and collect.vmstat, and the counts of the probe that they rest on."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from anonvma.base.errors import TargetError
from anonvma.collect import regime, vmstat
from anonvma.collect.regime import observe
from anonvma.target.local import Local

pytestmark = pytest.mark.usefixtures("build")


class Counted:
    """A target that tells of faults and locks what it was given."""

    def __init__(
        self, locked: tuple[int, int] | None, aborts: tuple[int, int] | None = None
    ) -> None:
        self.locked, self.aborts = locked, aborts
        self.ran = -1
        self.total = 1000
        self.programs = ""

    def push(self, path: Path) -> str:
        return path.name

    def as_caller(self) -> list[str]:
        return []

    def read(self, path: str) -> bytes:
        assert path == "/proc/vmstat"
        lines = "pgfault 7\n"
        if self.aborts:
            lines += f"vma_lock_success 5\nvma_lock_abort {self.total}\n"
        return lines.encode()

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if argv[0] == "vmaprobe":
            self.ran += 1
        if argv[0] == "vmaprobe" and self.locked is None:
            return subprocess.CompletedProcess(argv, 4, b"", b"vmaprobe: no such tracepoint\n")
        if self.aborts:
            self.total += self.aborts[self.ran]
        told = {"minor_faults": 2048, "mmap_lock_read": (self.locked or (0, 0))[self.ran]}
        return subprocess.CompletedProcess(argv, 0, json.dumps(told).encode(), b"")


@pytest.mark.parametrize(
    ("locked", "name"),
    [
        ((2070, 2060), "none"),
        ((2060, 150), "early"),
        ((27, 155), "delayed"),
        ((27, 2060), None),  # no kernel that is known
        ((1000, 155), None),  # half of them is neither
    ],
)
def test_what_the_counts_mean(locked: tuple[int, int], name: str | None) -> None:
    by_tracepoint = observe(Counted(locked))
    assert by_tracepoint.name == name
    assert f"{locked[0]:,} times" in by_tracepoint.evidence
    by_statistics = observe(Counted(None, aborts=locked))
    assert by_statistics.name == name
    assert f"vma_lock_abort +{locked[0]:,}" in by_statistics.evidence


@pytest.mark.parametrize("program", ["vmaprobe", "vmload"])
def test_what_was_killed_while_it_was_counted_is_named(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Local.run

    def run_killed(here: Local, argv: Sequence[str], **options: Any) -> Any:
        words = list(argv)
        if words[1:2] == ["locks"]:
            killed = ["sh", "-c", "kill -KILL $$"]
            words = killed if program == "vmaprobe" else [*words[: words.index("--") + 1], *killed]
        return run(here, words, **options)

    monkeypatch.setattr(Local, "run", run_killed)
    with Local() as here:
        here.require_privilege()
        found = observe(here)
    assert found.name is None
    assert found.evidence.startswith(f"not observed: {program} was killed by signal 9")


def test_what_cannot_be_counted_is_not_guessed() -> None:
    found = observe(Counted(None))
    assert found.name is None
    assert found.evidence.startswith("not observed: no such tracepoint; a kernel with CONFIG_PER")


def test_a_target_is_asked_once_unless_it_did_not_answer() -> None:
    counted = Counted((2060, 150))
    assert regime.of(counted) == regime.of(counted) and counted.ran == 1
    silent = Counted(None)
    assert regime.of(silent).name is None and silent.ran == 0
    assert regime.of(silent).name is None and silent.ran == 1


@pytest.fixture
def privileged() -> Iterator[Local]:
    with Local() as local:
        try:
            local.require_privilege()
        except TargetError as error:
            pytest.skip(str(error))
        yield local


def test_this_machine_is_asked_once_however_often_it_is_a_target(
    privileged: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (found := regime.of(privileged)).name is None:
        pytest.skip(found.evidence)
    monkeypatch.setattr(regime, "observe", lambda target: pytest.fail("it was asked again"))
    with Local() as again:
        assert regime.of(again) is found


def test_this_kernel_has_one(privileged: Local) -> None:
    found = observe(privileged)
    if found.name is None:
        pytest.skip(found.evidence)
    assert found.name in ("none", "early", "delayed")


def locks(build: Path, *command: str) -> dict[str, int]:
    done = subprocess.run(
        [build / "vmaprobe", "locks", "--", *command], capture_output=True, check=False
    )
    if done.returncode in (3, 4):
        pytest.skip(done.stderr.decode().strip())
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_locks_are_those_of_the_command_and_its_children(build: Path) -> None:
    # An mmap() takes mmap_lock for writing; of a thread, and of a process two below the probe.
    words = [str(build / "vmload"), "--readonly", "--unit", "40k", "8m"]
    idle = locks(build, "true")["mmap_lock_write"]
    units = -(-(8 << 20) // 40960)
    for options in (["-t", "1"], ["-n", "1"]):
        counted = locks(build, *words[:1], *options, *words[1:])["mmap_lock_write"]
        assert units <= counted < units + idle + 100
    nested = locks(build, "sh", "-c", " ".join([*words, "; true"]))["mmap_lock_write"]
    assert units <= nested < units + 3 * idle + 200


def test_locks_without_a_command_or_with_one_that_fails(build: Path) -> None:
    done = subprocess.run([build / "vmaprobe", "locks"], capture_output=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith(b"vmaprobe: locks needs ")
    done = subprocess.run(
        [build / "vmaprobe", "locks", "--", "false"], capture_output=True, check=False
    )
    assert done.returncode == 1 and json.loads(done.stdout)["mmap_lock_write"] > 0
    done = subprocess.run(
        [build / "vmaprobe", "locks", "--", "no-such"], capture_output=True, check=False
    )
    assert done.returncode == 127 and b"cannot run no-such" in done.stderr


USE = """
import mmap, sys
area = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, len(area), mmap.PAGESIZE):
    area[page] = 1
print("done", flush=True)
sys.stdin.read()
"""


def test_usage_of_a_process(build: Path) -> None:
    pages = (64 << 20) // resource.getpagesize()
    with subprocess.Popen(
        [sys.executable, "-c", USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        done = subprocess.run(
            [build / "vmaprobe", "usage", "--pid", str(process.pid)],
            capture_output=True,
            check=True,
        )
        process.stdin.close()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    found = json.loads(done.stdout)
    assert pages < found["minor_faults"] <= used.ru_minflt
    assert found["voluntary_ctxt"] <= used.ru_nvcsw
    assert 0 < found["user_s"] + found["system_s"] <= used.ru_utime + used.ru_stime + 0.03


def test_usage_of_nobody(build: Path) -> None:
    done = subprocess.run(
        [build / "vmaprobe", "usage", "--pid", "4194304"], capture_output=True, check=False
    )
    assert done.returncode == 5 and done.stderr == b"vmaprobe: there is no process 4194304\n"
    for words in ([], ["--pid"], ["--pid", "x"], ["1"]):
        done = subprocess.run(
            [build / "vmaprobe", "usage", *words], capture_output=True, check=False
        )
        assert done.returncode == 2


def test_usage_of_a_command_that_has_ended(build: Path, tmp_path: Path) -> None:
    words = ["census", "--at-exit", "--usage", tmp_path / "usage", "--output", tmp_path / "census"]
    load = [build / "vmload", "--unit", "40k", "--readonly", "16m"]
    done = subprocess.run(
        [build / "vmaprobe", *words, "--", *load], capture_output=True, check=False
    )
    if done.returncode in (3, 4):
        pytest.skip(done.stderr.decode().strip())
    assert done.returncode == 0
    pages = (16 << 20) // resource.getpagesize()
    assert pages < json.loads((tmp_path / "usage").read_text())["minor_faults"] < pages + 500


# ---- vmstat ----


def test_counters_that_did_not_change_are_left_out_but_for_the_locks() -> None:
    before = {"pgfault": 5, "nr_free_pages": 9, "vma_lock_abort": 3, "gone": 1}
    after = {"pgfault": 7, "nr_free_pages": 9, "vma_lock_abort": 3, "new": 1}
    rows = {row["counter"]: row["difference"] for row in vmstat.changes(before, after)}
    assert rows == {"pgfault": 2, "vma_lock_abort": 0}


def test_counters_of_this_machine() -> None:
    with Local() as target:
        found = vmstat.counters(target)
    assert found["pgfault"] > 0 and all(isinstance(value, int) for value in found.values())
