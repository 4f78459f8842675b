# SPDX-License-Identifier: GPL-2.0-only
"""The specimens program: what it says it made is what /proc shows of its processes."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import alive, wait_until_gone
from waiting import PATIENCE

PAGE = os.sysconf("SC_PAGE_SIZE")
MADE = {"kind", "touch", "pid", "start", "end", "origin_note", "made_by", "explain"}
LACKING = {"kind", "touch", "missing", "origin_note", "made_by", "explain"}
# These lie in a VMA with something else, because that is what they are about.
IN_COMPANY = {"brk-grown-heap", "program-bss", "program-data"}


@dataclass(frozen=True)
class Specimen:
    kind: str
    touch: str
    pid: int
    start: int
    end: int
    vma: tuple[int, int, str, str]  # start, end, permissions, name

    def pages(self) -> list[int]:
        """Its pagemap entries."""
        count = (self.end - self.start) // PAGE
        with open(f"/proc/{self.pid}/pagemap", "rb") as f:
            f.seek(self.start // PAGE * 8)
            return list(struct.unpack(f"={count}Q", f.read(count * 8)))

    def present(self) -> int:
        return sum(entry >> 63 for entry in self.pages())

    def smaps_kb(self, key: str) -> int:
        """A figure of its VMA in /proc/PID/smaps."""
        inside = False
        for line in Path(f"/proc/{self.pid}/smaps").read_text().splitlines():
            if line.startswith(f"{self.vma[0]:08x}-"):
                inside = True
            elif inside and line.startswith(f"{key}:"):
                return int(line.split()[1])
        raise AssertionError(f"no {key} for {self}")


@dataclass(frozen=True)
class Held:
    process: subprocess.Popen[str]
    lines: list[dict[str, Any]]
    pids: list[int]

    def specimens(self) -> list[Specimen]:
        maps = {pid: vmas(pid) for pid in self.pids}
        found = []
        for line in self.lines:
            if "missing" in line:
                continue
            start, end = int(line["start"], 16), int(line["end"], 16)
            (vma,) = [v for v in maps[line["pid"]] if v[0] <= start < v[1]]
            found.append(Specimen(line["kind"], line["touch"], line["pid"], start, end, vma))
        return found

    def get(self, kind: str, touch: str) -> Specimen:
        """One specimen; the test is skipped if this kernel or machine lacks it."""
        for line in self.lines:
            if (line["kind"], line["touch"]) == (kind, touch) and "missing" in line:
                pytest.skip(f"{kind}: {line['missing']}")
        (found,) = [s for s in self.specimens() if (s.kind, s.touch) == (kind, touch)]
        return found


def vmas(pid: int) -> list[tuple[int, int, str, str]]:
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        found.append((start, end, fields[1], fields[5] if len(fields) == 6 else ""))
    return found


@contextlib.contextmanager
def hold(program: Path, *options: str) -> Iterator[Held]:
    with subprocess.Popen(
        [program, "--hold", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            lines: list[dict[str, Any]] = []
            for text in process.stdout:
                line = json.loads(text)
                if line.get("hold"):
                    yield Held(process, lines, line["pids"])
                    return
                lines.append(line)
            raise AssertionError("specimens ended without a hold line")
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def held(build: Path) -> Iterator[Held]:
    with hold(build / "specimens") as everything:
        yield everything


def run(build: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [build / "specimens", *options], capture_output=True, text=True, timeout=PATIENCE
    )


def test_every_listed_kind_and_touch_has_one_line(build: Path, held: Held) -> None:
    listed = [
        (kind, touch)
        for kind, touches, _ in (x.split("\t") for x in run(build, "--list").stdout.splitlines())
        for touch in touches.split(",")
    ]
    assert len(set(listed)) == len(listed) >= 40
    assert sorted((x["kind"], x["touch"]) for x in held.lines) == sorted(listed)


def test_lines_say_what_was_made_or_what_is_missing(held: Held) -> None:
    for line in held.lines:
        # Of touches that a writer is to meet, how many were made again, where there were any.
        assert set(line) - {"repeated"} == (LACKING if "missing" in line else MADE), line
        assert all(
            line[key] and "\n" not in line[key] for key in line if key not in ("pid", "repeated")
        ), line
        if "missing" in line:
            assert line["missing"].endswith(")"), "a missing specimen names its remedy"
    assert sum("missing" not in line for line in held.lines) >= 40


def test_processes_are_ours_and_named_so(held: Held) -> None:
    assert held.process.pid == held.pids[0]
    assert {Path(f"/proc/{pid}/comm").read_text() for pid in held.pids} == {"specimens\n"}
    assert {line["pid"] for line in held.lines if "pid" in line} == set(held.pids)


def test_each_lies_in_a_mapping_of_its_process(held: Held) -> None:
    for s in held.specimens():
        assert s.start % PAGE == 0, s
        assert s.vma[0] <= s.start < s.end <= s.vma[1], s


def test_none_shares_a_mapping_with_another(held: Held) -> None:
    seen: dict[tuple[int, int], str] = {}
    for s in held.specimens():
        if s.kind not in IN_COMPANY:
            other = seen.setdefault((s.pid, s.vma[0]), f"{s.kind} {s.touch}")
            assert other == f"{s.kind} {s.touch}"


def test_all_but_the_merged_fill_their_mapping(held: Held) -> None:
    """A VMA larger than its specimen would be an accident, save where merging is the point."""
    larger = {s.kind for s in held.specimens() if s.vma[:2] != (s.start, s.end)}
    merged = {"merge-with-written", "merge-with-read", "merge-by-mprotect"}
    assert merged <= larger <= merged | IN_COMPANY | {"devzero-merge-by-offset"}


@pytest.mark.parametrize(
    ("kind", "touch", "permissions", "name"),
    [
        ("private-anonymous", "read", "rw-p", ""),
        ("private-anonymous-readonly", "read", "r--p", ""),
        ("private-devzero", "written", "rw-p", "/dev/zero"),
        ("private-devzero-readonly", "untouched", "r--p", "/dev/zero"),
        ("shared-devzero", "read", "rw-s", "/dev/zero (deleted)"),
        ("shared-anonymous", "read", "rw-s", "/dev/zero (deleted)"),
        ("memfd-private", "read", "rw-p", "/memfd:specimen (deleted)"),
        ("prot-none", "untouched", "---p", ""),
        ("mprotect-none", "read", "---p", ""),
        ("mprotect-split", "read", "r--p", ""),
        ("thread-stack-guard", "untouched", "---p", ""),
        ("stack", "written", "rw-p", "[stack]"),
        ("brk", "untouched", "rw-p", "[heap]"),
        ("brk-grown-heap", "untouched", "rw-p", "[heap]"),
        ("vdso", "read", "r-xp", "[vdso]"),
        ("vvar", "untouched", "r--p", "[vvar]"),
        ("named", "read", "rw-p", "[anon:specimen]"),
        ("aio-ring", "untouched", "rw-s", "/[aio] (deleted)"),
    ],
)
def test_maps_agrees(held: Held, kind: str, touch: str, permissions: str, name: str) -> None:
    assert held.get(kind, touch).vma[2:] == (permissions, name)


@pytest.mark.parametrize(
    "kind",
    [
        *("private-anonymous", "private-devzero", "map-stack", "droppable", "ksm-mergeable"),
        *("mlock-on-fault", "map-growsdown", "mremap-move", "brk"),
    ],
)
def test_a_touch_leaves_what_it_should(held: Held, kind: str) -> None:
    """Untouched: no page. Read: every page present, none of them memory. Written: all memory."""
    untouched, read, written = (held.get(kind, t) for t in ("untouched", "read", "written"))
    pages = (read.end - read.start) // PAGE
    assert [s.present() for s in (untouched, read, written)] == [0, pages, pages]
    assert [s.smaps_kb("Anonymous") for s in (untouched, read)] == [0, 0]
    assert written.smaps_kb("Anonymous") == pages * PAGE // 1024


@pytest.mark.parametrize(
    ("kind", "touch", "present", "memory"),
    [
        ("populate-readonly", "untouched", True, False),
        ("populate-writable", "untouched", True, True),
        ("madv-populate-read", "untouched", True, False),
        ("madv-populate-write", "untouched", True, True),
        ("map-locked-readonly", "untouched", True, False),
        ("mlock", "untouched", True, True),
        ("madv-dontneed", "read", False, False),
        ("madv-dontneed", "written", False, False),
        ("mprotect-none", "read", True, False),
        ("mremap-dontunmap-old", "written", False, False),
        ("mremap-dontunmap-new", "written", True, True),
        ("mremap-dontunmap-new", "read", True, False),
        ("fork-inherited", "read", False, False),
        ("fork-inherited", "written", True, True),
        ("fork-then-touched", "read", True, False),
        ("fork-wiped", "written", False, False),
        ("kernel-reads-write2", "read", True, False),
        ("kernel-reads-o-direct", "read", True, False),
        ("kernel-reads-process-vm", "read", True, False),
        ("kernel-reads-proc-mem", "read", True, False),
        ("kernel-writes-read2", "written", True, True),
        ("kernel-writes-process-vm", "written", True, True),
        ("kernel-writes-readonly", "written", True, True),
        ("userfaultfd-zeropage", "untouched", True, False),
        ("userfaultfd-copy", "untouched", True, True),
        ("devzero-beside-written", "read", True, False),
    ],
)
def test_pages_are_where_the_kind_puts_them(
    held: Held, kind: str, touch: str, present: bool, memory: bool
) -> None:
    specimen = held.get(kind, touch)
    pages = (specimen.end - specimen.start) // PAGE
    assert specimen.present() == (pages if present else 0)
    assert specimen.smaps_kb("Anonymous") == (pages * PAGE // 1024 if memory else 0)


def test_transparent_huge_page_is_one(held: Held) -> None:
    written = held.get("thp", "written")
    assert written.start % (written.end - written.start) == 0
    assert written.smaps_kb("AnonHugePages") in (0, (written.end - written.start) // 1024)
    assert held.get("thp", "untouched").present() == 0


def test_only_makes_these_kinds_alone(build: Path) -> None:
    lines = [json.loads(x) for x in run(build, "--only", "brk,vdso").stdout.splitlines()]
    assert {line["kind"] for line in lines} == {"brk", "vdso"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--only", "brk,nonesuch"], "no kind 'nonesuch'"),
        (["--only", ""], "no kind ''"),
        (["--only"], "--only needs a value"),
        (["--frobnicate"], "no option '--frobnicate'"),
        (["brk"], "'brk' is not an option"),
    ],
)
def test_bad_usage_is_one_sentence(build: Path, options: list[str], says: str) -> None:
    result = run(build, *options)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("specimens: ")
    assert result.stderr.endswith(".\n")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


@pytest.mark.parametrize("text", ["", "\n"])
def test_hold_ends_with_a_line_or_with_stdin(build: Path, text: str) -> None:
    with hold(build / "specimens", "--only", "brk,stack") as held:
        assert len(held.pids) == 5
        time.sleep(0.2)
        assert all(alive(pid) for pid in held.pids)
        if text:
            assert held.process.stdin
            held.process.stdin.write(text)
            held.process.stdin.flush()
            assert held.process.wait(timeout=PATIENCE) == 0
    assert held.process.returncode == 0
    wait_until_gone(held.pids)


def test_killing_the_parent_leaves_no_child(build: Path) -> None:
    with hold(build / "specimens") as held:
        assert len(held.pids) > 5
        held.process.kill()
        held.process.wait()
        wait_until_gone(held.pids)


def segments_of(pids: set[int]) -> list[str]:
    """The System V segments that these processes made."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    creator = lines[0].split().index("cpid")
    return [line for line in lines[1:] if int(line.split()[creator]) in pids]


def test_nothing_is_left_behind(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No temporary file keeps a name, and no System V segment outlives the program."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with hold(build / "specimens") as held:
        pids = {held.process.pid, *held.pids}
        assert segments_of(pids)
    assert held.process.returncode == 0
    wait_until_gone(held.pids)
    assert not list(tmp_path.iterdir())
    assert segments_of(pids) == []
