# SPDX-License-Identifier: GPL-2.0-only
"""Conditions: what was set side by side, and whether that is all that differed.

Runs may be compared when they differ in the condition and in nothing else. `check` refuses runs
whose machine, workload or parameters differ, unless that difference is said to be the condition;
`differences` shows whatever was not alike; `anonvma.collect.environment` adds what the machine told
of itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.run import catalogue
from anonvma.run.runs import Run

ASPECTS = {
    "kernel": ("kernel_release", "image_sha256", "append", "regime"),
    "settings": ("thp", "overcommit_memory", "max_map_count"),
    "machine": (
        "kind",
        "architecture",
        "cpus",
        "cpu_model",
        "memory_given_bytes",
        "page_size",
        "accel",
        "qemu_version",
        "qemu_threads",
        "real_cpus",
    ),
    "workload": ("workload",),
    "parameters": ("threads", "bytes", "unit", "seconds"),
    "tools": ("anonvma", "perf_version"),
}
"""What may be the condition, and the facts that belong to it."""

_FREE = frozenset({"kernel", "settings", "tools"})
"""What may differ without being asked for: these are shown."""

_MEMORY_STEP = 64 << 20  # the kernel keeps a little more or less of it from build to build


def _facts(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    target = manifest.target
    found = {name: target.get(name) for names in ASPECTS.values() for name in names}
    found |= {
        "workload": manifest.parameters.get("workload", manifest.workload.name),
        "regime": (manifest.features.get("regime") or {}).get("name"),
        "anonvma": manifest.anonvma,
        **{name: manifest.parameters.get(name) for name in ASPECTS["parameters"]},
    }
    if found["memory_given_bytes"] is None and target.get("memory_bytes"):
        found["memory_given_bytes"] = round(target["memory_bytes"] / _MEMORY_STEP) * _MEMORY_STEP
    return found


def check(conditions: Mapping[str, Sequence[Run]], condition: Collection[str] = ()) -> None:
    """Refuse to compare what differs in more than the condition.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The first is the one that others are compared with.
    condition : collection of str
        Which of `ASPECTS` are the condition, besides kernel and settings, which may always be.

    Raises
    ------
    RunError
        One sentence: what differs, between which conditions or within which, and what to do.
    """
    unknown = sorted(set(condition) - set(ASPECTS))
    if unknown:
        raise RunError(f"{unknown[0]!r} cannot be the condition: choose of {', '.join(ASPECTS)}.")
    if len(conditions) < 2:
        raise RunError(f"there are runs of {len(conditions)} condition: at least 2 are compared.")
    for name, runs in conditions.items():
        if not runs:
            raise RunError(f"condition {name!r} has no run.")
        _check_within(name, runs)
    told = {name: _facts(runs[0]) for name, runs in conditions.items()}
    base, *others = told
    for other in others:
        for aspect, fact in _differing(told[base], told[other]):
            if aspect not in _FREE and aspect not in condition:
                raise RunError(
                    f"{base} and {other} differ in their {aspect}: {fact} is "
                    f"{_said(told[base][fact])} and {_said(told[other][fact])}. If that is what "
                    f"you compare, say so (--condition {aspect})."
                )


def _check_within(name: str, runs: Sequence[Run]) -> None:
    first = _facts(runs[0])
    for run in runs[1:]:
        for aspect, fact in _differing(first, _facts(run)):
            if aspect != "tools":
                raise RunError(
                    f"the runs of {name} are not of one condition: the {aspect} of {runs[0].id} "
                    f"and {run.id} differ, {fact} is {_said(first[fact])} and "
                    f"{_said(_facts(run)[fact])}."
                )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for aspect, names in ASPECTS.items():
        for name in names:
            if one[name] != other[name]:
                yield aspect, name


def _said(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def differences(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """What differs between conditions, by their manifests.

    Returns
    -------
    DataFrame
        One row per fact that is not alike: aspect, fact, then a column per condition (str).

    Examples
    --------
    >>> found = differences(find(["early-small-allocs-mt-*", "delayed-small-allocs-mt-*"]))
    >>> found["fact"].tolist()
    ['kernel_release', 'image_sha256', 'regime']
    """
    told = {name: _facts(runs[0]) for name, runs in conditions.items()}
    rows = []
    for aspect, names in ASPECTS.items():
        for fact in names:
            values = {name: _said(found[fact]) for name, found in told.items()}
            if len(set(values.values())) > 1:
                short = fact == "image_sha256"
                shown = {name: value[:12] if short else value for name, value in values.items()}
                rows.append({"aspect": aspect, "fact": fact, **shown})
    return pd.DataFrame(rows, columns=["aspect", "fact", *conditions])


def regimes(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Which lock the page faults of each condition's kernel take, and by what that was seen.

    Returns
    -------
    DataFrame
        One row per condition: condition, regime, evidence; null where it was not observed.
    """
    rows = []
    for name, runs in conditions.items():
        regime = runs[0].manifest.features.get("regime") or {}
        rows.append((name, regime.get("name"), regime.get("evidence")))
    return pd.DataFrame(rows, columns=["condition", "regime", "evidence"])


