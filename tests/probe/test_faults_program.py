# SPDX-License-Identifier: GPL-2.0-only
"""vmaprobe faults: against counts known beforehand, and against the kernel's own."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tracing import demand, on_demand, require, tracing
from waiting import PATIENCE, until

from anonvma.run.vocabulary import REASONS
from anonvma.target.guest import Guest

PAGE = os.sysconf("SC_PAGE_SIZE")
UNIT = 40 << 10

# faults.h
BARE, FILLED, MAPPED, COPIED, NOT_LOOKED_AT = 3, 7, 1, 5, 8
HAS_OPS, HAS_FILE, STACK = 1 << 0, 1 << 2, 1 << 4
OWN_STACK, NAMED, DEV_ZERO = 1 << 8, 1 << 9, 1 << 10
EVENT = np.dtype(
    [("start_ns", "u8"), ("address", "u8"), ("vm_start", "u8"), ("duration_ns", "u4")]
    + [(name, "u4") for name in ("process", "tid", "kind")]
    + [(name, "u1") for name in ("mode", "access", "before", "after", "path", "result")]
    + [("reason", "u1"), ("reserved", "u1")]
)
HEADER = np.dtype([("magic", "S8"), ("words", "u4", 6)])
WORDS = {
    "mode": ["", "user", "kernel", "gup"],
    "access": ["", "read", "write", "exec"],
    "path": ["unknown", "vma", "mmap", "retry"],
    "result": ["unknown", "minor", "major", "error"],
    "reason": ["", *REASONS],
}
GROUP = ["process", "kind", "mode", "access", "before", "after", "path", "result", "reason"]


class Faults:
    """What one run told."""

    def __init__(self, told: bytes, events: bytes = b"", printed: str = "") -> None:
        self.told: dict[str, Any] = json.loads(told.decode("utf-8", "surrogateescape"))
        self.groups = self.told["groups"]
        self.kinds = {kind["id"]: kind for kind in self.told["kinds"]}
        self.processes = {each["id"]: each for each in self.told["processes"]}
        self.header = np.frombuffer(events[: HEADER.itemsize], HEADER)
        self.events = np.frombuffer(events[HEADER.itemsize :], EVENT)
        self.printed = printed
        lost = [key for key in self.told if key.endswith("_lost")]
        assert len(lost) == 5 and not any(self.told[key] for key in lost)

    def of(self, comm: str) -> Faults:
        """Those of the processes of that name."""
        found = copy.copy(self)
        ids = {number for number, each in self.processes.items() if each["comm"] == comm}
        found.groups = [group for group in self.groups if group["process"] in ids]
        return found

    def kind(self, number: int) -> tuple[Any, ...]:
        kind = self.kinds.get(number, {"bits": None, "prot": None, "file": None})
        return kind["bits"], kind["prot"], kind["file"]

    def count(self, bits: int = 0, **wanted: object) -> Counter[tuple[int, int]]:
        """Faults by what they found and left, in kinds with these bits."""
        found: Counter[tuple[int, int]] = Counter()
        for group in self.groups:
            if bits and not (self.kind(group["kind"])[0] or 0) & bits:
                continue
            if all(group[key] == value for key, value in wanted.items()):
                found[group["before"], group["after"]] += group["count"]
        return found

    @property
    def ended(self) -> int:
        """Those that the kernel counts, too, but for those that only it has seen."""
        return sum(group["count"] for group in self.groups if group["result"] != "error")

    @property
    def untold(self) -> int:
        """Of what the command used, what is not accounted for."""
        used = self.told["minor_faults"] + self.told["major_faults"]
        return int(used - self.told["faults_before"] - self.ended - self.told["unseen_gup"])

    def steps(self) -> dict[str, Counter[tuple[Any, ...]]]:
        """The faults of each of odd_faults' steps, found by time and place."""
        found: dict[str, Counter[tuple[Any, ...]]] = {}
        for line in self.printed.splitlines():
            label, *numbers = line.split()
            begin, end, area, pages = map(int, numbers)
            of = self.events
            of = of[(begin <= of["start_ns"]) & (of["start_ns"] <= end)]
            of = of[(area <= of["address"]) & (of["address"] < area + pages * PAGE)]
            counts = found.setdefault(label, Counter())
            for one in of:
                words = [WORDS[name][one[name]] for name in ("mode", "access")]
                error = ["error"] if one["result"] == 3 else []
                change = (int(one["before"]), int(one["after"]))
                counts[(*words, *change, *self.kind(int(one["kind"])), *error)] += 1
        return found


