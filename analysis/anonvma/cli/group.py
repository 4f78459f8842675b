# SPDX-License-Identifier: GPL-2.0-only
"""The group that all commands belong to, and what several of them print."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from anonvma.base import termination
from anonvma.base.errors import AnonvmaError
from anonvma.base.nearest import nearest

if TYPE_CHECKING:
    import pandas as pd


# The commands by what they are for, in the order in which one comes to need them.
_PURPOSES = {
    "See this machine": ("doctor", "census", "faults", "locks"),
    "Run and report": ("report", "cost", "demo", "lab", "profile", "publish", "lint"),
    "Compare": ("pair", "experiment", "compare", "scaling"),
    "Keep many runs": ("runs", "query", "trend", "batch", "import", "record"),
}


class _Grouped(click.Group):
    """Lists its commands by purpose, and turns our errors into one sentence on stderr."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {name for names in _PURPOSES.values() for name in names}
        others = tuple(name for name in self.list_commands(context) if name not in listed)
        for purpose, names in {**_PURPOSES, "More": others}.items():
            known = [(name, self.get_command(context, name)) for name in names]
            # The first paragraph's first sentence, whole: click would cut it short.
            rows = [(name, _summary(command)) for name, command in known if command]
            if rows:
                with formatter.section(purpose):
                    formatter.write_dl(rows)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if words and self.get_command(context, words[0]) is None:
            near = nearest(words[0], self.list_commands(context))
            if near and not words[0].startswith("-"):
                context.fail(f"no such command {words[0]!r}: did you mean {near!r}?")
        return super().resolve_command(context, words)

    def invoke(self, context: click.Context) -> Any:
        try:
            with termination.interruptible():
                return super().invoke(context)
        except AnonvmaError as error:
            click.echo(f"anonvma: {error}", err=True)
            context.exit(error.exit_code)
        except MemoryError:
            click.echo("anonvma: there is not enough memory for this.", err=True)
            context.exit(1)
        except ImportError as error:
            click.echo(
                f"anonvma: {error.name or 'a module'} cannot be loaded: either ulimit -v leaves no "
                "room for it, or .venv is not whole and `make venv` completes it.",
                err=True,
            )
            context.exit(1)
        except UnicodeError:
            click.echo("anonvma: a word or a name that was given is not UTF-8.", err=True)
            context.exit(2)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read it has seen enough; click ends quietly
                raise
            _say_of_the_system(error)
            context.exit(1)
        except KeyboardInterrupt:  # of which click would make "Aborted!" and 1
            click.echo("anonvma: interrupted.", err=True)
            context.exit(130)


@click.group(cls=_Grouped, context_settings={"help_option_names": ["-h", "--help"]})
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

    Exit codes: 0 done; 1 failed; 2 usage; 3 no privilege; 4 this kernel is too old; 5 no such
    process, or it is gone; 130 interrupted. "faults" and "locks" end as their COMMAND does, with
    126 or 127 if it cannot be run; "compare --exit-code" has two of its own.
    """  # noqa: D301 (click wants the character)


def _say_of_the_system(error: OSError) -> None:
    """Say in one sentence what the system refused, such as a full disk."""
    where = error.filename or "writing the output"
    shown = os.fsencode(where).decode(errors="backslashreplace") if where else ""
    click.echo(f"anonvma: {shown}: {error.strerror or error}.", err=True)
    # What standard output would not take is not tried again at the end.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _summary(command: click.Command) -> str:
    """Return what a command is for: the first sentence of its help."""
    first = (command.help or "").strip().partition("\n\n")[0]
    return " ".join(first.split()).partition(". ")[0].rstrip(".") + "."


def json_of(header: dict[str, Any], tables: dict[str, pd.DataFrame]) -> str:
    """Return one JSON object: what is said first, then each table as a list of rows."""
    records = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    return json.dumps({**header, **records}, indent=2)


def given_in(context: click.Context) -> set[str]:
    """Return the names of the parameters that stand on the command line."""
    unasked = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return {name for name in context.params if context.get_parameter_source(name) not in unasked}
