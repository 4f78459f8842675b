# SPDX-License-Identifier: GPL-2.0-only
"""target.guest: stock kernels booted, the same collection in them, and every way to lose one.

All boots but one are under TCG, which works everywhere.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adjacent
import guests
import lock_checks
import processes
import pytest
from commands import run_here
from waiting import PATIENCE

from anonvma.base import paths
from anonvma.base.errors import (
    RunError,
    TargetError,
    TargetLost,
    TargetTimeout,
    WorkloadError,
)
from anonvma.collect import regime, targets
from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.perf import profile as perf_profile
from anonvma.run.runs import Run
from anonvma.run.writer import sweep
from anonvma.tables import anon_vmas, faults, specimens
from anonvma.target import guest, machine, qemu
from anonvma.target.guest import Guest

pytestmark = [pytest.mark.usefixtures("build"), pytest.mark.xdist_group("guests")]

Boot = Callable[..., Guest]


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Boot]:
    """Boot a guest that the test may break; its failures' records go to tmp_path/runs.

    To see its regime takes as long as to boot it, and others' are looked at.
    """
    monkeypatch.setattr(regime, "of", lambda target: regime.Regime("delayed", "not looked at"))
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))
    booted: list[Guest] = []

    def start(**options: Any) -> Guest:
        words = "".join(f",{name}={value}" for name, value in {"accel": "tcg", **options}.items())
        target = targets.parse(f"guest:{guests.stock('6.12')}{words}")
        assert isinstance(target, Guest)
        booted.append(target)
        return target

    yield start
    for each in booted:
        each.close()


def qemu_of(target: Guest) -> int:
    """The process of QEMU itself, below its keeper."""
    keeper = target._machine._process._popen.pid
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert text.endswith(".") and "\n" not in text and "Traceback" not in text
    return text


def record_of(error: TargetLost, directory: Path) -> dict[str, Any]:
    """The record that a lost guest left, which is not opened as a run."""
    (place,) = directory.iterdir()
    assert place.suffix == ".failed" and str(place) in str(error)
    with pytest.raises(RunError, match="record of a run that failed"):
        Run.open(place)
    assert (place / "console.log").read_bytes() == error.console
    assert sweep(directory) == []
    found: dict[str, Any] = json.loads((place / "failure.json").read_text())
    assert found["error"] == "TargetLost" and found["reason"].rstrip(".") in str(error)
    return found


# ---- what a target does ----


def test_a_command_runs_and_its_failure_is_told(new: Guest) -> None:
    done = new.run(["vmload", "--version"])
    assert done.returncode == 0 and done.stdout.startswith(b"vmload")
    done = new.run(["vmload", "--nonsense"])
    assert done.returncode == 2 and b"nonsense" in done.stderr and done.stdout == b""


def test_a_program_that_is_not_there(new: Guest) -> None:
    assert new.which("perf") is None
    assert new.which("vmload") == "/anonvma/vmload"
    with pytest.raises(TargetError, match="there is no program 'perf' in the guest"):
        new.run(["perf", "stat"])


def test_bytes_survive_both_directions(new: Guest, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3 << 20)
    (tmp_path / "data").write_bytes(content)
    there = new.push(tmp_path / "data")
    assert new.exists(there)
    assert new.read(there) == content
    new.pull(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert not new.exists(there)
    with pytest.raises(TargetError, match="cannot bring back /anonvma/data: No such file"):
        new.pull(there, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_program_is_pushed_again_only_if_it_is_another(new: Guest, tmp_path: Path) -> None:
    (tmp_path / "vmload").write_bytes(b"#!/init\n")
    assert new.push(tmp_path / "vmload") == "/anonvma/vmload"
    assert new.read("/anonvma/vmload") == b"#!/init\n"
    new.push(guests.ROOT / "build" / "vmload")
    assert new.run(["vmload", "--version"]).returncode == 0


def test_several_commands_at_once(new: Guest) -> None:
    def load(number: int) -> bytes:
        return new.run(["vmload", "-t", "1", f"{number + 1}m"]).stdout

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        said = list(pool.map(load, range(8)))
    # 8 bytes a word, and an eighth of the size for the one mmap.
    assert [int(line.split()[0]) for line in said] == [(n + 1) * 9 << 17 for n in range(8)]


def test_a_reader_that_waits_delays_nobody_else(new: Guest) -> None:
    with new.start(["/init", "get", "/proc/kallsyms"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        first = process.stdout.read(10)
        time.sleep(0.5)
        assert process.poll() is None
        assert new.run(["vmload", "--version"]).returncode == 0
        rest = process.stdout.read()
        assert process.wait() == 0
    assert first + rest == new.read("/proc/kallsyms")


def test_a_held_workload_goes_on_when_told(new: Guest) -> None:
    words = ["vmload", "--case", "small-allocs-mt", "-t", "2", "--hold", "1m"]
    with new.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        said = [process.stdout.readline() for _ in range(4)]  # two tasks, and what they used
        assert said[-1].startswith(b"hold: ")
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        assert process.usage and process.usage.minor_faults > 512


def test_what_a_command_started_goes_with_it(new: Guest) -> None:
    words = ["vmload", "-n", "3", "--hold", "1m"]
    with new.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        while not (line := process.stdout.readline()).startswith(b"hold:"):
            assert line
        pids = [int(word) for word in line.split()[1:]]
        assert all(new.exists(f"/proc/{pid}") for pid in pids)
    assert process.wait() in (-signal.SIGKILL, 0)  # 0: its input had ended before
    assert not any(new.exists(f"/proc/{pid}") for pid in pids)


def test_a_signal_and_a_time_limit(new: Guest) -> None:
    with new.start(["vmload", "--hold", "1m"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM
    with pytest.raises(TargetTimeout, match=r"vmload did not finish within 0\.5 s"):
        new.run(["vmload", "--sleep", "60", "1m"], timeout=0.5)


def test_a_sysctl_is_raised_and_put_back(new: Guest) -> None:
    path = "/proc/sys/vm/max_map_count"
    before = int(new.read(path))
    with new.sysctl_at_least("vm.max_map_count", before + 5) as raised:
        assert (raised.old, raised.new) == (before, before + 5)
        assert int(new.read(path)) == before + 5
    assert int(new.read(path)) == before
    with pytest.raises(TargetError, match="cannot read /proc/sys/vm/nonsense"):
        new.sysctl_at_least("vm.nonsense", 1).__enter__()


def test_facts(new: Guest, old: Guest) -> None:
    facts = new.facts()
    assert facts["kind"] == "guest" and facts["kernel_release"].startswith("6.12.")
    assert (facts["cpus"], facts["page_size"], facts["architecture"]) == (2, 4096, "x86_64")
    assert facts["memory_given_bytes"] == 2 << 30 > facts["memory_bytes"] > 1 << 30
    assert (facts["accel"], facts["link"]) == ("tcg", "virtio")
    assert facts["qemu_version"][0].isdigit()
    assert guest.TCG_NOTE in new.notes
    # Its drivers are modules, which were found beside the image, and what they need with them.
    assert old.facts()["link"] == "virtio"


# ---- the same collection ----


@pytest.mark.parametrize("which", ["new", "old"])
def test_small_allocs(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    target = request.getfixturevalue(which)
    workload = Workload(workload="small-allocs-mt", threads=2, bytes="16m", unit="40k")
    # Each tracer loads for seconds there. On the old one other tests trace locks and faults.
    run = Run.open(collect(target, workload, repeats=1, out=tmp_path, trace=which == "new").path)
    if which == "old":
        probe, output = target.push(paths.program("vmaprobe")), target.place("time")
        words = [probe, "time", "--output", output, "--", "vmload", "1m"]
        assert target.run(words).returncode == 0
        assert json.loads(target.read(output))["minor_faults"] > 256

    census = run.table("census")
    found = census[(census["class"] == "zero-page") & (census["origin"] == "private /dev/zero")]
    counts = found.groupby("repeat").agg(vmas=("start", "size"), zero=("zero", "sum"))
    assert counts["vmas"].to_dict() == {1: workload.expected_vmas}
    assert counts["zero"].to_dict() == {1: workload.expected_pages}

    assert workload.expected_pages is not None
    repeats = run.table("repeats")
    assert ((repeats["minor_faults"] - workload.expected_pages).between(0, 200)).all()
    assert (repeats["voluntary_ctxt"] >= 1).all() and (repeats["system_s"] > 0).all()
    vmstat = run.table("vmstat").set_index(["counter", "repeat"])["difference"]
    assert (vmstat["pgfault"] - repeats.set_index("repeat")["minor_faults"]).between(0, 2000).all()

    manifest = run.manifest
    observed = manifest.features["regime"]
    assert observed["name"] == {"new": "delayed", "old": "none"}[which]
    assert which == "new" or "mmap_lock was taken for reading" in observed["evidence"]
    assert guest.TCG_NOTE in manifest.notes
    # This machine's perf was brought along.
    assert manifest.target["perf_version"] and {"perf_stat", "samples"} <= set(manifest.tables)
    assert any("cycles" in entry.what for entry in manifest.unobserved)
    for profile in perf_profile.of_run(run).values():
        shares = perf_profile.children(profile)
        assert shares["asm_exc_page_fault"] > 3 and "do_access" in shares
    assert b"Linux version" in run.raw("raw/console.log").read_bytes()
    assert b"@" not in run.raw("raw/console.log").read_bytes().splitlines()[0]


@pytest.mark.parametrize("which", ["new", "old"])
def test_specimens(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    taken = collect(request.getfixturevalue(which), Workload(workload="specimens"), out=tmp_path)
    found = specimens.observed(taken.table("specimens"), taken.table("census"))
    states = found.set_index(["kind", "touch"])["state"]
    assert states["private-devzero", "read"] == "zero-page"
    assert states["private-devzero", "written"] == "anon_vma"
    assert states["private-devzero", "untouched"] == "untouched"
    assert not (states == "gone").any()
    costs = taken.table("consequences").set_index(["operation", "bare"])
    # ksmd is started for it and stopped again; without swap there is nothing to try.
    assert costs["pages"]["KSM"].to_dict() == {True: 0, False: 16}
    assert costs["error"]["swap-out"].to_dict() == {True: "swap", False: "swap"}
    assert "what swap-out does to a bare VMA" in {x.what for x in taken.manifest.unobserved}
    assert request.getfixturevalue(which).read("/sys/kernel/mm/ksm/run") == b"0\n"
    assert len(states) > 60
    names = ("specimens", "census", "fault_events")
    by_fault = faults.of_specimens(*map(taken.table, names)).set_index(["kind", "touch"])
    locked = by_fault.loc["read-while-write-locked", "read"]
    reason = {"new": "VMA write-locked", "old": "no per-VMA locks"}[which]
    assert f"(mmap: {reason})" in locked["what"]
    # A touch that found the writer about to leave is made again, and may have been one more.
    assert (8 if which == "new" else locked["faults"]) <= locked["acquired"] <= locked["faults"]


@pytest.mark.parametrize("which", ["new", "old"])
def test_why_two_vmas_are_not_one(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    program = adjacent.compiled(tmp_path)
    pairs = adjacent.observe(request.getfixturevalue(which), program, tmp_path)
    assert len(pairs) >= 30
    assert [pair for pair in pairs if pair.reason != pair.expected] == []
    apart = {pair.name for pair in pairs if pair.should == "merges" and pair.became != "merged"}
    # Before 6.16 (879bca0a2c4f) one with an anon_vma was not merged into a bare one.
    assert apart <= {"mlock"}


def test_the_anon_vmas_of_all_processes_are_those_of_slabinfo(new: Guest, tmp_path: Path) -> None:
    """Each object of the machine's is reached by some VMA; nobody else runs there."""
    census = adjacent.census(new, tmp_path)
    table = anon_vmas.slabs(census.slabs, census.chains)
    assert table["reached"].to_dict() == table["active"].to_dict()
    assert (table["reached"] > 0).all()