Trace = Callable[..., Faults]


@pytest.fixture
def trace(build: Path, tmp_path: Path) -> Trace:
    """Trace a command to its end."""

    def run(*command: str | bytes | Path, options: tuple[str, ...] = (), status: int = 0) -> Faults:
        result, events = tmp_path / "result", tmp_path / "events"
        words = [build / "vmaprobe", "faults", "--output", result, "--events", events, *options]
        done = subprocess.run([*words, "--", *command], capture_output=True, timeout=PATIENCE)
        require(done)
        assert done.returncode == status, done.stderr
        assert {each.name for each in tmp_path.iterdir()} >= {"result", "events"}
        return Faults(result.read_bytes(), events.read_bytes(), done.stdout.decode())

    return run


# ---- what is known beforehand ----


def test_reading_leaves_every_vma_bare(trace: Trace, build: Path) -> None:
    found = trace(build / "vmload", "--case", "small-allocs-mt", "-t", "2", "--unit", "40k", "8m")
    assert found.count(DEV_ZERO) == {(BARE, BARE): 2 * (8 << 20) // PAGE}
    reads = found.count(DEV_ZERO, mode="user", access="read", result="minor")
    assert reads == found.count(DEV_ZERO)


def test_the_first_write_of_each_mapping_gives_it_an_anon_vma(trace: Trace, build: Path) -> None:
    found = trace(build / "vmload", "--case", "anon-w-seq-mt", "-t", "2", "--unit", "40k", "8m")
    pages, units = 2 * (8 << 20) // PAGE, 2 * -(-(8 << 20) // UNIT)
    # The last unit is cut short, as are the pages of it.
    written = found.count(DEV_ZERO, access="write")
    assert written == {(BARE, FILLED): units, (FILLED, FILLED): pages - units}
    assert written == found.count(DEV_ZERO)


@pytest.mark.parametrize("options", [(), ("--stacks",)], ids=["plain", "stacks"])
def test_events_are_what_groups_count(trace: Trace, build: Path, options: tuple[str, ...]) -> None:
    words = [str(build / "vmload"), "-t", "2", "--readonly", "--unit", "40k", "4m"]
    found = trace("sh", "-c", " ".join(words) + "; ls / /no-such", options=options, status=2)
    assert found.header["magic"] == b"VMAFALT"
    source = {"fentry": 1, "tracepoint": 2, "kprobe": 3}[found.told["source"]]
    words_of_header = [3, 0x01020304, HEADER.itemsize, EVENT.itemsize, PAGE, source]
    assert found.header["words"][0].tolist() == words_of_header
    names, counts = np.unique(found.events[GROUP], return_counts=True)
    by_event: Counter[tuple[Any, ...]] = Counter()
    for values, count in zip(names.tolist(), counts.tolist(), strict=True):
        of = dict(zip(GROUP, values, strict=True))
        by_event[tuple(WORDS[key][of[key]] if key in WORDS else of[key] for key in GROUP)] += count
    by_group: Counter[tuple[Any, ...]] = Counter()
    for group in found.groups:
        by_group[tuple(group[key] for key in GROUP)] += group["count"]
    assert by_event == by_group
    begun, ended = found.told["begun_ns"], found.told["ended_ns"]
    assert ((found.events["start_ns"] > begun) & (found.events["start_ns"] < ended)).all()
    assert (found.events["address"] < 1 << 63).all() and (found.events["vm_start"] < 1 << 63).all()
    for group in found.groups:
        assert (str(group["kernel_stack"]) in found.told["stacks"]) == bool(options)
    frames = {frame for stack in found.told["stacks"].values() for frame in stack}
    assert frames.isdisjoint({"unknown"}) and ("asm_exc_page_fault" in frames) == bool(options)


def test_stacks_of_user_mode(trace: Trace, build: Path) -> None:
    command = [build / "vmload", "-t", "2", "--readonly", "--unit", "40k", "16m"]
    found = trace(*command, options=("--stacks",))
    stacks, innermost = found.told["user_stacks"], Counter[str]()
    for group in found.groups:
        if group["kind"] and found.kind(group["kind"])[0] & DEV_ZERO:
            innermost[stacks[f"{group['process']}:{group['user_stack']}"][0]] += group["count"]
    assert innermost == {"do_access": 8192}
    # Following frame pointers to where nothing is faults too; that is not the workload's.
    assert found.untold == 0
    assert all(group["result"] != "error" for group in found.groups)
    addresses = [frame for stack in stacks.values() for frame in stack if frame.startswith("0x")]
    assert addresses == []


def test_totals_are_those_of_getrusage_and_of_perf(trace: Trace, build: Path) -> None:
    command = [build / "vmload", "-t", "2", "--readonly", "--unit", "40k", "16m"]
    found = trace(*command)
    assert found.untold == 0
    perf = shutil.which("perf")
    if perf is None:
        pytest.skip("perf is not installed (package linux-perf)")
    words = [perf, "stat", "-x,", "-e", "page-faults", "--", *command]
    done = subprocess.run(words, capture_output=True, text=True)
    counted = [line for line in done.stderr.splitlines() if "page-faults" in line]
    if not counted or not counted[0].split(",")[0].isdigit():
        pytest.skip(f"perf cannot count page faults here: {done.stderr.strip()}")
    # perf counts from exec on, and not what get_user_pages() faults in.
    named = [number for number, each in found.processes.items() if each["how"] == "named"]
    before = sum(group["count"] for group in found.groups if group["process"] in named)
    assert abs(int(counted[0].split(",")[0]) - (found.ended - before)) <= 30


# ---- what is no fault, and what is one that fails ----


def test_faults_that_end_in_a_signal_are_errors_of_their_own_vma(
    trace: Trace, odd_faults: Path
) -> None:
    found = trace(odd_faults, "guarded", "300")
    looked_at = (BARE, BARE) if found.told["source"] == "tracepoint" else (NOT_LOOKED_AT,) * 2
    assert found.count(mode="user", result="error")[looked_at] == 300
    assert found.untold == 0


def test_an_exception_with_page_faults_disabled_is_no_fault(trace: Trace, odd_faults: Path) -> None:
    found = trace(odd_faults, "copied", "300")
    read = found.count(mode="kernel", access="read", result="minor")
    assert read[BARE, BARE] == 300
    assert found.count(mode="kernel", result="error") == {}
    assert found.count(mode="kernel", path="vma") == {}  # FAULT_FLAG_USER
    assert found.untold == 0


# ---- where it is written to ----


def test_an_output_that_is_no_file_stays_what_it_is(build: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("making a device node needs root")
    node, link, fifo = (tmp_path / name for name in ("node", "link", "fifo"))
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to("elsewhere/file")  # which is not there yet
    os.mkfifo(fifo)
    for words in (["faults"], ["locks"], ["usage"], ["census", "--at-exit"]):
        command = [build / "vmaprobe", *words, "--output"]
        require(subprocess.run([*command, node, "--", "true"], capture_output=True, timeout=300))
        assert node.is_char_device()
        subprocess.run([*command, link, "--", "true"], check=True, timeout=300)
        assert link.is_symlink() and (tmp_path / "elsewhere" / "file").stat().st_size
        (tmp_path / "elsewhere" / "file").unlink()
        with subprocess.Popen([*command, fifo, "--", "true"]) as probe:
            assert fifo.read_bytes() and probe.wait(300) == 0
        assert fifo.is_fifo()
    assert {each.name for each in tmp_path.iterdir()} == {"node", "link", "fifo", "elsewhere"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


# ---- following ----

FOLLOWED = {
    "touch": (["touch", "100"], [100]),
    "children": (["children", "100", "10"], range(10, 110)),
    "vfork-and-exec": (["vfork", "100"], [100]),
    "exec-by-a-thread": (["thread-execs", "100"], [100]),
    "leader-exits": (["leader-exits", "100"], [100]),
    "daemon": (["daemon", "100"], [100]),
    "thread-exit": (["threads-exit", "100"], [100]),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_whoever_is_started_is_followed(trace: Trace, odd_faults: Path, case: str) -> None:
    words, pages = FOLLOWED[case]
    found = trace(odd_faults, *words)
    by_process: Counter[int] = Counter()
    for group in found.groups:
        if found.kind(group["kind"])[0] & DEV_ZERO if group["kind"] else False:
            by_process[group["process"]] += group["count"]
    assert sorted(by_process.values()) == list(pages)
    for process in by_process:
        assert found.processes[process]["comm"] == "odd_faults"
        assert found.processes[process]["parent"] in found.processes
    if case == "daemon":  # nobody waited for it, so getrusage() leaves it out
        assert found.untold <= 0
    else:
        assert found.untold == 0
    if case == "exec-by-a-thread":
        (process,) = by_process
        tids = found.events["tid"][found.events["process"] == process]
        assert set(tids) == {found.processes[process]["tgid"]}


def test_hundreds_of_commands_that_are_executed(trace: Trace) -> None:
    script = "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i + 1)); done; exit 6"
    found = trace("sh", "-c", script, status=6)
    of = Counter((each["how"], each["comm"]) for each in found.processes.values())
    assert of["execed", "true"] == 300 == of["forked", "sh"]
    assert found.untold == 0
    assert found.told["unseen_gup"] >= 300  # execve() writes the arguments by get_user_pages()


def test_names_of_processes_that_are_odd(trace: Trace, odd_faults: Path) -> None:
    names = [b"new\nline", b"\x1b[31m", b'"quote\\', b"\xff\xc3(", b"</b>&"]
    script = 'for name in "$@"; do "$0" named "$name" 10; done'
    found = trace("sh", "-c", script, odd_faults, *names)
    touched: Counter[bytes] = Counter()
    for group in found.groups:
        if (found.kind(group["kind"])[0] or 0) & DEV_ZERO:
            comm = found.processes[group["process"]]["comm"]
            touched[comm.encode("utf-8", "surrogateescape")] += group["count"]
    assert touched == dict.fromkeys(names, 10)


# ---- one place, many kinds ----

ANONYMOUS = (0, 3, None)
ZERO = (DEV_ZERO | HAS_FILE, 3, "zero")
READ_ZERO = (DEV_ZERO | HAS_FILE, 1, "zero")
STEPS: dict[str, dict[tuple[Any, ...], int]] = {
    "split-before": {("user", "read", BARE, BARE, *ZERO): 24},
    "split-first": {
        ("user", "write", BARE, FILLED, *ZERO): 1,
        ("user", "write", FILLED, FILLED, *ZERO): 7,
    },
    "split-middle": {("user", "read", BARE, BARE, *READ_ZERO): 8},
    "split-last": {
        ("user", "write", BARE, FILLED, *ZERO): 1,
        ("user", "write", FILLED, FILLED, *ZERO): 7,
    },
    "split-last-again": {("user", "read", FILLED, FILLED, *ZERO): 8},
    "moved": {("user", "read", BARE, BARE, *READ_ZERO): 8},
    "moved-again": {("user", "read", BARE, BARE, *READ_ZERO): 8},
    "stack": {("user", "write", FILLED, FILLED, STACK, 3, None): 64},
    "unnamed": {("user", "read", BARE, BARE, *ANONYMOUS): 8},
    "named": {("user", "read", BARE, BARE, NAMED, 3, None): 8},
    "written-from": {("kernel", "read", BARE, BARE, *READ_ZERO): 8},
    "userfault": {
        ("user", "read", BARE, FILLED, *ANONYMOUS): 1,
        ("user", "read", FILLED, FILLED, *ANONYMOUS): 7,
    },
}
ROUNDS = 100


def replaced(names: list[str], rounds: int) -> dict[str, dict[tuple[Any, ...], int]]:
    """What is expected of the one place that is mapped again and again."""
    shared = (HAS_OPS | HAS_FILE, 11, "dev/zero")
    expected: dict[str, dict[tuple[Any, ...], int]] = {
        "anonymous": {("user", "read", BARE, BARE, *ANONYMOUS): 8},
        "zero": {("user", "read", BARE, BARE, *ZERO): 8},
        "anonymous-written": {
            ("user", "write", BARE, FILLED, *ANONYMOUS): 1,
            ("user", "write", FILLED, FILLED, *ANONYMOUS): 7,
        },
        "shared": {("user", "read", MAPPED, MAPPED, *shared): 8},
    }
    for i, name in enumerate(names):
        kind = (HAS_OPS | HAS_FILE, 3, name)
        expected[f"file-{i}"] = {
            ("user", "write", MAPPED, COPIED, *kind): 1,
            ("user", "write", COPIED, COPIED, *kind): 7,
        }
    return {
        label: {key: count * rounds for key, count in counts.items()}
        for label, counts in expected.items()
    }


def check_steps(found: Faults, names: list[str], rounds: int = ROUNDS) -> None:
    steps = found.steps()
    for label, expected in {**STEPS, **replaced(names, rounds)}.items():
        if label not in ("named", "userfault") or label in steps:
            assert steps.pop(label) == expected, label
    # The stack of a thread is told by its stack pointer; what lies beside it may have merged.
    (thread,) = steps.pop("thread-stack").items()
    assert thread[0][:2] == ("user", "write") and thread[0][4] == OWN_STACK and thread[1] == 64
    handled = found.told["source"] != "tracepoint"
    # Refused before handle_mm_fault(), whose programs have not seen its VMA.
    refused = (
        (NOT_LOOKED_AT, NOT_LOOKED_AT, None, None, None) if handled else (BARE, BARE, 0, 0, None)
    )
    assert steps.pop("forbidden") == {
        ("user", "read", *refused, "error"): 1,
        ("user", "read", BARE, BARE, 0, 1, None): 1,
    }
    # No exception: the pages were there when they were read.
    in_advance = {("gup", "read", BARE, BARE, *READ_ZERO): 64} if handled else {}
    assert steps.pop("populated") == in_advance and steps.pop("locked") == in_advance
    assert handled or found.told["unseen_gup"] >= 2 * 64
    assert steps == {}
    assert found.untold == 0


def test_each_fault_is_of_its_own_mapping(trace: Trace, odd_faults: Path) -> None:
    names = ["one", "two"]
    check_steps(
        trace(odd_faults, "steps", str(ROUNDS), *(odd_faults.parent / name for name in names)),
        names,
    )


# ---- processes that run ----


def minor_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def result_of(probe: subprocess.Popen[bytes]) -> Faults:
    told, said = probe.communicate(timeout=PATIENCE)
    assert (probe.returncode, said) == (0, b"")
    return Faults(told)


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "exit", "nobody waits"])
def test_processes_that_run(build: Path, odd_faults: Path, ending: str) -> None:
    with (
        on_demand(odd_faults, 3, 200) as one,
        on_demand(odd_faults, 0, 50) as two,
        on_demand(odd_faults, 0, 7) as not_,
    ):
        demand(one)
        pids = [word for each in (one, two) for word in ("--pid", str(each.pid))]
        with tracing(build, "faults", *pids) as probe:
            for process in (one, two, one, not_):
                demand(process)
            if ending.startswith("SIG"):
                probe.send_signal(getattr(signal, ending))
            for process in (one, two) if not ending.startswith("SIG") else ():
                process.kill()
                if ending == "exit":
                    process.wait()
            found = result_of(probe)
    # Two demands of the one, each by three threads and by itself; the last fault, too.
    assert found.count(DEV_ZERO) == {(BARE, BARE): 2 * 4 * 200 + 50}
    named = {each["tgid"] for each in found.processes.values()}
    assert named == {one.pid, two.pid}
    assert {each["how"] for each in found.processes.values()} == {"named"}
    assert "minor_faults" not in found.told


def test_tracing_begins_among_threads_that_fault(build: Path, odd_faults: Path) -> None:
    enough = threading.Event()

    def keep_faulting(process: subprocess.Popen[str]) -> None:
        while not enough.is_set():
            demand(process)

    with on_demand(odd_faults, 4, 2000) as process, ThreadPoolExecutor() as pool:
        try:
            faulting = pool.submit(keep_faulting, process)
            with tracing(build, "faults", "--pid", str(process.pid)) as probe:
                began = minor_faults(process.pid)
                until(lambda: faulting.done() or minor_faults(process.pid) > began + 5 * 2000)
                probe.send_signal(signal.SIGINT)
                found = result_of(probe)
        finally:
            enough.set()
        faulting.result(PATIENCE)
    assert set(found.count(DEV_ZERO)) == {(BARE, BARE)}
    assert len(found.processes) == 1


# ---- other kernels ----


def trace_in(target: Guest, probe: Path, source: str, *command: str) -> Faults:
    result, events = target.place("result"), target.place("events")
    words = [target.push(probe), "faults"]
    words += ["--source", source, "--output", result, "--events", events, "--", *command]
    done = target.run(words)
    assert done.returncode == 0, done.stderr
    found = Faults(target.read(result), target.read(events), done.stdout.decode())
    assert found.told["source"] == source
    return found


LOAD = ["--case", "small-allocs-mt", "-t", "2", "--unit", "40k", "8m"]


@pytest.mark.xdist_group("guests")
@pytest.mark.parametrize(
    ("which", "sources"),
    [
        ("new", ("fentry", "kprobe", "tracepoint")),
        ("old", ("fentry", "tracepoint")),  # CONFIG_FPROBE is not set
    ],
)
def test_the_sources_agree(
    which: str,
    sources: tuple[str, ...],
    request: pytest.FixtureRequest,
    build: Path,
    odd_faults: Path,
) -> None:
    target = request.getfixturevalue(which)
    load = [str(target.which("vmload")), *LOAD]
    names = [target.push(odd_faults.parent / name) for name in ("one", "two")]
    rounds = ROUNDS // 10  # the emulated processor takes ten times as long for each
    steps = [target.push(odd_faults), "steps", str(rounds), *names]
    counts = []
    for source in sources:
        # One trace of both: to load its programs takes an emulated processor longer than either.
        both = source != "fentry" or "kprobe" not in sources  # these have the same body
        traced = trace_in(target, build / "vmaprobe", source, *(steps if both else []), *load)
        assert traced.untold == 0
        if both:
            check_steps(traced, [Path(name).name for name in names], rounds)
        found = traced.of("vmload")
        assert found.count(DEV_ZERO) == {(BARE, BARE): 4096}
        path = {"new": "vma", "old": "mmap"}[which]
        assert found.count(DEV_ZERO, path=path)[BARE, BARE] == 4096
        counts.append(found.count(DEV_ZERO, mode="user", access="read", result="minor"))
        timed = [group for group in found.groups if group["time_ns"]]
        for group in timed:
            assert sum(group["log2_ns"]) == group["count"]
        ended = [group for group in found.groups if group["result"] != "error"]
        assert timed == ended if source != "tracepoint" else not timed
    assert all(each == counts[0] for each in counts)
