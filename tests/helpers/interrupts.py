# SPDX-License-Identifier: GPL-2.0-only
"""Every command, interrupted while it still starts: one sentence or nothing, never a traceback.

``python tests/helpers/interrupts.py --times 20`` sends SIGINT to each command so often, at moments
drawn at random from its first seconds, to all of its processes as a terminal does, and prints what
was said besides that it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import processes

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "data" / "recorded"
SCRAP = RECORDED / "interrupted"
STUDY = """name: interrupted
targets: [local]
workloads: [small-allocs-mt]
defaults: {threads: 1, bytes: 200m, repeats: 3}
"""


def commands(place: Path) -> dict[str, list[str]]:
    """What is started of each command; none ends before it is interrupted, if it can be helped."""
    run, profiled = str(RECORDED / "early-small-allocs-mt-1"), str(RECORDED / "delayed-profile-1")
    kernel = "build/kernels/early/bzImage"
    ways = ["--condition", "one=local;threads=1", "--condition", "two=local;threads=2"]
    both = [str(RECORDED / f"{name}-small-allocs-mt-*") for name in ("early", "delayed")]
    return {
        "--help": ["--help"],
        "doctor": ["doctor"],
        "census": ["census"],
        "faults": ["faults", "--", "sleep", "30"],
        "locks": ["locks", "--", "sleep", "30"],
        "report": ["report", "--bytes", "200m", "--cost", "0"],
        "cost": ["cost"],
        "demo": ["demo"],
        "lab": ["lab", "--no-browser"],
        "profile": ["profile", profiled],
        "publish": ["publish", run, "--output", str(place / "published")],
        "lint": ["lint", str(place / "mail.eml")],
        "pair": ["pair", "--early", kernel, "--delayed", kernel, "--into", str(place / "runs")],
        "experiment": ["experiment", str(place / "ways"), *ways],
        "compare": ["compare", *both],
        "scaling": ["scaling", str(RECORDED / "scaling-early-*")],
        "runs": ["runs", "--in", str(RECORDED)],
        "query": ["query", "--in", str(RECORDED), "select count(*) from faults"],
        "trend": ["trend", "--in", str(RECORDED)],
        "batch": ["batch", str(place / "study.yaml"), "--output", str(place / "batch")],
        "import": ["import", str(place / "perf.data"), "--into", str(place / "runs")],
        "record": ["record", run, SCRAP.name],
    }


def prepare(place: Path) -> None:
    """Files for commands to read."""
    (place / "tmp").mkdir()
    (place / "study.yaml").write_text(STUDY)
    (place / "mail.eml").write_text("From: a@example.org\nSubject: x\n\nx\n")
    words = ["perf", "record", "-q", "-g", "-o", str(place / "perf.data"), "true"]
    subprocess.run(words, capture_output=True, check=False)


def interrupt(name: str, after: float, place: Path) -> tuple[int | None, list[str]]:
    """Start a command and interrupt it: its status, None if it was done, and what it said."""
    words, token = commands(place)[name], processes.new_token()
    own = {"ANONVMA_RUNS": str(place / "runs"), "TMPDIR": str(place / "tmp")}
    log = place / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("anonvma"), *words],
            env={**os.environ, **own, processes.VARIABLE: token},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
            start_new_session=True, cwd=ROOT,
        )  # fmt: skip
    try:
        process.wait(after)
        done = True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        done = False
    code = process.wait(300)
    shutil.rmtree(SCRAP, ignore_errors=True)
    said = log.read_text(errors="replace").splitlines()
    said += [f"still there: {line}" for line in processes.survivors(token, 60)]
    return None if done else code, said


def wrong(code: int | None, said: list[str]) -> bool:
    """Whether it did not end as an interrupted command does."""
    if code is None:
        return any("Traceback" in line for line in said)
    # It may have been about to end by itself.
    odd = any("Traceback" in line or "Error" in line or "gnored" in line for line in said)
    return odd or any("still there" in line for line in said) or code not in (0, 130, -2, 3)


def main() -> int:
    """Interrupt each so often; 1 if anything else was said."""
    parser = argparse.ArgumentParser(prog="interrupts.py", description=(__doc__ or "")[:80])
    parser.add_argument("--times", type=int, default=20, help="how often each is interrupted")
    parser.add_argument("--within", type=float, default=2.5, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="of the commands")
    given = parser.parse_args()
    chance, failures = random.Random(given.seed), 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    with tempfile.TemporaryDirectory(prefix="interrupts-") as directory:
        place = Path(directory)
        prepare(place)
        for name in given.only or commands(place):
            done = bad = 0
            for _ in range(given.times):
                after = chance.uniform(0.02, given.within)
                code, said = interrupt(name, after, place)
                done += code is None
                if wrong(code, said):
                    bad += 1
                    print(f"{name} after {after:.3f} s: {code}", *said[-6:], sep="\n    ")
            failures += bad
            print(f"{name}: {given.times} times, {done} done before, {bad} wrong", flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
