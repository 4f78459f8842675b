# SPDX-License-Identifier: GPL-2.0-only
"""What the explorer takes for a million VMAs, against plain pandas; `make bench` runs it.

A run with a million VMAs is collected here. Then, each round in processes of their own and in
turns: the explorer opens it and answers changed filters, each with a view drawn anew; and pandas
reads the same Parquet and answers the same questions, with nothing drawn. Memory is the peak over
what the imports take, and the data are the census as a plain DataFrame.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import progress, spread

from anonvma.base.errors import AnonvmaError
from anonvma.collect.workload import Workload
from anonvma.target.local import Local

OPEN_WITHIN, ANSWER_WITHIN, TIMES_THE_DATA = 5.0, 1.0, 3.0
VIEWS = ("overview", "vmas", "map", "pages")


def collected(vmas: int, directory: Path) -> Path:
    """Collect a run with so many VMAs, a page each, read once."""
    from anonvma.collect import collection

    workload = Workload(workload="small-allocs-mt", threads=2, bytes=vmas * 4096, unit=4096)
    with Local() as local:
        run = collection.collect(
            local, workload, repeats=1, out=directory, perf_record=False, trace=False
        )
    return run.path


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ours(run: str) -> dict[str, Any]:
    """The explorer, in a process of its own."""
    from anonvma.explore import explorer as explore
    from anonvma.explore import view as view_module

    # What the first figure and table load is no part of a million VMAs.
    small = explore.Explorer("specimens")
    for view in VIEWS:
        small.view(view)
    del small
    before = peak()
    opened = []
    seconds = timed(lambda: opened.append(explore.Explorer(run)))
    (explorer,) = opened
    controls, answers = explorer.controls, {}
    for view in VIEWS:
        explorer.view(view)
        controls["clear"].click()
        answers[view] = max(
            timed(lambda: setattr(controls["state"], "value", ("zero-page",))),
            timed(lambda: setattr(controls["origin"], "value", ("private /dev/zero",))),
            timed(lambda: setattr(controls["size"], "value", (4096, 65536))),
            timed(lambda: setattr(controls["having"], "value", ("READ",))),
            timed(lambda: setattr(controls["state"], "value", ("untouched", "zero-page"))),
        )
    row = controls["row"].options[-1][1]
    answers["a row looked at"] = timed(lambda: explorer.look_at(row))
    assert view_module.summary(explorer.shown) == explorer.summary()
    count = len(explorer.selection.vmas)
    return {"open": seconds, "answers": answers, "memory": peak() - before, "vmas": count}


def plain(run: str) -> dict[str, Any]:
    """The same questions by plain pandas, in a process of its own."""
    import pandas as pd

    before = peak()
    read: list[pd.DataFrame] = []
    file = Path(run) / "census.parquet"
    seconds = timed(lambda: read.append(pd.read_parquet(file)))
    (frame,) = read

    def answer() -> None:
        met = (frame["class"] == "zero-page") & (frame["origin"] == "private /dev/zero")
        found = frame[met & (frame["bytes"] <= 65536) & (frame["flags"] & 1 == 1)]
        for key in ("origin", "tgid", "class"):
            found.groupby(key, observed=True)[["bytes", "present", "zero"]].sum()
        found.sort_values("start").head(200)

    answers = {"filter, three groupbys, sort": max(timed(answer) for _ in range(3))}
    return {
        "open": seconds,
        "answers": answers,
        "memory": peak() - before,
        "data": int(frame.memory_usage(deep=True).sum()),
        "file": file.stat().st_size,
    }


def measure(run: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run both in turns, each round beginning with the other."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": []}
    for number in range(rounds):
        for name in sorted(found, reverse=bool(number % 2)):
            progress(f"round {number + 1} of {rounds}: {name}")
            words = [sys.executable, str(Path(__file__).resolve()), "--child", name, str(run)]
            done = subprocess.run(words, capture_output=True, check=True, text=True)
            found[name].append(json.loads(done.stdout))
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yield the lines of the table."""
    mine, theirs = found["ours"], found["plain"]
    data = theirs[0]["data"]
    yield (
        f"{mine[0]['vmas']:,} VMAs, n = {len(mine)}, median [lowest, highest]; as a DataFrame "
        f"{data / 2**20:.0f} MiB, as Parquet {theirs[0]['file'] / 2**20:.1f}"
    )
    yield ""
    yield f"{'':28}{'explorer':>24}{'plain pandas':>24}{'ratio':>10}"

    def row(name: str, a: list[float], b: list[float]) -> str:
        pairs = [(x, y) for x, y in zip(a, b, strict=True) if y]  # nothing is no measure
        ratio = f"{statistics.median(x / y for x, y in pairs):.2f}" if pairs else "-"
        return f"{name:28}{spread(a):>24}{spread(b):>24}{ratio:>10}"

    yield row("opened, s", [each["open"] for each in mine], [each["open"] for each in theirs])
    asked = [max(each["answers"].values()) for each in theirs]
    for name in mine[0]["answers"]:
        yield row(f"filter, {name}, s", [each["answers"][name] for each in mine], asked)
    peaks = [[each["memory"] / 2**20 for each in of] for of in (mine, theirs)]
    yield row("peak memory, MiB", *peaks)
    yield ""
    opened = statistics.median(each["open"] for each in mine)
    slowest = statistics.median(max(each["answers"].values()) for each in mine)
    times = statistics.median(each["memory"] for each in mine) / data
    for what, value, aim, unit in (
        ("opened within", opened, OPEN_WITHIN, " s"),
        ("the slowest view answers within", slowest, ANSWER_WITHIN, " s"),
        ("memory within", times, TIMES_THE_DATA, " times the data"),
    ):
        yield f"Aim: {what} {aim:g}{unit}: {value:.2f}, {'met' if value <= aim else 'not met'}"


def main(words: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--vmas", type=int, default=1_000_000, help="how many the run has")
    options = parser.parse_args(words)
    try:
        with tempfile.TemporaryDirectory() as directory:
            progress(f"collecting a run with {options.vmas:,} VMAs")
            run = collected(options.vmas, Path(directory))
            print("\n".join(table(measure(run, max(options.rounds, 1)))))
    except AnonvmaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"bench: {error.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps({"ours": ours, "plain": plain}[sys.argv[2]](sys.argv[3])))
    else:
        sys.exit(main(sys.argv[1:]))
