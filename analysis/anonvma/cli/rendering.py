# SPDX-License-Identifier: GPL-2.0-only
"""A run and its report, measured here or recorded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anonvma.base import paths
from anonvma.base.paths import short
from anonvma.cli import options
from anonvma.cli.bar import Bar
from anonvma.cli.completion import RunName, WorkloadName
from anonvma.cli.group import given_in, main

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from anonvma.base.steps import Tell
    from anonvma.run.runs import Run


# ---- the report ----


@main.command(name="report")
@options.target
@click.option(
    "--workload",
    type=WorkloadName(),
    default="small-allocs-mt",
    show_default=True,
    help="A case of vmload, a command, or pid:NUMBER.",
)
@click.option("--threads", default=2, show_default=True, help="Tasks of a case.")
@click.option(
    "--bytes", "size", default="800m", show_default=True, help="Bytes of a case, over all tasks."
)
@click.option("--unit", help="Bytes of one mapping of a case; by default the case's own.")
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(1), help="How often it runs."
)
@click.option(
    "--seconds", default=5.0, show_default=True, help="How long a running process is watched."
)
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
@click.option(
    "--cost", "budget", default=30.0, show_default=True, type=click.FloatRange(0),
    help="Seconds for what mmap_lock costs here, as 'anonvma cost'; 0 leaves it out.",
)  # fmt: skip
@click.pass_context
def report_command(
    context: click.Context, /, where: str, size: str, budget: float, **others: Any
) -> None:
    """Run the workload, here or on another target, take the census, and print answer and cost.

    Runs 01-collect (for the workload and for the specimens), 02-census, 03-faults and
    06-report through papermill, and the experiment of `anonvma cost`. Here that needs
    root, or sudo without a password.
    """
    from anonvma.base import termination
    from anonvma.collect import preflight

    values = {"target": where, "trace": True, "bytes": size, **others}
    given = {"bytes" if name == "size" else name for name in given_in(context)}
    given -= {"where", "budget"}
    preflight.collection(values, given, prefix="--")
    parameters = {name: values[name] for name in ("target", "workload", *given)}
    specimens = {"target": where, "workload": "specimens"}
    from anonvma.report import (
        notebooks,  # brings papermill, which what is refused need not wait for
    )

    with (
        termination.scratch() as scratch,
        Bar({**_COLLECTING, "cost": budget / 3, **_RENDERING}) as bar,
        notebooks.one_kernel(),
    ):
        run = _collect(scratch / "01-collect.ipynb", parameters, bar.of("collecting"))
        made = _collect(scratch / "01-collect-specimens.ipynb", specimens, bar.of("specimens"))
        cost = _measure(run, where, budget, bar.of("cost")) if budget else None
        _render(run, made, scratch, None, run.path / "report", bar, cost)


# How much work each notebook is, roughly; measured with the default workload.
_COLLECTING = {"collecting": 12.0, "specimens": 3.0}
_RENDERING = {"02-census": 1.0, "03-faults": 2.0, "04-profile": 2.0, "06-report": 2.0}


def _collect(output: Path, parameters: dict[str, Any], tell: Tell) -> Run:
    from anonvma.report import notebooks
    from anonvma.run.runs import Run

    notebook = notebooks.execute("01-collect", output, parameters, tell)
    tell(1, "done")
    return Run.open(notebooks.result(notebook)["run"])


def _measure(run: Run, where: str, budget: float, tell: Tell) -> Run:
    """Measure what mmap_lock costs there: of the same case if it is one, else of the usual one."""
    from anonvma.collect import targets
    from anonvma.collect.workload import cases
    from anonvma.study import cost_experiment

    name = run.manifest.workload.name
    usual = cost_experiment.Plan.workload
    plan = cost_experiment.Plan(workload=name if name in cases() else usual, budget_s=budget)
    with targets.parse(where) as there:
        found = cost_experiment.measure(there, plan, progress=tell)
    tell(1, "done")
    return found


def _render(
    run: Run,
    made: Run,
    scratch: Path,
    note: str | None,
    place: Path,
    bar: Bar,
    cost: Run | None = None,
) -> None:
    """Run the other notebooks, put everything in its place at once, and print the answer."""
    from anonvma.base import marker
    from anonvma.report import cost_report, layout, notebooks, run_report
    from anonvma.report.html_page import page
    from anonvma.report.subject import Subject

    def execute(name: str, given: dict[str, Any]) -> NotebookNode:
        tell = bar.of(name)
        done = notebooks.execute(name, scratch / f"{name}.ipynb", given, tell)
        tell(1, "done")
        return done

    shared = {"run": str(run.path), "specimens": str(made.path)}
    execute("02-census", shared)
    if {"faults", "fault_events", "locks"} <= set(run.manifest.tables):
        execute("03-faults", shared)
    if {"samples", "perf_stat", "perf_intervals", "faults"} <= set(run.manifest.tables):
        profiled = {"run": str(run.path), "base": None, "head": None}
        execute("04-profile", profiled)
    measured = {"cost": str(cost.path)} if cost else {}
    notebook = execute("06-report", {**shared, "note": note, **measured})
    parts = run_report.sections(run, made, note, cost=cost)
    heading = run_report.title(run)
    (scratch / "report.txt").write_text(
        layout.text(parts, heading, split=layout.COLUMNS), encoding="utf-8"
    )
    fragments = Subject({run.id: [run]}, made).fragments()
    html = page(notebook, heading, fragments=fragments)
    (scratch / "report.html").write_text(html, encoding="utf-8")
    with marker.replacing(place) as partial:
        shutil.copytree(scratch, partial, dirs_exist_ok=True)
        partial.chmod(0o755)  # the scratch directory is for us alone
    click.echo()
    click.echo(layout.text(parts[:1], heading))
    if cost:
        click.echo(layout.text(cost_report.brief(cost), "").lstrip())
        click.echo(f"{'cost':10} {short(cost.path)}")
    for what, where in (
        ("text", place / "report.txt"),
        ("HTML", place / "report.html"),
        ("run", run.path),
        ("specimens", made.path),
    ):
        click.echo(f"{what:10} {short(where)}")


@main.command()
@click.option(
    "--run",
    "name",
    type=RunName("census"),
    default="small-allocs-mt",
    show_default=True,
    help="A recorded run.",
)
def demo(name: str) -> None:
    """The same report from recorded data: no root, no compiler, nothing measured here."""
    from anonvma.base import termination
    from anonvma.report import notebooks
    from anonvma.run import runs

    run, made = runs.find(name), runs.find("specimens")
    note = (
        f"This report was rendered from recorded data ({run.id}, collected "
        f"{run.manifest.created:%Y-%m-%d}): nothing in it was measured on this machine."
    )
    place = paths.runs().parent / "demo"
    place.parent.mkdir(parents=True, exist_ok=True)
    with termination.scratch() as scratch, Bar(_RENDERING) as bar, notebooks.one_kernel():
        _render(run, made, scratch, note, place, bar)


@main.command()
@click.argument("run", type=RunName())
@click.argument("name")
def record(run: str, name: str) -> None:
    """Copy RUN, without its raw files, to data/recorded/NAME.

    RUN is a run's directory, its name in data/runs, or "latest"; or the directory of a survey of
    kernels, of which the outcomes are kept, in NAME.parquet.
    """
    from anonvma.compare import outcomes
    from anonvma.run import jobs, runs, writer

    if jobs.is_survey(Path(run)):
        click.echo(short(outcomes.record(outcomes.find(run), name)))
        return
    click.echo(short(writer.record(runs.find(run), name).path))
