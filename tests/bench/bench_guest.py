# SPDX-License-Identifier: GPL-2.0-only
"""How long a guest takes: from nothing to the first record, and for a whole run.

For every kernel that is at hand (the pair of `make kernels`, Debian's of
analysis/setup/stock-kernel), under KVM where that works and under TCG. Medians with their
lowest and highest; `make bench` runs it after bench.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from anonvma.base import paths
from anonvma.base.errors import AnonvmaError
from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.target.guest import Guest

LOAD = Workload(workload="small-allocs-mt", threads=2, bytes="16m")


def images() -> dict[str, Path]:
    """Return the kernels that are at hand, by name."""
    pair = {name: paths.build() / "kernels" / name / "bzImage" for name in ("early", "delayed")}
    stock = {f"Debian {v}": paths.build() / "stock" / v / "vmlinuz" for v in ("6.1", "6.12")}
    return {name: path for name, path in {**pair, **stock}.items() if path.exists()}


def once(image: Path, accel: str) -> tuple[float, float, float]:
    """Seconds until it answers, until the first record is here, and for a whole run."""
    begin = time.perf_counter()
    with Guest(image, accel=accel) as guest, tempfile.TemporaryDirectory() as directory:
        booted = time.perf_counter() - begin
        probe = guest.push(paths.program("vmaprobe"))
        output = guest.place("first")
        guest.run([probe, "census", "--pid", "1", "--output", output])
        guest.pull(output, Path(directory) / "first")
        first = time.perf_counter() - begin
        collect(guest, LOAD, repeats=1, out=directory, perf_record=False)
        return booted, first, time.perf_counter() - begin


def line(name: str, accel: str, rounds: int) -> str:
    """Measure one kernel under one accelerator; its line of the table."""
    try:
        times = [once(image=images()[name], accel=accel) for _ in range(rounds)]
    except AnonvmaError as error:
        return f"{name:14}{accel:5}not measured: {str(error).split('; its record')[0]}"
    cells = []
    for values in zip(*times, strict=True):
        middle = statistics.median(values)
        cells.append(f"{middle:.1f} [{min(values):.1f}, {max(values):.1f}]")
    return f"{name:14}{accel:5}" + "".join(f"{cell:>20}" for cell in cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench_guest.py", description=(__doc__ or "")[:80])
    parser.add_argument("--rounds", type=int, default=3, help="boots of each")
    rounds = max(1, parser.parse_args().rounds)
    print(f"\nA kernel in a guest, seconds, n = {rounds} boots, median [lowest, highest]\n")
    found = images()
    if not found:
        print("not measured: no kernel is at hand; 'make kernels' builds two.")
        sys.exit(0)
    print(f"{'':19}{'boot':>20}{'to first record':>20}{'whole run':>20}")
    for name in found:
        for accel in ("kvm", "tcg"):
            print(line(name, accel, rounds), flush=True)
    print(
        f"\nwhole run: boot, {LOAD.name} of {LOAD.bytes >> 20} MiB once, its census, the run here."
    )


if __name__ == "__main__":
    main()
