# SPDX-License-Identifier: GPL-2.0-only
"""What works on which kernel: one row per kernel, from boots recorded before and fresh ones.

    python tests/helpers/matrix.py                        the rows recorded in matrix.json
    python tests/helpers/matrix.py --fresh IMAGE...       boots these anew, and prints all
    python tests/helpers/matrix.py --fresh stock:7.3 ...  fetches Debian's image for it
    ... --append preempt=full                     more words for their command lines
    ... --record                                  keeps the fresh rows in tests/helpers/matrix.json

Each is booted once under TCG with 2 processors. Census: the VMAs of init, against /proc/1/maps.
Faults: of small-allocs-mt with 8 threads, by each source, those that found a bare VMA and left it
bare, of the pages that it reads; and what the source says that it lost. Locks: the acquisitions of
mmap_lock under the same, and what was lost. Specimens: how many could be made, and how many are in
another state than on the kernel they were recorded on.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from maps import from_census, from_maps

from anonvma.base.errors import AnonvmaError
from anonvma.collect import regime
from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.perf import tool
from anonvma.probe.faults_file import read_faults
from anonvma.probe.locks_file import read_locks
from anonvma.run import runs
from anonvma.tables import census, specimens
from anonvma.target.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("matrix.json")
PAGES = 4096
LOAD = ["--case", "small-allocs-mt", "-t", "8", "--unit", "40k", f"{PAGES * 4096 // 8}"]


def row_of(image: str, append: str) -> dict[str, Any]:
    """Boot a kernel and try everything; a part that fails says why in its place."""
    if image.startswith("stock:"):
        words = [ROOT / "analysis/setup/stock-kernel", "--image-only", image[6:]]
        image = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with Guest(image, accel="tcg", append=append) as guest, tempfile.TemporaryDirectory() as place:
        facts = guest.facts()
        row = {
            "kernel": facts["kernel_release"],
            "append": append,
            "QEMU": f"{facts['qemu_version']}, {facts['cpus']} on {facts['real_cpus']}",
        }
        print(f"{row['kernel']}: booted.", file=sys.stderr)
        parts = {
            "regime": lambda: regime.observe(guest).name or "not observed",
            "census": lambda: census_of(guest, Path(place)),
            "fentry": lambda: faults_of(guest, "fentry"),
            "kprobe": lambda: faults_of(guest, "kprobe"),
            "tracepoint": lambda: faults_of(guest, "tracepoint"),
            "locks": lambda: locks_of(guest),
            "specimens": lambda: specimens_of(guest, Path(place)),
            "perf": lambda: perf_of(guest),
        }
        for name, part in parts.items():
            try:
                row[name] = part()
            except AnonvmaError as error:
                row[name] = f"failed: {error}"
            print(f"  {name}: {row[name]}", file=sys.stderr, flush=True)
    return row


def census_of(guest: Guest, place: Path) -> str:
    """The census of init against what /proc/1/maps says."""
    output = guest.place("census")
    words = [guest.place("vmaprobe"), "census", "--pid", "1", "--output", output]
    done = guest.run(words, privileged=True)
    if done.returncode:
        return done.stderr.decode(errors="replace").strip()
    (place / "census").write_bytes(guest.read(output))
    (place / "maps").write_bytes(guest.read("/proc/1/maps"))
    told, found = from_maps(str(place / "maps")), from_census(census.read(place / "census"))
    return f"{len(set(told) & set(found))}/{len(told)}"


def faults_of(guest: Guest, source: str) -> str:
    """Of the pages that are read, those whose fault is known, and what the source says it lost."""
    found = read_faults(traced(guest, "faults", "--source", source))
    table = found.faults
    same = (table["before"] == "bare") & (table["after"] == "bare") & (table["mode"] == "user")
    return f"{int(table.loc[same, 'count'].sum()):,}/{PAGES:,}{lost(found.losses)}"


def locks_of(guest: Guest) -> str:
    """Acquisitions of mmap_lock."""
    found = read_locks(traced(guest, "locks"))
    got = found.locks[found.locks["success"]]
    return f"{int(got['count'].sum()):,}{lost(found.losses)}"


def traced(guest: Guest, *words: str) -> bytes:
    """What the probe wrote of the load."""
    output = guest.place("traced")
    command = [guest.place("vmaprobe"), *words, "--output", output, "--"]
    done = guest.run([*command, guest.place("vmload"), *LOAD], privileged=True)
    if done.returncode:
        raise AnonvmaError(done.stderr.decode(errors="replace").strip())
    return guest.read(output)


def lost(losses: dict[str, Any]) -> str:
    """What was lost, if anything."""
    some = {name: count for name, count in losses.items() if count}
    return "; lost " + ", ".join(f"{n} {name}" for name, n in some.items()) if some else ""


def specimens_of(guest: Guest, place: Path) -> str:
    """How many were made, and how many are in another state than recorded."""
    here = collect(guest, Workload(workload="specimens"), out=place, trace=False)
    states = [states_of(run) for run in (here, runs.find("specimens"))]
    both = pd.concat(states, axis=1, join="inner", keys=["here", "recorded"])
    other = both[both["here"] != both["recorded"]]
    named = ", ".join(f"{kind} {touch}" for kind, touch in other.index[:3])
    return f"{len(states[0])} made, {len(other)} differ{f' ({named})' if named else ''}"


def states_of(run: runs.Run) -> pd.Series[str]:
    """The state of each specimen."""
    table = specimens.observed(run.table("specimens"), run.table("census"))
    states: pd.Series[str] = table.set_index(["kind", "touch"])["state"]
    return states[~states.index.duplicated()]


def perf_of(guest: Guest) -> str:
    """Whether this machine's perf, brought along, runs there."""
    found = tool.find(guest) or tool.bring(guest)
    return found.version if found else "none runs"


def main(words: list[str]) -> int:
    """Print the matrix."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--fresh", nargs="+", default=[], metavar="IMAGE")
    parser.add_argument("--append", default="")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(words)
    rows = json.loads(RECORDED.read_text()) if RECORDED.exists() else []
    failed = False
    for image in options.fresh:
        try:
            fresh = row_of(image, options.append)
        except AnonvmaError as error:
            fresh, failed = {"kernel": image, "append": options.append, "census": str(error)}, True
        key = fresh["kernel"], fresh["append"]
        rows = [row for row in rows if (row["kernel"], row["append"]) != key] + [fresh]
        if options.record:
            rows.sort(key=lambda row: [int(n) for n in re.findall(r"\d+", row["kernel"])[:3]])
            RECORDED.write_text(json.dumps(rows, indent=1) + "\n")
    if rows:
        print(pd.DataFrame(rows).fillna("").to_string(index=False))
    else:
        print("No kernel is recorded yet: boot some with --fresh, and keep them with --record.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
