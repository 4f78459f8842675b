# SPDX-License-Identifier: GPL-2.0-only
"""What each kernel made of the same specimens, operations and workload: one outcome a row.

An outcome is a word, such as the state of a specimen or the lock that its faults took, never a
time: kernels in guests are compared by it. What several boots of one kernel do not agree upon is
`VARIES`, and no kernel is told from another by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.run import jobs
from anonvma.run.runs import Run
from anonvma.tables import census, consequences, specimens
from anonvma.tables.faults.specimen import own_faults

PARTS = {
    "regime": "the check of a bare VMA",
    "state": "what a specimen became",
    "lock": "the lock of a specimen's faults",
    "faults": "a specimen's faults",
    "mmap_lock": "acquisitions of mmap_lock by an operation",
    "after": "faults that follow an operation, when each page is read",
    "became": "what a VMA was after an operation",
    "workload": "the lock of small-allocs-mt's faults",
    "tracing": "how its faults were traced",
    "kernel": "what could not be observed",
}
"""What outcomes are of, in the order in which they are shown."""

NOT_MADE = "not there"
"""The outcome of what a kernel lacks; its note says why."""
NO_FAULT = "no fault"
VARIES = "varies"

_COLUMNS = ["kernel", "release", "part", "subject", "outcome", "note"]
_NEARLY_ALL = 0.99  # a retry or two may happen to any fault


class Outcome(NamedTuple):
    """One of a run's outcomes; null where it was not observed, which `note` then explains."""

    part: str
    subject: str
    outcome: str | None
    note: str | None = None


# ---- of runs ----


