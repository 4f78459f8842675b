# SPDX-License-Identifier: GPL-2.0-only
"""What a machine behind ssh costs, against ssh and scp by hand.

On a host of helpers/hosts.py, whose network is this machine's own: what is seen is the price of the
way of working, not of a network. Medians with their lowest and highest, and the ratio of the
medians; `make bench` runs it after bench_guest.py.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "helpers"))
import hosts

from anonvma.collect.targets import parse

Way = Callable[[], None]


def timed(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 else reversed(ways):
            begin = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - begin)
    return times


def table(what: str, times: dict[str, list[float]]) -> str:
    """The lines for one thing to do; the first way is ours, and each has its ratio to it."""
    ours = statistics.median(next(iter(times.values())))
    lines = []
    for name, values in times.items():
        middle = statistics.median(values)
        spread = f"{middle * 1e3:.1f} [{min(values) * 1e3:.1f}, {max(values) * 1e3:.1f}]"
        lines.append(f"{what:22}{name:34}{spread:>26}{middle / ours:8.2f}")
        what = ""
    return "\n".join(lines)


def done(*words: str | Path) -> None:
    """Run a command of this machine."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def measure(host: hosts.Host, rounds: int, size: int, scratch: Path) -> None:
    """Print the table."""
    config, name = str(host.config), f"{hosts.USER}@{host.alias}"
    control = ["-o", f"ControlPath={scratch / 'control'}"]
    ssh, scp = ["ssh", "-F", config], ["scp", "-q", "-F", config]

    def connect() -> None:
        with parse(host.target(sudo="no")) as there:
            there.run(["true"])

    ways: dict[str, Way] = {"anonvma": connect, "ssh HOST true": lambda: done(*ssh, name, "true")}
    print(table("connect, run, leave", timed(ways, rounds)), flush=True)
    with parse(host.target(sudo="no")) as there:
        done(*ssh, *control, "-M", "-f", "-N", name)
        ways = {
            "anonvma, connected": lambda: there.run(["/bin/true"]) and None,
            "ssh HOST true": lambda: done(*ssh, name, "true"),
            "the same by a master connection": lambda: done(*ssh, *control, name, "true"),
        }
        print(table("one command more", timed(ways, rounds)), flush=True)
        source, back = there.place("result"), scratch / "result"
        make = ["sh", "-c", f"head -c {size} /dev/urandom >{source}"]

        def pull() -> None:
            there.pull(source, back)

        def copy() -> None:
            done(*scp, *control, f"{name}:{source}", back)

        def copy_and_compare() -> None:
            copy()
            said = subprocess.run(
                [*ssh, *control, name, "sha256sum", source], check=True, capture_output=True
            ).stdout
            with back.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            assert said.split()[0].decode() == digest

        def after_making(way: Way) -> list[float]:
            times = []
            for _ in range(rounds):
                there.run(make)
                begin = time.perf_counter()
                way()
                times.append(time.perf_counter() - begin)
            return times

        found = {
            "anonvma, hash compared": after_making(pull),
            "scp by a master connection": after_making(copy),
            "the same, sha256sum compared": after_making(copy_and_compare),
        }
        print(table(f"{size >> 20} MiB back", found), flush=True)
        done(*ssh, *control, "-O", "exit", name)


def main() -> None:
    """Measure, or say why not."""
    parser = argparse.ArgumentParser(prog="bench_ssh.py", description=(__doc__ or "")[:70])
    parser.add_argument("--rounds", type=int, default=9, help="times that each is done")
    parser.add_argument("--mib", type=int, default=32, help="MiB that are brought back")
    arguments = parser.parse_args()
    rounds = max(1, arguments.rounds)
    print(f"\nA machine behind ssh, ms, n = {rounds}, median [lowest, highest], ratio to ours\n")
    scratch = Path(tempfile.mkdtemp(prefix="anonvma-bench-"))
    try:
        with hosts.host(scratch / "host") as host:
            measure(host, rounds, arguments.mib << 20, scratch)
    except pytest.skip.Exception as reason:
        print(f"not measured: {reason}.")
    finally:
        hosts.remove_keys()
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
