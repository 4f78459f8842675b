# SPDX-License-Identifier: GPL-2.0-only
"""The report of one run: the answer first, then how it was found, then what it stands on.

`sections` has everything once, as prose and tables; `anonvma.report.layout` sets it as text, and
the notebook 06-report shows the same with figures.
"""

from __future__ import annotations

import shlex

import pandas as pd

from anonvma.base import statistics
from anonvma.base.section import Key, Section
from anonvma.perf import profile
from anonvma.report import (
    answer,
    consequence_report,
    cost_report,
    evidence,
    reproduction,
    time_report,
    unobserved,
)
from anonvma.report.answer import kernel_of
from anonvma.report.sources import drawn_from
from anonvma.run.runs import Run
from anonvma.tables import (
    census,
    contended,
    faults,
    forks,
    locks,
    losses,
    mapping_time,
    specimens,
    vma_locks,
)

_TRACED = {
    ("faults", "events"): "with every page fault traced",
    ("locks",): "with every acquisition of mmap_lock traced",
    ("time",): "to see where its time goes",
}
"""What a workload was executed again for, by what the table ``tracing`` calls it."""

CALLERS = 8
"""Of those who took mmap_lock, how many are shown."""

_PATHS = "After the first repeat came one more, for the call paths of its page faults."


def sections(
    run: Run,
    specimen_run: Run | None = None,
    note: str | None = None,
    analysed: bool = False,
    cost: Run | None = None,
) -> list[Section]:
    """Say everything the report says.

    Parameters
    ----------
    run : Run
        Of a workload.
    specimen_run : Run, optional
        Of the specimens, from the same machine if one is at hand.
    note : str, optional
        Put before everything else, such as where the data come from.
    analysed : bool
        Whether to say what analyses the run here and now; see
        `anonvma.report.reproduction`.
    cost : Run, optional
        Of `anonvma.study.cost_experiment`, on the same machine.

    Returns
    -------
    list of Section
    """
    vmas = census.last(run)
    wholes = census.wholes(vmas)
    parts = [
        Section(
            "Answer",
            [*([note] if note else []), *answer.sentences(run)],
            sources=drawn_from(run, "census", "perf_stat", "faults"),
            key=Key.ANSWER,
        ),
        Section(
            "How it was found", _method(run), sources=drawn_from(run, "census"), key=Key.METHOD
        ),
        _evidence(run),
        Section(
            "Bare VMAs by class",
            [_classes_said()],
            census.by_class(vmas).reset_index(),
            sources=drawn_from(run, "census"),
            whole=wholes["by_class"],
            key=Key.CLASSES,
        ),
        Section(
            "Anonymous VMAs by origin",
            [],
            census.by_origin(vmas).reset_index(),
            sources=drawn_from(run, "census"),
            whole=wholes["by_origin"],
        ),
    ]
    parts += _fault_sections(run)
    parts += _profile_sections(run)
    if specimen_run is not None:
        parts += _specimen_sections(specimen_run)
    if cost is not None:
        parts += cost_report.brief(cost)
    parts.append(unobserved.section([run]))
    parts.append(reproduction.section([run], specimen_run, analysed))
    return parts


def _profile_sections(run: Run) -> list[Section]:
    if "samples" not in run.manifest.tables:
        return []
    table = profile.mean(run, profile.parts).rename_axis("part").reset_index()
    said = [*profile.sentences(run), "Shares in percent; n executions, each apart."]
    sources = drawn_from(run, "samples", "stacks", "frames")
    return [Section("Where the time went", said, table, sources=sources, key=Key.PROFILE)]


def _evidence(run: Run) -> Section:
    numbers = evidence.table(run)
    said = (
        "The unit is the repeat; low and high bound the 95 % confidence interval of the mean. The "
        "last column names the table of the run."
    )
    few = statistics.too_few(numbers["n"])
    words = [f"{said} {few}".rstrip()]
    sources = drawn_from(run, *numbers["from"].unique())
    return Section("Evidence", words, numbers, sources=sources, key=Key.EVIDENCE)


def _fault_sections(run: Run) -> list[Section]:
    if "faults" not in run.manifest.tables:
        return []
    traced = faults.traced(run)
    return [
        *(_faults(run, traced) if len(traced) else _no_faults(run)),
        *_callers(run),
        *_times_section(run),
        *_cost_of_tracing(run),
    ]


_TRANSITIONS = "Page faults, by what they found and left"


def _no_faults(run: Run) -> list[Section]:
    words = ["No page fault was taken while they were traced.", losses.source_said(run)]
    return [Section(_TRANSITIONS, words, sources=drawn_from(run, "faults"))]


