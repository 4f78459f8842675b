# SPDX-License-Identifier: GPL-2.0-only
"""How a study ends: its conditions side by side, and its report.

The report stays with the user; ``anonvma publish STUDY-DIRECTORY`` makes one that may be posted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from anonvma.base import marker, tabular
from anonvma.base.errors import RunError
from anonvma.base.section import Section
from anonvma.compare import attribution, changes, counts
from anonvma.report import html_page, layout
from anonvma.report import output as output_module
from anonvma.run.runs import Run
from anonvma.study.matrix import Cell, Study
from anonvma.study.runner import Outcome


def write(study: Study, outcome: Outcome) -> Path | None:
    """Write the report of a study, and return the directory it is in; None without any run.

    ``report.txt`` for a mail, ``report.html``, one self-contained page, and ``comparison.csv``, one
    row a measure and condition. What was there before is replaced at once.
    """
    if not outcome.runs:
        return None
    place = outcome.directory / "report"
    parts, heading = sections(study, outcome), f"anonvma: study {study.name}"
    with marker.replacing(place) as partial:
        (partial / "report.txt").write_text(
            layout.text(parts, heading, split=layout.COLUMNS), encoding="utf-8"
        )
        (partial / "report.html").write_text(_page(parts, heading), encoding="utf-8")
        _tidy(study, outcome).to_csv(partial / "comparison.csv", index=False)
    return place


def sections(study: Study, outcome: Outcome) -> list[Section]:
    """Say what was run, what came of it, and what did not."""
    parts = [Section("What was run", _what_was_run(study, outcome))]
    for title, conditions in _groups(study, outcome).items():
        parts += _side_by_side(title, conditions)
    if outcome.failures:
        rows = list(outcome.failures.items())
        parts.append(Section("What is missing", [], pd.DataFrame(rows, columns=["job", "why"])))
    return parts


# ---- side by side ----


def _side_by_side(title: str, conditions: Mapping[str, Sequence[Run]]) -> list[Section]:
    """Return the comparison of conditions, each the mean of its runs, lowest and highest beside.

    Where there are two or more it says what changed, how sure that is, and which VMAs caused it.
    """
    ns = ", ".join(f"{len(found)} of {name}" for name, found in conditions.items())
    said = [f"Runs: {ns}. Mean [lowest run, highest run]."]
    try:
        table = counts.side_by_side(conditions)
        said += _explained(conditions)
    except RunError as error:  # such as a command, which has no throughput
        return [Section(title, [f"Not set side by side: {error}"])]
    table = table[table[list(conditions)].notna().any(axis=1)]
    shown = pd.DataFrame({"measure": table.index})
    for name in conditions:
        columns = (table[name], table[f"{name} low"], table[f"{name} high"])
        shown[name] = [_spread(*row) for row in zip(*columns, strict=True)]
    if len(conditions) > 1:
        shown["ratio"] = table["ratio"].to_numpy()
    return [Section(title, said, shown)]


def _explained(conditions: Mapping[str, Sequence[Run]]) -> list[str]:
    _, *heads = conditions
    if not heads:
        return []
    said = changes.of_primary(conditions)
    for head in heads:
        said += attribution.explain(conditions, head).sentences
    return said


# ---- what is compared ----


def _groups(study: Study, outcome: Outcome) -> dict[str, dict[str, list[Run]]]:
    """Return the runs of each condition, by what else they have in common, in the file's order."""
    found: dict[str, dict[str, list[Run]]] = {}
    for cell in sorted(study.cells, key=lambda cell: (cell.place, cell.repeat)):
        if cell.name in outcome.runs:
            group = found.setdefault(_setting(study, cell), {})
            group.setdefault(_condition(study, cell), []).append(outcome.runs[cell.name])
    return found


def _condition(study: Study, cell: Cell) -> str:
    axis = study.compare
    return "all" if axis is None else _named(axis, cell.axes.get(axis, "none"))


def _setting(study: Study, cell: Cell) -> str:
    """Return what a cell's group has in common, as its heading."""
    varied = {axis for axis, values in _axes(study).items() if len(values) > 1}
    words = [
        _named(axis, value)
        for axis, value in cell.axes.items()
        if axis != study.compare and (axis in varied or axis == "workload")
    ]
    return ", ".join(words)


def _named(axis: str, value: object) -> str:
    return str(value) if axis in ("workload", "kernel", "target") else f"{axis} {value}"


def _spread(mean: float, low: float, high: float) -> str:
    if np.isnan(mean) or low == high:
        return tabular.cell(mean)
    return f"{tabular.cell(mean)} [{tabular.cell(low)}, {tabular.cell(high)}]"


def _tidy(study: Study, outcome: Outcome) -> pd.DataFrame:
    """Return the comparison for a program: setting, condition, measure, n, mean, low, high."""
    rows = []
    for setting, conditions in _groups(study, outcome).items():
        try:
            table = counts.side_by_side(conditions)
        except RunError:
            continue
        for name in conditions:
            for measure, row in table.iterrows():
                rows.append(
                    {
                        "setting": setting,
                        "condition": name,
                        "measure": measure,
                        "n": row[f"{name} n"],
                        "mean": row[name],
                        "low": row[f"{name} low"],
                        "high": row[f"{name} high"],
                    }
                )
    return pd.DataFrame(rows)


# ---- words ----


def _what_was_run(study: Study, outcome: Outcome) -> list[str]:
    done, wanted = len(outcome.runs), len(study.cells)
    varied = "; ".join(f"{axis}: {', '.join(values)}" for axis, values in _axes(study).items())
    repeats = max(cell.repeat for cell in study.cells)
    every = f"All {wanted:,}" if done == wanted else f"{done:,} of {wanted:,}"
    said = [
        f"{every} jobs are done, each a run of its own: {varied}; "
        f"repeats: {repeats}. Settings in random order, what is compared next to each other, in "
        "the opposite order in every other repeat."
    ]
    facts = [run.manifest.target for run in outcome.runs.values()]
    machines = sorted({_machine(target) for target in facts})
    said.append(f"Machines: {'; '.join(machines)}.")
    said += sorted({note for run in outcome.runs.values() for note in run.manifest.notes})
    return said


def _axes(study: Study) -> dict[str, list[str]]:
    """Return the values of each axis, in the file's order."""
    found: dict[str, list[str]] = {}
    for cell in sorted(study.cells, key=lambda cell: cell.place):
        for axis, value in cell.axes.items():
            if str(value) not in found.setdefault(axis, []):
                found[axis].append(str(value))
    return found


def _machine(target: Mapping[str, object]) -> str:
    words = f"{target['kind']}, Linux {target['kernel_release']}, {target['cpus']} CPUs"
    return f"{words} ({target['accel']})" if target.get("accel") else words


def _page(parts: Sequence[Section], heading: str) -> str:
    """Return the report as a page like that of a notebook, of which only outputs are shown."""
    book = nbformat.v4
    cells = [book.new_markdown_cell(f"# {heading}")]  # type: ignore[no-untyped-call]
    for part in parts:
        cells.append(book.new_markdown_cell(layout.markdown(part)))  # type: ignore[no-untyped-call]
        if part.table is not None:
            html = str(output_module.styled(part.table).data)
            output = book.new_output("display_data", {"text/html": html})  # type: ignore[no-untyped-call]
            cells.append(book.new_code_cell("", outputs=[output]))  # type: ignore[no-untyped-call]
    return html_page.page(book.new_notebook(cells=cells), heading)  # type: ignore[no-untyped-call]
