# SPDX-License-Identifier: GPL-2.0-only
"""The message: one text, as RFC 5322 has it, new or in answer to another.

A kernel list takes plain text in UTF-8 and nothing else: no HTML, no attachment, no format=flowed,
lines as they were written. A reply has ``Re: `` before the subject, In-Reply-To and References, all
who had the message it answers in To and Cc, and what it answers above the answer.
"""

from __future__ import annotations

import codecs
import dataclasses
import datetime
import email
import mailbox
import re
import secrets
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses, parsedate_to_datetime
from pathlib import Path

from anonvma.base import bounded, scratch
from anonvma.base.errors import MailError
from anonvma.report import headers
from anonvma.report.headers import POLICY, address, addresses, options, text

__all__ = [
    "Answered",
    "Envelope",
    "answered",
    "can_send",
    "compose",
    "read_all",
    "send",
    "to_mbox",
]


# Python's own notations, which RFC 2978 does not know; some refuse what cannot be decoded.
_NO_CHARSET = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
# In an mbox: at its beginning, or after a blank line and with a time, for prose begins so, too.
_BETWEEN = re.compile(rb"(?:\AFrom [^\n]*\n|(?<=\n)\r?\nFrom [^\n]*\d:\d\d[^\n]*\n)(?=[\w-]+:)")
_LARGEST = 256 << 20  # of a file of messages: a list's whole month
_ID = re.compile(r"<[^\s<>@]+@[^\s<>@]+>")


# ---- what is answered ----


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
    match = _ID.fullmatch(f"<{text.strip().strip('<>')}>")
    if match is None:
        raise MailError(f"{text!r} is neither a file nor a message id, which looks like <a@b.c>.")
    return match[0]


def _from(message: EmailMessage, quote: Path | None) -> Answered:
    identity = text(message, "Message-ID")
    if not _ID.fullmatch(identity):
        raise MailError("the message to answer has no Message-ID, so nothing can refer to it.")
    earlier = _ID.findall(text(message, "References")) or _ID.findall(text(message, "In-Reply-To"))
    authors = addresses(message, "Reply-To") or addresses(message, "From")
    left_out = [
        spec for name in ("Reply-To", "From", "To", "Cc") for spec in options(message, name)
    ]
    return Answered(
        message_id=identity,
        references=tuple(dict.fromkeys(earlier)),
        subject=text(message, "Subject"),
        author=_name_of(message),
        date=_date_of(message),
        to=tuple(authors),
        cc=tuple(addresses(message, "To") + addresses(message, "Cc")),
        quoted=_text_of(quote) if quote else _without_signature(_body_of(message)),
        note=_left_out(left_out),
    )


def _left_out(specs: Sequence[str]) -> str:
    if not specs:
        return ""
    named = ", ".join(map(repr, dict.fromkeys(specs)))
    return f"left out of To and Cc, since to the programs that send mail it is an option: {named}."


def moment(date: str) -> datetime.datetime | None:
    """Return the moment that a Date header names, or None for what is no date."""
    try:
        return parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):  # as 99 Nov 999999999999
        return None


def _name_of(message: EmailMessage) -> str:
    pairs = getaddresses(addresses(message, "From"))
    return pairs[0][0] or pairs[0][1] if pairs else ""


def _date_of(message: EmailMessage) -> str:
    written = moment(headers.raw(message, "Date"))
    return written.strftime("%a, %b %d, %Y at %I:%M:%S%p %z").strip() if written else ""


