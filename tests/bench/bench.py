# SPDX-License-Identifier: GPL-2.0-only
"""What observing costs, in one run: ``make bench``, or ``make bench ARGS='--vmas 100000'``.

One process with a million VMAs is read in six ways, and small-allocs-mt runs with and without
``perf stat`` around it, all in turns. Nothing is asserted: this prints what it measured, and
whether the two aims of the project are met.

Each thing measured is a process of its own, so that its peak memory is its own. A small Python,
`_TIMER`, starts it: at exec the kernel keeps the peak of the memory that is being replaced
(``setmax_mm_hiwater_rss()`` in ``exec_mmap()``, fs/exec.c), so that no child that we start
ourselves could show less than what we have.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# Nothing that brings pandas: the children below would have it in their memory before they need it.
from anonvma.base import paths
from anonvma.base.errors import AnonvmaError, ProbeError, SetupError, TargetError, WorkloadError
from anonvma.perf import tool
from anonvma.target.local import Local

HERE = Path(__file__).resolve().parent
PROBE = HERE.parents[1] / "analysis" / "probe"
RECORD_SIZE = 32  # of the bare read: struct record in bare_iterator.bpf.c

# ---- what is measured; each of these runs in a process of its own ----


class Usage(NamedTuple):
    """Seconds on the clock, and on the CPU in this process and the children it waited for."""

    clock: float
    cpu: float

    @classmethod
    def now(cls) -> Usage:
        times = os.times()
        cpu = times.user + times.system + times.children_user + times.children_system
        return cls(time.perf_counter(), cpu)


def _say_cost(vmas: int, begin: Usage) -> None:
    end = Usage.now()
    cost = {"vmas": vmas, "seconds": end.clock - begin.clock, "cpu_s": end.cpu - begin.cpu}
    print(json.dumps(cost))


def take_census(pid: str, vmaprobe: str, output: str) -> None:
    """From the kernel to a DataFrame, as an analysis gets it."""
    from anonvma.tables import census

    begin = Usage.now()
    subprocess.run([vmaprobe, "census", "--pid", pid, "--output", output], check=True)
    vmas = census.read(output).vmas
    _say_cost(len(vmas), begin)


def _maps(pid: str) -> Iterator[tuple[Any, ...]]:
    with open(f"/proc/{pid}/maps") as file:
        for line in file:
            area, prot, offset, device, inode, *path = line.split(maxsplit=5)
            start, end = area.split("-")
            name = path[0].rstrip("\n") if path else ""
            yield int(start, 16), int(end, 16), prot, int(offset, 16), device, int(inode), name


def parse_maps(pid: str) -> None:
    """What one would write: a line is split, a VMA is a tuple, all tuples become a DataFrame."""
    import pandas as pd

    begin = Usage.now()
    columns = ["start", "end", "prot", "offset", "device", "inode", "path"]
    _say_cost(len(pd.DataFrame(_maps(pid), columns=columns)), begin)


def _smaps(pid: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = defaultdict(list)
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            key, *words = line.split(maxsplit=5)
            if key == "VmFlags:":
                columns["VmFlags"].append(line[8:].strip())
            elif key.endswith(":"):
                columns[key[:-1]].append(int(words[0]))
            else:
                start, end = key.split("-")
                columns["start"].append(int(start, 16))
                columns["end"].append(int(end, 16))
                columns["prot"].append(words[0])
                columns["inode"].append(int(words[3]))
                columns["path"].append(words[4].rstrip("\n") if len(words) > 4 else "")
    return columns


def parse_smaps(pid: str) -> None:
    """What one would write, in its leaner form: a list a column, not a dictionary a VMA."""
    import pandas as pd

    begin = Usage.now()
    _say_cost(len(pd.DataFrame(_smaps(pid))), begin)


CHILDREN: dict[str, Callable[..., None]] = {
    "take_census": take_census,
    "parse_maps": parse_maps,
    "parse_smaps": parse_smaps,
}

# Nothing imported that it can do without: its own memory is the least that can be seen of others'.
_TIMER = r"""
import os, sys, time
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
whole = time.perf_counter() - begin
if status:
    sys.exit(os.waitstatus_to_exitcode(status) % 256)
