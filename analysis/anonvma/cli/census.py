# SPDX-License-Identifier: GPL-2.0-only
"""A census of a target, now."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from anonvma.base import scratch
from anonvma.cli import options
from anonvma.cli.group import main
from anonvma.cli.probing import require_privilege
from anonvma.collect import targets
from anonvma.probe.vmaprobe import Vmaprobe

if TYPE_CHECKING:
    import pandas as pd

    from anonvma.probe.census_file import Census


@main.command()
@options.pids("Only this process; may be repeated.")
@options.as_json
@click.option(
    "--most", default=15, show_default=True, type=click.IntRange(0), help="Processes listed."
)
@options.target
def census(pids: tuple[int, ...], as_json: bool, most: int, where: str) -> None:
    """Bare VMAs of all processes, or of some, and their anon_vmas, right now.

    Needs root, or sudo without a password, on the target.
    """
    found = _take_census(where, pids)
    from anonvma.base.section import Section
    from anonvma.base.tabular import terminal_width
    from anonvma.report import anon_vma_report, answer, layout
    from anonvma.tables import census as tables_of

    tables = {
        "by_class": tables_of.by_class(found.vmas).reset_index(),
        "by_origin": tables_of.by_origin(found.vmas).reset_index(),
        "by_process": tables_of.by_process(found.vmas, most).reset_index(),
    }
    own = found.vmas["tgid"].isin(_own(found, where))
    if as_json:
        click.echo(json.dumps(_census_json(found, tables), indent=2))
        return
    tables = {name: _without_other(table) for name, table in tables.items()}
    heads = ("Bare VMAs by class", "Anonymous VMAs by origin", "Address spaces with most bare VMAs")
    said = []
    if own.any():
        tables["by_process"] = _marked(tables["by_process"], _own(found, where))
        said = [
            f"{int(own.sum()):,} of the VMAs are of this command itself, marked * where listed."
        ]
    wholes = tables_of.wholes(found.vmas, most)
    parts = [
        Section(head, said if name == "by_process" else [], table, whole=wholes[name])
        for head, (name, table) in zip(heads, tables.items(), strict=True)
    ]
    parts.append(anon_vma_report.section(found.chains, found.slabs, found.vmas))
    lost = tables_of.losses(found.losses)
    lost = lost[lost["count"] > 0]
    said = [f"{row.count} {row.lost}" for row in lost.itertuples(index=False)]
    parts.append(Section("Lost while reading", said or ["Nothing."]))
    if beware := tables_of.alarm(found.vmas):
        said = [answer.alarm_said(beware)]
        parts.insert(0, Section("Not as on any kernel known", said))
    heading = (
        f"{len(found.vmas):,} VMAs of {len(found.mms):,} address spaces, "
        f"Linux {found.header['release']}"
    )
    click.echo(layout.text(parts, heading, terminal_width()), nl=False)


def _without_other(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the class of what cannot be told where there is none: the table fits 80 columns."""
    return table.drop(columns="other") if "other" in table and not table["other"].any() else table


def _own(found: Census, where: str) -> set[int]:
    """Return the processes of this very command: itself, where it looks at its own machine."""
    probes = found.vmas.loc[found.vmas["comm"] == "vmaprobe", "tgid"]
    return {int(tgid) for tgid in probes} | ({os.getpid()} if where == "local" else set())


def _marked(table: pd.DataFrame, own: set[int]) -> pd.DataFrame:
    """Mark the rows of this command's own processes."""
    names = [
        f"{comm} *" if tgid in own else comm
        for comm, tgid in zip(table["comm"], table["tgid"], strict=True)
    ]
    return table.assign(comm=names)


def _take_census(where: str, pids: tuple[int, ...]) -> Census:
    """Take a census of a target now, of all processes or of some."""
    with targets.parse(where) as there, scratch.directory("observe") as directory:
        require_privilege(there)
        output = there.place("census")
        Vmaprobe(there).census(output, pids)
        local = directory / "census"
        there.pull(output, local)
        from anonvma.probe import census_file

        return census_file.read(local)


def _census_json(found: Census, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    from anonvma.tables import anon_vmas
    from anonvma.tables import census as tables_of

    beware = tables_of.alarm(found.vmas)
    return {
        "release": found.header["release"],
        "vmas": len(found.vmas),
        "mms": len(found.mms),
        "pages_how": found.header["pages_how"],
        "alarm": beware._asdict() if beware else None,
        "losses": found.losses,
        "anon_vma": anon_vmas.total(found.chains)._asdict(),
        "anon_vma_needed_for": anon_vmas.by_need(found.chains, found.vmas)["anon_vmas"].to_dict(),
        "slabs": json.loads(found.slabs.to_json(orient="records")),
        **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
    }
