# SPDX-License-Identifier: GPL-2.0-only
"""Lint: what a kernel list, or those who read it, would complain about in a message.

An *error* is what a list refuses or a reader cannot use: HTML, an attachment, a header that is
missing or was broken into, text that cannot be decoded, more than 95 kB. A *warning* is what
somebody would remark upon: wide prose, a long quotation, a reply that starts a thread.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import EmailMessage, MIMEPart

from anonvma.report import headers, mail, mail_file

PROSE = 75
TABLE = 80
WARN_BYTES, REFUSE_BYTES = 40_000, 95_000
QUOTED = 60  # lines in a row
_AHEAD = 2 * 86400  # seconds; a clock or a time zone may be wrong by a day
_FIRST_MAIL = 1971
_ONCE = ("from", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references")
_NEEDED = ("From", "To", "Subject", "Date", "Message-ID")
_REMEDIES = {
    "From": ": give --from 'NAME <ADDRESS>', or git your user.name and user.email",
    "To": ": give --to ADDRESS",
}
# Signed mail (RFC 1847: OpenPGP, S/MIME) has a part more, and often the key; lists pass it on.
_SIGNED = "multipart/signed"
_KEYS = "application/pgp-keys"
# C0 but tab and line feed, DEL, C1; then marks that turn or hide what follows.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069]")


@dataclasses.dataclass(frozen=True)
class Complaint:
    """One thing that somebody would complain about.

    Attributes
    ----------
    level : str
        ``error`` or ``warning``.
    rule : str
        Its name, for a script.
    line : int or None
        Of the file, from 1, where there is one to point at.
    sentence : str
        What is wrong and what to do.
    """

    level: str
    rule: str
    line: int | None
    sentence: str


def check(data: bytes) -> list[Complaint]:
    """Return what there is to complain about in one message.

    Parameters
    ----------
    data : bytes
        The message as it would be sent, headers and all; see
        `anonvma.report.mail_file.split` for an mbox.
    """
    message = mail_file.parse(data)
    head, body_line = _head_of(data)
    found = [
        *_size(data),
        *_headers(message, head),
        *_addresses(message),
        *_threading(message),
        *_parts(message),
    ]
    text = _decoded(message, found)
    if text is not None:
        found += _text(text, body_line)
    return sorted(found, key=lambda one: (one.level, one.line or 0))


def _error(rule: str, sentence: str, line: int | None = None) -> Complaint:
    return Complaint("error", rule, line, sentence)


def _warning(rule: str, sentence: str, line: int | None = None) -> Complaint:
    return Complaint("warning", rule, line, sentence)


# ---- the whole ----


def _size(data: bytes) -> Iterator[Complaint]:
    kilobytes = f"{len(data) / 1000:.0f} kB"
    if len(data) > REFUSE_BYTES:
        yield _error("size", f"it has {kilobytes}; lists refuse about 100 kB: leave tables out.")
    elif len(data) > WARN_BYTES:
        yield _warning("size", f"it has {kilobytes}; above {WARN_BYTES // 1000} kB few read on.")


# ---- headers ----


def _head_of(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return the header's lines with their numbers, and the number of the body's first line."""
    lines: list[tuple[int, bytes]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line in (b"", b"\r"):
            return lines, number + 1
        lines.append((number, line))
    return lines, len(lines) + 1


def _headers(message: EmailMessage, head: list[tuple[int, bytes]]) -> Iterator[Complaint]:
    names: dict[str, int] = {}
    for number, raw in head:
        line = raw.removesuffix(b"\r")
        if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", line):
            yield _error("header-injection", "a header has a control character in it.", number)
        if not line.isascii():
            yield _error("header-undecodable", "a header has bytes that are not ASCII.", number)
        if len(line) > 998:
            yield _error("line-length", "a header's line has more than 998 bytes.", number)
        if line[:1] in (b" ", b"\t"):
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not re.fullmatch(rb"[!-9;-~]+", name):
            yield _error("header-injection", "a line among the headers is not a header.", number)
            continue
        known = name.decode("ascii", "replace").lower()
        if known in names and known in _ONCE:
            yield _error("header-injection", f"{known} is there twice.", number)
        names[known] = number
    if "bcc" in names:
        yield _error("bcc", "Bcc is in the message, where everyone can read it.", names["bcc"])
    yield from _unmeant(message, names)
    for wanted in _NEEDED:
        if not headers.raw(message, wanted):
            yield _error("missing-header", f"{wanted} is missing{_REMEDIES.get(wanted, '')}.")
    yield from _encoded(message)
    yield from _date(message)


def _words(message: EmailMessage, name: str) -> str:
    return headers.text(message, name)


def _encoded(message: EmailMessage) -> Iterator[Complaint]:
    """Encoded words (RFC 2047) may hide what could not stand there, encoded once or more often."""
    for name, value in message.raw_items():
        try:
            parts = decode_header(str(value))
            words = "".join(
                part if isinstance(part, str) else part.decode(charset or "ascii")
                for part, charset in parts
            )
        except (HeaderParseError, LookupError, ValueError):
            yield _error("header-undecodable", f"{name} cannot be decoded.")
            continue
        unfolded = headers.decoded(re.sub(r"\r?\n[ \t]", " ", words))
        if _CONTROL.search(unfolded) or "\n" in unfolded:
            yield _error("header-injection", f"{name} hides a line break or a control character.")


def _unmeant(message: EmailMessage, names: Mapping[str, int]) -> Iterator[Complaint]:
    """A message of ours that is still to be sent has no header but those that anonvma writes."""
    if not mail.is_ours(message) or "received" in names:
        return
    known = {name.lower() for name in headers.WRITTEN} | {"bcc", "x-mailer"}  # git's, as it sends
    for name in sorted(set(names) - known):
        said = f"anonvma writes no header {name}: take it out, for something else put it there."
        yield _error("header-injection", said, names[name])


def _date(message: EmailMessage) -> Iterator[Complaint]:
    if not (said := headers.raw(message, "Date")):
        return
    written = mail_file.moment(said)
    if written is None:
        yield _error("date", f"Date is no date: {said!r}.")
    elif written.timestamp() > time.time() + _AHEAD:
        yield _warning("date", f"Date is in the future: {said!r}; is the clock right?")
    elif written.year < _FIRST_MAIL:
        yield _warning("date", f"Date is before there was mail: {said!r}; is the clock right?")


def _addresses(message: EmailMessage) -> Iterator[Complaint]:
    for name in ("From", "To", "Cc"):
        for _, address in headers.pairs(message, name):
            if address.startswith("-"):
                yield _error("address", f"{name} has {address[:60]!r}, to mail programs an option.")
            elif not re.fullmatch(r"[^\s@<>,]+@[^\s@<>,]+", address):
                yield _error("address", f"{name} has {address[:60]!r}, which is no address.")


def _threading(message: EmailMessage) -> Iterator[Complaint]:
    own, parent = _words(message, "Message-ID"), _words(message, "In-Reply-To")
    references = _words(message, "References").split()
    is_reply = _words(message, "Subject").lower().startswith("re:")
    for name, ids in (
        ("Message-ID", [own] if own else []),
        ("In-Reply-To", parent.split()),
        ("References", references),
    ):
        if bad := [one for one in ids if not headers.MESSAGE_ID.fullmatch(one)]:
            yield _error("threading", f"{name} has {bad[0]!r}, which is no message id.")
    if own and own in [parent, *references]:
        yield _error("threading", "the message answers itself.")
    if is_reply and not parent and not references:
        yield _error("threading", "the subject says Re:, but nothing says what is answered.")
    if parent and not references:
        yield _warning("threading", "it has In-Reply-To without References.")
    if parent and references and parent.split()[0] != references[-1]:
        yield _warning("threading", "In-Reply-To is not the last of References.")
    if parent and not is_reply:
        yield _warning("threading", "it answers a message, but the subject does not say Re:.")


# ---- the body ----


def _parts(message: EmailMessage) -> Iterator[Complaint]:
    signatures = [sign for part in message.walk() for sign in _signatures(part)]
    for part in message.walk():
        kind = part.get_content_type()
        if kind == _SIGNED or any(part is signature for signature in signatures):
            continue
        if kind == "text/html":
            yield _error("html", "it has an HTML part; lists drop such mail: send text only.")
        elif part.is_multipart():
            yield _warning("multipart", f"it is {kind}; plain text needs one part only.")
        elif kind == _KEYS:
            yield _warning(
                "attachment", "it has a public key with it, which a list has no use for."
            )
        elif part.get_filename() or kind != "text/plain" or part.is_attachment():
            yield _error("attachment", f"it has an attachment ({kind}): put the text inline.")
        if str(part.get_param("format", "")).lower() == "flowed":
            yield _error("format-flowed", "format=flowed lets readers rewrap tables and patches.")
        coding = str(part.get("Content-Transfer-Encoding", "7bit")).strip().lower()
        if coding == "base64" and not part.is_multipart():
            yield _warning("base64", "its text is base64, which many tools do not search or quote.")


def _signatures(part: MIMEPart) -> list[MIMEPart]:
    """Return the signature of a part that is signed: the second of its two, of the kind it says."""
    if part.get_content_type() != _SIGNED or not part.is_multipart():
        return []
    protocol = str(part.get_param("protocol", "")).lower()
    return [sign for sign in list(part.iter_parts())[1:2] if sign.get_content_type() == protocol]


def _decoded(message: EmailMessage, found: list[Complaint]) -> str | None:
    """Return the text, or complain that there is none to be had."""
    part = message.get_body(("plain",))
    if part is None:
        found.append(_error("no-text", "it has no text."))
        return None
    charset = (part.get_content_charset() or "us-ascii").lower()
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    if not mail_file.is_charset(charset):
        found.append(_error("undecodable", f"its charset {charset!r} is unknown."))
        return data.decode("utf-8", "replace")
    try:
        text = data.decode(charset)
    except ValueError:
        found.append(_error("undecodable", f"its text is not {charset}, as it says."))
        return data.decode("utf-8", "replace")
    if charset not in ("utf-8", "us-ascii"):
        found.append(_warning("charset", f"its text is {charset}; lists expect UTF-8."))
    return text


def _text(text: str, first: int) -> Iterator[Complaint]:
    """Complain about lines; those of quoted-printable text are counted decoded."""
    in_row = 0
    answered = False
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), first):
        if line == "-- ":
            break
        if match := _CONTROL.search(line):
            code = f"U+{ord(match[0]):04X}"
            yield _error("control-character", f"a line has the control character {code}.", number)
        if len(line.encode()) > 998:
            yield _error("line-length", "a line has more than 998 bytes.", number)
        if line.startswith("From "):
            yield _warning("from-line", 'a line begins with "From ", which mboxes change.', number)
        yield from _width(line, number)
        in_row = in_row + 1 if line.startswith(">") else 0
        if in_row == QUOTED + 1:
            yield _warning("long-quote", f"it quotes over {QUOTED} lines: trim them.", number)
        answered = answered or bool(line.strip() and not line.startswith(">"))
    quoted = [line.startswith(">") for line in text.split("\n-- \n")[0].split("\n") if line.strip()]
    if answered and quoted and quoted[-1]:
        yield _warning("top-posting", "it ends in what it quotes: answer below.")


def _width(line: str, number: int) -> Iterator[Complaint]:
    if len(line) <= PROSE or line.startswith(">"):
        return
    # A table or code has gaps or begins indented; a link or a hash has no blank to break at.
    is_table = bool(re.search(r"\S {2,}\S|^[ \t]|\t|^[+|#-]", line)) or " " not in line.strip()
    if not is_table:
        yield _warning("prose-width", f"prose of {len(line)} columns: wrap it at 72.", number)
    elif len(line) > TABLE and re.search(r"\S {2,}\S", line):
        yield _warning("table-width", f"a table of {len(line)} columns wraps at 80.", number)
