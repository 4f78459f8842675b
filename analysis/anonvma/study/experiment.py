# SPDX-License-Identifier: GPL-2.0-only
"""A comparison that is designed: conditions in turns, until the interval is tight or time is up.

The unit is the run; of a guest, the boot. Runs are made in *blocks*, each condition once in each,
so that a drift of the machine weighs on all alike: in the order ABBA (every other block
backwards), or in an order drawn anew for each block from a seed that is kept. Warm-ups come
first and have names of their own, so that no analysis takes them for runs.

After each block the ratio of the headline metric to the first condition is estimated. The
experiment ends when every ratio's interval is as tight as was asked, or when the budget of runs or
time is spent; `said` says which. It looks at how wide the interval is and never at where it lies,
so stopping does not favour a finding.

What is done and in what order is in ``experiment.json`` beside the runs. Started again, it goes on
where it was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anonvma.base import marker
from anonvma.base import paths as places
from anonvma.base.errors import RunError
from anonvma.base.numerals import percent
from anonvma.collect.collection import collect
from anonvma.collect.workload import Workload
from anonvma.run import runs
from anonvma.run.runs import Run
from anonvma.target.target import parse

__all__ = ["Condition", "Plan", "conditions", "interleaving", "order", "parse_condition", "run"]

FILE = "experiment.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_OWN = ("workload", "threads", "bytes", "unit", "touch", "busy")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Strict):
    """One of the things that are set side by side.

    Attributes
    ----------
    name : str
        Its runs are called ``NAME-1``, ``NAME-2``, ...
    target : str
        Where it runs, as `anonvma.target.target.parse` reads it.
    parameters : dict
        Of the workload, see `anonvma.collect.workload.Workload`.
    busy : int
        How many processes burn a CPU of the machine that measures, next to each of its runs.
    """

    name: str
    target: str
    parameters: dict[str, Any]
    busy: int = Field(default=0, ge=0, le=64)

    @property
    def workload(self) -> Workload:
        """What it runs."""
        return Workload(**self.parameters)


def parse_condition(text: str, shared: Mapping[str, Any]) -> Condition:
    """Read ``NAME=TARGET`` with what differs from the shared workload behind it.

    Parameters
    ----------
    text : str
        ``early=guest:early/bzImage,cpus=4``, or with a difference after each semicolon:
        ``wide=local;unit=80k``, ``eight=local;threads=8``, ``beside=local;busy=2``,
        ``mmap=local;touch=kernel``.
    shared : mapping
        Parameters of the workload that are not said.

    Raises
    ------
    RunError
        One sentence: what is wrong with it.
    """
    name, equals, rest = text.partition("=")
    target, *words = rest.split(";")
    if not equals or not target or not _NAME.fullmatch(name):
        raise RunError(
            f"condition {text!r} is not NAME=TARGET: a name of small letters, digits, - and _, "
            "such as early=guest:build/kernels/early/bzImage or four=local;threads=4."
        )
    own: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _OWN or not equals or key in own:
            why = "is given twice" if key in own else "is not known"
            raise RunError(f"condition {name!r}: {key!r} {why}; there are {', '.join(_OWN)}.")
        own[key] = value
    busy = own.pop("busy", "0")
    if not busy.isdecimal():
        raise RunError(f"condition {name!r}: busy is {busy!r}, and must be a number of processes.")
    workload = Workload(**{**shared, **own})
    try:
        return Condition(name=name, target=target, parameters=workload.parameters, busy=int(busy))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RunError(f"condition {name!r}: {first['loc'][0]}: {first['msg']}.") from None


class Plan(_Strict):
    """What is to be done.

    Attributes
    ----------
    conditions : list of Condition
        The first is what the others are compared with.
    order : {"abba", "random"}
        In each block.
    seed : int
        Of the random order.
    warmups : int
        Runs of each condition that come first and do not count.
    least, most : int
        Blocks: how many there are in any case, and how many at most.
    precision : float or None
        Half the width of the interval of each ratio that is tight enough, as a share of the
        ratio: 0.02 is 2 %. None makes `most` blocks.
    budget_s : float or None
        Seconds after which no further block is begun.
    repeats : int
        Of the workload in each run. The run is the unit all the same.
    headline : str or None
        The metric whose ratio decides; None is the throughput, or else the time.
    """

    conditions: list[Condition] = Field(min_length=2)
    order: Literal["abba", "random"] = "abba"
    seed: int = 1
    warmups: int = Field(default=1, ge=0)
    least: int = Field(default=3, ge=1)
    most: int = Field(default=10, ge=1)
    precision: float | None = Field(default=None, gt=0, lt=1)
    budget_s: float | None = Field(default=None, gt=0)
    repeats: int = Field(default=2, ge=1)
    headline: str | None = None

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise RunError(f"experiment: {where}: {first['msg']}.") from None
        names = [condition.name for condition in self.conditions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RunError(f"experiment: two conditions are called {twice[0]!r}.")


def order(
    names: Sequence[str], block: int, how: Literal["abba", "random"] = "abba", seed: int = 1
) -> list[str]:
    """Return the order of the conditions in a block, which are numbered from 1."""
    if how == "abba":
        return list(names) if block % 2 else list(reversed(names))
    drawn = list(names)
    random.Random(f"{seed}/{block}").shuffle(drawn)
    return drawn


def run(
    plan: Plan, into: Path, *, trace: bool = True, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Carry out a plan, or what is left of it.

    Parameters
    ----------
    plan : Plan
    into : path
        Where the runs go. An experiment that is there already is gone on with if its plan is the
        same.
    trace : bool
        Whether faults and mmap_lock are traced, too: without it no cause can be told.
    say : callable, optional
        Told what is done next.

    Returns
    -------
    dict
        The state, as it is in ``experiment.json``.

    Raises
    ------
    RunError
        When another experiment is there.
    AnonvmaError
        Whatever `anonvma.collect.collection.collect` raises.
    """
    into.mkdir(parents=True, exist_ok=True)
    state = _resumed(plan, into)
    work = _Work(plan, into, state, trace, say)
    work.go()
    return state


