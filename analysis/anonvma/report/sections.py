# SPDX-License-Identifier: GPL-2.0-only
"""The report: the answer first, then how it was found, then what it stands on.

`sections` says everything once, as prose and tables; `text` sets it in 72 columns for a
mail or a terminal, the notebook 06-report shows the same with figures, and `html` makes
one self-contained page of that notebook.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import shlex
import struct
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from anonvma.base import statistics, tabular
from anonvma.base.section import Section
from anonvma.base.tabular import cell
from anonvma.base.tabular import lines as table_lines
from anonvma.base.text import printable
from anonvma.perf import profile
from anonvma.report import answer, cost_report, evidence, reproduction, time_report
from anonvma.report.answer import kernel_of
from anonvma.run.runs import Run
from anonvma.tables import census, faults, locks, losses, mapping_time, specimens

if TYPE_CHECKING:
    from IPython.display import HTML, Image, Markdown
    from matplotlib.figure import Figure

__all__ = ["PROFILE", "Section", "figures", "last_census", "markdown", "sections", "text"]

WIDTH = 72
MIB = 1 << 20
_TRACED = {
    ("faults", "events"): "with every page fault traced",
    ("locks",): "with every acquisition of mmap_lock traced",
    ("time",): "to see where its time goes",
}
"""What a workload was executed again for, by what the table ``tracing`` calls it."""

PROFILE = "Where the time went"
"""The section that a run with samples has."""

CALLERS = 8
"""Of those who took mmap_lock, how many are shown."""

_PATHS = "After the first repeat came one more, for the call paths of its page faults."


def last_census(run: Run) -> pd.DataFrame:
    """Return the census of the run's last repeat, one row a VMA."""
    vmas = run.table("census")
    last: pd.DataFrame = vmas[vmas["repeat"] == vmas["repeat"].max()].drop(columns="repeat")
    return last


def drawn_from(run: Run, *tables: str) -> tuple[str, ...]:
    """Name the files of a run that numbers come from, of those tables that it has."""
    held = run.manifest.tables
    return tuple(f"{run.id}/{held[name].file}" for name in tables if name in held)


def _counts(run: Run) -> dict[str, pd.Series[float]]:
    """Event to its values, one a repeat, of what perf stat could count."""
    if "perf_stat" not in run.manifest.tables:
        return {}
    table = run.table("perf_stat").dropna(subset="value")
    return {str(event): rows["value"] for event, rows in table.groupby("event", sort=False)}


# Event, what the report calls it, unit, what to divide perf's number by.
_FIGURES = (
    ("page-faults", "page faults", "", 1.0),
    ("context-switches", "context switches", "", 1.0),
    ("task-clock", "task clock", "ms", 1.0),
    ("user_time", "user time", "ms", 1e6),
    ("system_time", "system time", "ms", 1e6),
)


def figures(run: Run) -> pd.DataFrame:
    """The main figures of a run, each with how sure it is.

    Returns
    -------
    DataFrame
        Columns: figure, unit, n (repeats), mean, sd (sample standard deviation), low and high
        (95 % confidence interval of the mean by Student's t; null for fewer than three repeats).
        Throughput is the sum over the tasks of a repeat.
    """
    rows = []
    if "throughput" in run.manifest.tables:
        speed = run.table("throughput").groupby("repeat")["kb_per_s"].sum() / 1024
        rows.append(_estimate("throughput", "MiB/s", speed))
    counts = _counts(run)
    for event, name, unit, scale in _FIGURES:
        if event in counts:
            rows.append(_estimate(name, unit, counts[event] / scale))
    return pd.DataFrame(rows, columns=["figure", "unit", "n", "mean", "sd", "low", "high"])