def of_runs(
    conditions: Mapping[str, Sequence[Run]], failures: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return the outcomes of some kernels.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        The runs of each kernel, in the order in which kernels are set side by side.
    failures : mapping of str to str, optional
        Why a kernel has no run, or lacks one: it keeps its place.

    Returns
    -------
    DataFrame
        One row per kernel, part and subject: kernel (its name), release, part (see `PARTS`),
        subject, outcome and note.
    """
    rows = []
    for name, runs in conditions.items():
        release = str(runs[0].manifest.target["kernel_release"]) if runs else None
        why = (failures or {}).get(name)
        each = [Outcome("kernel", "jobs" if runs else "boots", None, why)] if why else []
        each += _agreed([found for run in runs for found in of_run(run)])
        rows += [(name, release, *outcome) for outcome in each]
    return pd.DataFrame(rows, columns=_COLUMNS).astype("object")


def of_run(run: Run) -> Iterator[Outcome]:
    """Yield the outcomes of one run: of the specimens, or of a case of vmload.

    Examples
    --------
    >>> from anonvma.run import runs
    >>> next(of_run(runs.find("early-specimens-1"))).outcome
    'early'
    """
    regime = run.manifest.features.get("regime") or {}
    yield Outcome("regime", "page faults", regime.get("name"), regime.get("evidence"))
    if "specimens" in run.manifest.tables:
        yield from _of_specimens(run)
        yield from of_operations(consequences.last(run))
    elif "faults" in run.manifest.tables:
        yield from _of_workload(run)
    yield from _of_tracing(run)
    for lack in run.manifest.unobserved:
        why = f"{lack.reason}. Remedy: {lack.remedy}"
        yield Outcome("kernel", f"{run.manifest.workload.name}: {lack.what}", None, why)


def _of_specimens(run: Run) -> Iterator[Outcome]:
    made, vmas = run.table("specimens"), census.last(run)
    lacking = made[made["missing"].notna()]
    for kind, touch, why in lacking[["kind", "touch", "missing"]].itertuples(index=False):
        yield Outcome("state", f"{kind}, {touch}", NOT_MADE, why)
    seen = specimens.observed(made, vmas)
    names = [f"{kind}, {touch}" for kind, touch in zip(seen["kind"], seen["touch"], strict=True)]
    for name, state in zip(names, seen["state"], strict=True):
        yield Outcome("state", name, str(state))
    if "fault_events" not in run.manifest.tables:
        return  # the manifest says why
    for name, own in zip(names, own_faults(made, seen, run.table("fault_events")), strict=True):
        ways = [way for way in ("vma", "mmap", "retry", "unknown") if (own["path"] == way).any()]
        why = ", ".join(dict.fromkeys(own["reason"].dropna().astype(str))) or None
        yield Outcome("lock", name, ", ".join(ways) or NO_FAULT, why)
        yield Outcome("faults", name, str(len(own)))


def of_operations(rows: pd.DataFrame) -> Iterator[Outcome]:
    """Yield what came of each operation of a table ``consequences``."""
    rows = rows[rows["trials"] > 0]  # why it could not be tried is among what was not observed
    # Whole numbers: whatever else a task does now and then is not the operation's.
    counts = ["reads", "writes", "faults_after", "child_faults"]
    table = consequences.side_by_side(rows.assign(**rows[counts].astype("Float64").round()))
    for operation, row in table.iterrows():
        for side in ("bare", "anon_vma"):
            became, locks, follow = (
                row[f"{name}, {side}"] for name in ("became", "locks", "faults")
            )
            name = f"{operation}, {side}"
            if isinstance(became, str):
                yield Outcome("became", name, became)
                yield Outcome("mmap_lock", name, locks)
                yield Outcome("after", name, None if pd.isna(follow) else f"{follow:.0f}")


def _of_workload(run: Run) -> Iterator[Outcome]:
    table = run.table("faults")
    good = table[(table["mode"] == "user") & (table["result"] != "error")]
    for after in ("bare", "anon_vma"):
        found = good[(good["before"] == "bare") & (good["after"] == after)]
        by_path = found.groupby("path", observed=True)["count"].sum().sort_values(ascending=False)
        if by_path.empty:
            continue
        most = by_path.index[0] if by_path.iloc[0] >= _NEARLY_ALL * by_path.sum() else VARIES
        note = ", ".join(f"{count:,} {path}" for path, count in by_path.items())
        subject = f"{run.manifest.workload.name}: bare -> {after}"
        yield Outcome("workload", subject, str(most), note)


def _of_tracing(run: Run) -> Iterator[Outcome]:
    if "tracing" not in run.manifest.tables:
        return
    rows, name = run.table("tracing"), run.manifest.workload.name
    rows = rows[rows["traced"].isin(["faults", "events"])]
    for source, why_not in zip(rows["source"], rows["why_not_fentry"], strict=True):
        yield Outcome("tracing", f"{name}: source", source, why_not)
    for counted, used in zip(rows["counted"], rows["used"], strict=True):
        every = "all" if counted == used else "not all"
        yield Outcome("tracing", f"{name}: faults", every, f"{counted} of {used}")


def _agreed(found: Sequence[Outcome]) -> list[Outcome]:
    """Return one outcome for each subject, of all runs of a kernel."""
    by_subject: dict[tuple[str, str], Outcome] = {}
    for one in found:
        key = one.part, one.subject
        known = by_subject.setdefault(key, one)
        if known.outcome is None:
            by_subject[key] = one
        elif one.outcome is not None and one.outcome != known.outcome:
            both = f"{known.note or known.outcome}; {one.note or one.outcome}"
            by_subject[key] = one._replace(outcome=VARIES, note=both)
    return list(by_subject.values())


# ---- of a study ----


def conditions_of(directory: Path) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Open the runs of a survey, by kernel, and say of the kernels without any why that is.

    Raises
    ------
    RunError
        When no job of it is done yet.
    """
    found: dict[str, list[Run]] = {}
    failures: dict[str, str] = {}
    for cell in sorted(jobs.planned(directory), key=lambda cell: (cell["place"], cell["repeat"])):
        runs = found.setdefault(cell["axes"]["kernel"], [])
        place = directory / "cells" / cell["name"]
        if place.is_dir():
            runs.append(Run.open(place))
        else:
            why = failures.get(cell["axes"]["kernel"])
            both = filter(None, [why, _why_not(directory, cell["name"])])
            failures[cell["axes"]["kernel"]] = "; ".join(both)
    if not any(found.values()):
        raise RunError(f"no job of the study {directory} is done: anonvma batch carries it out.")
    return found, failures


def _why_not(directory: Path, cell: str) -> str:
    last = jobs.failure(directory, cell)
    return f"{cell}: {last['reason']}" if last else f"{cell} is not done yet"


# ---- recorded ----


def find(name: str | Path) -> pd.DataFrame:
    """Return the outcomes of a study's directory, or those recorded under a name.

    Raises
    ------
    RunError
        When there are none.
    """
    file = paths.recorded() / f"{name}.parquet"
    for place in (Path(name), *([] if file.is_file() else [paths.runs() / name])):
        if jobs.is_survey(place):
            return of_runs(*conditions_of(place))
    if not file.is_file():
        raise RunError(
            f"there are no outcomes {str(name)!r}: give the directory of a study that makes the "
            "specimens on several kernels, as data/studies/kernels.yaml does."
        )
    return pd.read_parquet(file).astype("object")


def record(found: pd.DataFrame, name: str) -> Path:
    """Keep outcomes in ``data/recorded``, so that they are found by a name."""
    file = paths.recorded() / f"{name}.parquet"
    found.astype("category").to_parquet(file, index=False, compression="zstd")
    return file
