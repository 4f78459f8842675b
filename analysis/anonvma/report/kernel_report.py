# SPDX-License-Identifier: GPL-2.0-only
"""What changed from kernel to kernel, in sections: the newest against the one before it first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from anonvma.base.section import Key, Section
from anonvma.compare.kernel_changes import between, counts, grouped, kernels
from anonvma.compare.outcomes import NOT_MADE, PARTS
from anonvma.report import reproduction
from anonvma.report.reproduction import commit_of
from anonvma.run.runs import Run

_SHOWN = ["old", "new", "part", "count", "before", "after", "commit"]
PUBLISH = ".venv/bin/anonvma publish data/runs/kernels"


def newest(found: pd.DataFrame) -> tuple[str, str] | None:
    """Return the kernel of the first series that is newest, and the one before; None without."""
    about = kernels(found)
    names = list(about.index[(about["series"] == 0) & about["release"].notna()])
    return (names[-2], names[-1]) if len(names) > 1 else None


def finding(found: pd.DataFrame) -> str:
    """Say in a line what changed with the newest kernel."""
    pair = newest(found)
    if pair is None:
        return f"{len(kernels(found))} kernels"
    about = kernels(found)
    old, new = (str(release) for release in about.loc[list(pair), "release"])
    said = f"Linux {new} after {old}: {_changed(_of(found, pair), found)}"
    without = list(about.index[about["release"].isna()])
    return f"{said}, {' and '.join(without)} not observed" if without else said


def _of(found: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    changed = between(found)
    return changed[changed["new"] == pair[1]]


def _changed(changed: pd.DataFrame, found: pd.DataFrame) -> str:
    of = int(counts(found)["subjects"].sum())
    unknown = int(changed["why"].isna().sum())
    if changed.empty:
        return f"none of {of:,} outcomes changed"
    return f"{len(changed)} of {of:,} outcomes changed, {unknown or 'none'} of them unexplained"


def sections(
    found: pd.DataFrame,
    conditions: Mapping[str, Sequence[Run]],
    note: str | None = None,
    analysed: bool = False,
) -> list[Section]:
    """Say everything that a survey of kernels says, the answer first.

    Parameters
    ----------
    found : DataFrame
        The outcomes.
    conditions : mapping of str to sequence of Run
        The runs that they are of, by kernel.
    note : str, optional
        Put before the answer.
    analysed : bool
        Whether to say what analyses them here and now.
    """
    opened = [run for runs in conditions.values() for run in runs]
    pair = newest(found)
    said = [*([note] if note else []), bare_said(found), *([newest_said(found)] if pair else [])]
    parts = [
        Section("Answer", said, key=Key.ANSWER),
        Section("How much was compared", [_HOW], counts(found).reset_index(), key=Key.EVIDENCE),
    ]
    changed = grouped(between(found))
    if pair and (changed["new"] == pair[1]).any():
        latest = changed[changed["new"] == pair[1]]
        title = f"{pair[1]} after {pair[0]}"
        parts.append(Section(title, reasons_said(latest), latest[_SHOWN]))
    said = ["One row per kind of change: the number of subjects, and what they were and became."]
    parts.append(
        Section("Each kernel against the one before", said, changed[_SHOWN], key=Key.CHANGED)
    )
    parts.append(Section("Why", reasons_said(changed)))
    parts.append(Section("What could not be observed", lacking_said(found), key=Key.UNOBSERVED))
    words = reproduction.words(_of_pair(conditions, pair) or opened, analysed=analysed)
    commit = commit_of(opened[0].manifest.anonvma)
    commands = [*([f"git checkout {commit}"] if commit else []), "make survey", PUBLISH]
    parts.append(Section("How to repeat it", words, commands=commands, key=Key.REPRODUCTION))
    return parts


_HOW = (
    "On each kernel every specimen was made, every operation done to a VMA that is bare and to one "
    "that is not, and the benchmark run. An outcome is a word, never a time. differ: between any "
    "two kernels; vary: from boot to boot of one, which is not compared."
)


def _of_pair(conditions: Mapping[str, Sequence[Run]], pair: tuple[str, str] | None) -> list[Run]:
    return [run for name in pair or () for run in conditions.get(name, ())]


# ---- in words ----


def bare_said(found: pd.DataFrame) -> str:
    """Answer the mail for all of the kernels together."""
    states = found[(found["part"] == "state") & (found["outcome"] != NOT_MADE)]
    made = states.groupby("kernel").size()
    bare = (states["outcome"] == "zero-page").groupby(states["kernel"]).sum()
    if not bare.any():
        return "Not here: no specimen was read and stayed without an anon_vma on any kernel."
    every = "each" if (bare > 0).all() else f"{(bare > 0).sum()}"
    return (
        f"Yes, on {every} of {len(made)} kernels: {_range(bare)} of {_range(made)} specimens "
        "have a NULL vm_ops, were filled by page faults, and have no anon_vma."
    )


def _range(numbers: pd.Series[Any]) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low} to {high}"


def newest_said(found: pd.DataFrame) -> str:
    """Say what changed with the newest kernel, against the one before it."""
    pair, about = newest(found), kernels(found)
    without = [
        f"{name} was not observed: {why}." for name, why in about["why_not"].dropna().items()
    ]
    if pair is None:
        return " ".join(["There is one kernel, so nothing to compare it with.", *without])
    old, new = (f"{name} (Linux {about['release'][name]})" for name in pair)
    said = f"On {new}, after {old}, {_changed(_of(found, pair), found)}."
    return " ".join([said, *without])


def reasons_said(changed: pd.DataFrame) -> list[str]:
    """Say why, a paragraph for each cause, the unexplained ones last: changes as `grouped`."""
    said = []
    for why, rows in changed.groupby("why", sort=False):
        where = ", ".join(dict.fromkeys(rows["old"] + " to " + rows["new"]))
        since = [f"Linux {release}" for release in rows["since"].unique() if release]
        source = ", ".join([*since, *filter(None, rows["commit"].unique())])
        said.append(f"{where}: {why}{f' ({source})' if source else ''}.")
    unknown = changed[changed["why"].isna()]
    for row in unknown.itertuples():
        what = f"{PARTS[str(row.part)]}: {row.before} became {row.after} ({row.subjects})"
        said.append(f"Unexplained, {row.old} to {row.new}: {what}.")
    if changed.empty:
        return ["Nothing changed."]
    return said if len(unknown) else [*said, "No change is unexplained."]


def lacking_said(found: pd.DataFrame) -> list[str]:
    """Say of each kernel what could not be observed, those that agree together."""
    rows = found[found["part"] == "kernel"]
    rows = rows.sort_values("subject", key=lambda what: what != "boots", kind="stable")
    same: dict[tuple[str, str], list[str]] = {}
    for kernel, what, why in zip(rows["kernel"], rows["subject"], rows["note"], strict=True):
        same.setdefault((what, why), []).append(kernel)
    said = [
        f"{', '.join(names)}: {'did not boot' if what == 'boots' else what}: {why}."
        for (what, why), names in same.items()
    ]
    return said or ["Nothing that was asked for."]