def _estimate(figure: str, unit: str, values: pd.Series[float]) -> dict[str, object]:
    return {"figure": figure, "unit": unit, **statistics.estimate(values)._asdict()}


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
        Whether to say what analyses the run here and now; see `how_to_repeat`.
    cost : Run, optional
        Of `anonvma.study.cost_experiment`, on the same machine.

    Returns
    -------
    list of Section
    """
    vmas = last_census(run)
    wholes = census.wholes(vmas)
    parts = [
        Section(
            "Answer",
            [*([note] if note else []), *answer.sentences(run)],
            sources=drawn_from(run, "census", "perf_stat", "faults"),
        ),
        Section("How it was found", _method(run), sources=drawn_from(run, "census")),
        _evidence(run),
        Section(
            "Bare VMAs by class",
            [_classes_said()],
            census.by_class(vmas).reset_index(),
            sources=drawn_from(run, "census"),
            whole=wholes["by_class"],
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
    parts.append(_unobserved(run))
    parts.append(how_to_repeat([run], specimen_run, analysed))
    return parts


def _profile_sections(run: Run) -> list[Section]:
    if "samples" not in run.manifest.tables:
        return []
    table = profile.mean(run, profile.parts).rename_axis("part").reset_index()
    said = [*profile.sentences(run), "Shares in percent; n executions, each apart."]
    return [Section(PROFILE, said, table, sources=drawn_from(run, "samples", "stacks", "frames"))]


def _evidence(run: Run) -> Section:
    numbers = evidence.table(run)
    said = (
        "The unit is the repeat; low and high bound the 95 % confidence interval of the mean. The "
        "last column names the table of the run."
    )
    few = statistics.too_few(numbers["n"])
    words = [f"{said} {few}".rstrip()]
    return Section("Evidence", words, numbers, sources=drawn_from(run, *numbers["from"].unique()))


def how_to_repeat(
    opened: list[Run], specimen_run: Run | None = None, analysed: bool = False
) -> Section:
    """Say how to repeat runs, so that nothing but these words is needed.

    With `analysed`, what analyses them here and now is part of it.
    """
    every = [*opened, *([specimen_run] if specimen_run else [])]
    sources = tuple(f"{run.id}/manifest.json" for run in every)
    words = reproduction.words(opened, specimen_run, analysed)
    commands = reproduction.commands(opened, analysed)
    return Section("How to repeat it", words, commands=commands, sources=sources)


def _fault_sections(run: Run) -> list[Section]:
    if "faults" not in run.manifest.tables:
        return []
    traced, traced_in = faults.traced(run), drawn_from(run, "faults")
    wholes = faults.wholes(traced)
    source = losses.source_said(run).replace("`", "").replace("*", "")
    if traced.empty:
        words = ["None was taken while they were traced.", source]
        parts = [Section("Page faults, by what they found and left", words, sources=traced_in)]
    else:
        parts = [
            Section(
                "Page faults, by what they found and left",
                [
                    "Mean of one repeat. bare: vm_ops and anon_vma are NULL. Those that ended in "
                    "an error are in this table alone.",
                    source,
                ],
                faults.transitions(traced),
                sources=traced_in,
                whole=wholes["transitions"],
            ),
            Section(
                "The lock they were taken under",
                [],
                faults.lock_paths(traced),
                sources=traced_in,
                whole=wholes["lock_paths"],
            ),
            Section(
                "Faults on bare VMAs, and what each check makes of them",
                [
                    "An early check sends those found bare to mmap_lock; a delayed one spares "
                    "those that make no anon_vma."
                ],
                faults.counterfactual(traced),
                sources=traced_in,
                whole=wholes["counterfactual"],
            ),
        ]
    if "locks" in run.manifest.tables:
        callers = locks.callers(run.table("locks"))
        mean = ["Mean of one repeat." if len(callers) else "Nobody did while it was traced."]
        parts.append(
            Section(
                "Who took mmap_lock",
                mean,
                callers.head(CALLERS) if len(callers) else None,
                sources=drawn_from(run, "locks"),
                whole=locks.whole(run.table("locks"), CALLERS),
            )
        )
    parts += _times_section(run)
    tracing = run.table("tracing")
    costs = faults.cost(tracing)
    if len(costs):
        said = "Throughput in MiB/s, and the ratio of the two in pairs with its 95 % interval."
        words = [
            losses.attribution_said(tracing),
            f"{said} {statistics.too_few(costs['n'])}".rstrip(),
        ]
        timed_in = drawn_from(run, "tracing")
        parts.append(Section("What tracing cost", words, costs, sources=timed_in))
    return parts


def _times_section(run: Run) -> list[Section]:
    alone = {"µs": [run]}
    if mapping_time.lacking(alone):
        return []
    return [
        Section(
            mapping_time.TITLE,
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
    counted = "; ".join(f"{count} {census.LOSSES[name]}" for name, count in lost.items())
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
    table = specimens.observed(run.table("specimens"), last_census(run))
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
    parts = [Section("Specimens", [made, shows], shown, sources=made_in)]
    surprising = table[table["surprising"]]
    reasons = [
        f"{_kinds(same)}: {explain}." for explain, same in surprising.groupby("explain", sort=False)
    ]
    if reasons:
        parts.append(Section("Where touched does not mean anon_vma, nor untouched none", reasons))
    lacking = specimens.missing(run.table("specimens"))
    if len(lacking):
        said = [f"{row.kind}: {row.missing}." for row in lacking.itertuples()]
        parts.append(Section("Specimens this machine lacks", said))
    return parts


def _kinds(rows: pd.DataFrame) -> str:
    """Name the kinds of some specimens with how each was touched."""
    by_touch = rows.groupby("touch", sort=False)["kind"]
    return "; ".join(f"{', '.join(kinds)} ({touch})" for touch, kinds in by_touch)


def _unobserved(run: Run) -> Section:
    said = [
        f"{lack.what}: {lack.reason}. Remedy: {lack.remedy}." for lack in run.manifest.unobserved
    ]
    sources = (f"{run.id}/manifest.json",)
    words = said or ["Nothing that was asked for."]
    return Section("What could not be observed", words, sources=sources)


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


# ---- as text ----


def styled(table: pd.DataFrame, source: str = "") -> HTML:
    """Return a table as a notebook shows it: without index, numbers to the right.

    Parameters
    ----------
    table : DataFrame
    source : str
        Where its numbers come from, shown below it and over each of them; see `sources_said`.
    """
    from IPython.display import HTML

    shown = tabular.in_columns(table).style.hide().format(escape="html")
    sides = {True: "text-align: right", False: "text-align: left"}
    alike = [
        {"selector": f".col{place}", "props": sides[pd.api.types.is_numeric_dtype(table[name])]}
        for place, name in enumerate(table)
    ]
    shown = shown.set_table_styles(alike)  # type: ignore[arg-type]
    # Not the Styler itself: its repr has an address, and its ids are random.
    # Ids that differ from table to table and not from time to time.
    uuid = hashlib.sha256(table.to_csv().encode()).hexdigest()[:8]
    attributes = 'class="dataframe"'
    if source:
        said = html.escape(f"from {printable(source)}")
        shown = shown.set_caption(f"<span>{said}</span>")
        attributes += f' title="{said}"'
    page = shown.set_table_attributes(attributes).set_uuid(uuid).to_html()
    return HTML(page)  # type: ignore[no-untyped-call]


def told(table: pd.DataFrame, otherwise: str) -> HTML | Markdown:
    """Return a table as `styled`, or in place of one without rows a sentence that says why."""
    from IPython.display import Markdown

    return styled(table) if len(table) else Markdown(otherwise)  # type: ignore[no-untyped-call]


def figure(drawn: Figure, alt: str) -> Image:
    """Return a figure as a notebook shows it, with words for those who do not see it.

    Parameters
    ----------
    drawn : Figure
        It is closed.
    alt : str
        What it shows, with the numbers that matter.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Image

    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=144, bbox_inches="tight", metadata={"Software": None})
    plt.close(drawn)
    data = buffer.getvalue()
    (width,) = struct.unpack(">I", data[16:20])  # of the IHDR chunk, which is always the first
    return Image(data, alt=printable(alt), width=width // 2)  # type: ignore[no-untyped-call]


def in_words(table: pd.DataFrame, label: str, *values: str) -> str:
    """Say a table's rows in words, for a figure that draws them: ``a: 1 x, 2 y; b: ...``."""
    rows = [
        f"{row[label]}: " + ", ".join(f"{cell(row[value])} {value}" for value in values)
        for row in table.to_dict("records")
    ]
    return "; ".join(rows) + "."


def text(parts: list[Section], title: str, width: int | None = None) -> str:
    """Set the report for a mail or a terminal: prose within 72 columns, tables as wide as they are.

    Parameters
    ----------
    parts : list of Section
    title : str
    width : int, optional
        Columns of a terminal that tables are cut to.

    Returns
    -------
    str
        Plain text, ending in a newline, free of control characters.
    """
    lines = [*textwrap.wrap(printable(title), WIDTH), ""]
    for part in parts:
        lines += [part.title, "-" * len(part.title), ""]
        for paragraph in part.words:
            lines += [*wrapped(paragraph), ""]
        if part.table is not None:
            lines += [*table_lines(part.table, width), *_sources_lines(part), ""]
        if part.commands:
            lines += [*command_lines(part.commands), ""]
    return "\n".join(lines).rstrip() + "\n"


def sources_said(part: Section) -> str:
    """Say where a section's numbers come from, run by run; empty where it has none."""
    files: dict[str, list[str]] = {}
    for source in part.sources:
        run, _, file = source.rpartition("/")
        files.setdefault(run, []).append(file)
    alike: dict[str, list[str]] = {}
    for run, names in files.items():
        alike.setdefault(", ".join(names), []).append(run)
    return "; ".join(f"{', '.join(same)}: {names}" for names, same in alike.items())


def _sources_lines(part: Section) -> list[str]:
    said = sources_said(part)
    return wrapped(f"(from {said})") if said else []


def wrapped(words: str, width: int = WIDTH) -> list[str]:
    """Set a paragraph within 72 columns, no word broken, and no number parted from its per cent."""
    kept = printable(words).replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(kept, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


# A word for the shell, its quotes never broken, and an option of papermill with what it sets.
_SHELL_WORD = re.compile(r"""-p \S+ (?:'[^']*'|[^\s'])+|(?:'[^']*'|"[^"]*"|[^\s'"])+""")


def command_lines(commands: list[str]) -> Iterator[str]:
    """Set commands so that a shell takes them as they stand, on as many lines as they need."""
    for command in commands:
        lines = [""]
        for word in _SHELL_WORD.findall(command):
            if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH - 6:
                lines.append("")
            lines[-1] += f" {word}" if lines[-1] else word
        for number, line in enumerate(lines):
            end = " \\" if number + 1 < len(lines) else ""
            yield ("    " if number == 0 else "        ") + line + end


def title(run: Run) -> str:
    """Return the report's title."""
    return f"anonvma: {answer.workload_of(run)} on {kernel_of(run)}"


def in_markdown(words: str) -> str:
    """Return words so that Markdown shows them as they are, and makes nothing of them."""
    shown = re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", printable(words))
    return shown.replace("&", "&amp;").replace("://", r":\//")


def markdown(part: Section) -> str:
    """Return a section's words, without its table, for a notebook."""
    words = [f"## {in_markdown(part.title)}", *map(in_markdown, part.words)]
    if part.commands:
        words.append("```sh\n" + "\n".join(command_lines(part.commands)) + "\n```")
    if part.table is None and part.sources:
        words.append(f"*from {in_markdown(sources_said(part))}*")
    return "\n\n".join(words)
