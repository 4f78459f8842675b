# SPDX-License-Identifier: GPL-2.0-only
"""A recording read by way of its part is what perf prints of the whole."""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings

from anonvma.perf import deduplicated, raw_samples, script
from anonvma.perf import recording as perf_data
from anonvma.perf.deduplicated import Abridged
from anonvma.perf.script import Parser, Printed
from anonvma.perf.stacks import Profile

LONG = f"{shlex.quote(sys.executable)} -c 'for i in range(600000): str(i).encode()'"
BUSY = ["sh", "-c", f"for i in 1 2 3 4 5; do sort /etc/passwd; {LONG}; done"]


def rows(profile: Profile) -> list[tuple[object, ...]]:
    """Every sample with the names in its stack."""
    table = profile.frames.astype({"file": object})
    frames = list(table[["symbol", "file", "kernel", "inlined"]].itertuples(index=False, name=None))
    stacks = [
        tuple(frames[frame] for frame in profile.frame_ids[begin:end].tolist())
        for begin, end in zip(profile.offsets, profile.offsets[1:], strict=False)
    ]
    samples = profile.samples.astype({"comm": object, "event": object, "cpu": object})
    samples["cpu"] = samples["cpu"].map(str)
    found = [(*row[:-1], stacks[row[-1]]) for row in samples.itertuples(index=False, name=None)]
    return sorted(found, key=repr)  # two processors may sample in the same nanosecond


def abridged(recording: Path) -> Abridged | None:
    return deduplicated.abridge(perf_data.File(recording), recording.with_name("part.data"))


Change = Callable[[list[bytes]], list[bytes]]


def printed(part: Path, change: Change = lambda blocks: blocks) -> Printed:
    """What perf says of a part, with a change to its samples."""
    about = perf_data.read(part)
    words = recordings.script(part, script.fields(about.has_cpu, about.has_period))
    text = subprocess.run(words, capture_output=True, check=True, env=recordings.ENVIRONMENT).stdout
    parser = Parser(cpu=about.has_cpu, period=about.has_period)
    parser.feed(b"\n\n".join(change(text.rstrip(b"\n").split(b"\n\n"))))
    return parser.printed()


@pytest.mark.parametrize(
    "how",
    [
        ["-g", "--sample-cpu", "-F", "2999", "-e", "cpu-clock"],
        ["-g", "-F", "2999", "-e", "cpu-clock:u"],
        ["-g", "-F", "2999", "-e", "cpu-clock", "-e", "page-faults", "-e", "context-switches"],
        ["-g", "-c", "1", "-e", "page-faults"],
        ["-F", "2999", "-e", "cpu-clock"],
        ["-g", "-a", "--sample-cpu", "-F", "999", "-e", "cpu-clock"],
        ["-g", "-d", "-F", "2999", "-e", "cpu-clock", "-e", "page-faults"],
        ["-g", "-c", "1", "-e", "sched:sched_process_exec", "-e", "page-faults"],
    ],
    ids=["usual", "user", "events", "period", "flat", "system", "data", "tracepoint"],
)  # fmt: skip
def test_it_is_what_perf_prints(how: list[str], tmp_path: Path) -> None:
    recording = recordings.record(tmp_path / "perf.data", *how, "--", *BUSY)
    part = abridged(recording)
    assert part is not None
    assert 0 < len(part.kept) < len(part.stack)
    assert len(part.stack) == perf_data.read(recording).samples
    ours, theirs = recordings.read(recording), recordings.read_whole(recording)
    about = perf_data.read(recording)
    for there, name in ((about.has_period, "period"), (about.has_cpu, "cpu")):
        if not there:  # of every event: text has it of none
            ours.samples[name] = theirs.samples[name] = 0
    unequal = [pair for pair in zip(rows(ours), rows(theirs), strict=True) if not same(*pair)]
    assert unequal == []
    assert {path.name for path in tmp_path.iterdir()} == {"perf.data", "part.data"}


def same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    """Whether two samples are the same, but for what perf had not been told yet.

    Of a whole machine it may read a mapping after a sample in it, if that was recorded by another
    processor, whose buffer it comes upon later. In the short cut each address stands but once, and
    later.
    """
    pairs = zip(ours[-1], theirs[-1], strict=True)
    known = [(our, their) for our, their in pairs if their[0] != "[unknown]"]
    return ours[:-1] == theirs[:-1] and all(our == their for our, their in known)


