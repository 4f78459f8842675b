# SPDX-License-Identifier: GPL-2.0-only
"""The kernel test robot's table, byte for byte: the one that readers of kernel lists know.

The rules, as lkp-tests' ``compare`` prints them:

- *Value*, 10 wide: two decimals below 1000, four digits above 1e8, else its whole part.
- *Error*, 6 wide: `` ± 5%``, the whole part of 100 * sd / mean, where that is above 2; else blank.
  The deviation is the population's (divided by n); a single run has none, nor a mean of 0.
- *Change* against the first column, 10 wide: per cent, one decimal, two digits from 100,000 on; or
  the difference where the name begins with ``perf-profile`` or ends with ``%``.
- What a run lacks is 0 in it, and from a mean of 0 the change is enormous: so it prints.
- *Failures* (``dmesg.*``, ``*.fail``, ...) stand ahead of the rest under a heading of their own:
  how many runs have it, 11 wide and blank for none, ``:`` and the runs, 4 wide; and by how many
  percentage points it is reproduced more often than in the first column, 10 wide.

It says nothing of n, intervals or chance: `anonvma.compare.changes.text` does.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base.text import printable
from anonvma.compare import changes as compare
from anonvma.run.runs import Run
from anonvma.tables import metrics

_ABS, _REL, _ERR, _FAILED = 10, 10, 6, 11
_FIRST = _ABS + _ERR
_FURTHER = _FIRST + _REL + 1
_NEXT_TO_NOTHING = 1e-100  # what the robot divides by in place of 0
_TESTS = ("vm-scalability",)  # their rows stand first
_SORTED_BY = {"perf-profile": 2}  # how many parts of a name count for the order


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands above the table.

    Attributes
    ----------
    axes : mapping of str to str
        What all columns share: ``compiler``, ``nr_task``, ``testcase``, ...
    commits : sequence of (str, str)
        Of each column its id, 40 hexadecimal digits or a name, and its subject or "".
    """

    axes: Mapping[str, str]
    commits: Sequence[tuple[str, str]]


# ---- a row ----


def value(mean: float) -> str:
    """Return a mean as the table has it."""
    if abs(mean) < 1000:
        return f"{mean:{_ABS}.2f}"
    if abs(mean) > 1e8:
        return f"{mean:{_ABS}.4g}"
    return f"{int(mean):{_ABS}d}"


def error(mean: float, sd: float | None) -> str:
    """Return the deviation beside a mean; None is that of a single run."""
    share = -1.0 if sd is None else sd
    if mean != 0:
        share = 100 * share / mean
    return f" ±{int(share):{_ERR - 3}d}%" if share > 2 else " " * _ERR


def change(base: float, mean: float, absolute: bool) -> str:
    """Return what a mean has changed by.

    Examples
    --------
    >>> change(100.0, 250.0, False).strip()
    '+150.0%'
    """
    by, end = _by(base, mean, absolute), "  " if absolute else "% "
    shape = ".1f" if abs(by) < 100_000 else ".2g"
    return f"{by:+{_REL}{shape}}{end}"


def _by(base: float, mean: float, absolute: bool) -> float:
    if absolute:
        return mean - base
    base = base or _NEXT_TO_NOTHING
    return 100.0 * (mean - base) / base


_FAILURES = re.compile(r"(dmesg|kmsg|last_state|stderr)\..*|.*\.(fail|pass|timeout)")


def is_failure(name: str) -> bool:
    """Tell whether a metric says of a run that something happened in it, and not how much."""
    return _FAILURES.fullmatch(name) is not None


def failure(name: str, failed: Sequence[int], runs: Sequence[int]) -> str:
    """Return the row of a failure, without its line end: how many runs of each column have it."""
    shares = [100 * some / all_ if all_ else 0.0 for some, all_ in zip(failed, runs, strict=True)]
    parts = []
    for place, (some, all_) in enumerate(zip(failed, runs, strict=True)):
        if place:
            parts.append(f"{shares[place] - shares[0]:{_REL}.0f}% ")
        parts.append(f"{some or '':>{_FAILED}}:{all_:<{_FIRST - _FAILED - 1}}")
    return f"{''.join(parts)}  {printable(name)}"


def row(name: str, means: Sequence[float], deviations: Sequence[float | None]) -> str:
    """Return one row, without its line end.

    Parameters
    ----------
    name : str
        Of the metric; decides whether changes are differences.
    means : sequence of float
        One a column.
    deviations : sequence of float or None
        The population's standard deviation of each; None for a single run.
    """
    absolute = compare.is_absolute(name)
    parts = []
    for place, (mean, sd) in enumerate(zip(means, deviations, strict=True)):
        if place:
            parts.append(change(means[0], mean, absolute))
        parts.append(value(mean) + error(mean, sd))
    return f"{''.join(parts)}  {printable(name)}"


# ---- the header ----