print("%.6f %.6f %d" % (whole, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))
"""


# ---- measuring ----


class Cost(NamedTuple):
    """What one reading of the process cost.

    `seconds` and `cpu_s` are of the work, `start_s` is what comes before it: an interpreter, its
    imports, the loading of the bare read's program. `peak_kib` is of the whole process.
    """

    seconds: float
    cpu_s: float
    start_s: float
    peak_kib: int
    vmas: int


class Timer:
    """Runs commands in processes of their own."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._script = Path(local.place("timer.py"))
        self._script.write_text(_TIMER)

    def run(self, argv: Sequence[str]) -> tuple[float, float, int, bytes]:
        """Run one to its end: seconds, CPU seconds, peak KiB and what it said."""
        python = str(Path(sys.executable).resolve())
        timer = [python, "-I", "-S", str(self._script)]
        done = self._local.run([*timer, *argv], privileged=True)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise TargetError(f"{Path(argv[0]).name} failed: {said[-1]}")
        *lines, figures = done.stdout.splitlines()
        seconds, cpu_s, peak_kib = figures.split()
        return float(seconds), float(cpu_s), int(peak_kib), b"".join(lines)

    def least_kib(self) -> int:
        """Return the least peak that can be told: the timer's own."""
        return self.run([self._local.which("true") or "true"])[2]


BARE, FLOOR, PROBED, FRAME, MAPS, SMAPS = WAYS = (
    "bare iterator read",
    "the same, and its pages",
    "vmaprobe census",
    "census as a DataFrame",
    "/proc/PID/maps parsed",
    "/proc/PID/smaps parsed",
)


class Reader:
    """Reads one process in any of the ways."""

    def __init__(self, local: Local, timer: Timer, pid: str) -> None:
        self._local, self._timer = local, timer
        self._output = local.place("census")
        probe = local.push(paths.program("vmaprobe"))
        child = [sys.executable, str(Path(__file__).resolve()), "--child"]
        bare = build_bare_iterator(local)
        self._commands = {
            BARE: [*bare, pid],
            FLOOR: [*bare, pid, "pages"],
            PROBED: [probe, "census", "--pid", pid, "--output", self._output],
            FRAME: [*child, "take_census", pid, probe, self._output],
            MAPS: [*child, "parse_maps", pid],
            SMAPS: [*child, "parse_smaps", pid],
        }

    def read(self, way: str) -> Cost:
        """Read it once."""
        whole, cpu_s, peak_kib, said = self._timer.run(self._commands[way])
        if way == PROBED:  # all of it is the work, and it prints nothing
            cost = Cost(whole, cpu_s, 0.0, peak_kib, self._vmas_in_file())
        else:
            told = json.loads(said)
            start_s = whole - told["seconds"]
            cost = Cost(told["seconds"], told["cpu_s"], start_s, peak_kib, told["vmas"])
        # To give a new file the name of another, ext4 first writes it to the disk.
        Path(self._output).unlink(missing_ok=True)
        return cost

    def _vmas_in_file(self) -> int:
        import numpy as np

        from anonvma.probe.census_layout import HEADER

        head = ["head", "-c", str(HEADER.itemsize), self._output]
        return int(np.frombuffer(self._local.run(head, privileged=True).stdout, HEADER)["vmas"][0])


def measure_ways(reader: Reader, rounds: int) -> dict[str, list[Cost]]:
    """Read in every way once a round, each round beginning with another."""
    costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
    for way in (BARE, FLOOR, PROBED, FRAME):  # once unmeasured: the programs come from the disk
        reader.read(way)
    for number in range(rounds):
        first = number % len(WAYS)
        for way in WAYS[first:] + WAYS[:first]:
            cost = reader.read(way)
            costs[way].append(cost)
            progress(f"round {number + 1} of {rounds}: {way}, {cost.seconds:.3f} s")
    _require_agreement(costs)
    return costs


