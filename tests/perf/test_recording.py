# SPDX-License-Identifier: GPL-2.0-only
"""perf.data: what real ones are, and a sentence for everything that is none."""

from __future__ import annotations

import os
import platform
import random
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import recordings

from anonvma.base.errors import ProfileError
from anonvma.perf import deduplicated, recording, recording_format
from anonvma.perf.thread_names import Names

HEADER = 104
FEATURES_AT = 72  # of the bits in the header
DATA_AT = 40  # of the offset of the records


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("good") / "perf.data"
    recordings.record(output, "-g", "-c", "1", "-e", "page-faults", "--", "true")
    return output.read_bytes()


Written = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Written:
    def written(content: bytes) -> Path:
        path = tmp_path / "perf.data"
        path.write_bytes(content)
        return path

    return written


def test_what_a_recording_is(good: bytes, write: Written) -> None:
    path = write(good)
    found = recording.read(path)
    assert found.arch == platform.machine()
    assert found.release == os.uname().release
    assert found.events == ["page-faults"] and found.call_graph
    words = ["perf", "script", "--force", "-F", "tid", "-G", "-i", path]
    done = subprocess.run(words, capture_output=True, check=True, env=recordings.ENVIRONMENT)
    assert found.samples == len([line for line in done.stdout.splitlines() if line.strip()])
    assert {name for _, _, name in found.names.events} >= {b"true"}


def resident(path: Path) -> int:
    """Bytes of a file's mapping that are in this process's memory."""
    maps = Path("/proc/self/smaps").read_text().split(str(path))[1]
    return 1024 * int(re.findall(r"^Rss: +(\d+) kB", maps, re.M)[0])