def _faults(run: Run, traced: pd.DataFrame) -> list[Section]:
    gup = losses.unseen_gup(run.table("tracing"))
    wholes, sources = faults.wholes(traced, gup), drawn_from(run, "faults")
    return [
        Section(
            _TRANSITIONS,
            [
                "Mean of one repeat. bare: vm_ops and anon_vma are NULL. Those that ended in an "
                "error are in this table alone.",
                losses.source_said(run),
            ],
            faults.transitions(traced),
            sources=sources,
            whole=wholes["transitions"],
        ),
        Section(
            "Who took them",
            [],
            faults.by_mode(traced, gup),
            sources=drawn_from(run, "faults", "tracing"),
            whole=wholes["by_mode"],
        ),
        Section(
            "The lock they were taken under",
            [],
            faults.lock_paths(traced),
            sources=sources,
            whole=wholes["lock_paths"],
            key=Key.LOCK_PATHS,
        ),
        _reasons(run, traced),
        Section(
            "Faults on bare VMAs, and what each check makes of them",
            [
                "An early check sends those found bare to mmap_lock; a delayed one spares those "
                "that make no anon_vma."
            ],
            faults.counterfactual(traced),
            sources=sources,
            whole=wholes["counterfactual"],
        ),
    ]


def _reasons(run: Run, traced: pd.DataFrame) -> Section:
    table = faults.reasons(traced)
    why = run.table("tracing")["why_no_reasons"].dropna()
    said = faults.reasons_said(traced, why.iloc[0] if len(why) else None)
    return Section(
        "Why they acquired mmap_lock",
        ["Mean of one repeat." if len(table) else "None of them did.", *([said] if said else [])],
        table.head(CALLERS) if len(table) else None,
        sources=drawn_from(run, "faults"),
        whole=faults.reasons_whole(traced, CALLERS),
    )


def _callers(run: Run) -> list[Section]:
    if "locks" not in run.manifest.tables:
        return []
    table = run.table("locks")
    callers = locks.callers(table)
    return [
        Section(
            "Who took mmap_lock",
            ["Mean of one repeat." if len(callers) else "Nobody took it while it was traced."],
            callers.head(CALLERS) if len(callers) else None,
            sources=drawn_from(run, "locks"),
            whole=locks.whole(table, CALLERS),
            key=Key.CALLERS,
        ),
        *_waits(run),
    ]


def _waits(run: Run) -> list[Section]:
    if "contended" not in run.manifest.tables:
        return []
    table = run.table("contended")
    waits, on_vmas = contended.by_name(table), vma_locks.waits(table)
    sources = drawn_from(run, "contended")
    parts = [
        Section(
            "Contended locks, by name",
            [contended.said(table), *(["Mean of one repeat."] if len(waits) else [])],
            waits.head(CALLERS) if len(waits) else None,
            sources=sources,
            whole=contended.whole(table, CALLERS),
        )
    ]
    if len(on_vmas):
        title = "Locks of VMAs: writers that waited, and readers that failed"
        whole, words = vma_locks.whole(table), [vma_locks.said(table), vma_locks.HOW]
        parts.append(Section(title, words, on_vmas, sources=sources, whole=whole))
    if len(forked := run.table("forks")):
        sources, whole = drawn_from(run, "forks"), forks.whole(forked)
        found = forks.by_program(forked)
        parts.append(Section("Forks", [forks.said(forked)], found, sources=sources, whole=whole))
    return parts


def _cost_of_tracing(run: Run) -> list[Section]:
    tracing = run.table("tracing")
    costs = faults.cost(tracing)
    if costs.empty:
        return []
    said = "Throughput in MiB/s, and the ratio of the two in pairs with its 95 % interval."
    words = [
        losses.attribution_said(tracing),
        f"{said} {statistics.too_few(costs['n'])}".rstrip(),
    ]
    return [Section("What tracing cost", words, costs, sources=drawn_from(run, "tracing"))]


def _times_section(run: Run) -> list[Section]:
    alone = {"µs": [run]}
    if mapping_time.lacking(alone):
        return []
    return [
        Section(
            mapping_time.title(mapping_time.unit_of(alone)),
            time_report.said_of_one(run),
            mapping_time.table(alone),
            sources=drawn_from(run, "time", "time_totals"),
        )
    ]


def _classes_said() -> str:
    return (
        "A bare VMA has vm_ops == NULL and anon_vma == NULL. guard: no access permitted, it cannot "
        "fault; untouched: no page present; zero-page: read, never written; other: anything else. "
        "present and zero count pages."
    )


