# SPDX-License-Identifier: GPL-2.0-only
"""Watching a live machine, by real censuses of real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import ordinary
import pandas as pd
import pytest
from waiting import until

from anonvma.base.errors import PrivilegeError, SelectionError
from anonvma.explore import explorer as explore
from anonvma.explore import live
from anonvma.explore.live import Observer, Taken, Watch
from anonvma.explore.selection import Vmas

pytestmark = pytest.mark.usefixtures("build")


# Maps and touches memory as it is told, a line at a time, and says when it has.
CHILD = """
import ctypes, mmap, sys
libc = ctypes.CDLL(None)
maps = {}
print("ready", flush=True)
for line in sys.stdin:
    what, name = line.split()
    if what == "map":
        maps[name] = mmap.mmap(-1, 64 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Its neighbours keep it from being merged with anything.
        maps[name].madvise(mmap.MADV_DONTFORK)
    elif what == "read":
        sum(maps[name][page * 4096] for page in range(64))
    elif what == "write":
        maps[name][0] = 1
    elif what == "unmap":
        maps.pop(name).close()
    print("done", flush=True)
"""


class Child:
    """A process that does to its mappings what it is told."""

    def __init__(self) -> None:
        words = [sys.executable, "-c", CHILD]
        self.popen = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.popen.stdout and self.popen.stdout.readline() == "ready\n"
        self.pid = self.popen.pid

    def do(self, what: str, name: str) -> None:
        assert self.popen.stdin and self.popen.stdout
        self.popen.stdin.write(f"{what} {name}\n")
        assert self.popen.stdout.readline() == "done\n"

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def child() -> Iterator[Child]:
    started = Child()
    yield started
    started.end()


@pytest.fixture
def observer() -> Iterator[Observer]:
    with Observer() as found:
        yield found


def of_child(table: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """The changes of private anonymous VMAs: how many, and zero pages."""
    mine = table[table["origin"] == "private anonymous"]
    return {row.change: (row.vmas, row.zero) for row in mine.itertuples()}


def test_what_changed_is_what_was_done(child: Child, observer: Observer) -> None:
    watch = Watch(lambda: observer.census([child.pid]), 1, lambda _: None)
    assert watch.step()
    assert watch.changed is None
    seen = []
    for what in ("map", "read", "write", "unmap"):
        child.do(what, "one")
        assert watch.step() and watch.changed is not None
        seen.append(of_child(watch.changed))
    assert seen[0]["appeared"] == (1, 0)
    assert seen[1]["untouched -> zero-page"] == (1, 64)
    # Pages are looked at in bare VMAs alone: with an anon_vma none is known to be a zero page.
    assert seen[2]["zero-page -> anon_vma"] == (1, -64)
    assert seen[3]["gone"] == (1, 0)
    assert watch.steps[2].zero - watch.steps[1].zero == 64


def test_changes_of_two_censuses_by_hand() -> None:
    def vmas(rows: list[tuple[int, int, int, str | None, int]]) -> Vmas:
        frame = pd.DataFrame(rows, columns=["tgid", "start", "bytes", "class", "zero"])
        frame = frame.assign(
            comm=pd.Categorical(["x"] * len(frame)),
            origin=pd.Categorical(["heap"] * len(frame)),
            anonymous=True,
            bare=frame["class"].notna(),
        )
        frame["class"] = pd.Categorical(frame["class"], ["guard", "untouched", "zero-page"])
        return Vmas(frame.astype({"zero": "UInt64"}), 4096)

    before = vmas([(1, 10, 5, "untouched", 0), (1, 20, 5, None, 0), (2, 10, 5, "zero-page", 1)])
    after = vmas([(1, 10, 9, "untouched", 0), (2, 10, 5, "zero-page", 4), (2, 30, 7, "guard", 0)])
    table = live.changes(before, after).set_index(["change", "tgid"])
    expected = {
        ("resized", 1): (1, 4, 0),
        ("gone", 1): (1, -5, 0),
        ("more pages", 2): (1, 0, 3),
        ("appeared", 2): (1, 7, 0),
    }
    found = {key: tuple(row) for key, row in table[["vmas", "bytes", "zero"]].iterrows()}
    assert found == expected
    assert live.changes(before, before).empty


def test_cost_is_what_the_machine_charges(child: Child, observer: Observer) -> None:
    begin = os.times()
    taken = observer.census()
    end = os.times()
    charged = sum(end[:4]) - sum(begin[:4])
    assert taken.cpu == pytest.approx(charged, abs=0.05)
    assert taken.cpu > 0 and taken.seconds > 0


def test_stop_stops(child: Child, observer: Observer) -> None:
    told = threading.Event()
    watch = Watch(lambda: observer.census([child.pid]), 0.1, lambda _: told.set())
    watch.start()
    until(lambda: len(watch.steps) >= 3)
    assert watch.running and told.is_set()
    watch.stop()
    count = len(watch.steps)
    assert not watch.running
    time.sleep(1)
    assert len(watch.steps) == count
    assert not [thread for thread in threading.enumerate() if thread.name == "watch"]


def test_a_cell_run_again_leaves_no_watch_behind(child: Child) -> None:
    watch = watching(child.pid).watch
    assert watch is not None and watch.running
    explore.Explorer()
    assert not watch.running


# ---- what goes wrong meanwhile, in the view ----


def watching(pid: int) -> explore.Explorer:
    explorer = explore.Explorer()
    explorer.controls["pids"].value = str(pid)
    explorer.controls["every"].value = 0.5
    explorer.controls["start"].click()
    until(lambda: explorer.watch is not None and explorer.watch.steps and explorer.shown)
    return explorer


def test_live_machine_in_the_explorer(child: Child) -> None:
    explorer = watching(child.pid)
    c = explorer.controls
    assert c["start"].disabled and not c["stop"].disabled
    assert set(explorer.selection.frame()["tgid"]) == {child.pid}
    c["state"].value = ("zero-page",)
    child.do("map", "one")
    child.do("read", "one")
    until(lambda: len(explorer.selection) and explorer.selection.total("zero") >= 64)
    assert "Linux" in explorer.paragraph()
    c["stop"].click()
    assert explorer.watch is not None and not explorer.watch.running
    view = explorer.view("live")
    assert "Not watching any more" in view
    assert re.search(r"Cost: the last census took [\d.]+ s and [\d.]+ s of a CPU", view)
    # A run again; the watch leaves it alone.
    c["run"].value = "specimens"
    assert explorer.shown is not None and explorer.shown.source.name == "specimens"


def test_process_that_dies_while_watched_is_said(child: Child) -> None:
    explorer = watching(child.pid)
    count = len(explorer.selection)
    child.end()
    until(lambda: explorer.trouble)
    assert explorer.trouble.startswith("The process watched ended within ")
    assert "the last census stays shown" in explorer.trouble
    assert explorer.trouble in explorer.view("live").replace("&#x27;", "'")
    assert len(explorer.selection) == count
    assert not explorer.controls["start"].disabled and explorer.controls["stop"].disabled
    explorer.controls["start"].click()
    until(lambda: explorer.trouble.startswith("There is no process"))


def test_no_pid_is_said(child: Child) -> None:
    explorer = explore.Explorer()
    for words in ("me", "1 -2", "0", "²"):
        explorer.controls["pids"].value = words
        explorer.controls["start"].click()
        assert explorer.trouble == (
            f"'watch' is {words!r}: numbers of processes are needed, or nothing."
        )


def test_faults_of_a_live_process(child: Child) -> None:
    explorer = watching(child.pid)
    explorer.controls["process"].value = (child.pid,)
    explorer.controls["trace seconds"].value = 3
    assert "press &#x27;Trace its faults&#x27;" in explorer.view("faults")
    child.do("map", "one")
    done = threading.Event()

    def touch() -> None:
        while not done.wait(0.1):
            child.do("map", "more")
            child.do("read", "more")
            child.do("unmap", "more")
        child.do("read", "one")

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        explorer.controls["trace"].click()
    finally:
        done.set()
        thread.join()
    assert explorer.trouble == ""
    assert explorer.shown is not None
    events = explorer.shown.source.table("fault_events")
    assert events is not None
    left_bare = (events["before"] == "bare") & (events["after"] == "bare")
    assert left_bare.sum() >= 64
    assert "No page faults" not in explorer.view("faults")
    assert "No call paths" not in explorer.view("call paths")
    explorer.controls["run"].value = "specimens"
    explorer.controls["trace"].click()
    assert "a run has been traced already" in explorer.trouble


# ---- privilege ----


@pytest.fixture
def capable(build: Path) -> Iterator[Path]:
    """A copy of the probe that file capabilities make privileged, for anyone."""
    with ordinary.capable(build) as directory:
        yield directory


# Takes censuses as another user, one whenever a line comes, and prints what came of each.
UNPRIVILEGED = """
import os, sys
from anonvma.explore import explorer as explore, live
assert os.geteuid() != 0
explorer = explore.Explorer()
observer = live.Observer()
watch = explorer.watch = live.Watch(lambda: observer.census([1]), 1, explorer._told)
for line in sys.stdin:
    watch.step(); explorer._told(watch)
    print(len(watch.steps), bool(watch.trouble), explorer.summary(), flush=True)
print(observer.census().census.losses["scans_failed"] if not watch.trouble else "-", flush=True)
"""


def test_privilege_that_is_lost_half_way_is_said(capable: Path, tmp_path: Path) -> None:
    """By file capabilities; then somebody takes them away."""
    script = UNPRIVILEGED.replace("census([1])", f"census([{os.getpid()}])")
    with subprocess.Popen(
        [*ordinary.becoming(tmp_path), sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ordinary.environment(capable),
        cwd="/",
    ) as process:
        assert process.stdin and process.stdout

        def next_census() -> str:
            assert process.stdin and process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline()

        assert re.match(r"1 False [\d,]+ of [\d,]+ VMAs", next_census())
        os.removexattr(capable / "vmaprobe", "security.capability")
        said = next_census()
        assert said.startswith("1 True Privilege was lost after census 1 (")
        assert "the last census stays shown; get it back, then press 'Start'." in said
        process.stdin.close()


def test_without_privilege_the_view_says_what_is_lacking(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PrivilegeError("observing VMAs needs privilege: run as root.")

    monkeypatch.setattr("anonvma.target.local.Local.require_privilege", refuse)
    explorer = explore.Explorer("specimens")
    explorer.controls["start"].click()
    assert explorer.trouble.startswith("observing VMAs needs privilege: run as root. Or let root")
    assert len(explorer.selection)


def test_a_trace_needs_one_process() -> None:
    explorer = explore.Explorer("specimens")
    assert explorer.shown is not None
    explorer.shown.source.run = None
    explorer.controls["trace"].click()
    assert "choose one process in the filter" in explorer.trouble


def test_steps_become_a_table() -> None:
    def take() -> Taken:
        raise SelectionError("this goes wrong.")

    watch = Watch(take, 1, lambda _: None)
    assert not watch.step()
    assert watch.trouble == "This goes wrong." and watch.history().empty
