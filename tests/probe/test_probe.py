# SPDX-License-Identifier: GPL-2.0-only
"""vmaprobe as a program: its exit codes, its sentences, and following a command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import PATIENCE, until

from anonvma.tables import census

Probe = Callable[..., subprocess.CompletedProcess[bytes]]
NOBODY = 65534


@pytest.fixture
def probe(build: Path) -> Probe:
    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        command = [build / "vmaprobe", *arguments]
        return subprocess.run(command, capture_output=True, timeout=PATIENCE, **options)  # type: ignore

    return run


USAGE = {
    "no command": [],
    "unknown command": ["sensus"],
    "not a pid": ["census", "--pid", "12x"],
    "not a way to look": ["census", "--pages", "magic"],
    "command without --at-exit": ["census", "true"],
    "--at-exit without a file": ["census", "--at-exit", "--", "true"],
    "--at-exit without a command": ["census", "--at-exit", "--output", "x"],
    "unknown option": ["census", "--pidd", "1"],
    "features with a word": ["features", "all"],
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_is_exit_code_2(probe: Probe, case: str) -> None:
    done = probe(*USAGE[case])
    assert done.returncode == 2
    assert done.stderr.startswith(b"vmaprobe: ")
    assert done.stderr.count(b"\n") == 1
    assert not done.stdout


def test_vanished_is_exit_code_5(probe: Probe) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    done = probe("census", "--pid", str(child.pid))
    assert (done.returncode, done.stdout) == (5, b"")
    assert done.stderr == b"vmaprobe: there is no process %d\n" % child.pid


def test_kernel_thread_is_exit_code_5(probe: Probe) -> None:
    done = probe("census", "--pid", "2")
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"has no memory of its own" in done.stderr


def test_without_privilege_is_exit_code_3(build: Path, tmp_path: Path) -> None:
    program = Path("/tmp") / f"vmaprobe-{os.getpid()}"
    program.write_bytes((build / "vmaprobe").read_bytes())
    program.chmod(0o755)
    try:
        command = ["setpriv", "--reuid", str(NOBODY), "--clear-groups", program, "census"]
        done = subprocess.run(command, capture_output=True)
        features = subprocess.run([*command[:-1], "features", "--json"], capture_output=True)
    finally:
        program.unlink()
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"root" in done.stderr
    found = json.loads(features.stdout)["features"]
    assert not found["task_vma_iterator"]["available"]
    assert "root" in found["task_vma_iterator"]["remedy"]


def test_unwritable_output_is_one_sentence(probe: Probe, tmp_path: Path) -> None:
    done = probe("census", "--output", tmp_path / "no" / "where")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_full_disk_is_one_sentence_and_leaves_nothing(probe: Probe, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", tmp_path], check=True)
    try:
        done = probe("census", "--output", tmp_path / "census")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert done.returncode == 1
    assert b"No space left" in done.stderr


def test_interrupted_leaves_nothing(build: Path, odd_program: Path, tmp_path: Path) -> None:
    output = tmp_path / "census"
    command = [build / "vmaprobe", "census", "--at-exit", "--output", output, "--", "sleep", "60"]
    process = subprocess.Popen(command)
    while not (children := _children(process.pid)):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    _wait_gone(children)


def test_killed_takes_its_command_along(build: Path, tmp_path: Path) -> None:
    output = tmp_path / "census"
    command = [build / "vmaprobe", "census", "--at-exit", "--output", output, "--"]
    process = subprocess.Popen([*command, "sh", "-c", "sleep 61 & sleep 62"])
    while len(children := _children(process.pid)) < 3:
        time.sleep(0.01)
    process.kill()
    process.wait()
    _wait_gone(children)
    assert not output.exists()


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_children(int(child))]
    return found


def _wait_gone(pids: list[int]) -> None:
    until(lambda: not any(map(_alive, pids)), lambda: f"alive: {list(filter(_alive, pids))}")


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def test_features_in_both_forms(probe: Probe) -> None:
    found = json.loads(probe("features", "--json").stdout)
    assert found["kernel"] == os.uname().release
    text = probe("features").stdout.decode()
    for name, feature in found["features"].items():
        assert name in text
        assert feature["available"] == (feature["reason"] is None)
        assert feature["available"] == (feature["remedy"] is None)
    assert found["features"]["task_vma_iterator"]["available"]
    # Witnesses of our own, where there are some.
    vmstat = Path("/proc/vmstat").read_text()
    assert found["features"]["per_vma_lock_stats"]["available"] == ("vma_lock_success" in vmstat)
    kallsyms = Path("/proc/kallsyms").read_text()
    assert found["features"]["kallsyms_all"]["available"] == (" shmem_vm_ops\n" in kallsyms)


def test_no_kernel_pointer_leaves_it(probe: Probe, tmp_path: Path) -> None:
    """The kernel's half of the address space is the upper one."""
    output = tmp_path / "census"
    assert probe("census", "--output", output).returncode == 0
    found = census.read(output)
    assert len(found.vmas) > 100
    numbers = [name for name in found.records.dtype.names if found.records.dtype[name].kind == "u"]
    words = {int(value) for name in numbers for value in set(found.records[name].tolist())}
    unknown = (1 << 64) - 1
    assert [hex(word) for word in words if 1 << 63 <= word < unknown] == []
    # And as text: what /proc/kallsyms and pointer formats would show.
    assert not re.search(rb"ffff[89a-f][0-9a-f]{11}", output.read_bytes())


