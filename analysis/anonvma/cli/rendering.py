# SPDX-License-Identifier: GPL-2.0-only
"""A run and its report, measured here or recorded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anonvma import places, target
from anonvma.cli.group import main, short

if TYPE_CHECKING:
    from anonvma.runs import Run


# ---- the report ----


@main.command(name="report")
@click.option(
    "--workload",
    default="small-allocs-mt",
    show_default=True,
    help="A case of vmload, a command, or pid:NUMBER.",
)
@click.option("--threads", default=2, show_default=True, help="Tasks of a case.")
@click.option(
    "--bytes", "size", default="800m", show_default=True, help="Bytes of a case, over all tasks."
)
@click.option("--unit", help="Bytes of one mapping of a case; by default the case's own.")
@click.option("--repeats", default=3, show_default=True, help="How often it runs.")
@click.option("--events", help="What perf stat counts beside the kernel's own events.")
@click.option(
    "--frequency", default=997, show_default=True, help="Samples a second of perf record."
)
@click.option(
    "--call-graph",
    default="fp",
    show_default=True,
    type=click.Choice(["fp", "dwarf", "lbr"]),
    help="How perf record finds callers.",
)
def report_command(
    workload: str,
    threads: int,
    size: str,
    unit: str | None,
    repeats: int,
    events: str | None,
    frequency: int,
    call_graph: str,
) -> None:
    """Run the workload here, take the census, and print the answer.

    Runs 01-collect (for the workload and for the specimens), 02-census, 03-faults and
    06-report through papermill. Needs root, or sudo without a password.
    """
    from anonvma import ending

    with target.parse("local") as here:
        here.require_privilege()
    parameters = {
        "target": "local",
        "workload": workload,
        "threads": threads,
        "bytes": size,
        "unit": unit,
        "repeats": repeats,
        "events": events,
        "frequency": frequency,
        "call_graph": call_graph,
    }
    with ending.scratch() as scratch:
        run = _collect(scratch / "01-collect.ipynb", parameters)
        made = _collect(
            scratch / "01-collect-specimens.ipynb", {"target": "local", "workload": "specimens"}
        )
        _render(run, made, scratch, None, run.path / "report")


def _collect(output: Path, parameters: dict[str, Any]) -> Run:
    from anonvma import notebooks
    from anonvma.runs import Run

    notebook = notebooks.execute("01-collect", output, parameters)
    return Run.open(notebooks.text_of_cell(notebook, "run-directory"))


def _render(run: Run, made: Run, scratch: Path, note: str | None, place: Path) -> None:
    """Run the other notebooks, put everything in its place at once, and print the answer."""
    from anonvma import notebooks, report
    from anonvma.page import page
    from anonvma.subject import Subject

    shared = {"run": str(run.path), "specimens": str(made.path)}
    notebooks.execute("02-census", scratch / "02-census.ipynb", shared)
    if {"faults", "fault_events", "locks"} <= set(run.manifest.tables):
        notebooks.execute("03-faults", scratch / "03-faults.ipynb", shared)
    if {"samples", "perf_stat", "perf_intervals", "faults"} <= set(run.manifest.tables):
        profiled = {"run": str(run.path), "base": None, "head": None}
        notebooks.execute("04-profile", scratch / "04-profile.ipynb", profiled)
    notebook = notebooks.execute("06-report", scratch / "06-report.ipynb", {**shared, "note": note})
    parts = report.sections(run, made, note)
    heading = report.title(run)
    (scratch / "report.txt").write_text(report.text(parts, heading), encoding="utf-8")
    fragments = Subject({run.id: [run]}, made).fragments()
    html = page(notebook, heading, fragments=fragments)
    (scratch / "report.html").write_text(html, encoding="utf-8")
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(scratch, partial)
    partial.chmod(0o755)  # the scratch directory is for us alone
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    click.echo()
    click.echo(report.text(parts[:1], heading))
    for what, where in (
        ("text", place / "report.txt"),
        ("HTML", place / "report.html"),
        ("run", run.path),
        ("specimens", made.path),
    ):
        click.echo(f"{what:10} {short(where)}")


@main.command()
@click.option("--run", "name", default="small-allocs-mt", show_default=True, help="A recorded run.")
def demo(name: str) -> None:
    """The same report from recorded data: no root, no compiler, nothing measured here."""
    from anonvma import ending, runs

    run, made = runs.find(name), runs.find("specimens")
    note = (
        f"This report was rendered from recorded data ({run.id}, collected "
        f"{run.manifest.created:%Y-%m-%d}): nothing in it was measured on this machine."
    )
    place = places.runs().parent / "demo"
    place.parent.mkdir(parents=True, exist_ok=True)
    with ending.scratch() as scratch:
        _render(run, made, scratch, note, place)


@main.command()
@click.argument("run")
@click.argument("name")
def record(run: str, name: str) -> None:
    """Copy RUN, without its raw files, to data/recorded/NAME.

    RUN is a run's directory, its name in data/runs, or "latest".
    """
    from anonvma import runs

    click.echo(short(runs.record(runs.find(run), name).path))
