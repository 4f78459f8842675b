# SPDX-License-Identifier: GPL-2.0-only
"""Studies, and questions to all runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anonvma.base import paths
from anonvma.base.paths import short
from anonvma.cli.group import main

if TYPE_CHECKING:
    import pandas as pd


# ---- studies, and all runs ----


@main.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="STUDY.YAML")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and run nothing.")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Go on after a job that failed by itself; a lost or late target never stops the others.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Hosts used at a time; by default all of them."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line for what happens.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The study's directory; data/runs/NAME by default.",
)
@click.option(
    "--profile",
    metavar="DIR",
    help="A profile of Snakemake, for a cluster: data/studies/slurm is one.",
)
def batch(
    file: Path,
    dry_run: bool,
    keep_going: bool,
    jobs: int | None,
    as_json: bool,
    output: Path | None,
    profile: str | None,
) -> None:
    """Carry out a study: every job of a matrix that is not done yet, then its report.

    STUDY.YAML multiplies targets, kernels, workloads, parameters and repeats; data/studies has
    examples, and a README with every key. A job is an execution of 01-collect through papermill;
    its run, its executed notebook and its log are kept together in DIR/cells/NAME.

    Snakemake runs one job at a time on each host. Whatever ends it, Ctrl-C or kill -9, the same
    command again goes on where it was: what is done, with the same notebook, parameters, programs,
    kernel and tables, is not done again.

    \b
    anonvma batch data/studies/pair.yaml --dry-run
    anonvma batch data/studies/pair.yaml
    anonvma batch data/studies/kernels.yaml && anonvma publish data/runs/kernels
    anonvma batch nightly.yaml --output data/runs/nightly/$(date +%F)

    Exit codes: 0 every job is done; 1 some are not; 2 the study is wrong; 130 interrupted.
    """  # noqa: D301
    from anonvma.study import matrix, progress

    wanted = matrix.read(file)
    place = output or paths.runs() / wanted.name
    if dry_run:
        progress.show_plan(wanted, place, as_json)
        return
    raise SystemExit(
        progress.carry_out(wanted, place, as_json, keep_going, jobs, _absolute(profile))
    )


def _absolute(profile: str | None) -> str | None:
    """Return a profile's directory by its path, for Snakemake looks from elsewhere."""
    return str(Path(profile).resolve()) if profile and Path(profile).is_dir() else profile


def _of_runs(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that what asks all runs shares."""
    for add in (
        click.option("--json", "as_json", is_flag=True, help="JSON instead of a table."),
        click.option(
            "--in",
            "roots",
            type=click.Path(path_type=Path),
            multiple=True,
            metavar="DIR",
            help="Where the runs are; data/runs by default; may be repeated.",
        ),
    ):
        function = add(function)
    return function


def _say_damaged(damaged: Sequence[str]) -> None:
    for sentence in damaged:
        click.echo(f"anonvma: left out: {sentence}", err=True)


def _show_table(table: pd.DataFrame, form: str, optional: Sequence[str] = ()) -> None:
    """Print a table: for people, or as JSON, CSV or TSV, numbers as they are."""
    from anonvma.base import tabular

    if form == "json":
        click.echo(table.to_json(orient="records", date_format="iso"))
    elif form in ("csv", "tsv"):
        separator = "," if form == "csv" else "\t"
        click.echo(table.to_csv(sep=separator, index=False), nl=False)
    else:
        click.echo("\n".join(tabular.lines(table, tabular.terminal_width(), optional)))


@main.command(name="runs")
@_of_runs
@click.option("--check", is_flag=True, help="Hash every table too, as opening the run does.")
def runs_command(roots: tuple[Path, ...], as_json: bool, check: bool) -> None:
    """List all runs, oldest first.

    Exit codes: 0 listed; 1 some are damaged, and named on standard error.
    """
    from anonvma.study.store import Store

    with Store(roots, check=check) as store:
        table = store.runs()
        _say_damaged(store.damaged)
    if not as_json:
        table["created"] = table["created"].dt.strftime("%Y-%m-%d %H:%M")
        shown = ["created", "run", "workload", "threads", "bytes", "repeats", "kernel_release"]
        table = table[shown]
    _show_table(table, "json" if as_json else "text", ("repeats", "threads", "bytes"))
    if store.damaged:
        raise SystemExit(1)


@main.command()
@_of_runs
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated, numbers as they are.")
@click.option("--tsv", "as_tsv", is_flag=True, help="Likewise, tab-separated.")
@click.argument("sql", required=False)
@click.option(
    "--memory", default="1GB", show_default=True, help="What DuckDB may use before it takes disk."
)
def query(
    roots: tuple[Path, ...],
    as_json: bool,
    as_csv: bool,
    as_tsv: bool,
    sql: str | None,
    memory: str,
) -> None:
    """Answer a query in SQL over the tables of all runs, which may be larger than memory.

    There is a view for each table of data/README.md, of that name, with a column "run" more;
    "runs", one row per run; and "headlines" (run, metric, value). Without SQL they are listed. Runs
    are only read: nothing else can be reached by a query, and nothing be written. A table that is
    not what its run's manifest says is left out, and named on standard error.

    \b
    anonvma query "select kernel_release, avg(value) from headlines join runs using (run)
                   where metric = 'vm-scalability.throughput' group by all"
    anonvma query --csv "select run, origin, sum(count) from faults group by all" > faults.csv
    """  # noqa: D301
    from anonvma.study.store import Store
    from anonvma.study.store_views import views

    if as_json + as_csv + as_tsv > 1:
        raise click.UsageError("--json, --csv and --tsv exclude each other.")
    form = "json" if as_json else "csv" if as_csv else "tsv" if as_tsv else "text"
    if sql is None:
        _show_table(views(), form)
        return
    with Store(roots, memory=memory) as store:
        try:
            found = store.query(sql)
        finally:
            _say_damaged(store.damaged)
        _show_table(found, form)


@main.command()
@_of_runs
@click.option("--metric", "metrics", multiple=True, help="Of the view headlines; may be repeated.")
@click.option("--chart", type=click.Path(path_type=Path), help="A PNG or SVG to draw it into.")
def trend(
    roots: tuple[Path, ...], as_json: bool, metrics: tuple[str, ...], chart: Path | None
) -> None:
    """The primary metrics of accumulated runs over time, and where they changed.

    Runs of the same workload, parameters and machine are a series. A change is a cut between runs
    whose difference of ranks is as large in at most 1 % of random orders of the same runs.

    \b
    anonvma trend --in data/runs/nightly --chart trend.png

    data/studies/README.md has a line for cron, and a systemd timer, that collect every night.
    """  # noqa: D301
    from anonvma.study import trend as trends
    from anonvma.study.store import Store

    with Store(roots) as store:
        try:
            rows = trends.series(store, metrics or trends.METRICS)
        finally:
            _say_damaged(store.damaged)
    found = trends.changes(rows)
    if chart:
        trends.draw(rows, found, chart)
    if as_json:
        series = json.loads(rows.to_json(orient="records", date_format="iso"))
        changed = json.loads(found.to_json(orient="records", date_format="iso"))
        click.echo(json.dumps({"runs": series, "changes": changed}, indent=2))
        return
    click.echo(trends.text(rows, found), nl=False)
    if chart:
        click.echo(f"\n{'chart':10} {short(chart.resolve())}")