def _require_agreement(costs: dict[str, list[Cost]]) -> None:
    """All must have read the same; the gate VMA, which belongs to no mm, is in /proc only."""
    counts = {way: sorted({cost.vmas for cost in of_way}) for way, of_way in costs.items()}
    every = [count for of_way in counts.values() for count in of_way]
    if max(every) - min(every) > 1:
        raise ProbeError(f"the ways do not agree on how many VMAs there are: {counts}.")


# ---- what observing costs a workload ----


def measure_observing(local: Local, rounds: int, load: Any) -> dict[str, Any]:
    """Run a `Workload` with and without perf stat, in turns: MiB/s over all tasks."""
    plain = load.argv(local.push(paths.program("vmload")))
    counting, reason = _counting(local)
    rates: dict[str, list[float]] = {"without": [], "with": []} if counting else {"without": []}
    commands = {"without": plain, "with": [*counting, "--", *local.as_caller(), *plain]}
    with local.sysctl_at_least("vm.max_map_count", load.needed_map_count):
        _throughput(local, plain, privileged=False)  # unmeasured: it comes from the disk
        for number in range(rounds):
            for which in list(rates)[:: -1 if number % 2 else 1]:
                rate = _throughput(local, commands[which], privileged=which == "with")
                rates[which].append(rate)
                progress(
                    f"round {number + 1} of {rounds}: {which} perf stat around {load.name}, "
                    f"{rate:.0f} MiB/s"
                )
    facts = {"workload": load.name, "bytes": load.bytes, "threads": load.threads}
    return {**facts, "vmas": load.expected_vmas, "lacking": reason, "mib_per_s": rates}


def _counting(local: Local) -> tuple[list[str], str | None]:
    """Return the words that, before a command, count as a run does; or none, and why."""
    found = tool.find(local)
    if found is None:
        return [], "no perf that runs was found: install linux-perf or linux-tools-generic"
    software, times, hardware = tool.SOFTWARE_EVENTS, tool.TIME_EVENTS, tool.HARDWARE_EVENTS
    reason = None
    for events in ((*software, *times, *hardware), (*software, *hardware), software):
        reason = tool.refusal(local, found, events)
        if reason is None:
            return found.stat(local.place("perf-stat.json"), events), None
    return [], f"perf {found.version} refuses: {reason}"


def _throughput(local: Local, argv: list[str], *, privileged: bool) -> float:
    from anonvma.collect.workload_output import parse_throughput

    done = local.run(argv, privileged=privileged)
    tasks = parse_throughput(done.stdout)
    if done.returncode or not tasks:
        raise WorkloadError(f"vmload failed: {done.stderr.decode(errors='replace').strip()}")
    return sum(task["kb_per_s"] for task in tasks) / 1024


# ---- what it needs ----


