# SPDX-License-Identifier: GPL-2.0-only
"""A message: one text, as RFC 5322 has it, new or in answer to another.

A kernel list takes plain text in UTF-8 and nothing else: no HTML, no attachment, no format=flowed,
lines as they were written. A reply has ``Re: `` before the subject, In-Reply-To and References, all
who had the message it answers in To and Cc, and what it answers above the answer.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import secrets
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses

from anonvma.base.errors import MailError
from anonvma.report import headers
from anonvma.report.headers import POLICY, address, text
from anonvma.report.reply import Answered

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
