# SPDX-License-Identifier: GPL-2.0-only
"""Pairs of VMAs that are not one, on any target: why, and what becomes of them (pairs.c)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from waiting import PATIENCE

from anonvma.probe import census_file
from anonvma.probe.census_file import Census
from anonvma.probe.vmaprobe import Vmaprobe
from anonvma.target.target import Process, Target

SOURCE = Path(__file__).with_name("pairs.c")


class Pair(NamedTuple):
    """One pair: what the census says of it and what it should, before and after."""

    name: str
    reason: tuple[object, bool]
    expected: tuple[object, bool]
    became: str
    should: str


def compiled(directory: Path, source: Path = SOURCE) -> Path:
    """The program that makes them, or another, for any target of this architecture."""
    program = directory / source.stem
    words = ["cc", "-O1", "-static", "-Wall", "-Wextra", "-Werror"]
    words += ["-Wno-missing-field-initializers", "-o", str(program), str(source)]
    subprocess.run(words, check=True, timeout=PATIENCE)
    return program


def lines_until(process: Process, last: str) -> list[list[str]]:
    """What the program says, in words, up to a line of one word."""
    assert process.stdout
    said = []
    while (line := process.stdout.readline().decode().strip()) != last:
        assert line, f"the program ended before it said {last}"
        said.append(line.split(" ", 5))
    return said


def observe(target: Target, program: Path, directory: Path) -> list[Pair]:
    """Make the pairs there, look at them, make each pair equal."""
    there = target.push(program)
    with target.start([there], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        made = [words for words in lines_until(process, "ready") if words[0] == "pair"]
        vmas = census(target, directory, {int(words[1]) for words in made}).vmas
        vmas = vmas.set_index(["tgid", "start"])
        process.stdin.write(b"\n")
        process.stdin.flush()
        now = {tuple(words[1:3]): words[3:5] for words in lines_until(process, "done")}
        process.stdin.close()
    pairs = []
    for _, pid, address, reason, alone, name in made:
        row = vmas.loc[(int(pid), int(address, 16))]
        expected = (reason.replace("-", " "), alone == "1")
        seen = (row["apart"], bool(row["apart_alone"]))
        pairs.append(Pair(name, seen, expected, *now[pid, address]))
    return pairs


def census(target: Target, directory: Path, pids: Iterable[int] = ()) -> Census:
    """Take a census of these processes, or of all."""
    output = target.place("census")
    Vmaprobe(target).census(output, sorted(pids))
    target.pull(output, directory / "census")
    return census_file.read(directory / "census")
