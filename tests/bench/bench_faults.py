# SPDX-License-Identifier: GPL-2.0-only
"""What tracing page faults costs, against the usual ways; `make bench` runs it after bench.py.

small-allocs-mt runs untraced, under each of our tracers and under what one would otherwise use, in
turns, each round beginning with another. Printed are the workload's speed over its untraced speed
of the same round, and how many of the faults each way saw. Then a million faults are traced and
become a DataFrame, for the memory that takes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import Timer, progress, short, spread

from anonvma.base import paths
from anonvma.base.errors import AnonvmaError, TargetError, WorkloadError
from anonvma.collect.workload import Workload
from anonvma.collect.workload_output import parse_throughput
from anonvma.perf import tool as perf
from anonvma.target.local import Local

MILLION = Workload(workload="small-allocs-mt", threads=2, bytes=1_000_000 * 4096 // 8192 * 8192)
UNTRACED = "untraced"
LOCKS, MMAP_LOCK = "vmaprobe locks", "  mmap_lock alone"
PARTS = ("names", "vmas", "forks")
"""What `vmaprobe locks --parts` traces beside mmap_lock."""


class Way(NamedTuple):
    """A command that traces, and how its output says how many faults it saw."""

    words: list[str]
    seen: Callable[[bytes], int | None]


def ways(local: Local) -> tuple[dict[str, Way], list[str]]:
    """Return what is measured, and sentences on what is not, for it is not here."""
    probe, file = local.push(paths.program("vmaprobe")), local.place
    counts, events = file("counts"), file("events")

    def counted(_: bytes) -> int | None:
        found = json.loads(local.run(["cat", counts], privileged=True).stdout)
        return sum(group["count"] for group in found["groups"])

    found = {
        UNTRACED: Way([], lambda _: None),
        "vmaprobe faults": Way([probe, "faults", "--output", counts, "--"], counted),
        "vmaprobe faults --events": Way(
            [probe, "faults", "--output", counts, "--events", events, "--"], counted
        ),
        LOCKS: Way([probe, "locks", "--output", file("locks"), "--"], lambda _: None),
    }
    for name, part in ((MMAP_LOCK, "none"), *((f"  and {part}", part) for part in PARTS)):
        words = [probe, "locks", "--parts", part, "--output", file(part), "--"]
        found[name] = Way(words, lambda _: None)
    lacking = []
    tool = perf.find(local)
    if tool is None:
        lacking.append("perf record and perf trace: no perf that runs was found")
    else:
        found |= _of_perf(local, tool)
    if local.which("bpftrace"):
        program = "software:page-faults:1 { @[comm] = count(); }"
        found["bpftrace, counted by comm"] = Way(["bpftrace", "-e", program, "-c"], _of_bpftrace)
    else:
        lacking.append("bpftrace: it is not installed (package bpftrace)")
    return found, lacking


def _of_perf(local: Local, tool: perf.Perf) -> dict[str, Way]:
    data, text = local.place("perf.data"), local.place("perf.txt")

    def samples(_: bytes) -> int | None:
        words = [*tool.command, "script", "-f", "-F", "tid", "-i", data]
        return local.run(words, privileged=True).stdout.count(b"\n")

    def lines(_: bytes) -> int | None:
        return local.run(["cat", text], privileged=True).stdout.count(b"fault [")

    record = [*tool.command, "record", "-q", "-N", "-e", "page-faults", "-c", "1", "-o", data]
    trace = [*tool.command, "trace", "-F", "all", "--no-syscalls", "-o", text, "--"]
    return {
        "perf record -c 1 -d": Way([*record, "-d", "--"], samples),
        "perf record -c 1 -g": Way([*record, "-g", "--"], samples),
        "perf trace -F all": Way(trace, lines),
    }


def _of_bpftrace(said: bytes) -> int | None:
    found = re.search(rb"@\[vmload\]: (\d+)", said)
    return int(found[1]) if found else None


class Round(NamedTuple):
    """One run of the workload under one way."""

    rate: float  # MiB/s over all tasks
    seen: int | None


def once(local: Local, way: Way, load: list[str]) -> Round:
    """Run the workload under one way."""
    command = [" ".join(load)] if way.words[:1] == ["bpftrace"] else load
    done = local.run([*way.words, *command], privileged=bool(way.words))
    tasks = parse_throughput(done.stdout)
    if done.returncode or not tasks:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise WorkloadError(f"{' '.join(way.words[:2]) or 'vmload'} failed: {said[-1]}")
    rate = sum(task["kb_per_s"] for task in tasks) / 1024
    return Round(rate, way.seen(done.stdout + done.stderr))


def measure(
    local: Local, rounds: int, load: Workload
) -> tuple[dict[str, list[Round]], dict[str, str]]:
    """Run every way once a round; and why some could not be run."""
    found, lacking = ways(local)
    failed = {text.partition(":")[0]: text.partition(": ")[2] for text in lacking}
    words = load.argv(local.push(paths.program("vmload")))
    costs: dict[str, list[Round]] = {name: [] for name in found}
    with local.sysctl_at_least("vm.max_map_count", load.needed_map_count):
        once(local, found[UNTRACED], words)
        for number in range(rounds):
            names = list(costs)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                try:
                    costs[name].append(once(local, found[name], words))
                except WorkloadError as error:
                    failed[name] = str(error)
                    del costs[name]
                    continue
                progress(
                    f"round {number + 1} of {rounds}: {name}, {costs[name][-1].rate:.0f} MiB/s"
                )
    return costs, failed


def table(costs: dict[str, list[Round]], failed: dict[str, str], load: Workload) -> Iterator[str]:
    """Yield the lines of the table."""
    rounds = len(costs[UNTRACED])
    yield (
        f"{load.name}, {load.threads} threads, {load.expected_pages:,} faults, n = {rounds}, "
        "median [lowest, highest]"
    )
    yield ""
    yield f"{'':28}{'MiB/s':>24}{'x untraced':>24}{'faults seen':>14}"
    for name, each in costs.items():
        ratio = [a.rate / b.rate for a, b in zip(each, costs[UNTRACED], strict=True)]
        seen = [r.seen for r in each if r.seen is not None]
        told = f"{statistics.median(seen):,.0f}" if seen else "-"
        yield f"{name:28}{spread([r.rate for r in each]):>24}{spread(ratio):>24}{told:>14}"
    for name, why in failed.items():
        yield f"{name:28}not measured: {why}"
    yield ""
    pairs = zip(costs["vmaprobe faults"], costs[UNTRACED], strict=True)
    ours = statistics.median(traced.rate / untraced.rate for traced, untraced in pairs)
    verdict = "met" if ours >= 0.95 else "not met"
    yield f"Aim: vmaprobe faults at least 0.95 of untraced: {short(ours)}, {verdict}"
    yield from lock_tracers(costs)


def lock_tracers(costs: dict[str, list[Round]]) -> Iterator[str]:
    """Yield the line on what each lock tracer costs beside that of mmap_lock."""
    beyond = {}
    for said, name in (*((part, f"  and {part}") for part in PARTS), ("all", LOCKS)):
        pairs = zip(costs.get(name, ()), costs.get(MMAP_LOCK, ()), strict=True)
        beyond[said] = [traced.rate / alone.rate for traced, alone in pairs]
    if all(beyond.values()):
        middle = {said: statistics.median(ratio) for said, ratio in beyond.items()}
        verdict = "met" if min(middle.values()) >= 0.95 else "not met"
        each = ", ".join(f"{said} {short(ratio)}" for said, ratio in middle.items())
        yield f"Aim: 0.95 of mmap_lock alone: {each}, {verdict}"


# ---- a million faults ----


def to_frame(counts: str, events: str) -> None:
    """In a process of its own: what the imports take, and then the DataFrame with them."""
    import resource

    from anonvma.probe import fault_events, faults_file

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak()
    counted = faults_file.read_faults(Path(counts).read_bytes())
    frame = fault_events.read_events(events, counted)
    print(json.dumps({"events": len(frame), "imports_kib": before, "peak_kib": peak()}))


def million(local: Local) -> Iterator[str]:
    """Trace a million faults and make a DataFrame of them; yield the lines on memory."""
    timer = Timer(local)
    probe = local.push(paths.program("vmaprobe"))
    counts, events = local.place("counts"), local.place("events")
    words = MILLION.argv(local.push(paths.program("vmload")))
    with local.sysctl_at_least("vm.max_map_count", MILLION.needed_map_count):
        tracer = [probe, "faults", "--output", counts, "--events", events, "--"]
        _, _, traced_kib, _ = timer.run([*tracer, *words])
    child = [sys.executable, str(Path(__file__).resolve()), "--child", counts, events]
    *_, said = timer.run(child)
    found = json.loads(said)
    frame_kib = found["peak_kib"] - found["imports_kib"]
    total = (traced_kib + frame_kib) / 1024
    verdict = "met" if total <= 200 else "not met"
    yield f"{found['events']:,} faults from the probe to a DataFrame, peak memory"
    yield ""
    # The ring's pages are mapped twice, one behind the other, and so are in its peak twice.
    yield f"{'vmaprobe, its ring buffer among it':44}{traced_kib / 1024:>6.0f} MiB"
    yield f"{'DataFrame, the mapped file among it':44}{frame_kib / 1024:>6.0f} MiB"
    yield f"{'  (with Python and the imports)':44}{found['peak_kib'] / 1024:>6.0f} MiB"
    yield f"Aim: a million faults within 200 MiB: {total:.0f}, {verdict}"


def main(words: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often everything is measured")
    parser.add_argument("--bytes", default="400m", help="what small-allocs-mt allocates")
    options = parser.parse_args(words)
    try:
        load = Workload(workload="small-allocs-mt", threads=2, bytes=options.bytes)
        with Local() as local:
            local.require_privilege()
            print("\n".join(table(*measure(local, max(options.rounds, 1), load), load)))
            print()
            print("\n".join(million(local)))
    except (AnonvmaError, TargetError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        to_frame(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