def are_recorded(conditions: Mapping[str, Sequence[Run]]) -> bool:
    """Tell whether all runs are among those that come with anonvma."""
    ours = paths.recorded().resolve()
    return all(run.path.parent == ours for runs in conditions.values() for run in runs)


def beside(
    conditions: Mapping[str, Sequence[Run]], **patterns: Sequence[str] | None
) -> dict[str, dict[str, list[Run]]]:
    """Open what is shown beside a comparison, by name: recorded runs beside recorded ones.

    What would set recorded runs beside the user's own, or the other way, is left out, and what
    is None.
    """
    found = {name: find(each) for name, each in patterns.items() if each}
    kind = are_recorded(conditions)
    return {name: runs for name, runs in found.items() if are_recorded(runs) == kind}


def find(patterns: Sequence[str]) -> dict[str, list[Run]]:
    """Open the runs of several conditions.

    Parameters
    ----------
    patterns : sequence of str
        Each ``NAME=PATTERN``, or a pattern alone, as `anonvma.run.runs.find_all` reads it: it is
        then called by those of its words that the other patterns do not have, as ``early`` and
        ``delayed``, else ``base`` and ``head``. Or one directory of an experiment.

    Raises
    ------
    RunError
        When there are none, a name occurs twice, or a run is of two conditions.

    Examples
    --------
    >>> sides = find(["early=early-small-allocs-mt-*", "delayed=delayed-small-allocs-mt-*"])
    >>> {name: len(runs) for name, runs in sides.items()}
    {'early': 19, 'delayed': 19}
    """
    from anonvma.compare import design
    from anonvma.run import runs

    if len(patterns) == 1:
        return design.conditions(design.directory(patterns[0]))
    found: dict[str, list[Run]] = {}
    for name, pattern in _named(patterns):
        if not re.fullmatch(r"[\w .+:-]{1,40}", name):
            raise RunError(
                f"condition {name[:40]!r}: a name has up to 40 letters, digits, blanks and .+:-_."
            )
        if name in found:
            raise RunError(f"two conditions are called {name!r}: name them, as in old={pattern}.")
        found[name] = runs.find_all(pattern)
    paths = [(run.path, name) for name, each in found.items() for run in each]
    for (path, name), (again, other) in zip(sorted(paths), sorted(paths)[1:], strict=False):
        if path == again:
            raise RunError(f"run {path.name} is of {name} and of {other}: it can be of one only.")
    return found


def _named(patterns: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name and the pattern of each condition."""
    given = [catalogue.named_pattern(text) for text in patterns]
    short = iter(_short([pattern for name, pattern in given if name is None]))
    return [(next(short) if name is None else name, pattern) for name, pattern in given]


def _short(patterns: Sequence[str]) -> list[str]:
    """Name patterns by what tells them apart: the words between those that all share."""
    plain = [pattern.rstrip("/").rpartition("/")[2] for pattern in patterns]
    words = [[word for word in re.split(r"[-_*?]+", name) if word] for name in plain]
    while len(words) > 1 and all(len(w) > 1 for w in words) and len({w[0] for w in words}) == 1:
        words = [w[1:] for w in words]
    while len(words) > 1 and all(len(w) > 1 for w in words) and len({w[-1] for w in words}) == 1:
        words = [w[:-1] for w in words]
    found = ["-".join(w) or "runs" for w in words]
    return ["base", "head"] if len(found) == 2 and len(set(found)) == 1 else found