def _words(*argv: str) -> list[str]:
    """Run a tool of the compiler's kind; the words that it prints."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupError(f"there is no {argv[0]}: 'make packages' installs it.") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise SetupError(f"{argv[0]} failed: {said[0]}")
    return done.stdout.split()


def build_bare_iterator(local: Local) -> list[str]:
    """Compile the bare read, with the flags of analysis/probe/Makefile; the words to run it."""
    cc, clang = os.environ.get("CC", "gcc"), os.environ.get("CLANG", "clang")
    flags = ["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    flags.append(f"-DRECORD_SIZE={RECORD_SIZE}")
    # clang -target bpf does not look where Debian and Ubuntu keep asm/types.h.
    headers = [f"-idirafter/usr/include/{triple}" for triple in _words(cc, "-print-multiarch")]
    program, bpf = local.place("bare_iterator"), local.place("bare_iterator.bpf.o")
    source = str(HERE / "bare_iterator.bpf.c")
    _words(clang, *flags, "-target", "bpf", f"-I{PROBE}", *headers, "-c", source, "-o", bpf)
    libbpf = _words("pkg-config", "--cflags", "--libs", "libbpf")
    _words(cc, *flags, str(HERE / "bare_iterator.c"), "-o", program, *libbpf)
    return [program, bpf]


@contextmanager
def process_with(local: Local, vmas: int) -> Iterator[str]:
    """Give the pid of a process with so many VMAs, none of them touched."""
    program = local.place("odd_process")
    source = str(HERE.parent / "helpers" / "odd_process.c")
    _words(os.environ.get("CC", "gcc"), "-O1", "-pthread", "-o", program, source)
    with ExitStack() as stack:
        # Only making a mapping asks for the limit; when all are made, others may raise it.
        with local.sysctl_at_least("vm.max_map_count", vmas + 1000):
            process = stack.enter_context(
                local.start(
                    [program, "many", str(vmas)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            )
            assert process.stdout is not None
            said = process.stdout.readline().decode(errors="replace").strip()
        if not said.isdecimal():
            raise WorkloadError(f"no process with {vmas} VMAs: {said or 'it has ended'}.")
        yield said


# ---- saying it ----


def progress(text: str) -> None:
    """Say what was done, beside the result."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def short(value: float) -> str:
    """Return three digits, or the whole number."""
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def spread(values: Sequence[float]) -> str:
    """Return the median, and the lowest and highest in brackets."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{short(middle)} [{short(low)}, {short(high)}]"


def ratios(costs: dict[str, list[Cost]], way: str, to: str) -> list[float]:
    """Return the seconds of `way` over those of `to`, round by round."""
    return [a.seconds / b.seconds for a, b in zip(costs[way], costs[to], strict=True)]


def ways_table(costs: dict[str, list[Cost]], least_kib: int) -> Iterator[str]:
    """Yield the lines of the table of the six ways."""
    rounds, vmas = len(costs[BARE]), costs[BARE][0].vmas
    yield f"One process with {vmas} VMAs, n = {rounds}, median [lowest, highest]"
    yield ""
    yield f"{'':24}{'seconds':>22}{'CPU s':>8}{'start s':>9}{'MiB':>7}{'x floor':>9}"
    for way, of_way in costs.items():
        seconds, cpu_s, start_s, peak_kib, _ = zip(*of_way, strict=True)
        peak = f"{'<= ' if max(peak_kib) <= least_kib else ''}{max(peak_kib) / 1024:.0f}"
        start = short(statistics.median(start_s)) if any(start_s) else "in it"
        yield (
            f"{way:24}{spread(seconds):>22}{short(statistics.median(cpu_s)):>8}{start:>9}"
            f"{peak:>7}{short(statistics.median(ratios(costs, way, FLOOR))):>9}"
        )
    yield ""
    yield "floor: the bare read and one walk of PAGEMAP_SCAN over the same pages, the"
    yield "least that takes what a census takes."
    yield "start: before the seconds begin and not in them: loading the BPF program of the"
    yield "bare read; Python and the import of tables.census or of pandas. vmaprobe has"
    yield "it in its seconds, and so has the DataFrame for the vmaprobe that it runs."
    yield "MiB: highest peak of any process of it (ru_maxrss), imports included; the least"
    yield f"that can be told is {least_kib / 1024:.0f}."


class Aim(NamedTuple):
    """What the project aims at, round by round; `met` is None where only the number is wanted."""

    text: str
    ratio: list[float]
    met: bool | None


def aims(costs: dict[str, list[Cost]]) -> list[Aim]:
    """Compare the medians with what the project aims at."""
    floor, smaps = ratios(costs, FRAME, FLOOR), ratios(costs, SMAPS, FRAME)
    whole = [
        (a.start_s + a.seconds) / (b.start_s + b.seconds)
        for a, b in zip(costs[SMAPS], costs[FRAME], strict=True)
    ]
    return [
        Aim("DataFrame / floor, at most 1.5", floor, statistics.median(floor) <= 1.5),
        Aim("smaps / DataFrame, at least 5", smaps, statistics.median(smaps) >= 5),
        Aim("  the same with their starts", whole, None),
    ]


def aims_table(found: list[Aim]) -> Iterator[str]:
    """Yield the lines on the aims."""
    yield "What is aimed at"
    yield ""
    for text, ratio, met in found:
        verdict = "" if met is None else "met" if met else "not met"
        yield f"{text:34}{spread(ratio):>20}  {verdict}".rstrip()


def observing_table(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on what perf stat costs."""
    rates = found["mib_per_s"]
    yield "What observing costs"
    yield (
        f"{found['workload']}, {found['threads']} threads, {found['bytes'] >> 20} MiB, "
        f"{found['vmas']} VMAs, n = {len(rates['without'])}"
    )
    yield ""
    for which, of_which in rates.items():
        yield f"{which + ' perf stat':24}{spread(of_which):>30} MiB/s"
    if found["lacking"]:
        yield f"with perf stat: not measured: {found['lacking']}"
        return
    pairs = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
    yield f"{'with / without':24}{spread(pairs):>30}"
    if min(pairs) <= 1 <= max(pairs):
        yield "The rounds disagree on which is faster: a cost, if any, is below the spread."


