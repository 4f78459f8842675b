# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from anonvma.cli.completion import Target

Command = TypeVar("Command", bound=Callable[..., None])

target = click.option(
    "--target", "where", type=Target(), default="local", show_default=True, help="Where to look."
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
into = click.option(
    "--into", type=click.Path(path_type=Path), help="Where runs go; data/runs by default."
)


def pids(help_: str) -> Callable[[Command], Command]:
    """Return the option that names processes."""
    return click.option("--pid", "pids", type=click.IntRange(1), multiple=True, help=help_)
