# SPDX-License-Identifier: GPL-2.0-only
"""collect.collection: whole runs of real workloads, and nothing left when one is cut short."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import processes
import pytest
from waiting import PATIENCE, until

from anonvma.base.errors import (
    AnonvmaError,
    ParameterError,
    ProbeError,
    RunError,
    SetupError,
    TargetError,
    WorkloadError,
)
from anonvma.collect import observation, profiling
from anonvma.collect import tracing as tracing_module
from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.collect.workload_output import held_pids, parse_specimens
from anonvma.perf import profile as perf_profile
from anonvma.perf import recording as perf_data
from anonvma.perf import tool
from anonvma.run.runs import Run
from anonvma.run.writer import sweep
from anonvma.tables import faults, locks, losses
from anonvma.target.local import Local

pytestmark = pytest.mark.usefixtures("build")

MAP_COUNT = Path("/proc/sys/vm/max_map_count")


@pytest.fixture(scope="module")
def target() -> Iterator[Local]:
    with Local() as local:
        try:
            local.require_privilege()
        except TargetError as error:
            pytest.skip(str(error))
        yield local


Take = Callable[..., Run]


@pytest.fixture
def take(target: Local, tmp_path: Path) -> Take:
    """Collect one repeat of a workload without perf record, and traced only if asked."""

    def run(
        workload: str,
        *,
        repeats: int = 1,
        perf_record: bool = False,
        trace: bool = False,
        how: dict[str, Any] | None = None,
        **more: Any,
    ) -> Run:
        taken = collect(
            target,
            Workload(workload=workload, **more),
            repeats=repeats,
            out=tmp_path / "runs",
            perf_record=perf_record,
            trace=trace,
            **(how or {}),
        )
        return Run.open(taken.path)  # as whoever is given it would

    return run


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.exists() else []


def private_facts() -> list[str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [boot, str(Path.home()) + "/", tempfile.gettempdir() + "/anonvma"]


# ---- whole runs ----


SMALL_ALLOCS = Workload(workload="small-allocs-mt", threads=2, bytes="80m", unit="40k")
Said = list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def small_allocs(target: Local, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Said]:
    """Two repeats, with all that is observed by default; and what was said meanwhile."""
    place, said, before = tmp_path_factory.mktemp("runs"), [], MAP_COUNT.read_text()
    run = collect(
        target, SMALL_ALLOCS, repeats=2, out=place, progress=lambda *step: said.append(step)
    )
    assert left_in(place) == [run.id]
    assert MAP_COUNT.read_text() == before
    return run, said


@pytest.mark.xdist_group("max_map_count")
def test_small_allocs(small_allocs: tuple[Run, Said]) -> None:
    workload, (run, said) = SMALL_ALLOCS, small_allocs
    census = run.table("census")
    found = census[(census["class"] == "zero-page") & (census["origin"] == "private /dev/zero")]
    counts = found.groupby("repeat").agg(vmas=("start", "size"), zero=("zero", "sum"))
    assert counts["vmas"].to_dict() == dict.fromkeys([1, 2], workload.expected_vmas)
    assert counts["zero"].to_dict() == dict.fromkeys([1, 2], workload.expected_pages)

    faults = run.table("perf_stat").set_index("event").loc["page-faults", "value"]
    assert workload.expected_pages is not None
    assert all(0 <= extra < 200 for extra in faults - workload.expected_pages)
    throughput = run.table("throughput")
    assert throughput["task"].tolist() == [0, 1, 0, 1]
    # 8 bytes an access, every word, and an eighth of the size for the mmaps.
    assert throughput["bytes"].tolist() == [(40 << 20) * 9 // 8] * 4
    repeats = run.table("repeats")
    assert repeats["exit_status"].tolist() == [0, 0]
    assert (repeats[["seconds", "system_s"]] > 0).all(axis=None)
    assert (repeats[["user_s", "voluntary_ctxt", "involuntary_ctxt"]] >= 0).all(axis=None)

    assert can_read(run.raw("raw/repeat-1/perf.data"))
    assert b"hold: " in run.raw("raw/repeat-2/stdout").read_bytes()
    assert run.manifest.workload.name == "small-allocs-mt"
    assert run.manifest.workload.argv[:3] == ["vmload", "--case", "small-allocs-mt"]
    assert set(run.manifest.losses.values()) == {0}
    assert run.manifest.notes == []
    text = (run.path / "manifest.json").read_text()
    assert [fact for fact in private_facts() if fact in text] == []

    # Preparing and writing; observing and profiling; untraced and under each tracer; call paths.
    steps = 2 + 2 * 2 + 2 * 4 + 1
    assert [step[0] for step in said] == list(range(steps + 1))
    assert said[-1] == (steps, steps, "done")


@pytest.mark.xdist_group("max_map_count")
def test_small_allocs_is_traced(small_allocs: tuple[Run, Said]) -> None:
    workload, run = SMALL_ALLOCS, Run.open(small_allocs[0].path)  # as whoever is given it would

    tracing = run.table("tracing")
    assert tracing["traced"].tolist() == [
        *("untraced", "events", "locks", "time"),
        *("time", "locks", "faults", "untraced"),
    ]
    assert (tracing["kb_per_s"] > 0).all()
    share = losses.attribution(tracing)["share"]
    assert share.tolist() == [1.0, 1.0]
    lost = losses.summed(tracing)
    del lost["waits_lost"]  # the tracers wait for locks of their maps, which no program may see
    assert set(lost.values()) <= {0, None}
    assert set(faults.cost(tracing)["traced"]) == {"faults", "events", "locks", "time"}

    # Each page once, read, found bare and left bare; so many in each VMA.
    events = run.table("fault_events")
    mine = events[events["origin"] == "private /dev/zero"]
    assert (mine["access"] == "read").all() and (mine["mode"] == "user").all()
    assert (mine["before"] == "bare").all() and (mine["after"] == "bare").all()
    assert mine.groupby("repeat").size().to_dict() == {1: workload.expected_pages}
    assert mine["vm_start"].nunique() == workload.expected_vmas
    counted = run.table("faults")
    counted = counted[counted["origin"] == "private /dev/zero"]
    assert counted.groupby("repeat")["count"].sum().tolist() == [workload.expected_pages] * 2

    # mmap() takes mmap_lock for writing, once a mapping.
    callers = locks.callers(run.table("locks")).set_index(["asked_by", "mode"])
    assert workload.expected_vmas is not None
    assert 0 <= callers.loc[("mmap", "write"), "taken"] - workload.expected_vmas < 50
    assert set(events["comm"]) == {"vmload"}  # not of what started it

    # Who made the faults, in a run of its own after the first repeat.
    paths = run.table("call_paths")
    assert set(paths["repeat"]) == {1} and set(paths["comm"]) == {"vmload"}
    mine = paths[paths["origin"] == "private /dev/zero"]
    assert mine["count"].sum() == workload.expected_pages
    assert mine["call_path"].str.contains("do_access").all()


def test_untraced_if_not_asked_for(target: Local, tmp_path: Path) -> None:
    workload = Workload(workload="small-allocs-mt", bytes="8m")
    run = collect(target, workload, repeats=1, out=tmp_path, perf_record=False, trace=False)
    traced = {"tracing", "faults", "fault_events", "call_paths", "locks"}
    assert not traced & set(run.manifest.tables)
    with pytest.raises(RunError, match="has no table 'faults'"):
        run.table("faults")
    with pytest.raises(RunError, match="trace is 'no': true or false"):
        collect(target, workload, trace="no")  # type: ignore[arg-type]


def test_specimens_are_traced(take: Take) -> None:
    run = take("specimens", trace=True)
    made = run.table("specimens")
    table = faults.of_specimens(made, runs_census(run), run.table("fault_events"))
    # Told apart by call paths, and put together again.
    assert run.table("call_paths")["count"].sum() == run.table("faults")["count"].sum()
    what = table.set_index(["kind", "touch"])["what"]
    for kind in ("private-anonymous", "private-devzero"):
        assert what[kind, "untouched"] == ""
        assert what[kind, "read"].startswith("read bare -> bare (")
        written = what[kind, "written"].split("; ")
        assert written[0].startswith("write bare -> anon_vma (")
        assert written[1].startswith("write anon_vma -> anon_vma (")
    assert what["shared-anonymous", "read"].startswith("read vm_ops -> vm_ops (")
    assert what["populate-readonly", "untouched"] == "" or "gup" in str(run.table("faults")["mode"])
    faulted = table.set_index(["kind", "touch"])["faults"]
    made = made.set_index(["kind", "touch"])
    for key in (("private-devzero", "read"), ("private-devzero", "written")):
        pages = (int(made.loc[key, "end"]) - int(made.loc[key, "start"])) // 4096
        assert faulted[key] == pages


def test_specimens_are_made_where_nothing_can_be_traced(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing_module, "refusal", lambda features: "fentry: no; tracepoint: no")
    run = take("specimens", trace=True)
    assert "faults" not in run.manifest.tables and len(run.table("specimens")) > 60
    (said,) = [entry for entry in run.manifest.unobserved if "each page fault" in entry.what]
    assert said.reason == "fentry: no; tracepoint: no" and "anonvma doctor" in said.remedy


def runs_census(run: Run) -> pd.DataFrame:
    return run.table("census").drop(columns="repeat")


def test_profiles_of_every_repeat(take: Take) -> None:
    how = {"events": "cycles,cpu-clock", "frequency": 1999, "call_graph": "dwarf"}
    run = take("small-allocs-mt", bytes="64m", repeats=2, perf_record=True, how=how)
    assert {"cycles", "cpu-clock", "page-faults"} <= set(run.table("perf_stat")["event"])
    for repeat, profile in perf_profile.of_run(run).items():
        recording = run.raw(f"raw/repeat-{repeat}/perf.data")
        assert len(profile.samples) == perf_data.read(recording).samples
        shares = perf_profile.children(profile)
        # Nearly all of it is reading: faults, and accesses without them.
        assert shares["asm_exc_page_fault"] > 10
        assert abs(perf_profile.parts(profile).sum() - 100) < 1e-6
    intervals = run.table("perf_intervals")
    assert set(intervals["repeat"]) == {1, 2}
    faults = intervals[intervals["event"] == "page-faults"].groupby("repeat")["value"].sum()
    assert faults.between(16384, 16384 + 400).all()
    text = run.table("frames")["file"].dropna()
    assert not text.astype(str).str.contains("/").any()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"frequency": 0}, "frequency is 0: samples a second from 1 to 100,000 are needed"),
        ({"frequency": "997"}, "frequency is '997'"),
        ({"call_graph": "frame"}, "call_graph is 'frame': it can be fp, dwarf, lbr"),
        ({"events": "cycles,-o x"}, "events is 'cycles,-o x': names of events"),
    ],
)
def test_impossible_settings_of_perf(take: Take, how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(sentence)):
        take("small-allocs-mt", how=how)


def can_read(perf_data: Path) -> bool:
    done = subprocess.run(
        ["perf", "script", "-f", "-F", "comm,sym", "-i", perf_data],
        capture_output=True,
        check=False,
    )
    return b"vmload" in done.stdout


def test_counters_that_do_not_exist_are_missing_and_not_nought(take: Take) -> None:
    run = take("small-allocs-mt", bytes="8m")
    counts = run.table("perf_stat").set_index("event")
    lacking = counts.index[~counts["supported"]].tolist()
    assert counts.loc[lacking, ["value", "running_share"]].isna().all(axis=None)
    said = [entry for entry in run.manifest.unobserved if "<not supported>" in entry.reason]
    assert [name for entry in said for name in entry.what.split(", ")] == lacking
    assert counts.loc[list(tool.SOFTWARE_EVENTS), "value"].notna().all()


def test_every_specimen_lies_in_a_vma_of_the_census(take: Take) -> None:
    run = take("specimens", repeats=3)
    assert run.manifest.repeats == 1
    made = run.table("specimens")
    made = made[made["missing"].isna()]
    assert len(made) >= 40
    census = run.table("census")
    pairs = made.merge(census, left_on="pid", right_on="tgid", suffixes=("", "_vma"))
    inside = pairs[(pairs["start_vma"] <= pairs["start"]) & (pairs["start"] < pairs["end_vma"])]
    named = ["kind", "touch", "pid", "start"]
    assert len(inside[named].drop_duplicates()) == len(made[named].drop_duplicates())
    assert set(run.table("census")["tgid"]) <= set(made["pid"])


def test_any_other_command(take: Take, build: Path) -> None:
    vmload = shlex.quote(str(build / "vmload"))
    run = take(f"{vmload} -t 2 --readonly --unit 40k 8m", repeats=2, trace=True, how={"traced": 1})
    census = run.table("census")
    found = census[(census["class"] == "zero-page") & (census["origin"] == "private /dev/zero")]
    assert found.groupby("repeat").size().tolist() == [2 * (-(-8192 // 40))] * 2
    assert set(census["comm"].dropna()) == {"vmload"}
    assert run.manifest.workload.argv == ["vmload", "-t", "2", "--readonly", "--unit", "40k", "8m"]
    assert run.manifest.parameters == {"workload": "vmload -t 2 --readonly --unit 40k 8m"}
    assert len(run.table("throughput")) == 4
    assert run.table("repeats")["voluntary_ctxt"].isna().all()


def test_a_command_with_children_in_sessions_of_their_own(take: Take) -> None:
    run = take("sh -c 'setsid sleep 0.1 & true; sleep 0.05; echo done; wait'", trace=True)
    assert run.raw("raw/repeat-1/stdout").read_bytes() == b"done\n"
    assert set(run.table("census")["comm"]) == {"sh", "sleep"}
    assert run.table("repeats").loc[0, "seconds"] > 0.09


def test_home_is_not_named(take: Take) -> None:
    run = take(f"true {Path.home()}/secret")
    assert run.manifest.workload.argv == ["true", "~/secret"]
    assert str(Path.home()) not in (run.path / "manifest.json").read_text()


@pytest.fixture
def service(build: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there already and does not know of us; its argument is its pid."""
    process = subprocess.Popen(
        [build / "vmload", "--hold", "-n", "1", "-o", "-u", "40k", "4m"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate()


def pids_of(process: subprocess.Popen[bytes]) -> list[int]:
    assert process.stdout
    pids = None
    while pids is None:
        pids = held_pids(process.stdout.readline())
    return pids


def test_a_process_that_is_running(take: Take, service: subprocess.Popen[bytes]) -> None:
    (pid,) = pids_of(service)
    run = take(f"pid:{pid}", seconds=0.2, perf_record=True, trace=True)
    census = run.table("census")
    assert (census["class"] == "zero-page").sum() == -(-4096 // 40)
    assert set(census["tgid"]) == {pid}
    assert run.table("repeats").loc[0, "seconds"] >= 0.2
    assert run.table("repeats")["exit_status"].isna().all()
    assert run.manifest.workload.argv == []
    assert service.poll() is None


def test_a_process_that_ends_while_it_is_watched(take: Take, tmp_path: Path) -> None:
    with (
        subprocess.Popen(["sleep", "0.5"]) as process,
        # Not yet reaped by us: a zombie.
        pytest.raises(WorkloadError, match="has ended already"),
    ):
        take(f"pid:{process.pid}", seconds=0.8)
    assert left_in(tmp_path / "runs") == []


# ---- what is lacking ----


def test_without_perf_the_run_goes_on(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "find", lambda target: None)
    for workload in ("small-allocs-mt", "sh -c 'true & wait'"):
        run = take(workload, bytes="8m", perf_record=True)
        assert "perf_stat" not in run.manifest.tables
        assert [entry.reason for entry in run.manifest.unobserved] == [
            "no perf that runs was found"
        ]
        assert len(run.table("census")) > 10
        assert run.manifest.target["perf_version"] is None
        # What perf would have told of the workload's faults and times is known all the same.
        used = run.table("repeats")[["user_s", "system_s", "minor_faults", "voluntary_ctxt"]]
        assert (used >= 0).all(axis=None) and (used["minor_faults"] > 30).all()


def test_a_perf_that_refuses_is_told(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "refusal", lambda target, found, events: "Permission denied")
    (entry,) = take("small-allocs-mt", bytes="8m").manifest.unobserved
    assert entry.reason.endswith("refuses: Permission denied")


def test_events_that_perf_does_not_know_are_left_out(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "TIME_EVENTS", ("no-such-event",))
    run = take("small-allocs-mt", bytes="8m")
    (entry,) = [each for each in run.manifest.unobserved if each.what == "no-such-event"]
    assert "event syntax error" in entry.reason
    assert "page-faults" in set(run.table("perf_stat")["event"])


def test_a_perf_that_is_only_a_wrapper_is_passed_over(
    target: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tool.find(target)
    wrapper = tmp_path / "perf"
    wrapper.write_text("#!/bin/sh\necho 'WARNING: perf not found for kernel 6.8.0' >&2\nexit 2\n")
    wrapper.chmod(0o755)
    assert real is not None
    which = target.which
    monkeypatch.setattr(
        target, "which", lambda program: str(wrapper) if program == "perf" else which(program)
    )
    found = tool.find(target)
    assert found is None or found.path.startswith("/usr/lib/linux-tools")
    wrapper.write_text(f'#!/bin/sh\nexec {real.path} "$@"\n')
    assert tool.find(target)[:2] == (str(wrapper), real.version)


# ---- what fails ----


@pytest.mark.parametrize(
    ("workload", "sentence"),
    [
        ("sh -c 'echo one >&2; echo two >&2; exit 3'", "sh failed with exit status 3: two"),
        ("sh -c 'exit 1'", r"sh failed with exit status 1: it said nothing\."),
        ("sh -c 'kill -SEGV $$'", "sh was killed by SIGSEGV"),
        ("sh -c 'kill -KILL $$'", "sh was killed by SIGKILL"),
        (r"""sh -c 'printf "\033[31mred\n" >&2; exit 1'""", r"status 1: \\x1b\[31mred"),
        ("no-such-thing", "there is no program 'no-such-thing'"),
    ],
)
@pytest.mark.parametrize("with_perf", [True, False], ids=["perf", "no-perf"])
def test_a_workload_that_fails(
    workload: str,
    sentence: str,
    with_perf: bool,
    take: Take,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not with_perf:
        monkeypatch.setattr(tool, "find", lambda target: None)
    with pytest.raises(WorkloadError, match=sentence):
        take(workload)
    assert left_in(tmp_path / "runs") == []


def test_a_case_that_fails_says_why(take: Take, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"anon-r-seq-mt failed with exit status [1-9].*mmap"):
        take("anon-r-seq-mt", bytes="1024t")
    assert left_in(tmp_path / "runs") == []


def test_a_case_that_is_killed_while_it_holds(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(work: Any, pids: list[int]) -> dict[str, int]:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}/maps").exists() and Path(f"/proc/{pid}/maps").read_bytes():
                time.sleep(0.01)
        return {}

    monkeypatch.setattr(observation.Observer, "_usage", kill)
    with pytest.raises(AnonvmaError, match=r"was gone before its census|was killed by SIGKILL"):
        take("small-allocs-mt", bytes="8m")
    assert left_in(tmp_path / "runs") == []


def test_what_a_failed_collection_left_is_not_the_census_of_the_next(
    take: Take, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkloadError, match="sh failed with exit status 1"):
        take("sh -c 'exit 1'")  # whose census was taken
    fake_probe(tmp_path, build, "exit 0\n")
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    with pytest.raises(ProbeError, match="vmaprobe ended with exit status 0"):
        take("true")


def fake_probe(directory: Path, build: Path, census: str) -> None:
    for name in ("vmload", "specimens", "anonvma-agent"):
        (directory / name).symlink_to(build / name)
    probe = directory / "vmaprobe"
    features = f'[ "$1" = features ] && exec {shlex.quote(str(build / "vmaprobe"))} "$@"\n'
    probe.write_text("#!/bin/sh\n" + features + census)
    probe.chmod(0o755)


def test_who_was_killed_is_named(
    take: Take, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe around the specimens, not the specimens."""
    fake_probe(tmp_path, build, "kill -KILL $$\n")
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    with pytest.raises(WorkloadError, match="vmaprobe was killed by SIGKILL while it observed s"):
        take("specimens", trace=True)


@pytest.mark.parametrize("workload", ["small-allocs-mt", "true"])
@pytest.mark.parametrize(
    ("census", "sentence"),
    [
        (
            "echo 'vmaprobe: this kernel has no BTF' >&2; exit 4",
            "^this kernel has no BTF$",
        ),
        ("kill -KILL $$", "^vmaprobe was killed by signal 9: it said nothing"),
        ("exit 1", "^vmaprobe ended with exit status 1: it said nothing"),
    ],
)
def test_without_a_census_there_is_no_run(
    workload: str,
    census: str,
    sentence: str,
    take: Take,
    build: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_probe(tmp_path, build, census + "\n")
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    with pytest.raises(ProbeError, match=sentence):
        take(workload, bytes="8m")
    assert left_in(tmp_path / "runs") == []


def test_what_is_not_built_is_said_before_anything_runs(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_BUILD", str(tmp_path))
    with pytest.raises(SetupError, match=r"vmaprobe is not built .* run 'make build' first"):
        take("small-allocs-mt")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("repeats", [0, -1, 1.5, "3", True, None])
def test_impossible_repeats_are_refused(repeats: Any, take: Take, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"repeats is .*: a whole number from 1 to"):
        take("small-allocs-mt", repeats=repeats)
    assert left_in(tmp_path) == []


FILL = """
import sys
from pathlib import Path
from anonvma.collect.collection import collect
from anonvma.base.errors import RunError
from anonvma.target.local import Local
from anonvma.collect.workload import Workload
with Local() as target:
    try:
        collect(target, Workload(bytes="32m"), repeats=1, out=sys.argv[1], perf_record=False)
    except RunError as error:
        print(error, list(Path(sys.argv[1]).iterdir()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=16k none "$OUT"'
    argv = [sys.executable, "-c", FILL, str(tmp_path)]
    done = processes.in_namespace(mount, argv, OUT=str(tmp_path))
    assert "No space left on device" in done.stdout, done.stderr
    assert done.stdout.startswith("cannot ")
    assert done.stdout.endswith(" []\n")


# ---- cut short ----

CUT = """
import os, signal, sys, threading
from anonvma.collect.collection import collect
from anonvma.target.local import Local
from anonvma.collect.workload import Workload

out, workload, step, delay, number = sys.argv[1:]
if signal.getsignal(int(number)) is signal.SIG_IGN:  # nohup started the tests
    usual = {signal.SIGINT: signal.default_int_handler}
    signal.signal(int(number), usual.get(int(number), signal.SIG_DFL))

def progress(done, total, text):
    if done == int(step):
        threading.Timer(float(delay), os.kill, [os.getpid(), int(number)]).start()

with Local() as target:
    collect(
        target,
        Workload(workload=workload, bytes="320m", unit="4k"),  # 81,920 VMAs: over the default limit
        repeats=3, out=out, progress=progress,
    )
print("finished")
"""

COMMAND = "sh -c 'sleep 30 & setsid sleep 30 & sleep 30'"


def cut(
    out: Path, workload: str, step: int, delay: float, number: int
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    token = processes.new_token()
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(out), workload, str(step), str(delay), str(number)],
        capture_output=True,
        text=True,
        env={**os.environ, processes.VARIABLE: token},
        check=False,
        timeout=PATIENCE,
    )
    return done, processes.survivors(token)


def settled_limit() -> str:
    """vm.max_map_count when nobody has it raised: who will put it back notes what it was."""
    note = Path("/run/anonvma/max_map_count")
    until(lambda: not note.exists() or note.stat().st_size == 0)
    return MAP_COUNT.read_text()


MOMENTS = [
    ("small-allocs-mt", 0, 0.0),
    ("small-allocs-mt", 0, 0.12),
    ("small-allocs-mt", 1, 0.01),
    ("small-allocs-mt", 1, 0.1),
    ("small-allocs-mt", 1, 0.3),
    ("small-allocs-mt", 2, 0.2),
    (COMMAND, 1, 0.3),
]


@pytest.mark.xdist_group("max_map_count")
@pytest.mark.parametrize(("workload", "step", "delay"), MOMENTS)
def test_killing_a_collection_leaves_nothing_running_and_no_run(
    workload: str, step: int, delay: float, target: Local, tmp_path: Path
) -> None:
    before = settled_limit()
    done, survivors = cut(tmp_path, workload, step, delay, signal.SIGKILL)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert survivors == []
    assert settled_limit() == before
    assert all(name.endswith(".partial") for name in left_in(tmp_path))
    sweep(tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.xdist_group("max_map_count")
@pytest.mark.parametrize(
    ("number", "workload", "step", "delay"),
    [
        (signal.SIGINT, "small-allocs-mt", 2, 0.1),
        (signal.SIGTERM, "small-allocs-mt", 2, 0.1),
        (signal.SIGTERM, *MOMENTS[-1]),
        (signal.SIGHUP, *MOMENTS[-1]),
    ],
)
def test_interrupting_a_collection_leaves_nothing(
    number: int, workload: str, step: int, delay: float, target: Local, tmp_path: Path
) -> None:
    before = settled_limit()
    done, survivors = cut(tmp_path, workload, step, delay, number)
    assert done.returncode == -number, done.stderr
    assert survivors == []
    assert settled_limit() == before
    assert left_in(tmp_path) == []


@pytest.mark.xdist_group("max_map_count")
def test_the_map_count_is_raised_when_a_case_needs_it(take: Take) -> None:
    before = int(MAP_COUNT.read_text())
    if before > 81920:
        pytest.skip(f"vm.max_map_count is {before} here, enough for the workload of this test")
    run = take("small-allocs-mt", bytes="320m", unit="4k")
    assert (run.table("census")["class"] == "zero-page").sum() == 81920
    assert int(MAP_COUNT.read_text()) == before
    assert run.manifest.target["max_map_count"] == before


# ---- parsing ----

STAT_6_1 = b"""# started on Sun Jan  4 10:00:00 2026

{"counter-value" : "0.840314", "unit" : "msec", "event" : "task-clock", "event-runtime" : 840314, \
"pcnt-running" : 100.00, "metric-value" : 0.298104, "metric-unit" : "CPUs utilized"}
{"counter-value" : "50.000000", "unit" : "", "event" : "page-faults", "event-runtime" : 840314, \
"pcnt-running" : 62.50, "metric-value" : 59.501567, "metric-unit" : "K/sec"}
{"counter-value" : "<not supported>", "unit" : "", "event" : "cycles", "event-runtime" : 0, \
"pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : ""}
{"counter-value" : "<not counted>", "unit" : "ns", "event" : "system_time", "event-runtime" : 0, \
"pcnt-running" : 100.00, "metric-value" : 0.000000, "metric-unit" : "(null)"}
"""

EXPECTED = [
    {
        "event": "task-clock",
        "value": 0.840314,
        "unit": "msec",
        "running_share": 1.0,
        "supported": True,
    },
    {
        "event": "page-faults",
        "value": 50.0,
        "unit": "",
        "running_share": 0.625,
        "supported": True,
    },
    {
        "event": "cycles",
        "value": None,
        "unit": "",
        "running_share": None,
        "supported": False,
    },
    {
        "event": "system_time",
        "value": None,
        "unit": "ns",
        "running_share": 1.0,
        "supported": True,
    },
]


def test_perf_stat_is_read() -> None:
    assert tool.parse_stat(STAT_6_1) == EXPECTED


def test_perf_stat_of_a_locale_with_decimal_commas_is_read() -> None:
    with_commas = b"\n".join(
        line.replace(b".", b",") if line.startswith(b"{") else line
        for line in STAT_6_1.splitlines()
    )
    assert tool.parse_stat(with_commas) == EXPECTED


def test_perf_stat_of_later_releases_is_read() -> None:
    later = STAT_6_1.replace(b": 0.298104", b': "0.298104"').replace(b": 59.501567", b": nan")
    later += b'{"metric-value" : "1.25", "metric-unit" : "insn per cycle"}\n'
    assert tool.parse_stat(later.replace(b'"unit" : "", ', b"")) == EXPECTED
    assert tool.parse_stat(b"") == []
    assert tool.parse_stat(STAT_6_1[:-60]) == EXPECTED[:3]


def test_a_time_of_nothing_is_nought_where_the_duration_is_known() -> None:
    rows = [
        {"event": "user_time", "value": 5e8},
        {"event": "system_time", "value": None},
        {"event": "duration_time", "value": 1e9},
        {"event": "page-faults", "value": 7.0},
    ]
    assert tool.times(rows) == {"user_time": 0.5, "system_time": 0.0, "duration_time": 1.0}
    assert tool.times(rows[:2]) == {}


def test_specimens_are_read_as_they_were_made() -> None:
    text = (
        b'{"kind": "a", "touch": "read", "pid": 7, "start": "0x1000", "end": "0x2000", '
        b'"made_by": "mmap()", "explain": "x", "origin_note": "y"}\n'
        b'{"kind": "b", "touch": "read", "missing": "mmap: no"}\n{"hold": true, "pids": [7]}\n'
    )
    first, second = parse_specimens(text)
    assert (first["start"], first["end"], first["missing"]) == (0x1000, 0x2000, None)
    assert (second["start"], second["pid"], second["missing"]) == (None, None, "mmap: no")
    for bad in (b"hello\n", b"[1]\n", b"3\n", b'{"kind": "a", "start": "here"}\n'):
        with pytest.raises(WorkloadError, match="specimens said something unexpected"):
            parse_specimens(bad)
