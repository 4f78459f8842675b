# SPDX-License-Identifier: GPL-2.0-only
"""Real recordings for tests, and what ``perf report`` makes of them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from anonvma.perf import recording as perf_data
from anonvma.perf import samples, tool
from anonvma.perf import script as perf_script
from anonvma.perf.inlined import Inlines
from anonvma.perf.stacks import Profile
from anonvma.target.local import Local

SOURCE = Path(__file__).with_name("known_profile.cpp")
ENVIRONMENT = {**os.environ, "PERF_CONFIG": "/dev/null", "LANGUAGE": "C", "PERF_BUILDID_DIR": "/"}
QUOTA = "60"  # ms of processor time: of 9 such quotas there are some 540 samples
ODD_NAME = "a b\n\n1/1 [0]\\xff\t"  # of its main thread, as it is decoded


def require_perf() -> None:
    done = subprocess.run(["perf", "--version"], capture_output=True, check=False)
    if shutil.which("perf") is None or done.returncode:
        pytest.skip("no perf that runs: install linux-perf or linux-tools-generic")


def known_program(directory: Path) -> Path:
    """known_profile.cpp, compiled under a name with a blank and a newline."""
    if shutil.which("c++") is None:
        pytest.skip("c++ is not installed (package g++)")
    program = directory / "kn ow\nn"
    words = ["c++", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    words += ["-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-o", str(program)]
    subprocess.run([*words, str(SOURCE)], check=True)
    return program


def record(output: Path, *words: str | Path) -> Path:
    """Run ``perf record`` with these words; what it wrote."""
    require_perf()
    done = subprocess.run(
        ["perf", "record", "-q", "-N", "-o", output, *words], capture_output=True, check=False
    )
    if done.returncode and b"ermission" in done.stderr:
        pytest.skip(f"perf may not record: {done.stderr.decode(errors='replace').strip()}")
    assert done.returncode == 0, done.stderr
    return output


def script(recording: Path, fields: Sequence[str]) -> list[str]:
    """The command that prints a recording."""
    return perf().script(str(recording), *fields)


@functools.cache
def perf() -> tool.Perf:
    """The perf of this machine."""
    with Local() as here:
        found = tool.find(here)
    assert found is not None
    return found


def read(recording: Path, *, inlines: bool = False) -> Profile:
    """A recording as samples, the way `collect` and `import` read it."""
    with Local() as here:
        how = Inlines(here) if inlines else None
        scratch = recording.with_name("script")
        return samples.read(here, recording, script, scratch, privileged=False, inlines=how)[1]


def read_whole(recording: Path, *, inlines: bool = False) -> Profile:
    """The same from the text about every sample."""
    about = perf_data.read(recording)
    words = script(recording, perf_script.fields(about.has_cpu, about.has_period))
    text = subprocess.run(words, capture_output=True, check=True, env=ENVIRONMENT).stdout
    parser = perf_script.Parser(cpu=about.has_cpu, period=about.has_period)
    parser.feed(text)
    with Local() as here:
        return parser.finish(comms=about.names, inlines=Inlines(here) if inlines else None)


def report(recording: Path, *words: str) -> dict[str, tuple[float, ...]]:
    """The rows of ``perf report``, by event and then symbol: its percentages, and samples."""
    words = ("report", "--force", "--stdio", "--no-inline", "-g", "none", *words)
    fields = ["-t", "\x1f", "--percent-limit", "0", "-i", str(recording)]
    done = subprocess.run(
        ["perf", *words, *fields], capture_output=True, check=True, env=ENVIRONMENT
    )
    found: dict[str, tuple[float, ...]] = {}
    for line in done.stdout.decode(errors="backslashreplace").split("\n"):
        parts = [part.strip() for part in line.split("\x1f")]
        numbers = [float(part.rstrip("%")) for part in parts if re.fullmatch(r"[\d.]+%", part)]
        if numbers and not line.startswith("#"):
            symbol = re.sub(r"^\[[.kgud]\] ", "", parts[-1])
            found[symbol] = tuple(
                old + new
                for old, new in zip(found.get(symbol, (0.0,) * len(numbers)), numbers, strict=True)
            )
    return found


def called(names: Iterable[str], demangled: str, part: str) -> str:
    """A function by the name that this machine's perf gives it; the linker's has `part` in it.

    Some are built without a library that demangles, such as Debian 13's.
    """
    every = list(names)
    return demangled if demangled in every else next(name for name in every if part in name)


def method(names: Iterable[str]) -> str:
    """The method deep::Holder<long>::work() by that name."""
    return called(names, "deep::Holder<long>::work", "Holder")