def at_exit(
    probe: Probe, tmp_path: Path, *command: str | Path, skip_root: bool = False
) -> tuple[int, census.Census]:
    output = tmp_path / "census"
    options = ["--skip-root"] if skip_root else []
    done = probe("census", "--at-exit", *options, "--output", output, "--", *command)
    return done.returncode, census.read(output)


def test_at_exit_finds_what_the_workload_left(probe: Probe, build: Path, tmp_path: Path) -> None:
    """20 MiB in units of 40 KiB: 512 mappings of ten pages, and nothing told us when it is done."""
    command = [build / "vmload", "--case", "small-allocs-mt", "-t", "2", "10m"]
    status, found = at_exit(probe, tmp_path, *command)
    table = census.by_class(found.vmas)
    assert status == 0
    assert table.loc["zero-page", ["vmas", "zero"]].tolist() == [512, 5120]
    assert found.losses == dict.fromkeys(census.LOSSES, 0)


def test_at_exit_follows_children_and_keeps_the_exit_code(probe: Probe, tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5; do /bin/true; done; (exit 3)"
    status, found = at_exit(probe, tmp_path, "sh", "-c", script)
    assert status == 3
    assert found.mms["comm"].tolist().count("true") == 5
    assert set(found.mms["comm"]) == {"true", "sh"}


def test_at_exit_without_the_wrapper(probe: Probe, tmp_path: Path) -> None:
    status, found = at_exit(probe, tmp_path, "env", "sh", "-c", "/bin/true; exit 0", skip_root=True)
    assert status == 0
    assert found.mms["comm"].tolist() == ["true"]


def test_at_exit_counts_a_shared_mm_once(probe: Probe, odd_program: Path, tmp_path: Path) -> None:
    """Threads and a CLONE_VM child: their mm ends with its last user."""
    status, found = at_exit(probe, tmp_path, "timeout", "1", odd_program, "shared-mm")
    assert status == 124
    counted = found.mms["comm"].tolist().count("odd_process")
    # The child is killed together with its parent, and may die after the command has ended.
    assert counted == 1 or (counted == 0 and found.losses["went_on"] > 0)


def test_at_exit_of_a_command_killed_by_a_signal(probe: Probe, tmp_path: Path) -> None:
    status, found = at_exit(probe, tmp_path, "sh", "-c", "kill -KILL $$")
    assert status == 128 + signal.SIGKILL
    assert found.mms["comm"].tolist() == ["sh"]


def test_at_exit_of_no_command(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "census"
    done = probe("census", "--at-exit", "--output", output, "--", "/no/such/program")
    assert done.returncode == 127
    assert b"cannot run /no/such/program" in done.stderr


# ---- one population, and the process that is meant ----


LEAVES = """
import os, sys, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid(), os.close(1), os.close(2)
        open(sys.argv[1] + "/begun", "a").write("x")
        while not os.path.exists(sys.argv[1] + "/go"):
            time.sleep(0.01)
        open(sys.argv[1] + "/done", "a").write("x")
        os._exit(0)
while not os.path.exists(sys.argv[1] + "/begun") or len(open(sys.argv[1] + "/begun").read()) < 2:
    time.sleep(0.01)
"""


def test_what_a_command_leaves_running_is_let_go_and_counted(probe: Probe, tmp_path: Path) -> None:
    """The census ends when the command does, as perf stat and the tracers do."""
    output = tmp_path / "census"
    words = ["census", "--at-exit", "--output", output, "--", sys.executable, "-c", LEAVES]
    done = probe(*words, tmp_path)
    assert done.returncode == 0, done.stderr
    found = census.read(output)
    assert found.losses["went_on"] == 2
    assert len(found.mms) == 1
    (tmp_path / "go").touch()  # they were not killed, and nobody holds them
    until(lambda: (tmp_path / "done").exists() and len((tmp_path / "done").read_text()) == 2)


def test_what_a_command_waits_for_is_in_its_census(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "census"
    words = ["sh", "-c", "sleep 0.2 & sleep 0.1 & wait"]
    assert probe("census", "--at-exit", "--output", output, "--", *words).returncode == 0
    found = census.read(output)
    assert found.losses["went_on"] == 0
    assert len(found.mms) == 3


@pytest.mark.parametrize("own", [True, False])
def test_a_proc_of_another_pid_namespace_is_refused(
    probe: Probe, build: Path, tmp_path: Path, own: bool
) -> None:
    """There /proc/1/pagemap is another process's than the 1 that the kernel tells of."""
    words = [build / "vmaprobe", "census", "--pid", "1", "--output", tmp_path / "census"]
    inside = ["unshare", "--pid", "--fork", *(["--mount-proc"] if own else []), *words]
    done = subprocess.run(inside, capture_output=True)
    if own:
        assert done.returncode == 0, done.stderr
        assert set(census.read(tmp_path / "census").vmas["comm"]) == {"vmaprobe"}
    else:
        assert done.returncode == 1
        assert b"/proc belongs to another pid namespace" in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert not (tmp_path / "census").exists()