def _method(run: Run) -> list[str]:
    manifest = run.manifest
    # What went on is told with the answer.
    lost = {n: count for n, count in manifest.losses.items() if count and n != "went_on"}
    unknown = "more, of a kind that is not known here"
    counted = "; ".join(f"{count} {census.LOSSES.get(n, unknown)}" for n, count in lost.items())
    return [
        f"{_observed(run)}, a BPF iterator then read vm_ops and anon_vma of each VMA from the "
        "kernel's own structures, and the pages in the bare ones were told apart by "
        f"{manifest.pages_how or 'nothing: they were not looked at'}. Lost while reading: "
        f"{counted or 'nothing'}.",
        *([_executed_again(run)] if "faults" in manifest.tables else []),
        *([_PATHS] if {"call_paths", "locks"} <= set(manifest.tables) else []),
        *manifest.notes,
    ]


def _executed_again(run: Run) -> str:
    traced, watched = set(run.table("tracing")["traced"]), _is_watched(run)
    ways = [] if watched else ["untraced"]
    ways += [words for names, words in _TRACED.items() if traced & set(names)]
    count = {1: "once", 2: "twice", 3: "three times", 4: "four times"}[len(ways)]
    listed = ", ".join(ways[:-1]) + (", and " if len(ways) > 2 else " and ") * (len(ways) > 1)
    did = "was then watched" if watched else "then ran"
    return (
        f"In each repeat it {did} {count} more{', in turns' * (not watched)}: {listed}{ways[-1]}."
    )


def _is_watched(run: Run) -> bool:
    return "seconds" in run.manifest.parameters


def _observed(run: Run) -> str:
    """Say what was done to the workload, up to the census."""
    parameters, times = run.manifest.parameters, _times(run.manifest.repeats)
    if _is_watched(run):
        return f"The process was watched {times} for {parameters['seconds']:g} s. As it ran on"
    if "threads" in parameters or parameters.get("workload") == "specimens":
        return (
            f"The workload ran {times}, until it had made its last access. With its mappings still "
            "in place"
        )
    return (
        f"The command ran {times}, each of its processes stopped in its exit. With their mappings "
        "still in place"
    )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _specimen_sections(run: Run) -> list[Section]:
    table = specimens.observed(run.table("specimens"), census.last(run))
    rows = specimens.answers(table)
    anonymous = table[table["vm_ops"].isna() & (table["state"] != "gone")]
    made = (
        f"{len(table)} mappings of {table['kind'].nunique()} kinds were made on {kernel_of(run)}, "
        f"each touched in one way, and looked up in the census. {len(rows)} of them answer the "
        "question: vm_ops is NULL, a fault has filled them, and anon_vma is NULL (zero-page)."
    )
    shows = "In the table are the kinds with a NULL vm_ops; a column says what was done to them."
    shown = specimens.grid(anonymous).reset_index()
    made_in = drawn_from(run, "specimens", "census")
    parts = [Section("Specimens", [made, shows], shown, sources=made_in, key=Key.SPECIMENS)]
    surprising = table[table["surprising"]]
    reasons = [
        f"{_kinds(same)}: {explain}." for explain, same in surprising.groupby("explain", sort=False)
    ]
    if reasons:
        title = "Exceptions: touched without an anon_vma, or untouched with one"
        parts.append(Section(title, reasons, key=Key.EXCEPTIONS))
    parts.append(consequence_report.section(run))
    lacking = specimens.missing(run.table("specimens"))
    if len(lacking):
        said = [f"{row.kind}: {row.missing}." for row in lacking.itertuples()]
        parts.append(Section("Specimens this machine lacks", said, key=Key.LACKING))
    return parts


def _kinds(rows: pd.DataFrame) -> str:
    """Name the kinds of some specimens with how each was touched."""
    by_touch = rows.groupby("touch", sort=False)["kind"]
    return "; ".join(f"{', '.join(kinds)} ({touch})" for touch, kinds in by_touch)


def collected(run: Run) -> str:
    """Return, as Markdown, what a run collected and where."""
    manifest = run.manifest
    rows = [f"{name} ({table.rows:,} rows)" for name, table in sorted(manifest.tables.items())]
    return (
        f"`{shlex.join(manifest.workload.argv)}`, {manifest.repeats} repeats, on {kernel_of(run)}, "
        f"{manifest.created:%Y-%m-%d}.  \n"
        f"Tables: {', '.join(rows)}.  \n"
        f"Pages in bare VMAs: {manifest.pages_how}. Lost while reading: "
        f"{sum(manifest.losses.values()) or 'nothing'}."
    )


def title(run: Run) -> str:
    """Return the report's title."""
    return f"anonvma: {answer.name_of(run)}"
