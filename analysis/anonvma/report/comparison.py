# SPDX-License-Identifier: GPL-2.0-only
"""A comparison in sections: what two kernels made of the same workload, answer first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from anonvma.base.errors import RunError
from anonvma.base.numerals import interval, number
from anonvma.base.section import Key, Section
from anonvma.compare import changes
from anonvma.compare.changes.rows import Verdict
from anonvma.report import changes as report_changes
from anonvma.report import evidence, kernel_facts, reproduction, unobserved
from anonvma.report.evidence import Figure
from anonvma.report.sources import drawn_from
from anonvma.run import processors
from anonvma.run.runs import Run, having

_TABLES = (
    "repeats",
    "throughput",
    "perf_stat",
    "perf_intervals",
    "samples",
    "vmstat",
    "locks",
    "faults",
    "census",
)


def name(conditions: Mapping[str, Sequence[Run]]) -> str:
    """Name what was compared."""
    first, *_ = conditions.values()
    return f"{first[0].manifest.workload.name}, {' against '.join(conditions)}"


def title(conditions: Mapping[str, Sequence[Run]]) -> str:
    """Return the report's title."""
    return f"anonvma: {name(conditions)}"


_SHOWN = {Verdict.HIGHER: "", Verdict.LOWER: "", Verdict.EQUIVALENT: "equivalent, "}


def finding(conditions: Mapping[str, Sequence[Run]]) -> str:
    """Say in a line, such as a subject has room for, what changed."""
    base, *heads = conditions
    workload = conditions[base][0].manifest.workload.name
    try:
        rows = changes.primary_rows(conditions)
    except RunError:  # nothing that is measured in both
        return f"{workload}, {' against '.join(conditions)}"
    row = rows.iloc[-1]
    what = str(row["metric"]).rpartition(".")[2].replace("_", " ")
    of = f"{workload}, {heads[-1]} against {base}"
    if row["verdict"] not in _SHOWN:
        return f"{of}: no change of {what} shown"
    within = interval(row["low"], row["high"], apart=1)
    said = f"{number(row['ratio'])} times the {what} ({within})"
    return f"{of}: {_SHOWN[row['verdict']]}{said}{_overcommitted(conditions[heads[-1]])}"


def _overcommitted(opened: Sequence[Run]) -> str:
    found = processors.of_run(opened[0])
    if found is None or found.backing is not processors.Backing.OVERCOMMITTED:
        return ""
    return f", {found.virtual} virtual CPUs on {found.real}"


def sections(conditions: Mapping[str, Sequence[Run]], analysed: bool = False) -> list[Section]:
    """Say everything a report on a comparison says.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The runs of each condition, one a boot; others are compared with the first.
    analysed : bool
        Whether to say what analyses the runs here and now.
    """
    opened = [run for each in conditions.values() for run in each]
    sources = tuple(file for run in opened for file in drawn_from(run, *_TABLES))
    answer, *others = report_changes.sections(conditions)
    said = [_verdict(conditions), *_regimes(conditions), *answer.paragraphs, _why(conditions)]
    return [
        Section("Answer", said, sources=sources, key=Key.ANSWER),
        Section("How it was found", [_method(conditions), *_notes(opened)], key=Key.METHOD),
        *(dataclasses.replace(part, sources=sources) for part in others),
        unobserved.section(opened),
        reproduction.section(opened, analysed=analysed),
    ]


def _verdict(conditions: Mapping[str, Sequence[Run]]) -> str:
    first, *_ = conditions.values()
    left = {name: _left_bare(each) for name, each in conditions.items()}
    bare = ", ".join(f"{number(count)} on {name}" for name, count in left.items())
    workload, date = first[0].manifest.workload.name, f"{first[0].manifest.created:%Y-%m-%d}"
    after, what = f"After runs of {workload} ({date})", "bare (vm_ops is NULL, and so is anon_vma)"
    if not any(left.values()):
        names = " or ".join(left)
        return f"Not here. {after} no VMA that was only read is {what}, on {names}."
    return f"Yes. {after} VMAs that were only read are {what}: {bare} (mean of a run)."


def _why(conditions: Mapping[str, Sequence[Run]]) -> str:
    """Say why reading leaves VMAs bare."""
    last = list(conditions.values())[-1][0]
    return kernel_facts.zero_page(str(last.manifest.target["kernel_release"]))


def _regimes(conditions: Mapping[str, Sequence[Run]]) -> list[str]:
    """Say what each kernel does about bare VMAs, where they differ."""
    first = {name: each[0].manifest for name, each in conditions.items()}
    regimes = {
        n: (manifest.features.get("regime") or {}).get("name") for n, manifest in first.items()
    }
    if len(set(regimes.values())) == 1 or not set(regimes.values()) <= set(kernel_facts.REGIMES):
        return []
    told = (
        f"{name} is Linux {manifest.target['kernel_release']} and "
        f"{kernel_facts.REGIMES[str(regimes[name])]}"
        for name, manifest in first.items()
    )
    return [f"{'; '.join(told)}."]


def _left_bare(opened: Sequence[Run]) -> float:
    looked = having(opened, "census")
    read = [evidence.numbers(run)[Figure.READ].mean for run in looked]
    return float(np.mean(read))


def _method(conditions: Mapping[str, Sequence[Run]]) -> str:
    boots = ", ".join(f"{len(each)} of {name}" for name, each in conditions.items())
    first, *_ = conditions.values()
    return (
        f"Each boot ({boots}) ran the same workload {first[0].manifest.repeats} times and was then "
        "asked for its VMAs by a BPF iterator; faults and switches are the workload's own, the "
        "counts of the VMA lock are the machine's, from /proc/vmstat."
    )


def _notes(opened: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(note for run in opened for note in run.manifest.notes))
