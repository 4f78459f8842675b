# SPDX-License-Identifier: GPL-2.0-only
"""What may be posted, and whether a list would take it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anonvma.base import paths
from anonvma.base.errors import MailError
from anonvma.base.paths import short
from anonvma.base.text import printable
from anonvma.cli.completion import Publishable, RunName
from anonvma.cli.group import main

if TYPE_CHECKING:
    from anonvma.report import mail, mail_lint, publish


# ---- publishing ----


_PUBLISH_EXAMPLES = """\b
Examples:
  anonvma publish latest --to linux-mm@kvack.org
  anonvma publish 'early-small-allocs-mt-*..delayed-small-allocs-mt-*'
  anonvma publish latest --reply-to saved.eml --quote lines.txt --send
  anonvma publish latest --reply-to 20240426.1234@example.org    (asks b4 for it)
"""


_NO_ADDRESS = (
    "the mail cannot say where to get anonvma: set ANONVMA_URL to its https address, or "
    "Repository under [project.urls] in pyproject.toml."
)


@main.command(name="publish", epilog=_PUBLISH_EXAMPLES)
@click.argument("names", nargs=-1, required=True, type=Publishable(), metavar="RUN...")
@click.option(
    "--specimens",
    "made",
    type=RunName("specimens", "census"),
    help="A run of the specimens, shown with RUN.",
)
@click.option("--to", multiple=True, help="Whom the mail goes to; may be repeated.")
@click.option("--cc", multiple=True, help="Likewise, for information.")
@click.option("--from", "sender", help="Who sends it; by default who git says you are.")
@click.option("--subject", "heading", help="Instead of the report's title.")
@click.option("--reply-to", help="The message that is answered: its id, or a file that it is in.")
@click.option(
    "--quote",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The lines of it that are quoted above the answer, or a file with all of it.",
)
@click.option(
    "--allow",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What need not be withheld, one value a line.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Where it goes: a directory.")
@click.option("--send", "sending", is_flag=True, help="Show the mail, ask, and send it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.pass_context
def publish_command(
    context: click.Context,
    names: tuple[str, ...],
    made: str | None,
    to: tuple[str, ...],
    cc: tuple[str, ...],
    sender: str | None,
    heading: str | None,
    reply_to: str | None,
    quote: Path | None,
    allow: Path | None,
    output: Path | None,
    sending: bool,
    as_json: bool,
) -> None:
    """Render RUN as text, as a ready mail (.eml and mbox) and as one HTML page.

    RUN is a run's directory, its name, or "latest"; or a comparison, BASE..HEAD, each side a name
    with a wildcard for its runs. More than one RUN, or the directory of a study, which stands for
    all of its runs, make an index page and one mail that sums up; that of a study of kernels is one
    report, of what the newest changed.

    What names this machine, its users or what they run is withheld, and what was is listed here,
    on standard error, so that you can allow it, line by line, in the file of --allow.

    Nothing is sent without --send, and with it only by your own "git send-email", after the mail
    was shown and you said yes. Exit codes: 0 done; 1 failed, not sent, or written without a From;
    2 usage.
    """
    from anonvma.base import termination
    from anonvma.report import mail, publication, reply
    from anonvma.report import sending as sending_module

    if quote and not reply_to:
        raise click.UsageError("--quote needs --reply-to: what is it that you quote?")
    envelope = mail.Envelope(
        sender=mail.one_address(sender) if sender else sending_module.identity(),
        to=tuple(map(mail.one_address, to)),
        cc=tuple(map(mail.one_address, cc)),
        subject=heading,
        reply=reply.answered(reply_to, quote) if reply_to else None,
    )
    if envelope.reply and envelope.reply.note:
        click.echo(f"anonvma: {envelope.reply.note}", err=True)
    if sending:
        _refuse_unsendable(envelope)
    else:
        envelope.around("", "")  # headers that cannot be are told now, and not when all is rendered
    place = output or publication.default_output(names)
    publication.check_output(place)
    from anonvma.report import publish  # slow to import, and not needed until now

    with termination.scratch() as scratch:
        done = publish.write(names, scratch, envelope, output=place, made=made, allow=allow)
    _tell(done, as_json)
    sent = sending and _send(done)
    if as_json:
        click.echo(json.dumps({**_published_json(done), "sent": sent}, indent=2))
    if envelope.sender is None:  # the complaint that says so is an error, with its remedy
        context.exit(1)


def _tell(done: publish.Published, as_json: bool) -> None:
    """Say what was withheld, what a list would complain about, and where the files are."""
    from anonvma.report import identities

    for name, value in done.withheld.items():
        click.echo(f"anonvma: withheld {name}: {printable(value)}", err=True)
    if paths.project_url() is None:
        click.echo(f"anonvma: {_NO_ADDRESS}", err=True)
    for kind, name in identities.common_names():
        click.echo(
            f"anonvma: not withheld: the {kind} {printable(name)!r}, a word that any "
            "report may have; see yourself where it stands.",
            err=True,
        )
    for complaint in done.complaints:
        click.echo(f"anonvma: {complaint.level}: {complaint.sentence}", err=True)
    if not as_json:
        click.echo(f"{'answer':10} {', '.join(one.verdict.value for one in done.rendered)}")
        for kind, file in done.files.items():
            click.echo(f"{kind:10} {short(file)}")


def _refuse_unsendable(envelope: mail.Envelope) -> None:
    """Refuse to send what cannot be sent, whatever its text will be."""
    from anonvma.report import mail_lint
    from anonvma.report import sending as sending_module

    _refuse_complaints(mail_lint.check(envelope.around("Nothing yet.\n", "anonvma").as_bytes()))
    if not sys.stdin.isatty():
        raise MailError("not sent: --send asks first, and standard input is no terminal.")
    sending_module.can_send()


def _refuse_complaints(complaints: list[mail_lint.Complaint]) -> None:
    if refused := [one.sentence for one in complaints if one.level == "error"]:
        raise MailError(f"not sent, since a list would refuse it: {refused[0]}")


def _send(done: publish.Published) -> bool:
    """Show the mail, ask, and hand it to git; what a list would refuse is not sent."""
    from anonvma.report import mail_file as mail_file_module
    from anonvma.report import sending as sending_module

    _refuse_complaints(done.complaints)
    message = mail_file_module.parse(done.files["eml"].read_bytes())
    # As it is sent; as_string() would have base64 for a body with a single µ.
    click.echo_via_pager(message.as_bytes().decode(errors="replace"))
    click.echo(f"From: {message['From']}\nTo: {message['To']}\nCc: {message['Cc'] or ''}", err=True)
    if not click.confirm(f"Send {done.files['eml'].name} to these by git send-email?", err=True):
        click.echo("anonvma: not sent.", err=True)
        return False
    sending_module.send(done.files["eml"])
    click.echo("anonvma: sent.", err=True)
    return True


def _published_json(done: publish.Published) -> dict[str, Any]:
    from anonvma.report.publish import withheld_from

    return {
        "files": {kind: str(file) for kind, file in done.files.items()},
        "reports": [{"title": one.title, "answer": one.verdict.value} for one in done.rendered],
        "withheld": withheld_from(done.rendered),
        "complaints": [dataclasses.asdict(one) for one in done.complaints],
    }


@main.command(
    name="lint",
    epilog="\b\nExample:\n  anonvma lint report.eml && git send-email report.eml",
)
@click.argument("mail_file", metavar="MAIL", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.pass_context
def lint_command(context: click.Context, mail_file: str, as_json: bool, strict: bool) -> None:
    """What a kernel list would complain about in MAIL, a message or an mbox.

    Errors are what a list refuses or readers cannot use: HTML, attachments, format=flowed, control
    characters, headers that are missing or smuggled in, text that cannot be decoded, threading
    that is broken, more than 95 kB. Warnings are what somebody would remark upon: prose wider than
    75 columns, tables wider than 80, more than 40 kB, long quotations, an answer above them.

    Exit codes: 0 nothing but warnings; 1 errors; 2 usage.
    """
    from anonvma.base import bounded
    from anonvma.report import mail_file as mail_file_module
    from anonvma.report import mail_lint

    found = []
    try:
        data = bounded.read(Path(mail_file), 256 << 20)
    except OSError as error:
        raise MailError(f"cannot read {mail_file}: {error.strerror}.") from None
    for message in mail_file_module.split(data):
        found += mail_lint.check(message)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        for one in found:
            where = f"{mail_file}:{one.line}" if one.line else mail_file
            click.echo(f"{where}: {one.level}: {one.sentence} [{one.rule}]")
    if any(one.level == "error" or strict for one in found):
        context.exit(1)
