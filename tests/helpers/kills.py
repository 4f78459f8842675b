# SPDX-License-Identifier: GPL-2.0-only
"""What works for minutes, killed at a random moment: nothing is left of it.

``python tests/helpers/kills.py --kills 50`` kills the command itself, or one of the processes below
it, and prints what was left in the store, the temporary directory, the user's own, the sysctls and
the process table after the next run has swept, and any traceback. With --early and --delayed,
images of kernels, ``pair`` is among what is killed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import processes

from anonvma.base import marker, scratch
from anonvma.run import runs, writer

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "data" / "recorded"
PATIENCE = 900.0
SYSCTLS = ("vm/max_map_count", "vm/overcommit_memory", "kernel/perf_event_paranoid",
           "kernel/kptr_restrict", "kernel/perf_event_mlock_kb")  # fmt: skip
TRACING = Path("/sys/kernel/tracing/instances")
STUDY = """name: killed
targets: [local]
workloads: [small-allocs-mt]
parameters: {threads: [1, 2]}
defaults: {bytes: 16m, repeats: 1}
"""


class Place(NamedTuple):
    """Where all of one attempt goes."""

    top: Path

    @property
    def runs(self) -> Path:
        """The store."""
        return self.top / "runs"

    @property
    def tmp(self) -> Path:
        """TMPDIR."""
        return self.top / "tmp"

    @property
    def home(self) -> Path:
        """HOME."""
        return self.top / "home"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


PAPERMILL = "papermill"


def commands(place: Place, images: tuple[str, str] | None) -> dict[str, tuple[list[str], float]]:
    """Each command, and how many seconds it may work before it is killed."""
    study = place.top / "study.yaml"
    study.write_text(STUDY)
    recording = place.top / "perf.data"
    ways = ["--condition", "one=local;threads=1", "--condition", "two=local;threads=2"]
    few = ["--bytes", "16m", "--warmups", "0", "--least", "1", "--most", "1", "--repeats", "1"]
    found: dict[str, tuple[list[str], float]] = {
        "report": (["report", "--bytes", "2800m", "--repeats", "1"], 30),
        "publish": (["publish", str(RECORDED / "specimens"), "--output",
                     str(place.top / "published")], 8),
        "experiment": (["experiment", str(place.runs / "ways"), *ways, *few], 15),
        "batch": (["batch", str(study), "--output", str(place.runs / "killed")], 25),
        "import": (["import", str(recording), "--into", str(place.runs)], 5),
        PAPERMILL: ([str(ROOT / "notebooks/01-collect.ipynb"), str(place.top / "executed.ipynb"),
                     "-p", "target", "local", "-p", "bytes", "200m"], 15),
    }  # fmt: skip
    if images:
        kernels = ["--early", images[0], "--delayed", images[1]]
        found["pair"] = (["pair", "--boots", "1", *kernels, "--into", str(place.runs)], 45)
    return found


def record(place: Place) -> None:
    """A recording for import to read."""
    words = ["perf", "record", "-q", "-F", "9999", "-g", "-o", str(place.top / "perf.data"), "--"]
    burn = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
    subprocess.run([*words, sys.executable, "-c", burn], capture_output=True, check=False)


# ---- what is left ----


def settings() -> dict[str, str]:
    """What a run may change for a while."""
    found = {name: (Path("/proc/sys") / name).read_text().strip() for name in SYSCTLS}
    if TRACING.is_dir():
        found["tracing"] = " ".join(sorted(path.name for path in TRACING.iterdir()))
    return found


def sweep(place: Place) -> None:
    """What the next run of the same command does before it begins."""
    writer.sweep(place.runs)
    writer.sweep(place.runs / "ways")
    scratch.sweep(place.tmp)
    scratches = (place.runs / "pair", place.runs / "ways" / "scratch", place.top / "published")
    for drafted in scratches:
        with marker.draft(drafted):
            pass


def left(place: Place, before: dict[str, str], token: str) -> Iterator[str]:
    """What is left, in words."""
    yield from (f"process {line}" for line in processes.survivors(token, 60))
    sweep(place)
    yield from (f"in TMPDIR: {path.name}" for path in place.tmp.iterdir())
    yield from (f"partial: {path}" for path in place.top.rglob("*.partial"))
    jupyter = place.home / ".local/share/jupyter/runtime"
    yield from (f"of Jupyter: {path.name}" for path in jupyter.rglob("*") if path.is_file())
    for manifest in place.runs.rglob("manifest.json"):
        runs.Run.open(manifest.parent)
    after = settings()
    yield from (f"{n} was {before[n]}, is {after[n]}" for n in after if after[n] != before[n])
    for note in Path("/run/anonvma").glob("*_*"):
        if note.read_text():
            yield f"{note} has {note.read_text()!r}"


# ---- killing ----


def pids_of(token: str) -> list[int]:
    """Every process of an attempt."""
    return [int(line.split()[0]) for line in processes.carriers(token)]


def below(process: subprocess.Popen[bytes], token: str) -> list[str]:
    """The processes that a command has started."""
    return [line for line in processes.carriers(token) if int(line.split()[0]) != process.pid]


def kill_one_below(process: subprocess.Popen[bytes], token: str, chance: random.Random) -> str:
    """Kill any of the processes that a command has started; its words."""
    found = below(process, token)
    if not found:
        return "nobody"
    number, _, words = " ".join(chance.choice(found).split()).partition(" ")
    try:
        os.kill(int(number), signal.SIGKILL)
    except ProcessLookupError:
        return "nobody"
    return words[:160]


ENDS: dict[str, Callable[[subprocess.Popen[bytes]], None]] = {
    "SIGKILL": lambda process: process.kill(),
    "SIGTERM": lambda process: process.terminate(),
    "SIGINT to all": lambda process: os.killpg(process.pid, signal.SIGINT),
    "SIGHUP to all": lambda process: os.killpg(process.pid, signal.SIGHUP),
}


def attempt(
    number: int, top: Path, images: tuple[str, str] | None, only: list[str], slower: float = 1
) -> tuple[str, list[str]]:
    """Kill one command in one way: what was done, and what is wrong after it."""
    chance = random.Random(number)
    shutil.rmtree(top, ignore_errors=True)
    place = Place(top)
    for directory in (place.runs, place.tmp, place.home):
        directory.mkdir(parents=True)
    known = commands(place, images)
    names = [name for name in known if not only or name in only]
    name = names[number % len(names)]
    words, longest = known[name]
    if name == "import":
        record(place)
    how = chance.choice([*ENDS, "below", "below", "below"])
    token, before = processes.new_token(), settings()
    own = {"ANONVMA_RUNS": str(place.runs), "TMPDIR": str(place.tmp), "HOME": str(place.home)}
    with (top / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", name if name == PAPERMILL else "anonvma", *words],
            env={**os.environ, **own, processes.VARIABLE: token},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=ROOT,
        )  # fmt: skip
    after = chance.uniform(0.2, longest * slower)
    end = time.monotonic() + after
    # Until it is time; where one below it is to be killed, until there is one.
    while process.poll() is None and (
        time.monotonic() < end or (how == "below" and not below(process, token))
    ):
        time.sleep(0.02)
    what, wrong = how, []
    if process.poll() is None and how == "below":
        what = f"SIGKILL to {kill_one_below(process, token, chance)}"
    elif process.poll() is None:
        ENDS[how](process)
    else:
        what = "nothing: it was done"
    try:
        code: int | None = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        wrong.append(f"hangs: {processes.carriers(token)}")
        for pid in pids_of(token):
            os.kill(pid, signal.SIGKILL)
        code = process.wait()
    said = (top / "log").read_text(errors="replace")
    # Ctrl-C while papermill's command imports what it needs is Python's to tell.
    if "Traceback" in said and not (name == PAPERMILL and "INT" in how):
        wrong.append("a traceback")
    wrong += left(place, before, token)
    last = [line for line in said.splitlines() if line.strip()][-1:]
    told = f"{number} {name} after {after:.1f} s, {what}: {code}: {''.join(last)[-230:]}"
    return told, wrong + ([said] if wrong else [])


def main() -> int:
    """Kill so many times; 1 if anything was left."""
    parser = argparse.ArgumentParser(prog="kills.py", description=(__doc__ or "")[:80])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", action="append", default=[], help="of the commands")
    parser.add_argument("--slower", type=float, default=1, help="than a quiet machine")
    parser.add_argument("--early", help="an image of a kernel")
    parser.add_argument("--delayed", help="another")
    given = parser.parse_args()
    images = (given.early, given.delayed) if given.early and given.delayed else None
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(
            number, signal.SIG_DFL
        )  # nohup, or a shell, may have what it starts ignore it
    failures = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        for number in range(given.first, given.first + given.kills):
            told, wrong = attempt(number, Path(name) / "it", images, given.only, given.slower)
            print("not well" if wrong else "well    ", told, flush=True)
            for line in wrong:
                print(f"    {line}", flush=True)
            failures += bool(wrong)
    print(f"{given.kills} killed from {given.first}, {failures} not well", flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