def test_no_page_of_it_is_kept(
    good: bytes, write: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its length: it is mapped, looked at piece by piece, and given back."""
    monkeypatch.setattr(recording, "PIECE", 64)
    path = write(good)
    file = recording.File(path)
    assert file.heads.size.sum() == file.records[1]
    assert resident(path) == 0
    last = len(file.words) - 1
    for at in (np.arange(last + 1), np.array([5, last, 3, 3]), np.arange(0)):
        assert (file.gathered(at) == file.words[at]).all()
    file.gathered(np.arange(len(file.words)))
    assert resident(path) == 0


def test_names_at_their_time() -> None:
    names = Names([(7, 0, b"old"), (7, 100, b"new\n"), (8, 50, b"other")])
    codes, known = names(np.array([7, 7, 7, 8, 9, 0]), np.array([1, 100, 101, 1, 1, 1]))
    found = [known[code] if code >= 0 else None for code in codes]
    assert found == [b"old", b"old", b"new\n", b"other", None, b"swapper"]


def test_times_that_no_clock_shows(good: bytes, write: Written) -> None:
    """perf gives records that it made up the time -1; anything else as late is damage."""
    path = write(good)
    file = recording.File(path)
    assert file.attrs[0].time_place
    *_, (offset, size) = file.records_of(recording_format.Record.COMM)
    place = offset + size - file.attrs[0].time_place
    for time, said in ((2**64 - 1, 0), (7, 7)):
        changed = bytearray(good)
        struct.pack_into("<Q", changed, place, time)
        assert said in {since for _, since, _ in recording.read(write(changed)).names.events}
    struct.pack_into("<Q", changed, place, 1 << 63)
    assert "a time that no clock shows" in refused(write(bytes(changed)))


def test_names_have_their_times_whatever_the_events_are(tmp_path: Path) -> None:
    """Where a record has its time depends on the event it came with."""
    events = ["-e", "sched:sched_process_exec", "-e", "page-faults"]
    path = recordings.record(tmp_path / "perf.data", "-c", "1", *events, "--", "true")
    assert len({attr.time_place for attr in recording.File(path).attrs}) == 2
    since = [time for _, time, name in recording.read(path).names.events if name == b"true"]
    words = ["perf", "script", "--force", "--ns", "--show-task-events", "-F", "time,comm"]
    done = subprocess.run(
        [*words, "-i", path], capture_output=True, check=True, env=recordings.ENVIRONMENT
    )
    (line,) = [line for line in done.stdout.splitlines() if b"COMM exec: true" in line]
    seconds, nanoseconds = re.search(rb"(\d+)\.(\d{9})", line).groups()  # type: ignore[union-attr]
    assert since == [int(seconds) * 10**9 + int(nanoseconds)]


def refused(path: Path, limit: int | None = None) -> str:
    with pytest.raises(ProfileError) as caught:
        recording.read(path, limit)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400
    return sentence


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"PERFFILE" + bytes(200), "does not begin with PERFILE2"),
        (b"PERFILE2", "cut short"),
        (b"PERFILE2" + struct.pack("<Q", 16) + bytes(50), "was written to a pipe"),
        (b"PERFILE2" + struct.pack("<Q", 104), "cut short"),
        (b"PERFILE2" + struct.pack("<Q", 1 << 60) + bytes(200), "header claims"),
        (b"2ELIFREP" + bytes(200), "other byte order"),
    ],
)
def test_what_is_no_recording(content: bytes, why: str, write: Written) -> None:
    assert why in refused(write(content))


def test_a_recording_cut_short_anywhere(good: bytes, write: Written) -> None:
    for size in [*range(1, 300, 7), *range(300, len(good), max(1, len(good) // 60))]:
        refused(write(good[:size]))


def test_perf_killed_before_it_was_done(good: bytes, write: Written) -> None:
    # It writes the size of the records last.
    killed = bytearray(good)
    killed[DATA_AT + 8 : DATA_AT + 16] = bytes(8)
    assert "perf record was killed" in refused(write(bytes(killed)))


def test_an_enormous_one_is_not_read(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    path.write_bytes(good)
    os.truncate(path, 1 << 40)  # all of it a hole
    assert "more than the 1024 MiB that are taken" in refused(path, 1 << 30)


def test_a_trace_of_a_processor(good: bytes, write: Written) -> None:
    traced = bytearray(good)
    (bits,) = struct.unpack_from("<Q", traced, FEATURES_AT)
    # One more feature means one more entry of the table behind the records.
    offset, size = struct.unpack_from("<QQ", traced, DATA_AT)
    place = offset + size + 16 * (bits & ((1 << 18) - 1)).bit_count()
    traced[place:place] = struct.pack("<QQ", HEADER, 0)
    struct.pack_into("<Q", traced, FEATURES_AT, bits | 1 << 18)
    assert "Intel PT" in refused(write(bytes(traced)))


@pytest.mark.parametrize("size", [0, 7, 0xFFFF])
def test_a_record_of_an_impossible_size(size: int, good: bytes, write: Written) -> None:
    broken = bytearray(good)
    (offset,) = struct.unpack_from("<Q", broken, DATA_AT)
    struct.pack_into("<H", broken, offset + 6, size)
    assert f"claims {size} bytes" in refused(write(bytes(broken)))


def test_what_is_damaged_anywhere_is_read_or_refused(good: bytes, write: Written) -> None:
    numbers = random.Random(1)
    path = write(good)
    for _ in range(400):
        broken = bytearray(good)
        for _ in range(numbers.choice([1, 4, 50])):
            place = numbers.choice([numbers.randrange(HEADER), numbers.randrange(len(good))])
            broken[place] = numbers.randrange(256)
        path.write_bytes(broken)
        try:
            recording.read(path)
            deduplicated.abridge(recording.File(path), path.with_name("part.data"))
        except ProfileError as error:
            assert "\n" not in str(error)


def test_directories_and_devices(tmp_path: Path) -> None:
    assert "cannot read" in refused(tmp_path)
    assert "not a regular file" in refused(Path("/dev/null"))
    assert "No such file" in refused(tmp_path / "nothing")
