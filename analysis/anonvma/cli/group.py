# SPDX-License-Identifier: GPL-2.0-only
"""The group that all commands belong to, and what several of them print."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anonvma.errors import AnonvmaError

if TYPE_CHECKING:
    import pandas as pd


class _Sentences(click.Group):
    """Turns our errors into one sentence on stderr."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except AnonvmaError as error:
            click.echo(f"anonvma: {error}", err=True)
            context.exit(error.exit_code)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("anonvma"), prog_name="anonvma")
def main() -> None:
    """Which VMAs have a NULL vm_ops and no anon_vma, and what that costs.

    \b
    A target is where to look:
      local          this machine
      guest:IMAGE    a kernel image, booted under QEMU; ,cpus=4 ,memory=4G ...
      ssh:HOST       a machine that "ssh HOST" reaches without asking:
                     ,sudo=no ,probe=PATH ,config=FILE ,patience=30 ,wait=3600
                     (see "Runs of other machines" in data/README.md)

    Exit codes: 0 done; 1 failed; 2 usage; 3 no privilege; 130 interrupted.
    """  # noqa: D301 (click wants the character)


def json_of(header: dict[str, Any], tables: dict[str, pd.DataFrame]) -> str:
    """Return one JSON object: what is said first, then each table as a list of rows."""
    records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return json.dumps({**header, **records}, indent=2)


def short(path: Path) -> str:
    """Return a path as it is shorter: from here, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