def _body_of(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    if part is None:
        return ""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    charset = part.get_content_charset() or "utf-8"
    return payload.decode(charset if is_charset(charset) else "utf-8", errors="replace")


def is_charset(name: str) -> bool:
    """Tell whether a mail's text can be coded so: of Python's codecs, some code no text."""
    try:
        "".encode(name)
    except (LookupError, ValueError):  # none of that name, or none such as "hex"; or a NUL in it
        return False
    return codecs.lookup(name).name not in _NO_CHARSET


def _without_signature(text: str) -> str:
    return re.split(r"^-- $", text, maxsplit=1, flags=re.M)[0].strip("\n")


def _text_of(file: Path) -> str:
    try:
        return bounded.read(file, _LARGEST).decode("utf-8", errors="replace").strip("\n")
    except OSError as error:
        raise MailError(f"cannot read {file}: {error.strerror}.") from None


# ---- reading ----


def read_all(file: Path) -> list[EmailMessage]:
    """Return the messages of a file: one, or those of an mbox.

    Raises
    ------
    MailError
        When it cannot be read.
    """
    try:
        data = bounded.read(file, _LARGEST)
    except OSError as error:
        raise MailError(f"cannot read {file}: {error.strerror}.") from None
    return [parse(part) for part in split(data)]


def split(data: bytes) -> list[bytes]:
    """Return the messages of a file as they stand, the lines between those of an mbox left out."""
    parts = _BETWEEN.split(data)
    if len(parts) == 1:
        return parts
    parts[-1] = re.sub(rb"\n\n$", rb"\n", parts[-1])  # a blank line ends each
    return [re.sub(rb"^>(>*From )", rb"\1", part, flags=re.M) for part in parts[1:]]


def parse(data: bytes) -> EmailMessage:
    """Return a message as the standard library understands it."""
    message = email.message_from_bytes(data, policy=POLICY)
    assert isinstance(message, EmailMessage)
    return message


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


# ---- writing ----


def compose(
    body: str,
    *,
    subject: str,
    sender: str | None = None,
    to: Sequence[str] = (),
    cc: Sequence[str] = (),
    reply: Answered | None = None,
) -> EmailMessage:
    """Return the message.

    Parameters
    ----------
    body : str
        Our text.
    subject : str
        Of a new thread; a reply takes that of what it answers, unless that is unknown.
    sender : str, optional
        Who sends it, ``Name <address>``.
    to, cc : sequence of str
        Whom it goes to, besides those of what it answers.
    reply : Answered, optional

    Raises
    ------
    MailError
        When an address is none, or the message would have another header than these.
    """
    message = EmailMessage(policy=POLICY)
    author = one_address(sender) if sender else None
    first, others = list(reply.to if reply else ()), list(reply.cc if reply else ())
    everyone = _without_doubles(
        [*first, *map(one_address, to)], [*others, *map(one_address, cc)], author
    )
    lines = {
        "From": author,
        "To": ", ".join(everyone[0]),
        "Cc": ", ".join(everyone[1]),
        "Subject": _subject(subject, reply),
        "Date": format_datetime(datetime.datetime.now(datetime.UTC)),
        "Message-ID": _new_id(author),
    }
    if reply:
        lines["In-Reply-To"] = reply.message_id
        earlier = [known for known in reply.references if known != reply.message_id]
        lines["References"] = " ".join([*earlier, reply.message_id])
    meant = {name: value for name, value in lines.items() if value}
    headers.set_all(message, meant)
    above = reply.above() if reply else ""
    whole = above + body
    message.set_content(whole, cte="7bit" if whole.isascii() else "8bit")
    headers.verify(message.as_bytes(), meant)
    return message


@dataclasses.dataclass(frozen=True)
class Envelope:
    """What a message has besides its text; see `compose`."""

    sender: str | None = None
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    subject: str | None = None
    reply: Answered | None = None

    def around(self, body: str, title: str) -> EmailMessage:
        """Return the message; `title` is its subject where it has no other."""
        return compose(
            body,
            subject=self.subject or title,
            sender=self.sender,
            to=self.to,
            cc=self.cc,
            reply=self.reply,
        )


def _subject(subject: str, reply: Answered | None) -> str:
    if reply is None:
        return subject
    known = reply.subject or subject
    return known if known.lower().startswith("re:") else f"Re: {known}"


def one_address(text: str) -> str:
    """Return an address as it is written in a header.

    Raises
    ------
    MailError
        When it is none, or more than one.
    """
    pairs = getaddresses([text])
    if "\n" in text or "\r" in text or len(pairs) != 1 or "@" not in pairs[0][1]:
        raise MailError(f"{text!r} is not one mail address.")
    return address(*pairs[0])


def _without_doubles(
    to: Sequence[str], cc: Sequence[str], author: str | None
) -> tuple[list[str], list[str]]:
    """Name everyone once, and the author never."""
    seen = {_spec(author)} if author else set()
    kept: tuple[list[str], list[str]] = ([], [])
    for place, names in zip(kept, (to, cc), strict=True):
        for name in names:
            if _spec(name) not in seen:
                seen.add(_spec(name))
                place.append(name)
    return kept


def _spec(address: str) -> str:
    return getaddresses([address])[0][1].casefold()


def _new_id(author: str | None) -> str:
    """Return a message id in the sender's domain: the standard library's has the host's name."""
    domain = _spec(author).rpartition("@")[2] if author else "anonvma.invalid"
    now = datetime.datetime.now(datetime.UTC)
    return f"<{now:%Y%m%d%H%M%S}.{secrets.token_hex(6)}-anonvma@{domain}>"


def is_ours(message: EmailMessage) -> bool:
    """Tell whether anonvma made a message, by the shape of its id."""
    return bool(re.search(r"-anonvma@", text(message, "Message-ID")))


def to_mbox(message: EmailMessage, file: Path) -> None:
    """Write a message as an mbox of one."""
    file.unlink(missing_ok=True)
    box = mailbox.mbox(file)
    try:
        box.add(mailbox.mboxMessage(message.as_bytes()))
        box.flush()
    finally:
        box.close()


# ---- sending ----


def identity() -> str | None:
    """Return who sends mail from here, as git's configuration says; None where it does not.

    Git itself would make an address from the names of user and host, which are to stay here.
    """
    if sender := _configured("sendemail.from"):
        return sender
    name, spec = _configured("user.name"), _configured("user.email")
    return address(name, spec) if name and spec else None


def _configured(key: str) -> str:
    try:
        done = subprocess.run(["git", "config", "--get", key], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def send(file: Path) -> None:
    """Send a message by the user's own ``git send-email``, as it stands.

    Whoever calls this has shown it and asked.

    Raises
    ------
    MailError
        When git cannot send mail, or did not.
    """
    message = parse(file.read_bytes())
    argv = ["git", "send-email", "--confirm=never", "--no-chain-reply-to", "--no-thread"]
    # Whoever is to have it is in its To and Cc; nobody is guessed from its text.
    for kind in ("author", "body", "cccmd", "misc-by", "sob", "bodycc"):
        argv.append(f"--suppress-cc={kind}")
    if sender := text(message, "From"):
        argv.append(f"--from={sender}")
    argv += [f"--to={who}" for who in addresses(message, "To")]
    can_send()
    # It may ask for a password, so the terminal is its own.
    done = subprocess.run([*argv, str(file.resolve())])
    if done.returncode:
        raise MailError(
            f"git send-email ended with exit status {done.returncode}; what it said is above."
        )


def can_send() -> None:
    """Make sure that there is a ``git send-email``.

    Raises
    ------
    MailError
        When there is none.
    """
    try:
        done = subprocess.run(["git", "--exec-path"], capture_output=True, text=True)
    except FileNotFoundError:
        raise MailError("git is not installed, so nothing was sent.") from None
    if not (Path(done.stdout.strip()) / "git-send-email").exists():
        raise MailError("git cannot send mail here: install git-email; nothing was sent.")
