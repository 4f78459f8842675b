# SPDX-License-Identifier: GPL-2.0-only
"""Anyone's files: what becomes a run, what is refused, and that nothing is run because of one."""

from __future__ import annotations

import codecs
import os
import platform
import random
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import recordings
from click.testing import CliRunner

from anonvma import cli
from anonvma.base.errors import ProfileError
from anonvma.collect import importing
from anonvma.collect.importing import import_files
from anonvma.perf import profile as perf_profile
from anonvma.run import runs

HOW = ["-g", "--sample-cpu", "-F", "997", "-e", "cpu-clock"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("imported")
    program = recordings.known_program(directory)
    return recordings.record(directory / "perf.data", *HOW, "--", program, recordings.QUOTA)


def text_of(recording: Path, *words: str) -> bytes:
    words = ("perf", "script", "--force", *words, "-i", str(recording))
    return subprocess.run(words, capture_output=True, check=True, env=recordings.ENVIRONMENT).stdout


def test_a_recording_becomes_a_run(recording: Path, tmp_path: Path) -> None:
    run = runs.Run.open(import_files([recording], tmp_path).path)
    assert {"samples", "stacks", "frames"} == set(run.manifest.tables)
    assert run.manifest.target["architecture"] == platform.machine()
    assert run.manifest.target["kernel_release"] == os.uname().release
    (profile,) = perf_profile.of_run(run).values()
    theirs = recordings.report(recording, "--no-children", "-s", "sym")
    ours = perf_profile.self_(profile)
    for name in ("three", "one", "recurse", "outermost", recordings.method(theirs)):
        assert ours[name] == pytest.approx(theirs[name][0], abs=0.1)
    assert recordings.ODD_NAME in set(run.table("samples")["comm"])
    # Neither the host's name nor a path is in it.
    manifest = (run.path / "manifest.json").read_text()
    assert f'"{os.uname().nodename}"' not in manifest and str(recording.parent) not in manifest


@pytest.mark.parametrize("words", [(), ("--ns", "-F", "+pid"), ("-F", "+period,+srcline,-dso")])
def test_text_of_perf_script_becomes_a_run(
    words: tuple[str, ...], recording: Path, tmp_path: Path
) -> None:
    text = tmp_path / "perf.txt"
    text.write_bytes(text_of(recording, *words))
    (profile,) = perf_profile.of_run(import_files([text], tmp_path)).values()
    theirs = recordings.report(recording, "--no-children", "-s", "sym")
    ours = perf_profile.self_(profile)
    assert ours["three"] == pytest.approx(theirs["three"][0], abs=0.1)
    method = recordings.method(theirs)
    assert ours[method] == pytest.approx(theirs[method][0], abs=0.1)
    named = {"three", "one", recordings.ODD_NAME.strip()}
    assert named <= set(profile.samples["comm"])


def test_one_of_each_kind_makes_one_run(recording: Path, tmp_path: Path) -> None:
    counts = tmp_path / "stat.json"
    words = ["perf", "stat", "-j", "-o", counts, "-e", "page-faults,cycles", "--", "true"]
    subprocess.run(words, check=True)
    run = import_files([recording, counts], tmp_path)
    assert {"samples", "perf_stat"} <= set(run.manifest.tables)
    with pytest.raises(ProfileError, match="second of its kind"):
        import_files([counts, counts], tmp_path)


BUSY = ["/usr/bin/python3", "-c", "for i in range(1000000): pass"]
FORMS = {
    "other build": ["-B", "-g"],
    "compressed": ["-z", "-g"],
    "build ids in records": ["--buildid-mmap"],
    "threads": ["--threads", "-a"],
    "switched": ["--switch-output"],
    "all processors": ["-a", "-g"],
    "no times of samples' periods": ["-c", "1000000"],
    "a group that its leader samples": ["-e", "{cpu-clock,page-faults}:S"],
}


@pytest.mark.parametrize("form", FORMS)
def test_however_it_was_recorded(form: str, tmp_path: Path) -> None:
    recordings.require_perf()
    path = tmp_path / "perf.data"
    event = [] if "-e" in FORMS[form] else ["-e", "cpu-clock"]
    words = ["perf", "record", "-q", "-N", *FORMS[form], *event, "-o", str(path), "--"]
    done = subprocess.run([*words, *BUSY], capture_output=True, env=recordings.ENVIRONMENT)
    found = sorted(tmp_path.glob("perf.data*"))
    if done.returncode or not found:
        pytest.skip(f"this perf does not record so: {done.stderr.decode()[:200]}")
    run = import_files([found[0]], tmp_path / "runs")
    table = run.table("samples")
    assert len(table) == text_of(found[0], "-F", "comm,time").count(b"\n")
    assert "python3" in set(table["comm"])
    assert not list(run.path.glob("*tmp*")), "what perf wrote meanwhile is gone"


def test_a_recording_of_a_pipe(tmp_path: Path) -> None:
    recordings.require_perf()
    path = tmp_path / "perf.data"
    with path.open("wb") as file:
        words = ["perf", "record", "-q", "-e", "cpu-clock", "-o", "-", "--", *BUSY]
        subprocess.run(words, stdout=file, check=True, env=recordings.ENVIRONMENT)
    table = import_files([path], tmp_path / "runs").table("samples")
    assert len(table) == text_of(path, "-F", "comm,time").count(b"\n")
    assert "python3" in set(table["comm"])
    whole = path.read_bytes()
    for length in (19, 1000, len(whole) // 2, len(whole) - 1):
        end, ends = 16, set()
        while end < len(whole):  # no record of this stream has more behind it
            end += int.from_bytes(whole[end + 6 : end + 8], "little")
            ends.add(end)
        if length not in ends:
            path.write_bytes(whole[:length])
            assert "is cut short" in refused(path, tmp_path / "cut")


def test_a_mark_of_utf_8_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "perf.txt"
    path.write_bytes(codecs.BOM_UTF8 + GIVEN[0])
    assert set(import_files([path], tmp_path / "runs").table("samples")["comm"]) == {"bench"}


def test_a_directory_of_something_else_is_named(tmp_path: Path) -> None:
    assert "none that 'perf record --threads' made" in refused(tmp_path, tmp_path / "runs")


@pytest.mark.parametrize(("arch", "taken"), [(b"i686", True), (b"armv7l", False)])
def test_a_recording_of_32_bits(arch: bytes, taken: bool, recording: Path, tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("x86-64 alone has this one's names")
    content = recording.read_bytes()
    length = content.index(b"x86_64\0") - 4
    (size,) = struct.unpack_from("<I", content, length)
    path = tmp_path / "perf.data"
    path.write_bytes(content[: length + 4] + arch.ljust(size, b"\0") + content[length + 4 + size :])
    if taken:
        import_files([path], tmp_path / "runs")
    else:
        assert "was recorded on armv7l" in refused(path, tmp_path / "runs")


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    busy = ["/usr/bin/python3", "-c", "for i in range(3000000): pass"]
    flat = recordings.record(tmp_path / "flat.data", "-F", "999", "-e", "cpu-clock", "--", *busy)
    run = import_files([flat], tmp_path)
    assert "callers of the functions sampled" in {each.what for each in run.manifest.unobserved}


def refused(path: Path, into: Path, limit: int = importing.LIMIT) -> str:
    with pytest.raises(ProfileError) as caught:
        import_files([path], into, limit)
    sentence = str(caught.value)
    assert "\n" not in sentence and "Traceback" not in sentence
    assert not list(into.glob("*imported*")), "a refused file leaves no run"
    return sentence


def test_files_that_are_refused(recording: Path, tmp_path: Path) -> None:
    path, into = tmp_path / "given", tmp_path / "runs"
    good = recording.read_bytes()
    for content, why in (
        (b"", "is empty"),
        (good[: len(good) // 2], "is cut short"),
        (b"\x7fELF" + bytes(1000), "is neither"),
        (b"just some text\n" * 100, "is neither"),
    ):
        path.write_bytes(content)
        assert why in refused(path, into)
    assert "does not exist" in refused(tmp_path / "nothing", into)
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
    assert "is not a regular file" in refused(tmp_path / "fifo", into)
    path.write_bytes(good)
    assert "MiB" in refused(path, into, limit=1000)
    os.truncate(path, 1 << 40)
    assert "MiB" in refused(path, into)


GIVEN = (
    b"bench 100 [000] 10.000100: 1000000 cpu-clock: \n\t1234 spin+0x4 (/srv/bench)\n\n" * 2,
    b" Performance counter stats for 'x':\n\n 1,000 a\n 2.50 msec b\n 1.5 seconds time elapsed\n",
    b"CPU0,10,,cycles,100,100.00,,\nCPU1,30,,cycles,100,50.00,,\n",
    b'{"counter-value" : "7.5", "unit" : "", "event" : "x", "pcnt-running" : 9.00}\n',
)


def test_changed_text_gives_a_run_or_a_sentence(tmp_path: Path) -> None:
    """Whatever a byte or a number is changed to, nothing but a run or one clear sentence."""
    numbers = random.Random(1)
    path = tmp_path / "given"
    for step in range(80):
        text = bytearray(GIVEN[step % len(GIVEN)])
        for _ in range(numbers.randint(1, 3)):
            place = numbers.randrange(len(text))
            new = numbers.choice(
                [b"\0", b"\xff", b"\n", b"9" * 400, b"-", b",", b"\x1b[31m", b"/", b"\t", b""]
            )
            text[place : place + numbers.randint(0, 2)] = new
        path.write_bytes(text)
        try:
            run = import_files([path], tmp_path / "runs")
        except ProfileError as error:
            assert str(error).isprintable()
        else:
            for name in run.manifest.tables:
                assert len(run.table(name)) or name in ("stacks", "frames")


def test_a_foreign_architecture_is_named(recording: Path, tmp_path: Path) -> None:
    content = recording.read_bytes()
    mine = platform.machine().encode()
    length = content.index(mine + b"\0") - 4
    (size,) = struct.unpack_from("<I", content, length)
    foreign = b"s390x".ljust(size, b"\0")
    path = tmp_path / "perf.data"
    path.write_bytes(content[: length + 4] + foreign + content[length + 4 + size :])
    said = refused(path, tmp_path / "runs")
    assert f"was recorded on s390x, and this machine is {platform.machine()}" in said


def test_damaged_recordings_give_a_sentence_or_a_run(recording: Path, tmp_path: Path) -> None:
    """perf itself meets damage that a look at the sizes does not show."""
    good = bytearray(recording.read_bytes())
    (begin,) = struct.unpack_from("<Q", good, 40)
    path = tmp_path / "perf.data"
    for step in range(12):
        broken = bytearray(good)
        place = begin + 8 + step * (len(good) - begin) // 13
        broken[place : place + 24] = b"\xff" * 24
        path.write_bytes(broken)
        try:
            import_files([path], tmp_path / "runs")
        except ProfileError as error:
            assert "\n" not in str(error)


def test_nothing_is_run_or_fetched_for_a_recording(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever perf could start or ask is offered to it, and none of it is taken up."""
    bait, mark = tmp_path / "bait", tmp_path / "mark"
    bait.mkdir()
    for name in ("addr2line", "llvm-addr2line", "objdump", "c++filt", "debuginfod-find", "sh"):
        program = bait / name
        program.write_text(f"#!/bin/sh\necho {name} >>{mark}\n")
        program.chmod(0o755)
    config = tmp_path / "config"
    config.write_text(f"[buildid]\n\tdir = {tmp_path}/cache\n[core]\n\tproc-map-timeout = 1\n")
    monkeypatch.setenv("PATH", f"{bait}:{os.environ['PATH']}")
    monkeypatch.setenv("DEBUGINFOD_URLS", "file:///nonexistent/")
    monkeypatch.setenv("PERF_CONFIG", str(config))
    run = import_files([recording], tmp_path / "runs")
    assert run.manifest.tables["samples"].rows > 100
    assert not mark.exists() and not (tmp_path / "cache").exists()


def test_names_that_are_commands_stay_names(tmp_path: Path) -> None:
    program = tmp_path / "$(touch owned);`touch owned` <b>&"
    busy = "int main(void) { for (volatile long i = 0; i < 60000000; i++) ; return 0; }"
    subprocess.run(["cc", "-x", "c", "-", "-O1", "-o", program], input=busy.encode(), check=True)
    recorded = recordings.record(tmp_path / "perf.data", *HOW, "--", program)
    run = import_files([recorded], tmp_path / "runs")
    assert "$(touch owned);" in set(run.table("samples")["comm"])
    assert not list(Path.cwd().glob("owned")) and not list(tmp_path.glob("owned"))


def test_a_file_of_a_name_like_an_option(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "--script=x y"
    path.write_bytes(recording.read_bytes())
    path.chmod(stat.S_IRUSR)
    assert import_files([path], tmp_path / "runs").manifest.tables["samples"].rows > 100


def test_limits_that_are_stricter_than_ours(recording: Path, tmp_path: Path) -> None:
    """perf gets those; nobody but root raises one, nor does root in most containers."""
    program = "import resource as r; r.setrlimit(r.RLIMIT_AS, (2 << 30,) * 2); "
    program += "r.setrlimit(r.RLIMIT_CPU, (900, 900)); from anonvma.cli import main; main()"
    words = [sys.executable, "-c", program, "import", str(recording), "--into", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command(recording: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["import", str(recording), "--into", str(tmp_path)])
    assert done.exit_code == 0, done.output
    made = max(tmp_path.glob("*-imported"))
    assert done.output.strip().endswith(made.name)
    shown = CliRunner().invoke(cli.main, ["profile", str(made)])
    assert shown.exit_code == 0 and "three" in shown.output
    (tmp_path / "no").write_text("no")
    done = CliRunner().invoke(cli.main, ["import", str(tmp_path / "no")])
    assert done.exit_code == 1 and done.output.startswith("anonvma: ")
    assert CliRunner().invoke(cli.main, ["import"]).exit_code == 2
