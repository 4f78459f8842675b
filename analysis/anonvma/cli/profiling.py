# SPDX-License-Identifier: GPL-2.0-only
"""Where the time goes, in runs of ours and in anyone's files of perf."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from anonvma.base.errors import AnonvmaError
from anonvma.base.paths import short
from anonvma.cli import options
from anonvma.cli.completion import RunName
from anonvma.cli.group import json_of, main

if TYPE_CHECKING:
    import pandas as pd

    from anonvma.run.runs import Run


# ---- profiles ----


@main.command(name="import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.into
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="MiB that a file, and the text of a recording, may have; 4096 by default.",
)
def import_command(files: tuple[Path, ...], into: Path | None, limit: int | None) -> None:
    """Make a run of FILES of perf that were gathered without anonvma.

    FILES are a recording, as perf.data (a file, what a pipe wrote, or the directory of `perf record
    --threads`) or as the text of `perf script`, or the output of `perf stat` (plain, in any locale,
    -x, or -j, with or without -I, -A, -r and their like), or one of each. Which is which is told by
    what is in them. Executions that `perf stat --append` put into one file are repeats of the run.

    Every line of a text is accounted for: one that is not perf's own is named, and the file
    refused.

    A perf.data is read by the perf that is installed here, which is kept from starting and fetching
    anything; user programs' symbols are those found on this machine under the paths in the
    recording, the kernel's only if it is the one that runs. Recorded elsewhere? Its samples are
    all here; for its symbols import the text.

    \b
    Examples:
      anonvma import perf.data
      perf script > perf.txt; anonvma import perf.txt stat.json
      anonvma profile latest

    Exit codes: 0 done, the run's directory is printed; 1 a file is none of these, damaged or too
    large; 2 usage.
    """  # noqa: D301 (click knows a paragraph to be left alone by its backspace)
    from anonvma.collect.importing import LIMIT, import_files

    most = LIMIT if limit is None else limit << 20
    click.echo(short(import_files(files, into, most).path))


_WRITTEN_AS = {
    ".html": "an interactive flame graph",
    ".svg": "a flame graph",
    ".png": "a flame graph",
    ".folded": "folded stacks (flamegraph.pl, speedscope)",
    ".perf.txt": "for the Firefox profiler",
}


@main.command(name="profile")
@click.argument("run", type=RunName("samples"))
@click.option("--base", type=RunName("samples"), help="Another run, which it is compared with.")
@click.option("--event", help="Which of the events sampled; the one about time by default.")
@click.option("--below", help="In flame graphs, only what this function calls.")
@click.option(
    "--most", default=15, show_default=True, type=click.IntRange(0), help="Rows of each table."
)
@options.as_json
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write a file instead; its ending says what: " + ", ".join(_WRITTEN_AS) + ".",
)
def profile_command(
    run: str,
    base: str | None,
    event: str | None,
    below: str | None,
    most: int,
    as_json: bool,
    output: Path | None,
) -> None:
    """Where the time of RUN went: by purpose, by function, by call path.

    RUN is a run's directory, its name in data/recorded or data/runs, or "latest". With --base the
    same of another run stands beside it, and flame graphs are differential.

    \b
    Examples:
      anonvma profile latest
      anonvma profile latest -o flame.html
      anonvma profile delayed-profile-1 --base early-profile-1 -o diff.svg
      anonvma profile latest -o stacks.folded

    Exit codes: 0 done; 1 the run has no samples; 2 usage.
    """  # noqa: D301 (as above)
    from anonvma.base.section import Section
    from anonvma.base.tabular import terminal_width
    from anonvma.perf import profile
    from anonvma.report import layout
    from anonvma.run import runs

    opened = [runs.find(name, ["samples"]) for name in (run, base) if name]
    of = {each.id: each for each in opened}
    if output:
        _write_profile(list(of.values()), event, below, output)
        click.echo(short(output))
        return
    tables = profile.tables(of, event, most)
    if as_json:
        click.echo(json_of({"runs": list(of)}, tables))
        return
    parts = [
        Section(_TITLES[key], [], table.rename(columns=_in_per_cent(table)))
        for key, table in tables.items()
    ]
    said = profile.sentences(opened[0])
    parts.insert(0, Section("In short", said))
    click.echo(
        layout.text(parts, f"Where the time goes: {opened[0].id}", terminal_width()), nl=False
    )


_TITLES = {
    "purpose": "By purpose",
    "self": "By function, itself",
    "children": "By function and what it calls",
    "call_path": "By call path",
}


def _in_per_cent(table: pd.DataFrame) -> dict[str, str]:
    """Give each column of shares its unit."""
    shares = table.select_dtypes("float").columns
    return {name: f"{name} %" for name in shares if name not in ("n", "p")}


def _write_profile(found: list[Run], event: str | None, below: str | None, output: Path) -> None:
    from anonvma.perf import export, flame, profile

    name = output.name.lower()
    ending = next((end for end in _WRITTEN_AS if name.endswith(end)), None)
    if ending is None:
        known = ", ".join(f"{end} ({what})" for end, what in _WRITTEN_AS.items())
        raise click.UsageError(f"the ending of {output.name!r} says nothing; known are {known}.")
    this, *base = found
    names = (base[0].id if base else "", this.id)
    title = f"{this.id}, compared with {names[0]}" if base else this.id
    try:
        if ending == ".html":
            text = flame.interactive(
                this, *base, event=event, below=below, title=title, names=names
            )
            output.write_text(flame.page(text, title), encoding="utf-8")
        elif ending in (".svg", ".png"):
            axes = flame.plot(this, *base, event=event, below=below, title=title, names=names)
            axes.get_figure(root=True).savefig(output)  # type: ignore[union-attr]
        else:
            write = export.folded if ending == ".folded" else export.firefox
            first = next(iter(profile.of_run(this).values()))
            output.write_text(write(first, event), encoding="utf-8")
    except OSError as error:
        raise AnonvmaError(f"cannot write {output}: {error.strerror}.") from None
