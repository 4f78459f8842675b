# SPDX-License-Identifier: GPL-2.0-only
"""What can be known to be wrong before a kernel starts, a guest boots or a run begins.

A notebook's kernel takes seconds to start and a guest longer, and a wrong word is told no better
then. The command line asks here first, and so does `anonvma.study.engine` for papermill.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from anonvma.base.errors import ParameterError, RunError

if TYPE_CHECKING:
    from anonvma.collect.workload import Workload
    from anonvma.perf.tool import Settings

LIVE = "this machine, live"
"""What the explorer calls the machine that it watches in place of a run."""

_OF_CASE = ("threads", "bytes", "unit", "touch")
_MOST_REPEATS = 1_000_000
_OF_PERF = ("events", "frequency", "call_graph")
# What says nothing to a kind of workload.
_IGNORED = {
    "case": ("seconds",),
    "pid": _OF_CASE,
    "command": (*_OF_CASE, "seconds"),
    # Made once, and nothing of them is timed.
    "specimens": (*_OF_CASE, "seconds", "repeats", *_OF_PERF),
}
_KIND_SAID = {
    "case": "a case runs to its end",
    "pid": "a running process has its own",
    "command": "a command has its own",
    "specimens": "the specimens are made once, each in its own way",
}


def ignored(workload: Workload) -> tuple[str, ...]:
    """Return the parameters of a collection that say nothing to this workload."""
    return _IGNORED[workload.kind]


def refuse_ignored(workload: Workload, given: Collection[str], prefix: str = "") -> None:
    """Refuse parameters that were given and would be ignored.

    Parameters
    ----------
    workload : Workload
    given : collection of str
        The parameters that somebody wrote down.
    prefix : str
        Put before each name: ``--`` for options.

    Raises
    ------
    ParameterError
        One sentence that names them.
    """
    useless = [prefix + name for name in ignored(workload) if name in given]
    if useless:
        raise ParameterError(
            f"{' and '.join(useless)} would be ignored: workload {workload.workload!r} is no case "
            f"of vmload, and {_KIND_SAID[workload.kind]}; leave {_them(useless)} out."
            if workload.kind != "case"
            else f"{' and '.join(useless)} would be ignored: {_KIND_SAID['case']}, and is not "
            f"watched for a time; leave {_them(useless)} out."
        )


def _them(names: Collection[str]) -> str:
    return "it" if len(names) == 1 else "them"


def collection(values: Mapping[str, Any], given: Collection[str], prefix: str = "") -> None:
    """Refuse what 01-collect, or `anonvma report`, would fail on once it has begun.

    Parameters
    ----------
    values : mapping
        The parameters of 01-collect.
    given : collection of str
        Those of them that somebody wrote down.
    prefix : str
        Put before the name of one that would be ignored.

    Raises
    ------
    AnonvmaError
        The sentence that it would have failed with.
    """
    from anonvma.collect import program, targets
    from anonvma.collect.workload import Workload
    from anonvma.perf import tool

    where = values["target"]
    own = {name: values[name] for name in Workload.model_fields if name in values}
    if where is None:
        _shown(values, given)
        return
    workload = Workload(**own)
    if "run" in given:
        raise ParameterError(
            "run would be ignored: with a target a run is collected; leave one of them out."
        )
    targets.check(where)
    refuse_ignored(workload, given, prefix)
    asked = settings(**{name: values[name] for name in ("repeats", "trace", *_OF_PERF)})
    if where == "local":
        with targets.parse(where) as here:
            here.require_privilege()
            program.offer(workload, here)
            workload.check(here)
            if values["events"]:
                tool.check_events(here, asked.counted)


def settings(
    repeats: int, trace: bool, events: str | None, frequency: int, call_graph: str
) -> Settings:
    """Refuse a collection that is impossible on any target, and return its settings of perf.

    Raises
    ------
    RunError, ParameterError
        An impossible value.
    SetupError
        When the probe is not built.
    """
    from anonvma.base import paths
    from anonvma.perf.tool import Settings

    if type(repeats) is not int or not 1 <= repeats <= _MOST_REPEATS:  # of a notebook: anything
        raise RunError(
            f"repeats is {repeats!r}: a whole number from 1 to {_MOST_REPEATS:,} is needed."
        )
    if type(trace) is not bool:
        raise RunError(f"trace is {trace!r}: true or false is needed.")
    paths.program("vmaprobe")
    return Settings(events or Settings.events, frequency, call_graph)


def _shown(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Refuse what would be ignored by a notebook that collects nothing, and a run that is none."""
    from anonvma.run import catalogue

    useless = [name for name in given if name not in ("target", "run")]
    if useless:
        raise ParameterError(
            f"{' and '.join(useless)} would be ignored: without a target nothing is collected, and "
            "a run is shown; to collect give one, such as '-p target local'."
        )
    catalogue.place(values["run"])


def notebook(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Refuse parameters that a notebook would fail on.

    Parameters
    ----------
    values : mapping
        Every parameter of the notebook.
    given : collection of str
        Those that it was given.

    Raises
    ------
    AnonvmaError
        The sentence that it would have failed with.
    """
    from anonvma.run import catalogue

    if "workload" in values and "target" in values:
        collection(values, given)
        return
    about = [name for name in ("run", "base", "head") if name in given and values[name] is not None]
    if "share" in values and "run" in about and len(about) > 1:
        raise ParameterError(
            "run would be ignored, or base and head would: a report is about a run or about two "
            "conditions; leave one or the others out."
        )
    for name in given:
        value = values[name]
        if value is None or value == "":
            continue
        if name in ("run", "specimens", "other") and value != LIVE:
            catalogue.place(value)
        elif name in ("base", "head", "early", "delayed"):
            condition(value)
        elif name in ("control", "scaled"):
            for pattern in value:
                condition(pattern)


def condition(text: str) -> None:
    """Refuse the pattern of a condition, ``NAME=PATTERN`` or one alone, that no run matches."""
    from anonvma.run import catalogue

    _, pattern = catalogue.named_pattern(text)
    catalogue.all_places(pattern.replace("{workload}", "*"))
