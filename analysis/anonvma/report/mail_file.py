# SPDX-License-Identifier: GPL-2.0-only
"""Files of messages: one, or an mbox; read and written."""

from __future__ import annotations

import codecs
import datetime
import email
import mailbox
import re
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path

from anonvma.base import bounded
from anonvma.base.errors import MailError
from anonvma.report.headers import POLICY

# Python's own notations, which RFC 2978 does not know; some refuse what cannot be decoded.
_NO_CHARSET = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
# In an mbox: at its beginning, or after a blank line and with a time, for prose begins so, too.
_BETWEEN = re.compile(rb"(?:\AFrom [^\n]*\n|(?<=\n)\r?\nFrom [^\n]*\d:\d\d[^\n]*\n)(?=[\w-]+:)")
LARGEST = 256 << 20  # of a file of messages: a list's whole month


def moment(date: str) -> datetime.datetime | None:
    """Return the moment that a Date header names, or None for what is no date."""
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):  # as 99 Nov 999999999999
        return None
    # A year of two digits is one of these; Python takes 0000 and 0001 for such, too.
    return None if re.search(r"\b0\d{3}\b", date.partition(":")[0]) else when


def is_charset(name: str) -> bool:
    """Tell whether a mail's text can be coded so: of Python's codecs, some code no text."""
    try:
        "".encode(name)
    except (LookupError, ValueError):  # none of that name, or none such as "hex"; or a NUL in it
        return False
    return codecs.lookup(name).name not in _NO_CHARSET


def read_all(file: Path) -> list[EmailMessage]:
    """Return the messages of a file: one, or those of an mbox.

    Raises
    ------
    MailError
        When it cannot be read.
    """
    try:
        data = bounded.read(file, LARGEST)
    except OSError as error:
        raise MailError(f"cannot read {file}: {error.strerror}.") from None
    return [parse(part) for part in split(data.removeprefix(codecs.BOM_UTF8))]


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


def to_mbox(message: EmailMessage, file: Path) -> None:
    """Write a message as an mbox of one."""
    file.unlink(missing_ok=True)
    box = mailbox.mbox(file)
    try:
        box.add(mailbox.mboxMessage(message.as_bytes()))
        box.flush()
    finally:
        box.close()
