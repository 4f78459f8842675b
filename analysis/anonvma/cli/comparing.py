# SPDX-License-Identifier: GPL-2.0-only
"""Conditions side by side."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from anonvma.base.paths import short
from anonvma.cli import options
from anonvma.cli.completion import Pattern, WorkloadName
from anonvma.cli.group import given_in, main

if TYPE_CHECKING:
    import pandas as pd

    from anonvma.base.section import Section
    from anonvma.run.runs import Run
    from anonvma.study.pair import Plan


# ---- two kernels ----


@main.command()
@click.option(
    "--boots", type=click.IntRange(1), help="How often each kernel is booted; else as it takes."
)
@click.option(
    "--precision", default=10.0, show_default=True,
    help="Boot until the ratio of throughputs is known to so many per cent.",
)  # fmt: skip
@click.option(
    "--budget", default=130.0, show_default=True, help="Seconds after which no boot is begun."
)
@click.option(
    "--cpus", type=click.IntRange(1, 255),
    help="Virtual CPUs; by default as many as there are real ones, 16 at most.",
)  # fmt: skip
@click.option(
    "--profile", is_flag=True, help="Profile them and make the specimens, too: some minutes more."
)
@click.option(
    "--also", multiple=True, type=click.Choice(["scaling", "bound"]),
    help="In each boot, too: other numbers of tasks, or both locks on one kernel.",
)  # fmt: skip
@options.into
@click.option(
    "--early", type=click.Path(path_type=Path), help="Image instead of make kernels' own."
)
@click.option("--delayed", type=click.Path(path_type=Path), help="Likewise.")
def pair(
    boots: int | None,
    precision: float,
    budget: float,
    cpus: int | None,
    profile: bool,
    also: tuple[Literal["scaling", "bound"], ...],
    into: Path | None,
    early: Path | None,
    delayed: Path | None,
) -> None:
    """What the early check costs: the mail's two kernels as guests, in three minutes.

    Boots the two kernels that `make kernels` built, in turns, until the ratio of their throughputs
    is known well enough or the budget is spent. Each boot runs a reading workload with four tasks
    per virtual CPU; the first also traces faults and mmap_lock, and runs a writing workload. Then
    05-compare is executed on these runs, and the ratio and its cause are printed. Runs that exist
    already are kept.

    \b
    Examples:
      anonvma pair
      anonvma pair --profile --also scaling --boots 6
      anonvma pair --cpus 8 --into data/runs/overcommitted
    """  # noqa: D301  # click wants the character
    from anonvma.base import paths, termination
    from anonvma.base.tabular import terminal_width
    from anonvma.collect import targets
    from anonvma.report import layout, notebooks
    from anonvma.study.pair import Plan, collect_pair, kernels

    images = {"early": early, "delayed": delayed}
    chosen = {name: path for name, path in images.items() if path}
    if len(chosen) < len(images):
        chosen = {**kernels(), **chosen}
    for image in chosen.values():
        targets.check(f"guest:{image}")
    traced = 3 if profile else 1
    plan = Plan(
        boots=boots, precision=precision / 100, budget_s=budget, profile=profile, traced=traced,
        also=also, **({} if cpus is None else {"cpus": cpus}),
    )  # fmt: skip
    place = into or paths.runs()
    collect_pair(chosen, place, plan, say=functools.partial(click.echo, err=True))
    with termination.scratch() as scratch, notebooks.one_kernel():
        for name, told in _notebooks_of(plan, place.resolve()).items():
            notebooks.execute(name, scratch / f"{name}.ipynb", told)
            shutil.copyfile(scratch / f"{name}.ipynb", place / f"{name}.ipynb")
            click.echo(f"{'notebook':10} {short(place / f'{name}.ipynb')}")
    click.echo(layout.text(_pair_sections(plan, place), "", terminal_width()).rstrip())


def _notebooks_of(plan: Plan, place: Path) -> dict[str, dict[str, Any]]:
    """Return the notebooks that show a pair, each with its parameters."""

    def both(pattern: str) -> list[str]:
        return [str(place / pattern.format(name)) for name in ("early", "delayed")]

    reading = both(f"{{}}-{plan.reading.name}-*")
    told: dict[str, Any] = {"base": reading[0], "head": reading[1]}
    told["control"] = both(f"{{}}-{plan.writing.name}-*")
    told["overcommitted"] = None
    told["scaled"] = both("scaling-{}-*") if "scaling" in plan.also else None
    told["profiled"] = both("{}-profile-*") if plan.profile else None
    found = {"05-compare": told}
    if plan.profile:
        base, head = both("{}-profile-*")
        found["04-profile"] = {"base": base, "head": head}
    return found


def _pair_sections(plan: Plan, place: Path) -> list[Section]:
    """Return what is told of a pair in the end: counts, then the ratio and its cause."""
    from anonvma.base.section import Section
    from anonvma.compare import attribution, changes, counts
    from anonvma.run import runs

    parts = []
    for load in (plan.writing, plan.reading):
        names = ("early", "delayed")
        found = {name: runs.find_all(f"{place}/{name}-{load.name}-*") for name in names}
        table = counts.side_by_side(found)[[*names, "ratio"]].reset_index()
        said = changes.of_primary(found)
        parts.append(Section(load.name, said, table))
    why = attribution.explain(found)
    return [*parts, Section("What the early check costs here", [*said, *why.sentences])]


# ---- conditions side by side ----


@main.command(name="compare")
@click.argument("patterns", nargs=-1, required=True, type=Pattern(), metavar="BASE HEAD [MORE...]")
@click.option(
    "--condition",
    "aspects",
    multiple=True,
    help="What may differ besides the kernel: machine, workload, parameters; may be repeated.",
)
@click.option(
    "--metric", "--headline", "metric", help="The metric it is about; by default the throughput."
)
@click.option("--all", "every", is_flag=True, help="Every row, not only what changed.")
@click.option("--lkp", "as_lkp", is_flag=True, help="The kernel test robot's table, and only that.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("--tsv", "as_tsv", is_flag=True, help="Every row, tab-separated.")
@click.option("--exit-code", is_flag=True, help="Tell by the exit code whether it moved.")
@click.pass_context
def compare_command(
    context: click.Context,
    patterns: tuple[str, ...],
    aspects: tuple[str, ...],
    metric: str | None,
    every: bool,
    as_lkp: bool,
    as_json: bool,
    as_tsv: bool,
    exit_code: bool,
) -> None:
    """What changed between conditions, how sure that is, and which VMAs caused it.

    Each of BASE, HEAD, ... names the runs of one condition: NAME=PATTERN, or a pattern alone, which
    may be a path; * stands for anything. The first is the base that the others are
    compared with. A single argument is the directory of an experiment. The unit is the run, so a
    condition needs at least two for an interval, and three to find much.

    Runs that differ in machine, workload or parameters are refused, unless --condition says that
    this difference is what is compared.

    \b
    Examples:
      anonvma compare 'early-small-allocs-mt-*' 'delayed-small-allocs-mt-*'
      anonvma compare --lkp data/runs/nightly
      anonvma compare --condition parameters 'two=t2-*' 'four=t4-*' --all

    \b
    Exit codes: 0 done; 1 failed, 2 usage. With --exit-code also
      10 the primary metric changed
      11 it cannot be told: too few runs, or an interval wider than 3 %
    """  # noqa: D301  # click wants the character
    from anonvma.compare import changes, conditions, lkp

    if sum((as_lkp, as_json, as_tsv)) > 1:
        raise click.UsageError("--lkp, --json and --tsv exclude each other.")
    found = conditions.find(patterns)
    conditions.check(found, aspects)
    rows = changes.table(found)
    first = changes.primary_of(rows, metric)
    kept = changes.with_primary(rows, metric) if every else changes.shown(rows, metric)
    if as_lkp:
        click.echo(lkp.of_runs(found, kept["metric"]), nl=False)
    elif as_tsv:
        click.echo(rows.to_csv(sep="\t", index=False), nl=False)
    elif as_json:
        click.echo(json.dumps(_compare_json(found, rows, first, metric), indent=2))
    else:
        _show_comparison(found, kept, metric)
    if exit_code:
        verdicts = set(first["verdict"])
        moved = verdicts & set(changes.CHANGED)
        unsure = verdicts - {changes.Verdict.EQUIVALENT}
        context.exit(10 if moved else 11 if unsure else 0)


def _show_comparison(found: dict[str, list[Run]], kept: pd.DataFrame, metric: str | None) -> None:
    from anonvma.base.section import Key
    from anonvma.base.tabular import terminal_width
    from anonvma.compare import changes
    from anonvma.report import changes as report_changes
    from anonvma.report import layout

    parts = report_changes.sections(found, metric)
    place = next(i for i, part in enumerate(parts) if part.key is Key.CHANGED)
    heading = f"anonvma: {', '.join(found)} side by side"
    click.echo(layout.text(parts[:place], heading, terminal_width()))
    words = dataclasses.replace(parts[place], table=None)
    click.echo(layout.text([words], "").lstrip())
    click.echo(changes.text(kept, terminal_width()))
    click.echo(layout.text(parts[place + 1 :], "", terminal_width()).lstrip(), nl=False)


def _compare_json(
    found: dict[str, list[Run]], rows: pd.DataFrame, first: pd.DataFrame, metric: str | None
) -> dict[str, Any]:
    from anonvma.compare import attribution, conditions, design, environment, reference

    _, *heads = found
    causes = {head: attribution.explain(found, head, metric) for head in heads}
    return {
        "conditions": {name: [run.id for run in each] for name, each in found.items()},
        "interleaved": design.interleaving(found)[0],
        "primary": _records(first),
        "rows": _records(rows),
        "causes": {
            head: {
                "verdict": why.verdict,
                "bare_share": why.bare_share,
                "unexplained_share": why.unexplained_share,
                "sentences": why.sentences,
                "rows": _records(why.table),
                "waits": _records(why.waits),
            }
            for head, why in causes.items()
        },
        "differences": _records(conditions.differences(found)),
        "environment": _records(environment.differences(found)),
        "mail": {head: _records(reference.beside(found, head)) for head in heads},
    }


def _records(table: pd.DataFrame) -> Any:
    return json.loads(table.to_json(orient="records"))


@main.command(name="experiment")
@click.argument("into", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--condition",
    "texts",
    multiple=True,
    metavar="NAME=TARGET[;KEY=VALUE...]",
    help="One of what is compared, the first one the base; at least two.",
)
@click.option(
    "--workload",
    type=WorkloadName(),
    default="small-allocs-mt",
    show_default=True,
    help="As for report.",
)
@click.option("--threads", default=2, show_default=True, help="Tasks of a case.")
@click.option("--bytes", "size", default="200m", show_default=True, help="Bytes of a case.")
@click.option("--unit", help="Bytes of one mapping of a case.")
@click.option(
    "--order", type=click.Choice(["abba", "random"]), default="abba", show_default=True,
    help="Order of the conditions in each block.",
)  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Seed of the random order.")
@click.option(
    "--warmups",
    default=1,
    show_default=True,
    help="Warm-up runs of each condition, which do not count.",
)
@click.option("--least", default=3, show_default=True, help="Fewest blocks.")
@click.option("--most", default=10, show_default=True, help="Most blocks.")
@click.option(
    "--precision", default=2.0, show_default=True,
    help="Stop when the primary metric's ratio is known to so many per cent; 0: never.",
)  # fmt: skip
@click.option("--budget", type=float, help="Seconds after which no block is begun.")
@click.option("--repeats", default=2, show_default=True, help="Executions of the workload per run.")
@click.option("--metric", "--headline", "metric", help="The metric whose ratio decides.")
@click.option(
    "--no-trace", is_flag=True, help="Do not trace: faster, but then no cause can be named."
)
def experiment_command(
    into: Path,
    texts: tuple[str, ...],
    workload: str,
    threads: int,
    size: str,
    unit: str | None,
    precision: float,
    budget: float | None,
    no_trace: bool,
    **plan: Any,
) -> None:
    """Run conditions in turns until the difference is known well enough, into INTO.

    The unit is the run; for a guest, the boot. Each block runs every condition once, in ABBA or in
    random order; warm-ups come first and do not count. Started again with the same options, it
    resumes where it was interrupted. Then: anonvma compare INTO.

    What sets a condition apart follows its target: workload, threads, bytes, unit, touch, or busy,
    the number of processes that each burn a CPU beside it.

    \b
    Examples:
      anonvma experiment data/runs/pair \\
        --condition early=guest:build/kernels/early/bzImage \\
        --condition delayed=guest:build/kernels/delayed/bzImage --bytes 16m
      anonvma experiment data/runs/tasks \\
        --condition 'one=local;threads=1' --condition 'two=local;threads=2'
      anonvma experiment data/runs/aa --condition a=local --condition b=local

    Needs root, or sudo without a password, on every target. Exit codes: as anonvma.
    """  # noqa: D301  # click wants the character
    from anonvma.collect import preflight, targets
    from anonvma.compare import design
    from anonvma.study import experiment

    shared = {"workload": workload, "threads": threads, "bytes": size, "unit": unit}
    known = [experiment.parse_condition(text, shared) for text in texts]
    if len(known) < 2:
        raise click.UsageError("at least two --condition are needed.")
    given = {"bytes" if name == "size" else name for name in given_in(click.get_current_context())}
    for condition in known:
        targets.check(condition.target)
        given &= set(preflight.ignored(experiment.workload_of(condition)))  # by every one of them
    preflight.refuse_ignored(experiment.workload_of(known[0]), given, prefix="--")
    wanted = design.Plan(
        conditions=known, precision=precision / 100 or None, budget_s=budget, **plan
    )
    experiment.run(wanted, into, trace=not no_trace, say=lambda text: click.echo(text, err=True))
    click.echo(f"{'runs':10} {short(into.resolve())}")


@main.command(name="scaling")
@click.argument("patterns", nargs=-1, required=True, type=Pattern(), metavar="NAME=PATTERN...")
@options.as_json
def scaling_command(patterns: tuple[str, ...], as_json: bool) -> None:
    """Throughput and waits for mmap_lock against the number of tasks, and the serial share.

    Each NAME=PATTERN names the runs of one kernel, with different numbers of threads.

    \b
    Example:
      anonvma scaling 'scaling-early-*' 'scaling-delayed-*'
    """  # noqa: D301  # click wants the character
    from anonvma.base.section import Section
    from anonvma.base.tabular import terminal_width
    from anonvma.compare import conditions, scaling
    from anonvma.report import layout

    found = conditions.find(patterns)
    table, fits = scaling.by_threads(found), scaling.fit(scaling.points(found))
    said = scaling.said(fits) + scaling.caveats(found)
    if as_json:
        told = {"by_threads": _records(table), "fit": _records(fits), "sentences": said}
        click.echo(json.dumps(told, indent=2))
        return
    parts = [
        Section("The serial share", said, fits.drop(columns=["n", "tasks"])),
        Section("By number of tasks", ["Throughput in MiB/s; waits in ms."], table),
    ]
    click.echo(layout.text(parts, "anonvma: scaling", terminal_width()), nl=False)
