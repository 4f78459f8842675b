# SPDX-License-Identifier: GPL-2.0-only
"""A comparison that is designed: conditions in turns, until the interval is tight or time is up.

The unit is the run; of a guest, the boot. Runs are made in *blocks*, each condition once in each,
so that a drift of the machine weighs on all alike: in the order ABBA (every other block
backwards), or in an order drawn anew for each block from a seed that is kept. Warm-ups come
first and have names of their own, so that no analysis takes them for runs.

After each block the ratio of the primary metric to the first condition is estimated. The
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

from pydantic import ValidationError

from anonvma.base import marker
from anonvma.base.errors import RunError
from anonvma.base.turns import in_turns
from anonvma.collect.collection import collect
from anonvma.collect.targets import parse
from anonvma.collect.workload import Workload
from anonvma.compare.design import FILE, Condition, Plan, paths_of, read, said
from anonvma.run import runs

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_OWN = ("workload", "threads", "bytes", "unit", "touch", "busy")


def workload_of(condition: Condition) -> Workload:
    """Return what a condition runs."""
    return Workload(**condition.parameters)


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


def order(
    names: Sequence[str], block: int, how: Literal["abba", "random"] = "abba", seed: int = 1
) -> list[str]:
    """Return the order of the conditions in a block, which are numbered from 1."""
    if how == "abba":
        return in_turns(names, block)
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
                workload_of(condition),
                repeats=self.plan.repeats,
                out=scratch,
                perf_record=False,
                trace=self.trace,
            )
            try:
                made.path.rename(self.into / called)
            except OSError as error:
                where = self.into / called
                raise RunError(f"cannot move a run to {where}: {error.strerror}.") from None
        self.state["order"].append(called)
        self.state["spent_s"] = round(self.state["spent_s"] + time.monotonic() - begun, 1)
        _write(self.into, self.state)

    def _intervals(self) -> list[dict[str, Any]]:
        from anonvma.compare import changes  # which imports a lot, and nothing above needs it

        found = {
            name: [runs.Run.open(path) for path in paths_of(self.into, name)]
            for name in self.by_name
        }
        table = changes.primary_rows(found, self.plan.metric)
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


def _write(into: Path, state: Mapping[str, Any]) -> None:
    with marker.new_file(into / FILE) as draft, draft.open("w", encoding="utf-8") as stream:
        json.dump(state, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


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