class _Work:
    """An experiment while it goes on."""

    def __init__(
        self,
        plan: Plan,
        into: Path,
        state: dict[str, Any],
        trace: bool,
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.into, self.state, self.trace, self.say = plan, into, state, trace, say
        self.by_name = {condition.name: condition for condition in plan.conditions}

    def go(self) -> None:
        """Run warm-ups and blocks until one of the reasons to stop."""
        self.state["stopped"] = None
        for number in range(1, self.plan.warmups + 1):
            for name in order(list(self.by_name), number, self.plan.order, self.plan.seed):
                self.unit(f"warm-up-{number}-{name}", name)
        block = 0
        while self.state["stopped"] is None:
            block += 1
            for name in order(list(self.by_name), block, self.plan.order, self.plan.seed):
                self.unit(f"{name}-{block}", name)
            self.state["blocks"] = block
            self.state["intervals"] = self._intervals() if block > 1 else []
            self.state["stopped"] = self._reason(block)
            _write(self.into, self.state)
        self.say(said(self.state))

    def unit(self, called: str, name: str) -> None:
        """Make one run, unless it is there."""
        if (self.into / called / "manifest.json").exists():
            return
        condition = self.by_name[name]
        self.say(called)
        begun = time.monotonic()
        with (
            marker.draft(self.into / "scratch") as scratch,
            parse(condition.target) as there,
            _busy(condition.busy),
        ):
            made = collect(
                there,
                condition.workload,
                repeats=self.plan.repeats,
                out=scratch,
                perf_record=False,
                trace=self.trace,
            )
            made.path.rename(self.into / called)
        self.state["order"].append(called)
        self.state["spent_s"] = round(self.state["spent_s"] + time.monotonic() - begun, 1)
        _write(self.into, self.state)

    def _intervals(self) -> list[dict[str, Any]]:
        from anonvma.compare import changes  # which imports a lot, and nothing above needs it

        found = {
            name: [runs.Run.open(path) for path in _paths(self.into, name)] for name in self.by_name
        }
        table = changes.headline(found, self.plan.headline)
        told: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
        return told

    def _reason(self, block: int) -> str | None:
        plan, widths = self.plan, [row["half_width"] for row in self.state["intervals"]]
        known = [width for width in widths if width is not None]
        tight = plan.precision and len(known) == len(widths) > 0 and max(known) <= plan.precision
        if tight and block >= plan.least:
            return "tight"
        if block >= plan.most:
            return "runs"
        if plan.budget_s and self.state["spent_s"] >= plan.budget_s and block >= plan.least:
            return "time"
        return None


def said(state: Mapping[str, Any]) -> str:
    """Say in a sentence how an experiment was made and why it ended."""
    plan, blocks = state["plan"], state["blocks"]
    how = {
        "abba": "in the order ABBA",
        "random": f"in an order drawn for each block (seed {plan['seed']})",
    }[plan["order"]]
    first = (
        f"{blocks} blocks of {len(plan['conditions'])} conditions {how}, after "
        f"{plan['warmups']} warm-ups of each that do not count."
    )
    widths = [row["half_width"] for row in state["intervals"] if row["half_width"] is not None]
    width = percent(max(widths)) if widths else "unknown"
    wanted = f", {percent(plan['precision'])} was asked for" if plan["precision"] else ""
    interval = f"the headline ratio is known to ±{width}{wanted}"
    why = {
        "tight": f"It ended because that was tight enough: {interval}.",
        "runs": f"It ended when its {plan['most']} blocks were made: {interval}.",
        "time": f"It ended when its {plan['budget_s'] or 0:.0f} s were spent: {interval}.",
        None: "It has not ended yet.",
    }[state["stopped"]]
    return f"{first} {why}"


def said_of(each: Mapping[str, Sequence[Run]]) -> str:
    """Say how the experiment that some runs are of was made; nothing where they are of none."""
    places_of = {run.path.parent for found in each.values() for run in found}
    state = read(places_of.pop()) if len(places_of) == 1 else None
    return said(state) if state else ""


# ---- its file ----


def _resumed(plan: Plan, into: Path) -> dict[str, Any]:
    wanted = json.loads(plan.model_dump_json())
    state: dict[str, Any] = {
        "format": 1,
        "plan": wanted,
        "order": [],
        "blocks": 0,
        "spent_s": 0.0,
        "intervals": [],
        "stopped": None,
    }
    found = read(into)
    if found is None:
        return state
    # More runs, more time or a wider interval may be asked for later; nothing else.
    may_change = {"least", "most", "precision", "budget_s"}
    old, new = (
        {k: v for k, v in each.items() if k not in may_change} for each in (found["plan"], wanted)
    )
    if old != new:
        differs = next(key for key in new if old.get(key) != new[key])
        raise RunError(
            f"{into} holds another experiment (its {differs} differs): go on with the same plan, "
            "or choose another directory."
        )
    return {**found, "plan": wanted}


def read(into: Path) -> dict[str, Any] | None:
    """Return the state of the experiment in a directory, or None where there is none.

    Raises
    ------
    RunError
        When its file is damaged.
    """
    file = into / FILE
    try:
        state = json.loads(file.read_bytes())
        plan = Plan(**state["plan"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, RecursionError, RunError):
        raise RunError(
            f"{file} is damaged: remove it, and the runs beside it if in doubt."
        ) from None
    if not {"order", "blocks", "spent_s", "intervals", "stopped"} <= set(state):
        raise RunError(f"{file} is damaged: remove it, and the runs beside it if in doubt.")
    return {**state, "plan": json.loads(plan.model_dump_json())}


def _write(into: Path, state: Mapping[str, Any]) -> None:
    draft = into / f"{FILE}.tmp"
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(state, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(into / FILE)


def _paths(into: Path, name: str) -> list[Path]:
    """Return the runs of a condition, in the order of their blocks."""
    numbered = re.compile(re.escape(name) + r"-(\d+)")
    found = [(numbered.fullmatch(path.name), path) for path in into.iterdir()]
    runs_of = [(int(match[1]), path) for match, path in found if match]
    return [path for _, path in sorted(runs_of) if (path / "manifest.json").exists()]


def conditions(into: Path) -> dict[str, list[Run]]:
    """Open the runs of an experiment, by condition, warm-ups left out.

    Raises
    ------
    RunError
        When there is no experiment, or one of its conditions has no run.
    """
    state = read(into)
    if state is None:
        raise RunError(f"{into} holds no experiment: it has no {FILE}.")
    found = {}
    for condition in state["plan"]["conditions"]:
        paths = _paths(into, condition["name"])
        if not paths:
            raise RunError(f"{into}: condition {condition['name']!r} has no run yet.")
        found[condition["name"]] = [Run.open(path) for path in paths]
    return found


def directory(name: str) -> Path:
    """Return the directory of an experiment: a path, or a name in ``data/runs``.

    Raises
    ------
    RunError
        When there is none.
    """
    for path in (Path(name), places.runs() / name):
        if (path / FILE).is_file():
            return path
    raise RunError(
        f"{name!r} is no experiment: name its directory, which has an {FILE}, or two conditions."
    )


def interleaving(each: Mapping[str, Sequence[Run]]) -> tuple[bool, str]:
    """Tell, from when the runs were made, whether the conditions took turns.

    Returns
    -------
    bool
        Whether they did: no condition's runs all lie before another's.
    str
        A sentence that says so, with the order.
    """
    made = sorted((run.manifest.created, name) for name, found in each.items() for run in found)
    names = [name for _, name in made]
    spans = {name: (names.index(name), len(names) - 1 - names[::-1].index(name)) for name in each}
    apart = [(a, b) for a in each for b in each if a != b and spans[a][1] < spans[b][0]]
    told = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])}, ..."
    if not apart:
        return True, f"The conditions took turns: {told}."
    first, then = apart[0]
    return False, (
        f"All runs of {first} were made before those of {then} ({told}): what changed about the "
        "machine meanwhile is not told from the condition. Remedy: anonvma experiment, which "
        "interleaves them."
    )


# ---- a neighbour ----


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Have some processes burn a CPU each while the block runs, as a busy neighbour does."""
    # Each ends with its parent, however that ends.
    program = "import os\np = os.getppid()\nwhile os.getppid() == p:\n for _ in range(99999): pass"
    burn = [sys.executable, "-c", program]
    started = [subprocess.Popen(burn) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
