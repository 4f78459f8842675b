# SPDX-License-Identifier: GPL-2.0-only
"""What a person waits for: imports, commands on recorded runs, a report's notebooks.

Each is a process of its own, and stands beside the least that anything like it can take: for what
makes tables, Python with pandas and pyarrow imported; for what makes none, Python with click; for
the demo, the same notebooks with a kernel each. All take turns, so that the ratios hold on a
machine that does other things too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from anonvma.base import paths

TABLES = (
    "from anonvma.tables import census, faults, locks, metrics, specimens; "
    "from anonvma.compare import changes, counts, scaling; "
    "from anonvma.report import run_report; from anonvma.run import runs"
)
FLOOR = ["-c", "import pandas, pyarrow.parquet"]
LEAN = ["-c", "import click"]
PAIR = ("early-small-allocs-mt-*", "delayed-small-allocs-mt-*")
APART = (
    "import contextlib, anonvma.report.notebooks as n; from anonvma.cli import main; "
    "n.one_kernel = contextlib.nullcontext; main(['demo'])"
)

ROWS: dict[str, tuple[list[str], list[str]]] = {
    "import of all tables": (["-c", TABLES], FLOOR),
    "anonvma --help": (["-m", "anonvma", "--help"], LEAN),
    "anonvma with a typo": (["-m", "anonvma", "report", "--thread", "x"], LEAN),
    "anonvma runs": (["-m", "anonvma", "runs", "--in", "data/recorded"], FLOOR),
    "anonvma compare": (["-m", "anonvma", "compare", *PAIR], FLOOR),
    "anonvma profile": (["-m", "anonvma", "profile", "delayed-profile-1"], FLOOR),
    "anonvma census": (["-m", "anonvma", "census"], FLOOR),
    "anonvma faults -- true": (["-m", "anonvma", "faults", "--", "true"], FLOOR),
    "anonvma demo": (["-m", "anonvma", "demo"], ["-c", APART]),
}


def seconds(words: Sequence[str]) -> float:
    """How long a process of Python takes, from its start to its end."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, cwd=paths.root(), check=False)
    return time.perf_counter() - begin


def measured(name: str, rounds: int) -> tuple[float, float]:
    """Median seconds of a row and of what it is set against, in turns."""
    ours, floor = ROWS[name]
    pairs = [(seconds(ours), seconds(floor)) for _ in range(rounds)]
    return statistics.median(one for one, _ in pairs), statistics.median(two for _, two in pairs)


def line(name: str, ours: float, floor: float) -> str:
    """One line of the table."""
    return f"{name:26}{ours:>10.2f}{floor:>10.2f}{ours / floor:>10.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench_start.py", description=(__doc__ or "")[:80])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is done")
    parser.add_argument("--only", choices=list(ROWS), action="append", help="these rows alone")
    given = parser.parse_args()
    rounds = max(1, given.rounds)
    print(f"\nSeconds on the clock, median of {rounds}, in turns\n")
    print(f"{'':26}{'here':>10}{'beside':>10}{'ratio':>10}")
    for name in given.only or ROWS:
        # A demo takes as long as all the others.
        print(line(name, *measured(name, rounds if name != "anonvma demo" else 1)))
    print(
        "\nBeside: for the demo a kernel for each notebook; for --help and a typo Python\n"
        "with click; for the others Python with pandas and pyarrow. Those are floors:\n"
        "nothing that uses them is faster."
    )


if __name__ == "__main__":
    main()
