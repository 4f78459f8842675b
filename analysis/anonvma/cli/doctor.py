# SPDX-License-Identifier: GPL-2.0-only
"""What a target's kernel allows."""

from __future__ import annotations

import json
import textwrap

import click

from anonvma.base import paths
from anonvma.base.errors import AnonvmaError, SetupError
from anonvma.cli import options
from anonvma.cli.group import main
from anonvma.collect import targets
from anonvma.probe.vmaprobe import Vmaprobe
from anonvma.target import target


@main.command()
@options.target
@options.as_json
def doctor(where: str, as_json: bool) -> None:
    """What the target's kernel allows, with the reason and the remedy where it does not.

    It also tells its regime, that is which lock page faults take there, by taking some.
    """
    from anonvma.collect import regime

    try:
        paths.program("vmaprobe")
    except SetupError as error:
        _survey(where, as_json, error)
        return
    with targets.parse(where) as there:
        privileged = _can_be_privileged(there)
        found = Vmaprobe(there, privileged=privileged).features()
        seen = regime.observe(there) if privileged else regime.NO_PRIVILEGE
    if as_json:
        click.echo(json.dumps({**found, "regime": seen._asdict(), "notes": there.notes}, indent=2))
        return
    user = "root" if found["root"] else "not root"
    click.echo(f"Linux {found['kernel']} ({found['arch']}), {user}")
    for name, feature in found["features"].items():
        _echo(name, "yes" if feature["available"] else "no", feature["what"])
        for words in (feature["how"], feature["reason"]):
            if words:
                _echo("", "", words)
        if feature["remedy"]:
            _echo("", "", f"remedy: {feature['remedy']}")
    _echo("regime", "", f"{seen.name or 'unknown'}: {seen.evidence}")
    for note in there.notes:
        _echo("", "", note)


def _echo(name: str, verdict: str, words: str) -> None:
    """Print a line of the table, wrapped where a terminal has no room for it."""
    from anonvma.base.tabular import terminal_width  # pandas, which --help need not wait for

    head = f"{name:22} {verdict:4} "
    width = terminal_width()
    lines = textwrap.wrap(words, max(width - len(head), 20)) if width else [words]
    for number, line in enumerate(lines):
        click.echo(f"{head if number == 0 else ' ' * len(head)}{line}")


def _survey(where: str, as_json: bool, error: SetupError) -> None:
    """Say what can be known without the probe, which needs a compiler to be built."""
    from anonvma.target import survey

    if where != "local":  # guests and far machines get the probe from here
        raise error
    with targets.parse(where) as here:
        found = survey.without_probe(here)
    unknown = (
        f"{error} Only the probe can say the rest, such as which lock page faults take here. "
        "Without a compiler 'anonvma demo' shows a report from recorded data."
    )
    if as_json:
        facts = {fact.name: {"has": fact.has, "what": fact.said} for fact in found}
        click.echo(json.dumps({"without_probe": facts, "unknown": unknown}, indent=2))
        return
    for fact in found:
        _echo(fact.name, "yes" if fact.has else "no", fact.said)
    click.echo(f"anonvma: {unknown}", err=True)


def _can_be_privileged(there: target.Target) -> bool:
    """Whether the target gives us privilege; doctor reports either way."""
    try:
        there.require_privilege()
    except AnonvmaError as error:
        click.echo(f"anonvma: {error} What follows is what you can do without.", err=True)
        return False
    return True
