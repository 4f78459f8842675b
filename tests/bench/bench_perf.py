# SPDX-License-Identifier: GPL-2.0-only
"""A recording of a million samples with stacks, to a DataFrame and to folded stacks.

Beside each other in one run, in turns, each round beginning with another:

- ``perf script`` alone, with our fields and with those that one gets unasked, for nobody to read;
- ours: to a DataFrame and to folded stacks, perf script being asked for what is needed of it;
- a stackcollapse in Perl, as one would write it, behind ``perf script``: to folded stacks only.

A program of a dozen functions that call one another at random faults in a page at the end of each
path; each fault is a sample. Nothing is asserted: this prints what it measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import progress, short, spread

ENVIRONMENT = {**os.environ, "PERF_CONFIG": "/dev/null", "LANGUAGE": "C"}
FIELDS = ("--ns", "-F", "pid,tid,cpu,time,period,event,ip,sym,dso")
FUNCTIONS = 12
CALLEES = 3  # of each function; with 4 to 9 calls that makes some 100,000 different stacks

PERL = r"""
my (%sums, @stack, $comm, $period);
while (<STDIN>) {
    chomp;
    if ($_ eq '') {
        $sums{join(';', $comm, @stack)} += $period if defined $comm;
        @stack = (); undef $comm;
    } elsif (/^\s*([0-9a-f]+)\s(.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$/) {
        unshift @stack, $2;
    } elsif (/^\s*(\S.*?)\s+\d+(?:\/\d+)?\s+\[\d+\]\s+[\d.]+:\s+(\d+)\s/) {
        ($comm, $period) = ($1, $2);
        $comm =~ tr/ /_/;
    }
}
print "$_ $sums{$_}\n" for sort keys %sums;
"""

THEIRS = "perf script | Perl"
OURS = "perf script in anonvma"
ALONE = "perf script, our fields"
PLAIN = "perf script, as it is"


class Cost(NamedTuple):
    """Seconds on the clock, of the processor, and the peak memory of what reads, in MiB."""

    seconds: float
    cpu: float
    mib: float
    samples: int


# ---- the recording ----


def program(directory: Path) -> Path:
    """A program whose every page fault has another path of functions."""
    lines = [
        "#include <stdlib.h>",
        "#include <sys/mman.h>",
        "static unsigned long seed = 1; static volatile char *at; static long left;",
        "enum { MAP = 4096 };",
        "static unsigned next(void) { seed = seed * 6364136223846793005ul + 1442695040888963407ul;"
        " return seed >> 40; }",
        "static int touch(void) { at += 4096; left--; return *at; }",
    ]
    names = [f"path_number_{number}" for number in range(FUNCTIONS)]
    lines += [f"int {name}(int depth);" for name in names]
    table = ", ".join(names)
    lines.append(f"static int (*const table[])(int) = {{ {table} }};")
    for number, name in enumerate(names):
        lines.append(
            f"__attribute__((noinline)) int {name}(int depth) {{ return {number} + (depth ?"
            f" table[({number} * 5 + next() % {CALLEES}) % {FUNCTIONS}](depth - 1) : touch()); }}"
        )
    lines.append(
        "int main(int n, char **words) { long want = atol(words[n - 1]); long size = MAP * 4096l;"
        " while (want > 0) { left = MAP - 1; want -= left; at = mmap(0, size, 3, 34, -1, 0);"
        " volatile char *base = at; while (left > 0) table[next() % 12](4 + next() % 6);"
        " munmap((void *)base, size); } return 0; }"
    )
    source, binary = directory / "paths.c", directory / "paths"
    source.write_text("\n".join(lines))
    words = ["cc", "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-w"]
    subprocess.run([*words, "-o", binary, source], check=True)
    return binary


def record(directory: Path, samples: int) -> Path:
    """Record so many page faults with their stacks."""
    output = directory / "perf.data"
    words = ["perf", "record", "-q", "-N", "-g", "--sample-cpu", "-c", "1", "-m", "4096"]
    words += ["-e", "page-faults:u", "-o", str(output), "--", str(program(directory)), str(samples)]
    subprocess.run(words, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return output


# ---- the ways ----


def _script(recording: Path, fields: Sequence[str]) -> list[str]:
    return ["perf", "script", "--force", "--no-inline", "-i", str(recording), *fields]


def read_as_ours(recording: str) -> None:
    """In a process of its own: perf script's samples as a DataFrame and as folded stacks."""
    from anonvma.perf import export
    from anonvma.perf import samples as perf_record
    from anonvma.target.local import Local

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    with Local() as here, tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "script")
        profile = perf_record.read(here, Path(recording), _script, place, privileged=False)[1]
    folded = export.folded(profile)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - begin,
                "samples": len(profile.samples),
                "stacks": len(profile.offsets) - 1,
                "folded": folded.count("\n"),
                "imports_kib": before,
                "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            }
        )
    )


