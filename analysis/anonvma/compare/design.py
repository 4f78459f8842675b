# SPDX-License-Identifier: GPL-2.0-only
"""The design of a comparison: its plan, how it ended, and whether its conditions took turns.

``experiment.json`` beside the runs of an experiment holds what was planned, what was done in which
order, and why it ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.base.numerals import percent
from anonvma.run.runs import Run

FILE = "experiment.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Strict):
    """One of the things that are set side by side.

    Attributes
    ----------
    name : str
        Its runs are called ``NAME-1``, ``NAME-2``, ...
    target : str
        Where it runs, as `anonvma.collect.targets.parse` reads it.
    parameters : dict
        Of the workload, see `anonvma.collect.workload.Workload`.
    busy : int
        How many processes burn a CPU of the machine that measures, next to each of its runs.
    """

    name: str
    target: str
    parameters: dict[str, Any]
    busy: int = Field(default=0, ge=0, le=64)


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
    metric : str or None
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
    # Files of experiments made before have it as headline.
    metric: str | None = Field(default=None, validation_alias=AliasChoices("metric", "headline"))

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
    interval = f"the ratio of the primary metric is known to ±{width}{wanted}"
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


def paths_of(into: Path, name: str) -> list[Path]:
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
        paths = paths_of(into, condition["name"])
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
    for path in (Path(name), paths.runs() / name):
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

    Examples
    --------
    >>> from anonvma.compare import conditions
    >>> sides = conditions.find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"])
    >>> interleaving(sides)[0]
    True
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
