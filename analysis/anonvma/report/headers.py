# SPDX-License-Identifier: GPL-2.0-only
"""Headers of a message: what they say, and how ours are set, so that no text ever becomes one.

The standard library decodes the encoded words (RFC 2047) of what it is given, writes a line break
that was hidden in one as a line break, and what stands behind it is then a header. So everything
that is set here is decoded to the end first, is one line, and is read back from the bytes that were
made: exactly the headers that were meant, each once, in their order, or the message is refused.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator, Mapping
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage, Message
from email.utils import formataddr, getaddresses
from typing import Any

from anonvma.base.errors import MailError

WRITTEN = (
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
)
"""Every header that a message of ours may have, and none twice."""

_ADDRESSES = ("from", "to", "cc")
_IDS = ("message-id", "in-reply-to", "references")
_ENCODED_WORD = re.compile(r"=\?(?=[^?\s]*\?[bq]\?)", re.I)
MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,450}@[!-;=?A-~]{1,450}>")
"""As a message can be referred to: of ASCII, and no longer than a line may be."""

_SPEC = re.compile(r"[^\s@<>,]+@[^\s@<>,]+")
_DEPTH = 9  # a word that was encoded more often than this is nobody's subject
# What the standard library has been seen to raise, reading headers that were made to hurt.
_HOSTILE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NameError,
    ArithmeticError,
    RuntimeError,  # RecursionError, too
    AssertionError,
    MessageError,
)


class _Policy(email.policy.EmailPolicy):
    """RFC 5322 as lists want it: message ids are never encoded or broken, lines end in LF.

    The standard library encodes a word that is longer than a line, which unthreads a reply.
    """

    def fold(self, name: str, value: Any) -> str:
        if name.lower() in _IDS:
            return f"{name}: " + f"{self.linesep} ".join(str(value).split()) + self.linesep
        if name.lower() in _ADDRESSES:
            if not hasattr(value, "addresses"):  # as it was read
                value = self.header_factory(name, _unfolded(value))
            words = [formataddr((one.display_name, one.addr_spec)) for one in value.addresses]
            return f"{name}: " + f",{self.linesep} ".join(words) + self.linesep
        if name.lower() == "subject":
            return self.linesep.join(_subject(f"{name}:", str(value))) + self.linesep
        folded: str = super().fold(name, value)
        return folded

    def header_fetch_parse(self, name: str, value: str) -> Any:
        """Read a header; one that the standard library trips over is empty."""
        try:
            return super().header_fetch_parse(name, value)
        except _HOSTILE:
            return self.header_factory(name, "")

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


def _subject(name: str, words: str) -> Iterator[str]:
    """Fold a subject so that it is read back as it is, blanks and all.

    The standard library leaves its first line empty where the words fit on the second only, and
    gives it a blank more where it encodes some of the words.
    """
    pieces = re.findall(r"\s*\S+", f" {words}")
    if not words.isascii() or "=?" in words or max(map(len, pieces), default=0) > _LONGEST:
        lines = Header(words, "utf-8", _LINE, header_name=name).encode().splitlines()
        yield f"{name} {lines[0]}"
        yield from lines[1:]
        return
    line = name
    for place, piece in enumerate(pieces):
        if place and len(line) + len(piece) > _LINE:
            yield line
            line = ""
        line += piece
    yield line


_LONGEST = 900  # of the 998 letters that a line may have
_LINE = 78
POLICY = _Policy(linesep="\n", max_line_length=_LINE, cte_type="8bit", raise_on_defect=False)
_parsed = HeaderRegistry()


# ---- what they say ----


def decoded(words: str) -> str:
    """Return text with every encoded word in it decoded, and those that come out of that."""
    for _ in range(_DEPTH):
        if not _ENCODED_WORD.search(words):
            return words
        try:
            once = str(_parsed("Subject", words))
        except _HOSTILE:
            break
        if once == words:
            break
        words = once
    # What cannot be decoded must not be for somebody else, who can.
    return _ENCODED_WORD.sub("= ?", words)


def one_line(words: str) -> str:
    """Return text as it may stand in a header: decoded, on one line, printable."""
    plain = decoded(words)
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())


def text(message: Message[str, str], name: str) -> str:
    """Return a header's words on one line; empty if there is none."""
    return one_line(raw(message, name))