def test_threads_names_and_inlined_functions(tmp_path: Path) -> None:
    program = recordings.known_program(tmp_path)
    how = ["-g", "--sample-cpu", "-F", "997", "-e", "cpu-clock"]
    recording = recordings.record(tmp_path / "perf.data", *how, "--", program, recordings.QUOTA)
    assert abridged(recording) is not None
    ours = recordings.read(recording, inlines=True)
    assert rows(ours) == rows(recordings.read_whole(recording, inlines=True))
    # Stacks that have the same frames are one.
    stacks = [
        tuple(ours.frame_ids[begin:end].tolist())
        for begin, end in zip(ours.offsets, ours.offsets[1:], strict=False)
    ]
    assert len(set(stacks)) == len(stacks)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording in which the same addresses of a process have two names, one after the other."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed (package gcc)")
    directory = tmp_path_factory.mktemp("changing")
    words = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"]
    for name in ("first", "second"):
        source = directory / f"{name}.c"
        source.write_text(
            f"long {name}(long n) {{ volatile long x = 0; while (n--) x += n; return x; }}\n"
            f"long work(long n) {{ return {name}(n) + 1; }}\n"
        )
        subprocess.run(
            [*words, "-fno-inline", "-shared", "-fPIC", "-o", directory / f"{name}.so", source],
            check=True,
        )
    program = directory / "program"
    source = Path(__file__).parents[1] / "helpers" / "maps_change.c"
    subprocess.run([*words, '-DNAME="work"', "-o", program, source, "-ldl"], check=True)
    libraries = [directory / f"{name}.so" for name in ("first", "second")]
    said = subprocess.run([program, *libraries, "1"], capture_output=True, text=True, check=True)
    if said.stdout != "same\n":
        pytest.skip("this C library maps the second library elsewhere")
    how = ["-g", "-F", "997", "-e", "cpu-clock"]
    command = [program, *libraries, "30000000"]
    return recordings.record(directory / "perf.data", *how, "--", *command)


def test_one_address_with_two_names(changing: Path) -> None:
    assert abridged(changing) is not None
    ours = recordings.read(changing)
    assert {"first", "second"} <= set(ours.frames["symbol"])
    assert rows(ours) == rows(recordings.read_whole(changing))


def test_maps_that_change_are_what_tells_them_apart(
    changing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test before would show nothing."""
    real = deduplicated._spaces

    def blind(file: perf_data.File, samples: raw_samples.Samples) -> object:
        found = real(file, samples)
        assert found
        return found._replace(user=np.zeros_like(found.user))

    monkeypatch.setattr(deduplicated, "_spaces", blind)
    part = abridged(changing)
    assert part
    found = part.whole(printed(changing.with_name("part.data")))
    assert found is None or not {"first", "second"} <= set(found.frames["symbol"])


@pytest.mark.parametrize("how", ["dwarf", "compressed"])
def test_where_perf_does_more_it_prints_all(how: str, tmp_path: Path) -> None:
    words = {"dwarf": ["--call-graph", "dwarf,4096"], "compressed": ["-g", "-z"]}[how]
    program = recordings.known_program(tmp_path)
    recording = recordings.record(
        tmp_path / "perf.data", *words, "-F", "499", "-e", "cpu-clock", "--", program, "20"
    )
    assert abridged(recording) is None and not (tmp_path / "part.data").exists()
    assert rows(recordings.read(recording)) == rows(recordings.read_whole(recording))


@pytest.mark.parametrize(
    "change",
    [
        lambda blocks: blocks[1:],  # a sample is gone
        lambda blocks: [blocks[0].replace(b"/", b"9/", 1), *blocks[1:]],  # of another process
        lambda blocks: [blocks[0] + b"\n\tffffffff81000000 more (/lib)", *blocks[1:]],
        lambda blocks: [blocks[0].rpartition(b"\n")[0], *blocks[1:]],  # a frame is gone
    ],
)
def test_what_was_not_asked_for_is_not_taken(change: Change, tmp_path: Path) -> None:
    how = ["-g", "-F", "2999", "-e", "cpu-clock"]
    recording = recordings.record(tmp_path / "perf.data", *how, "--", *BUSY)
    part = abridged(recording)
    assert part
    assert part.whole(printed(tmp_path / "part.data")) is not None
    assert part.whole(printed(tmp_path / "part.data", change)) is None


def test_a_chain_that_ends_in_what_is_no_mark(tmp_path: Path) -> None:
    """As a walk along frame pointers does that leaves the stack: perf drops such a chain."""
    how = ["-g", "-F", "2999", "-e", "cpu-clock"]
    recording = recordings.record(tmp_path / "perf.data", *how, "--", *BUSY)
    file = perf_data.File(recording)
    samples = raw_samples.read(file)
    assert samples
    content = bytearray(recording.read_bytes())
    for number in np.flatnonzero(samples.length > 3)[::7].tolist():
        last = int(samples.begin[number] + samples.length[number] - 1)
        struct.pack_into("<q", content, file.records[0] + 8 * last, -1)
    recording.write_bytes(content)
    part = abridged(recording)
    assert part
    found = part.whole(printed(tmp_path / "part.data"))
    assert found and (np.diff(found.offsets) == 0).sum() == 1
    assert rows(recordings.read(recording)) == rows(recordings.read_whole(recording))