@pytest.mark.parametrize("which", ["new", "old"])
def test_what_is_swapped_out(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """By PAGEMAP_SCAN in one, by /proc/PID/pagemap in the other."""
    target: Guest = request.getfixturevalue(which)
    with guests.ram_disk(target, tmp_path) as pid:
        census = adjacent.census(target, tmp_path, {pid})
        smaps = target.read(f"/proc/{pid}/smaps").decode()
        words = ["vmaprobe", "consequences", "--census", "/tmp/vmas", "--only", "swap-out"]
        assert target.run([*words, "--output", "/tmp/outcomes"]).returncode == 0
        outcomes = json.loads(target.read("/tmp/outcomes"))["outcomes"]
    starts = re.findall(r"^([0-9a-f]+)-", smaps, re.M)
    swapped = re.findall(r"^Swap: +(\d+) kB", smaps, re.M)
    theirs = {int(at, 16): int(kb) // 4 for at, kb in zip(starts, swapped, strict=True)}
    own = census.vmas[census.vmas["anon_vma"]].set_index("start")["swapped"]
    assert own.to_dict() == {at: theirs[at] for at in own.index}
    assert own.loc[0x7E0000000000:].head(3).tolist() == [0, 20, 64]
    needs = anon_vmas.by_need(census.chains, census.vmas)["anon_vmas"]
    assert needs["its pages are swapped out"] == sum(1 for count in own if count)
    # The bare one has no page to swap out, and the other's are each faulted again.
    assert {each["bare"]: each["pages"] for each in outcomes} == {True: 0, False: 16}
    again = {each["bare"]: each["faults_after"] // each["trials"] for each in outcomes}
    assert again == {True: 0, False: 16}


def test_a_command_is_observed_as_it_exits_and_no_perf_is_brought_unasked(
    new: Guest, tmp_path: Path
) -> None:
    # Small mappings: for a huge page, which this kernel always uses, an anon_vma is prepared.
    words = "vmload -t 1 --readonly --unit 40k 4m"
    load = Workload(workload=words)
    run = collect(new, load, repeats=1, out=tmp_path, perf_record=False, trace=False)
    census = run.table("census")
    assert census.loc[census["class"] == "zero-page", "zero"].sum() == 1024
    assert 1024 < run.table("repeats")["minor_faults"][0] < 1300
    (lacking,) = [entry for entry in run.manifest.unobserved if "perf" in entry.what]
    assert "perf_record=True" in lacking.remedy and "samples" not in run.manifest.tables


def test_a_workload_that_fails_is_not_a_lost_guest(new: Guest, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="vmload"):
        collect(new, Workload(workload="vmload --nonsense"), out=tmp_path)
    with pytest.raises(WorkloadError, match="there is no program 'stress-ng' on target guest:"):
        collect(new, Workload(workload="stress-ng --vm 1"), out=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert new.run(["vmload", "--version"]).returncode == 0


def test_who_waits_for_the_lock_of_a_vma_and_what_a_fork_copies(
    new: Guest, old: Guest, vma_locks: Path
) -> None:
    """Here function calls are seen, too: on 6.12 the lock is a semaphore, 6.1 has none."""
    for target in (new, old):
        probe, program = target.push(paths.program("vmaprobe")), target.push(vma_locks)
        output, told = target.place("locks"), []
        overlaps = (lock_checks.PREPARED, lock_checks.FILE) if target is new else ()
        for words in (*(each.words() for each in overlaps), *lock_checks.BOTH):
            done = target.run([probe, "locks", "--output", output, "--", program, *words])
            assert done.returncode == 0, done.stderr
            told.append((json.loads(target.read(output)), done.stdout))
        for each in overlaps:
            lock_checks.check_overlaps(*told.pop(0), each)
        (few, few_said), (many, many_said) = told
        assert few["calls"] in ("fentry", "kprobe")
        lock_checks.check_forks(few, many, [few_said, many_said])


def test_doctor(old: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "parse", lambda text: contextlib.nullcontext(old))
    done = run_here("doctor", "--json", "--target", f"guest:{guests.stock('6.1')}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kernel"].startswith("6.1.") and told["regime"]["name"] == "none"
    assert told["features"]["per_vma_locks"]["available"] is False
    assert told["notes"][0] == guest.TCG_NOTE


def test_a_guest_says_how_its_processors_run(new: Guest) -> None:
    facts = new.facts()
    assert facts["qemu_threads"] in ("multi", "single")
    taking_turns = any(note.startswith(guest.ONE_THREAD_NOTE) for note in new.notes)
    assert taking_turns is (facts["qemu_threads"] == "single")
    assert facts["real_cpus"] == len(os.sched_getaffinity(0))
    words = Path(f"/proc/{qemu_of(new)}/cmdline").read_bytes().split(b"\0")
    assert f"tcg,thread={facts['qemu_threads']}".encode() in words


# ---- other ways to boot ----


def failing_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Have QEMU's first boots end as with a processor whose timer is dead, later ones work."""
    found, script = qemu.find(), tmp_path / "qemu"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"fd = os.open({str(tmp_path / 'boots')!r}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n"
        f"if os.fstat(fd).st_size >= {times}:\n"
        f"    os.execv({found.path!r}, [{found.path!r}, *sys.argv[1:]])\n"
        "os.write(fd, b'.')\n"
        "console = next(w.partition(':')[2] for w in sys.argv if w.startswith('file:'))\n"
        f"open(console, 'wb').write({machine._NO_TIMER + b' 1'!r})\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(qemu, "find", lambda architecture: found._replace(path=str(script)))


def test_a_guest_without_a_timer_is_booted_again_thrice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing_qemu(tmp_path, monkeypatch, times=5)
    with pytest.raises(TargetLost, match="no timer interrupt on processor 1"):
        Guest(guests.stock("6.1"), accel="tcg", modules="")
    assert (tmp_path / "boots").read_text() == "..."


def test_without_a_virtio_driver_the_serial_port_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A byte of it is a trap into QEMU each, so that what crosses it is little."""
    failing_qemu(tmp_path, monkeypatch, times=2)
    monkeypatch.setattr(regime, "of", lambda target: regime.Regime("none", "not looked at"))
    content = random.Random(2).randbytes(100_000)
    (tmp_path / "data").write_bytes(content)
    with Guest(guests.stock("6.1"), accel="tcg", modules="", memory="512M", cpus=1) as target:
        assert target.facts()["link"] == "serial"
        assert any(note.startswith("This guest is boot 3: ") for note in target.notes)
        there = target.push(tmp_path / "data")
        assert target.read(there) == content
        workload = Workload(workload="small-allocs-mt", bytes="1m")
        run = collect(target, workload, repeats=1, out=tmp_path / "runs", trace=False)
        assert run.manifest.target["link"] == "serial"
        lacking = {lack.what: lack.remedy for lack in run.manifest.unobserved}
        assert "virtio_console" in lacking["everything that perf counts and samples"]


def test_kvm_is_used_only_if_it_boots_and_a_closed_guest_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = processes.new_token()
    monkeypatch.setenv(processes.VARIABLE, token)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with Guest(guests.stock("6.12")) as target:
        assert len(processes.carriers(token)) >= 2
        facts = target.facts()
        assert facts["accel"] in ("kvm", "tcg")
        worked = facts["accel_reason"] == "a trial boot worked"
        assert (facts["accel"] == "kvm") == worked
        assert worked or facts["accel_reason"].startswith("no KVM: ")
        assert (guest.TCG_NOTE in target.notes) == (not worked)
    assert processes.survivors(token) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TargetLost, match="it was closed"):
        target.run(["vmload", "--version"])
    if not worked:
        with pytest.raises(TargetError, match=r"cannot boot with KVM: .*accel=tcg does without"):
            Guest(guests.stock("6.12"), accel="kvm")


# ---- refused before anything boots ----


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is no bzImage"),
        (b"\x7fELF" + bytes(2000), "it is an ELF file; of a kernel build take .*bzImage"),
        (b"\x1f\x8b" + bytes(2000), "compressed by gzip"),
        (b"070701" + bytes(2000), "an initramfs"),
        (bytes(0x202) + b"HdrS", "no bzImage"),
        (bytes(0x202) + b"HdrS" + bytes(2000), "a kernel for x86 of 32 bits"),
    ],
    ids=["empty", "elf", "gzip", "cpio", "cut short", "other architecture"],
)
def test_an_image_that_is_no_kernel(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(TargetError, match=what) as caught:
        Guest(tmp_path / "image")
    one_sentence(caught.value)


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"cannot read the kernel image .*: No such file"):
        Guest(tmp_path / "none")
    with pytest.raises(TargetError, match=r"holds no kernel image: none of .* is there"):
        Guest(tmp_path)


def test_too_little_memory() -> None:
    with pytest.raises(
        TargetError, match=r"32 MiB are too little memory .* needs .* MiB"
    ) as caught:
        Guest(guests.stock("6.12"), memory="32M")
    one_sentence(caught.value)


def test_qemu_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = guests.stock("6.12")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(qemu, "_fetch", lambda directory, name: "there is no network.")
    monkeypatch.setattr(qemu, "_PRIVATE", dict.fromkeys(qemu._PRIVATE, "no-qemu"))
    with pytest.raises(TargetError, match=r"install the package .* had: there is no network\."):
        Guest(image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cpus": "none"}, "cpus 'none' is not a number of processors"),
        ({"cpus": 0}, "cpus 0 is not a number of processors"),
        ({"memory": "much"}, "memory 'much' is not an amount of memory"),
        ({"memory": "1k"}, "memory '1k' is not an amount of memory"),
        ({"accel": "hax"}, "accel 'hax' is not known"),
        ({"modules": "/nonexistent"}, "there is no directory of modules /nonexistent"),
    ],
)
def test_impossible_parameters(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TargetError, match=sentence) as caught:
        Guest(guests.stock("6.12"), **options)
    one_sentence(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("guest:", "names no image"),
        ("guest:,cpus=2", "names no image"),
        ("guest:/boot/vmlinuz,cores=2", "cores is not known: a guest takes cpus, memory"),
        ("guest:/boot/vmlinuz,cpus=2,cpus=3", "cpus is given twice"),
        ("guest:/none,with,commas", "cannot read the kernel image /none,with,commas"),
    ],
)
def test_a_target_that_cannot_be_parsed(text: str, sentence: str) -> None:
    with pytest.raises(TargetError, match=sentence) as caught:
        targets.parse(text)
    one_sentence(caught.value)


# ---- lost ----


def test_qemu_is_killed_in_the_middle_of_a_run(boot: Boot, tmp_path: Path) -> None:
    target = boot()

    def kill(done: int, of: int, what: str) -> None:
        if what == "repeat 2 of 3, observing":
            os.kill(qemu_of(target), signal.SIGKILL)

    with pytest.raises(TargetLost, match="QEMU was killed by signal 9") as caught:
        collect(
            target,
            Workload(workload="small-allocs-mt", bytes="1m"),
            out=tmp_path / "runs",
            progress=kill,
            perf_record=False,
            trace=False,
        )
    one_sentence(caught.value)
    record = record_of(caught.value, tmp_path / "runs")
    assert record["target"]["kind"] == "guest"
    assert record["parameters"]["workload"] == "small-allocs-mt"
    # Whoever asks it again is told the same, at once.
    with pytest.raises(TargetLost, match="QEMU was killed by signal 9"):
        target.run(["vmload", "--version"])


def test_a_kernel_that_panics_at_boot(boot: Boot, tmp_path: Path) -> None:
    with pytest.raises(TargetLost, match=r"its kernel panicked \(.*root fs") as caught:
        boot(append="rdinit=/nonexistent")
    one_sentence(caught.value)
    assert record_of(caught.value, tmp_path / "runs")["target"]["append"] == "rdinit=/nonexistent"
    assert b"Kernel panic" in caught.value.console


def test_a_kernel_that_panics_under_a_command(boot: Boot) -> None:
    target = boot()
    with (
        target.start(["vmload", "--hold", "1m"], stdin=subprocess.PIPE) as process,
        pytest.raises(TargetLost, match=r"its kernel panicked \(sysrq triggered crash\)"),
    ):
        with pytest.raises(TargetLost):
            target._put("/proc/sysrq-trigger", b"c", "600")
        process.wait()


def test_a_guest_that_runs_out_of_memory(boot: Boot, tmp_path: Path) -> None:
    target = boot(memory="256M")
    with pytest.raises(TargetLost, match=r"it ran out of memory \(256 MiB given") as no:
        load = Workload(workload="anon-w-seq-mt", bytes="400m")
        collect(target, load, out=tmp_path / "runs", perf_record=False, trace=False)
    one_sentence(no.value)
    record_of(no.value, tmp_path / "runs")


def test_a_guest_that_hangs(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PATIENCE", 3.0)
    target = boot()
    pid = qemu_of(target)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TargetLost, match="it gave no sign of life for 3 s"):
        target.run(["vmload", "--version"])
    target.close()
    assert not Path(f"/proc/{pid}").exists()


BOOT = """
import sys
from anonvma.target.guest import Guest
guest = Guest(sys.argv[1], accel="tcg")
print("ready", flush=True)
guest.run(["vmload", "--sleep", "60", "1m"])
"""


@pytest.mark.parametrize("when", ["booting", "running"])
def test_killing_us_leaves_no_qemu(when: str) -> None:
    token = processes.new_token()
    environment = {**os.environ, processes.VARIABLE: token}
    words = [sys.executable, "-c", BOOT, str(guests.stock("6.12"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as ours:
        assert ours.stdout
        if when == "running":
            ours.stdout.readline()
        processes.wait_for(token, 3)  # us, the keeper, and QEMU
        ours.kill()
        ours.wait()
        assert processes.survivors(token) == []