def raw(message: Message[str, str], name: str) -> str:
    """Return a header as it is written, unfolded, its encoded words left alone.

    The standard library's own way to it raises for a line break in an encoded word, and then the
    whole header is lost.
    """
    for known, value in message.raw_items():
        if known.lower() == name.lower():
            data = str(value).encode("utf-8", "surrogateescape")
            return _unfolded(data.decode("utf-8", "replace")).strip()
    return ""


def _unfolded(written: str) -> str:
    return re.sub(r"\r?\n(?=[ \t])", "", written)


def addresses(message: EmailMessage, name: str) -> list[str]:
    """Return the addresses in a header, as they are written in one, without those of `unusable`."""
    return list(_sorted_out(message, name)[0])


def unusable(message: EmailMessage, name: str) -> list[str]:
    """Say of each thing in the place of an address why nobody can be written to by it."""
    return _sorted_out(message, name)[1]


def _sorted_out(message: EmailMessage, name: str) -> tuple[list[str], list[str]]:
    written: list[str] = []
    refused: list[str] = []
    for words, spec in pairs(message, name):
        try:
            if spec:  # an empty group has none
                written.append(address(words, spec))
        except MailError as error:
            refused.append(str(error))
    return written, refused


def pairs(message: EmailMessage, name: str) -> list[tuple[str, str]]:
    """Return name and address of each in a header, whether or not that is an address.

    A header is taken apart first, and the names in it decoded after, as RFC 2047 has it.
    """
    written = raw(message, name)
    try:
        found = getaddresses([written] if written else [])
    except _HOSTILE:
        return [("", written)]
    return [(one_line(words), spec) for words, spec in found]


def address(name: str, spec: str) -> str:
    """Return an address as it is written in a header.

    Raises
    ------
    MailError
        When it is none, or a program would take it for an option.
    """
    shown = repr(spec if len(spec) <= 80 else f"{spec[:79]}…")
    if spec.startswith("-"):
        raise MailError(f"{shown} is an option, not an address, to the programs that send mail.")
    if not spec.isprintable():
        raise MailError(f"the address {shown} has a line break or a control character in it.")
    if not spec.isascii():
        raise MailError(
            f"{shown} has letters that mail programs cannot address: write its domain as xn--..."
        )
    if not _SPEC.fullmatch(spec):
        raise MailError(f"{shown} is not a mail address.")
    try:
        return str(Address(display_name=one_line(name), addr_spec=spec))
    except _HOSTILE as error:
        raise MailError(f"{shown} is not a mail address: {error}.") from None


# ---- setting ----


def set_all(message: EmailMessage, meant: Mapping[str, str]) -> None:
    """Give a message these headers; `verify` reads them back when its text is there, too.

    Raises
    ------
    MailError
        When one has a line break or a control character, hidden in an encoded word or not, or
        cannot stand in a message.
    """
    for name, words in meant.items():
        if not decoded(words).isprintable():
            raise MailError(f"{name} has a line break or a control character in it: {words!r:.90}.")
        try:
            message[name] = _addressees(words) if name.lower() in _ADDRESSES else decoded(words)
        except _HOSTILE as error:
            raise MailError(f"{name} cannot be {words!r:.90}: {error}.") from None


def _addressees(words: str) -> tuple[Address, ...]:
    parsed: Any = _parsed("To", words)
    found: tuple[Address, ...] = parsed.addresses
    return found


def verify(data: bytes, meant: Mapping[str, str]) -> None:
    """Make sure that a message, as written, has the headers that were meant and no other.

    Raises
    ------
    MailError
    """
    lines = re.split(rb"\r\n|\r|\n", data.partition(b"\n\n")[0])
    written = [line.partition(b":")[0].decode("ascii", "replace") for line in lines]
    names = [name for name, line in zip(written, lines, strict=True) if line[:1] not in (b" ", b"")]
    ours = [name for name in names if name in meant]
    extra = [name for name in names if name not in meant and name not in WRITTEN[-3:]]
    if extra or ours != list(meant) or len(names) != len(set(names)):
        raise MailError(
            f"the message would have the headers {', '.join(names)}, which are not those that "
            f"were meant ({', '.join(meant)}): one of them hides another."
        )
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    for name, words in meant.items():
        if name.lower() in _ADDRESSES:
            same = addresses(read, name) == addresses_in(words)
        else:
            same = decoded(raw(read, name)).split() == decoded(words).split()
        if not same:
            raise MailError(f"{name} cannot be {words!r:.90}: it would be read otherwise.")


def addresses_in(words: str) -> list[str]:
    """Return the addresses that a header's words name."""
    return [address(one.display_name, one.addr_spec) for one in _addressees(words)]
