# SPDX-License-Identifier: GPL-2.0-only
"""What mmap_lock costs on this kernel, without another one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from anonvma.base.paths import short
from anonvma.cli import options
from anonvma.cli.group import json_of, main
from anonvma.collect import targets

if TYPE_CHECKING:
    from anonvma.run.runs import Run


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers above 0, such as 1,2,4."""

    name = "LIST"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
            self.fail(f"{value!r} is no list of numbers above 0, such as 1,2,4.", param, context)
        return tuple(int(word) for word in words)


@main.command(name="cost")
@click.option("--workload", default="small-allocs-mt", show_default=True, help="A case of vmload.")
@click.option(
    "--threads",
    type=_Numbers(),
    help="Numbers of threads; by default 1, 2, 4, ... to twice the CPUs.",
)
@click.option(
    "--budget", default=60.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Seconds to spend, and a little more to trace.",
)  # fmt: skip
@click.option(
    "--precision", default=3.0, show_default=True,
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    help="Stop when each ratio is known to so many per cent.",
)  # fmt: skip
@click.option("--cpus", metavar="LIST", help="Run on these CPUs alone, such as 0-3,8.")
@click.option(
    "--against", type=click.Choice(["kernel", "user"]), default="kernel", show_default=True,
    help="Who touches first in the other way; user compares nothing with nothing.",
)  # fmt: skip
@options.target
@click.option(
    "--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw the ratio to this file."
)
@options.as_json
def cost_command(
    workload: str,
    threads: tuple[int, ...] | None,
    budget: float,
    precision: float,
    cpus: str | None,
    against: Literal["kernel", "user"],
    where: str,
    figure: Path | None,
    as_json: bool,
) -> None:
    """What sending page faults to mmap_lock costs on this kernel, as an early check does.

    Takes the same faults on the same mappings under either lock, in turns: a page that a system
    call touches first is faulted in kernel mode, which never takes a VMA's lock. No second kernel,
    no reboot; root only to trace who waits for mmap_lock, which is said where it is lacking.

    The ratio is throughput under the VMA's lock over that under mmap_lock, with an interval; those
    of all numbers of threads hold together at 95 %. As an estimate of the early check it is a lower
    bound: see analysis/workload/README.md.

    \b
    Examples:
      anonvma cost
      anonvma cost --threads 1,8,64 --budget 300 --figure cost.png
      anonvma cost --cpus 0-15 --json
      anonvma cost --against user
    """  # noqa: D301  # click wants the character
    from tqdm import tqdm

    from anonvma.compare import cost
    from anonvma.study import cost_experiment

    plan = cost_experiment.Plan(
        workload=workload, threads=threads, budget_s=budget, precision=precision / 100,
        cpus=cpus, against=against,
    )  # fmt: skip
    with (
        targets.parse(where) as there,
        tqdm(total=100, disable=None, bar_format="{desc:40} {bar} {percentage:3.0f}%") as bar,
    ):

        def show(share: float, text: str) -> None:
            bar.n = round(100 * share)
            bar.set_description_str(text)

        run = cost_experiment.measure(there, plan, progress=show)
    if figure is not None:
        drawn = cost.plot_by_threads(run).get_figure(root=True)
        assert drawn is not None
        drawn.savefig(figure, dpi=150)
    if as_json:
        click.echo(_json(run))
    else:
        _show(run, figure)


def _show(run: Run, figure: Path | None) -> None:
    from anonvma.report import cost_report, layout

    heading = f"anonvma cost: {cost_report.title(run)}"
    click.echo(layout.text(cost_report.sections(run), heading), nl=False)
    click.echo()
    click.echo(f"{'run':10} {short(run.path)}")
    if figure is not None:
        click.echo(f"{'figure':10} {short(figure.resolve())}")


def _json(run: Run) -> str:
    from anonvma.compare import cost, cost_bound
    from anonvma.report import cost_report

    found, bound = cost.of_run(run), cost_bound.recorded()
    header = {
        "run": run.id,
        "verdict": found.verdict.name.lower(),
        "judged_threads": found.judged,
        "pages": found.pages,
        "acquired_by_page_faults": found.acquired,
        "lock_paths_differ": found.paths_differ,
        "regime": run.manifest.features.get("regime"),
        "target": run.manifest.target,
        "unobserved": [each.model_dump() for each in run.manifest.unobserved],
        "on_the_pair": bound
        and {
            name: getattr(bound, name)._asdict() for name in ("lock_path", "early_check", "between")
        },
        "sentences": cost_report.sentences(found),
    }
    tables = {
        "by_threads": cost.by_threads(run).reset_index(),
        "switches": cost.switches(run).reset_index(),
    }
    for name in ("lock_cost", "lock_waits"):
        if name in run.manifest.tables:
            tables[name] = run.table(name)
    return json_of(header, tables)