def _cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def run_ours(recording: Path) -> Cost:
    """Ours, without the time and the memory that Python takes to start and to import."""
    begin = _cpu()
    words = [sys.executable, str(Path(__file__).resolve()), "--child", str(recording)]
    said = subprocess.run(words, capture_output=True, check=True, env=ENVIRONMENT).stdout
    found = json.loads(said)
    mib = (found["kib"] - found["imports_kib"]) / 1024
    return Cost(found["seconds"], _cpu() - begin, mib, found["samples"])


def run_alone(recording: Path, fields: Sequence[str]) -> Cost:
    """Only perf script."""
    begin, clock = _cpu(), time.perf_counter()
    with subprocess.Popen(
        _script(recording, fields), stdout=subprocess.DEVNULL, env=ENVIRONMENT
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(time.perf_counter() - clock, _cpu() - begin, used.ru_maxrss / 1024, 0)


def run_perl(recording: Path) -> Cost:
    """Perf script's text through a stackcollapse in Perl."""
    begin, clock = _cpu(), time.perf_counter()
    with subprocess.Popen(
        _script(recording, ["-F", "+period"]), stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as script:
        perl = subprocess.Popen(
            ["perl", "-e", PERL], stdin=script.stdout, stdout=subprocess.DEVNULL
        )
        assert script.stdout
        script.stdout.close()
        _, status, used = os.wait4(perl.pid, 0)
        perl.returncode = os.waitstatus_to_exitcode(status)
    return Cost(time.perf_counter() - clock, _cpu() - begin, used.ru_maxrss / 1024, 0)


def measure(recording: Path, rounds: int) -> dict[str, list[Cost]]:
    """Every way, so many times, each round beginning with another."""
    ways = {
        ALONE: lambda: run_alone(recording, FIELDS),
        PLAIN: lambda: run_alone(recording, ["-F", "+period"]),
        OURS: lambda: run_ours(recording),
    }
    if shutil.which("perl"):
        ways[THEIRS] = lambda: run_perl(recording)
    names = list(ways)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            costs[name].append(ways[name]())
            progress(f"round {number + 1} of {rounds}: {name}, {costs[name][-1].seconds:.2f} s")
    return costs


def table(costs: dict[str, list[Cost]]) -> Iterator[str]:
    """Yield the lines of what was measured."""
    samples = costs[OURS][0].samples
    yield f"{samples:,} samples with stacks, n = {len(costs[OURS])}, median [lowest, highest]"
    yield ""
    yield f"{'':24}{'seconds':>22}{'of the processor':>22}{'peak MiB':>10}"
    for name, each in costs.items():
        yield (
            f"{name:24}{spread([c.seconds for c in each]):>22}{spread([c.cpu for c in each]):>22}"
            f"{max(c.mib for c in each):>10.0f}"
        )
    if THEIRS not in costs:
        yield f"{THEIRS:24}not measured: perl is not installed"
    yield ""
    ours, alone = costs[OURS], costs[ALONE]
    added = statistics.median(a.seconds / b.seconds - 1 for a, b in zip(ours, alone, strict=True))
    verdict = "met" if added <= 1 / 3 else "not met"
    yield f"Aim: ours adds at most a third to perf script's time: {100 * added:.0f} %, {verdict}"
    if THEIRS in costs:
        processor = statistics.median(
            t.cpu / o.cpu for o, t in zip(ours, costs[THEIRS], strict=True)
        )
        whole = statistics.median(
            t.seconds / o.seconds for o, t in zip(ours, costs[THEIRS], strict=True)
        )
        verdict = "met" if whole >= 5 else "not met"
        yield f"Aim: five times faster than the script: {short(whole)} on the clock, {verdict};"
        yield f"     of the processor: {short(processor)}"


def main(words: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--samples", type=int, default=1_000_000, help="of the recording")
    options = parser.parse_args(words)
    if shutil.which("perf") is None or shutil.which("cc") is None:
        print("bench: not measured: perf and cc are needed", file=sys.stderr)
        return 0
    try:
        with tempfile.TemporaryDirectory() as scratch:
            recording = record(Path(scratch), options.samples)
            print("\n".join(table(measure(recording, max(options.rounds, 1)))))
    except subprocess.SubprocessError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        read_as_ours(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
