# SPDX-License-Identifier: GPL-2.0-only
"""What a message answers: found in a file, or by its id with b4, and quoted."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path

from anonvma.base import bounded, scratch
from anonvma.base.errors import MailError
from anonvma.report import headers
from anonvma.report.headers import MESSAGE_ID, addresses, text, unusable
from anonvma.report.mail_file import LARGEST, is_charset, moment, read_all


@dataclasses.dataclass(frozen=True)
class Answered:
    """The message that is answered, as far as it is known.

    Attributes
    ----------
    message_id : str
        With its angle brackets.
    references : tuple of str
        Those that it has itself, oldest first.
    subject, author, date : str
        Empty where unknown.
    to, cc : tuple of str
        Whom the answer goes to: its author, then everyone who had it.
    quoted : str
        What of it is answered.
    note : str
        What the user ought to know of how it was found; empty if nothing.
    """

    message_id: str
    references: tuple[str, ...] = ()
    subject: str = ""
    author: str = ""
    date: str = ""
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    quoted: str = ""
    note: str = ""

    def above(self) -> str:
        """Return the lines that stand above the answer: who wrote when, and what."""
        if not self.quoted.strip():
            return ""
        when = f"On {self.date}, " if self.date else ""
        head = f"{when}{self.author or 'somebody'} wrote:"
        lines = [*textwrap.wrap(head, 72), *(_quoted(line) for line in self.quoted.splitlines())]
        return "\n".join(lines) + "\n\n"


def _quoted(line: str) -> str:
    shown = "".join(c if c.isprintable() or c == "\t" else "?" for c in line)
    if not shown.strip():
        return ">"
    return f">{shown}" if shown.startswith(">") else f"> {shown}"


def answered(reply_to: str, quote: Path | None = None) -> Answered:
    """Return what is answered: a message, and the lines of it that are quoted.

    Parameters
    ----------
    reply_to : str
        A message id; or a file with one message, saved from a mail reader or as mbox.
    quote : path, optional
        The lines to quote; or a file of messages in which the one of that id is, all of which is
        then quoted. Where only the id is known and b4 is at hand, the rest is looked up by it.

    Raises
    ------
    MailError
        When there is no such message.
    """
    if Path(reply_to).is_file():
        return _from(_only(Path(reply_to)), quote)
    wanted = _message_id(reply_to)
    if quote is not None:
        for message in read_all(quote):
            if text(message, "Message-ID") == wanted:
                return _from(message, None)
        return _known_by_id(wanted, quote)
    return _from(_by_b4(wanted), None)


def _known_by_id(wanted: str, quote: Path) -> Answered:
    """Return what b4 knows of a message, or else its id, with the lines that are quoted."""
    try:
        return _from(_by_b4(wanted), quote)
    except MailError as error:
        note = f"To, Cc and Subject of what is answered are unknown, and yours to give ({error})"
        return Answered(wanted, quoted=_text_of(quote), note=note)


def _message_id(text: str) -> str:
    match = MESSAGE_ID.fullmatch(f"<{text.strip().strip('<>')}>")
    if match is None:
        raise MailError(
            f"{text!r:.90} is neither a file nor a message id, which looks like <a@b.c>."
        )
    return match[0]


def _from(message: EmailMessage, quote: Path | None) -> Answered:
    identity = MESSAGE_ID.search(text(message, "Message-ID"))  # a comment may stand beside it
    if identity is None:
        raise MailError(
            "the message to answer has no Message-ID that could stand in an answer, such as "
            "<a@b.c>, so nothing can refer to it."
        )
    named = (MESSAGE_ID.findall(text(message, name)) for name in ("References", "In-Reply-To"))
    earlier = next(filter(None, named), [])
    authors = addresses(message, "Reply-To") or addresses(message, "From")
    left_out = [why for name in ("Reply-To", "From", "To", "Cc") for why in unusable(message, name)]
    body, unread = ("", "") if quote else _body_of(message)
    return Answered(
        message_id=identity[0],
        references=tuple(dict.fromkeys(earlier)),
        subject=text(message, "Subject"),
        author=_name_of(message),
        date=_date_of(message),
        to=tuple(authors),
        cc=tuple(addresses(message, "To") + addresses(message, "Cc")),
        quoted=_text_of(quote) if quote else _without_signature(body),
        note=" ".join(filter(None, [_left_out(left_out), _undated(message), unread])),
    )


def _left_out(why: Sequence[str]) -> str:
    return f"left out of To and Cc: {' '.join(dict.fromkeys(why))}" if why else ""


def _name_of(message: EmailMessage) -> str:
    pairs = getaddresses(addresses(message, "From"))
    return pairs[0][0] or pairs[0][1] if pairs else ""


def _date_of(message: EmailMessage) -> str:
    written = moment(headers.raw(message, "Date"))
    return written.strftime("%a, %b %d, %Y at %I:%M:%S%p %z").strip() if written else ""


def _undated(message: EmailMessage) -> str:
    if _date_of(message):
        return ""
    date = headers.raw(message, "Date").strip()
    return f"what it gives as its Date, {date!r:.60}, is none." if date else "it has no Date."


def _body_of(message: EmailMessage) -> tuple[str, str]:
    """Return the text of a message, and what could not be read of it."""
    part = message.get_body(("plain",))
    payload = part.get_payload(decode=True) if part is not None else None
    if part is None or not isinstance(payload, bytes):
        return "", "it has no plain text to quote."
    named = part.get_content_charset() or "utf-8"
    charset = named if is_charset(named) else "utf-8"
    body = payload.decode(charset, errors="replace").replace("\r\n", "\n")
    note = f"its charset, {named!r:.40}, is unknown here, and read as UTF-8." * (charset != named)
    if "\ufffd" in body:
        note += f" {body.count(chr(0xFFFD))} places of its text are not {charset}."
    return body, note.strip()


def _without_signature(text: str) -> str:
    return re.split(r"^-- $", text, maxsplit=1, flags=re.M)[0].strip("\n")


def _text_of(file: Path) -> str:
    try:
        return bounded.read(file, LARGEST).decode("utf-8", errors="replace").strip("\n")
    except OSError as error:
        raise MailError(f"cannot read {file}: {error.strerror}.") from None


def _only(file: Path) -> EmailMessage:
    messages = read_all(file)
    if len(messages) != 1:
        raise MailError(
            f"{file} has {len(messages)} messages: say which one by --reply-to MESSAGE-ID --quote "
            f"{file}."
        )
    return messages[0]


def _by_b4(wanted: str) -> EmailMessage:
    """Fetch the thread of a message with the user's b4, and return the message."""
    if shutil.which("b4") is None:
        raise MailError(
            f"to answer {wanted} without its text, b4 has to be installed: save the message and "
            "give it as --reply-to FILE, or give the lines to quote by --quote FILE."
        )
    with scratch.directory("b4") as directory:
        argv = ["b4", "mbox", "--outdir", str(directory), "--mbox-name", "thread", "--"]
        argv.append(wanted.strip("<>"))
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        file = next((path for path in directory.iterdir() if path.is_file()), None)
        if done.returncode or file is None:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise MailError(f"b4 mbox {wanted} brought nothing: {said[-1] if said else 'silence'}.")
        for message in read_all(file):
            if text(message, "Message-ID") == wanted:
                return message
    raise MailError(f"the thread that b4 fetched has no message {wanted}.")