def header(about: Header, kind: str = "measured") -> str:
    """Return what stands above the rows, with its line end.

    Parameters
    ----------
    about : Header
    kind : {"measured", "failed"}
        What the first rows are.
    """
    axes = {key: printable(text) for key, text in about.axes.items()}
    ids = [printable(commit) for commit, _ in about.commits]
    further = len(ids) - 1
    lines = [
        "=" * 89,
        f"{'/'.join(axes)}:",
        f"  {'/'.join(axes.values())}",
        "",
        "commit: ",
        *(
            f"  {commit[:10]}" + (f' ("{printable(subject)}")' if subject else "")
            for commit, (_, subject) in zip(ids, about.commits, strict=True)
        ),
        "",
        f"{ids[0][:_FIRST]:>{_FIRST}} "
        + "".join(f"{commit[:_FURTHER]:>{_FURTHER}} " for commit in ids[1:]),
        f"{'-' * _FIRST} " + f"{'-' * _FURTHER} " * further,
    ]
    return "\n".join(lines) + "\n" + _columns(kind, further)


def _columns(kind: str, further: int) -> str:
    """Return the two lines that name the columns."""
    first, each, marks, more = {
        "measured": (
            "         %stddev",
            "     %change         %stddev",
            "             \\  ",
            "        |                \\  ",
        ),
        "failed": (
            "       fail:runs",
            "  %reproduction    fail:runs",
            "           |    ",
            "         |             |    ",
        ),
    }[kind]
    return f"{first}{each * further}\n{marks}{more * further}\n"


# ---- the table ----


def in_order(names: Iterable[str], changes: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the names in the robot's order: the test's own, then the smaller groups first."""
    groups = Counter(name.partition(".")[0] for name in names)

    def key(name: str) -> tuple[int, str, Sequence[float]]:
        group = name.partition(".")[0]
        parts = _SORTED_BY.get(group)
        shown = ".".join(name.split(".")[:parts]) if parts else name
        return (0 if group in _TESTS else groups[group], shown, changes[name])

    return sorted(names, key=key)


def table(
    about: Header,
    means: Mapping[str, Sequence[float]],
    sds: Mapping[str, Sequence[float | None]],
    failures: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> str:
    """Return the whole table, ending in an empty line as the robot's does.

    Parameters
    ----------
    about : Header
    means, sds : mapping
        By metric, one a column, as `row` takes them.
    failures : mapping, optional
        By metric, of each column how many runs failed, and how many there are.
    """
    changes = {
        name: [_by(each[0], mean, compare.is_absolute(name)) for mean in each[1:]]
        for name, each in means.items()
    }
    rows = [row(name, means[name], sds[name]) for name in in_order(means, changes)]
    if not failures:
        return header(about) + "\n".join([*rows, "", ""])
    failed = [failure(name, *zip(*failures[name], strict=True)) for name in sorted(failures)]
    parts = [header(about, "failed") + "\n".join([*failed, ""])]
    if rows:
        parts.append(_columns("measured", len(about.commits) - 1) + "\n".join([*rows, ""]))
    return "".join([*parts, "\n"])


def of_matrix(about: Header, values: pd.DataFrame, labels: Sequence[str], zero: bool = True) -> str:
    """Return the table of runs' metrics.

    Parameters
    ----------
    about : Header
    values : DataFrame
        One row per run and one column per metric.
    labels : sequence of str
        The condition of each run.
    zero : bool
        Whether a run that lacks a row has 0 in it, as the robot has it; else it is left out.
    """
    groups = [values[[label == name for label in labels]] for name in dict.fromkeys(labels)]
    means, sds, failures = {}, {}, {}
    for name in map(str, values.columns):
        filled = [group[name].fillna(0.0).to_numpy(float) for group in groups]
        if is_failure(name):
            failures[name] = [(int((c != 0).sum()), len(c)) for c in filled]
            continue
        seen = [group[name].dropna().to_numpy(float) for group in groups]
        left = [c if len(c) else zeros for c, zeros in zip(seen, filled, strict=True)]
        columns = filled if zero else left
        means[name] = [float(c.mean()) for c in columns]
        sds[name] = [float(np.std(c)) if len(c) > 1 else None for c in columns]
    return table(about, means, sds, failures)


def of_runs(conditions: Mapping[str, Sequence[Run]], only: Iterable[str] | None = None) -> str:
    """Return the table of some conditions.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The first is the column that others are compared with.
    only : iterable of str, optional
        The metrics shown; by default those of `anonvma.compare.changes.shown`.
    """
    runs = [run for each in conditions.values() for run in each]
    labels = [name for name, each in conditions.items() for _ in each]
    values = metrics.matrix(runs)
    if only is None:
        only = compare.shown(compare.of_matrix(values, labels))["metric"].unique()
    # What was looked at and did not occur is 0 already.
    rows = values[list(dict.fromkeys(only))]
    return of_matrix(_header_of(conditions), rows, labels, zero=False)


def _header_of(conditions: Mapping[str, Sequence[Run]]) -> Header:
    """Return what is known of it from the runs; a kernel's own id is its release."""
    firsts = [each[0].manifest for each in conditions.values()]
    shared: dict[str, list[Any]] = {
        "arch": [about.target.get("architecture") for about in firsts],
        "nr_task": [about.parameters.get("threads") for about in firsts],
        "size": [about.parameters.get("bytes") for about in firsts],
        "test": [about.workload.name for about in firsts],
    }
    axes = {
        name: str(found[0])
        for name, found in shared.items()
        if len(set(found)) == 1 and found[0] is not None
    }
    axes["testcase"] = "vm-scalability" if "threads" in firsts[0].parameters else "command"
    return Header(axes, [_commit_of(name, each[0]) for name, each in conditions.items()])


def _commit_of(name: str, run: Run) -> tuple[str, str]:
    release = str(run.manifest.target["kernel_release"])
    return name, release