# ---- the command ----


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; usage errors end with 2."""
    from anonvma.collect.workload import Workload

    parser = argparse.ArgumentParser(prog="bench.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vmas", type=int, default=1_000_000, help="of the process that is read")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--bytes", default="800m", help="what small-allocs-mt allocates")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args(words)
    if not 1 <= options.vmas <= 100_000_000:
        parser.error(f"--vmas {options.vmas}: 1 to 100000000")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1 is needed")
    if options.json and not options.json.parent.is_dir():  # not only after minutes
        parser.error(f"--json {options.json}: there is no such directory")
    try:
        options.load = Workload(bytes=options.bytes)
    except WorkloadError as error:
        parser.error(str(error))
    return options


def measure(local: Local, options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything and return all figures."""
    local.require_privilege()
    facts = local.facts()
    timer = Timer(local)
    with process_with(local, options.vmas) as pid:
        costs = measure_ways(Reader(local, timer, pid), options.rounds)
    observing = measure_observing(local, options.rounds, options.load)
    return {
        "machine": facts,
        "least_kib": timer.least_kib(),
        "costs": costs,
        "aims": aims(costs),
        "observing": observing,
    }


def render(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the result."""
    machine = found["machine"]
    load = ", ".join(map(short, os.getloadavg()))
    yield f"Linux {machine['kernel_release']}, {machine['cpus']} CPUs, load average now {load}"
    yield ""
    yield from ways_table(found["costs"], found["least_kib"])
    yield ""
    yield from observing_table(found["observing"])
    yield ""
    yield from aims_table(found["aims"])


def to_json(found: dict[str, Any]) -> str:
    """Return all figures, named, as one JSON object."""
    costs = {way: [cost._asdict() for cost in of_way] for way, of_way in found["costs"].items()}
    named = {"costs": costs, "aims": [aim._asdict() for aim in found["aims"]]}
    return json.dumps({**found, **named}, indent=1) + "\n"


def _end(number: int, frame: object) -> NoReturn:
    """Unwind as Ctrl-C does, so that nothing is left."""
    raise SystemExit(128 + number)


def main(words: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        options = parse_arguments(words)
        with Local() as local:
            found = measure(local, options)
        print("\n".join(render(found)))
        if options.json:
            options.json.write_text(to_json(found))
    except AnonvmaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"bench: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        CHILDREN[sys.argv[2]](*sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
