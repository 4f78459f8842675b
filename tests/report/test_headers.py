# SPDX-License-Identifier: GPL-2.0-only
"""Headers: whatever text is made one of, the message has those that were meant and no other."""

from __future__ import annotations

import base64
import email
import email.header
import email.policy
import itertools
import quopri
import re
from email.message import EmailMessage
from pathlib import Path

import pytest

from anonvma.base.errors import MailError
from anonvma.report import headers, mail, mail_file, mail_lint, reply

SMUGGLED = "Bcc: eve@example.org"
BREAKS = ["\n", "\r\n", "\r", "\n\n", "\x00", "\x0b", "\x85", "\u2028", "\n ", " \n\t\n"]


def by_q(text: str, charset: str = "utf-8") -> str:
    coded = "".join(f"={byte:02X}" for byte in text.encode(charset))
    return f"=?{charset}?q?{coded}?="


def by_b(text: str) -> str:
    return f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="


def halves(text: str) -> str:
    """In two words, neither of which is anything by itself."""
    middle = len(text) // 2
    return f"{by_q(text[:middle])} {by_b(text[middle:])}"


def inside(text: str) -> str:
    """A word that is made of the text of two others."""
    outer = by_q(text)
    return by_q(outer[:5]) + " " + by_b(outer[5:])


WAYS = {
    "plain": lambda text: text,
    "quoted-printable": by_q,
    "base64": by_b,
    "twice": lambda text: by_q(by_q(text)),
    "twice by base64": lambda text: by_b(by_b(text)),
    "four times": lambda text: by_b(by_q(by_b(by_q(text)))),
    "twelve times": lambda text: _often(text, 12),
    "in two words": halves,
    "one word in two": inside,
    "within a word": lambda text: f"6.12{by_q(text)}+",
    "utf-16": lambda text: by_q(text, "utf-16-be"),
    "unknown charset": lambda text: by_q(text).replace("utf-8", "no-such"),
    "language": lambda text: by_q(text).replace("utf-8", "utf-8*en"),
    "blanks in it": lambda text: by_q(text).replace("?q?", "?q? "),
}


def _often(text: str, times: int) -> str:
    for _ in range(times):
        text = by_b(text)
    return text


HOSTILE = [
    (f"{way}, {break_!r}", encode(f"a subject{break_}{SMUGGLED}"))
    for (way, encode), break_ in itertools.product(WAYS.items(), BREAKS)
]
assert len(HOSTILE) >= 100
ADDRESSED = {
    "sender": "A Dev <a@example.org>",
    "to": ["l@example.com"],
    "cc": ["J\u00fcrgen Gro\u00df <j@example.com>"],
}
MEANT = ["From", "To", "Cc", "Subject", "Date", "Message-ID"]
MIME = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]


def names_of(data: bytes) -> list[str]:
    """Of a message's headers, as anybody would find them who knows of nothing but lines."""
    head = re.split(rb"\r?\n\r?\n", data)[0]
    lines = [line for line in re.split(rb"\r\n|\r|\n", head) if line[:1] not in (b" ", b"\t")]
    return [line.partition(b":")[0].decode() for line in lines]


def decoded_by_others(data: bytes) -> str:
    """All headers, decoded again and again by the standard library's other decoder."""
    head = data.partition(b"\n\n")[0].decode()
    for _ in range(20):
        try:
            parts = email.header.decode_header(head)
            head = "".join(
                p if isinstance(p, str) else p.decode(c or "ascii", "replace") for p, c in parts
            )
        except (LookupError, email.header.HeaderParseError):
            break
    return head


def assert_only(data: bytes, *more: str) -> None:
    assert sorted(names_of(data)) == sorted([*MEANT, *more, *MIME])
    assert f"\n{SMUGGLED}" not in decoded_by_others(data)
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(read, EmailMessage) and sorted(read.keys()) == sorted(names_of(data))
    assert read.get_content() == "the body\n"
    assert [one for one in mail_lint.check(data) if one.level == "error"] == []


@pytest.mark.parametrize("hostile", [words for _, words in HOSTILE], ids=[i for i, _ in HOSTILE])
def test_a_hostile_subject(hostile: str) -> None:
    """Of ours it is refused; of a run or a mail of somebody else it becomes harmless words."""
    try:
        message = mail.compose("the body\n", subject=hostile, **ADDRESSED)  # type: ignore[arg-type]
    except MailError as error:
        assert "\n" not in str(error)
    else:
        assert_only(message.as_bytes())
    harmless = headers.one_line(hostile)
    message = mail.compose("the body\n", subject=harmless, **ADDRESSED)  # type: ignore[arg-type]
    assert_only(message.as_bytes())
    assert message["Subject"].split() == harmless.split()


@pytest.mark.parametrize("hostile", [words for _, words in HOSTILE], ids=[i for i, _ in HOSTILE])
def test_a_hostile_mail_is_answered_without_a_word_of_it_in_the_headers(
    hostile: str, tmp_path: Path
) -> None:
    line = hostile if hostile.isprintable() and hostile.isascii() else by_q(hostile)
    file = tmp_path / "hostile.eml"
    file.write_bytes(
        f"From: {line} <e@example.org>\nReply-To: {line} <r@example.org>\nSubject: {line}\n"
        f"To: {line} <t@example.org>, -X/tmp/log@example.org\nDate: {line}\n"
        f"Cc: {line} <c@example.org>, --smtp-server=eve.example.org@example.org\n"
        f"Message-ID: <h@example.org>\nReferences: {line} <0@example.org>\n\nIs there?\n".encode()
    )
    asked = reply.answered(str(file))
    assert "-X/tmp/log@example.org" in asked.note and "--smtp-server" in asked.note
    message = mail.compose(
        "the body\n",
        subject="not used",
        reply=mail.dataclasses.replace(asked, quoted=""),
        **ADDRESSED,  # type: ignore[arg-type]
    )
    assert_only(message.as_bytes(), "In-Reply-To", "References")
    addressed = [a.addr_spec for name in ("To", "Cc") for a in message[name].addresses]
    assert set(addressed) <= {f"{c}@example.org" for c in "etcr"} | {
        "l@example.com",
        "j@example.com",
    }
    assert not any(spec.startswith("-") for spec in addressed)


@pytest.mark.parametrize(
    "spec", ["-X/tmp/log@x.org", "--smtp-server=eve.org@x.org", "-oQ/tmp@x.org", "-@x.org"]
)
def test_an_address_that_is_an_option_is_refused(spec: str) -> None:
    for words in (spec, f"A Name <{spec}>", f"<{spec}>"):
        with pytest.raises(MailError, match="option"):
            mail.one_address(words)
    data = (
        f"From: a@example.org\nTo: {spec}\nSubject: s\nDate: Fri, 26 Apr 2024 15:01:05 +0100\n"
        "Message-ID: <1@example.org>\n\nx\n"
    )
    assert ("error", "address") in {(c.level, c.rule) for c in mail_lint.check(data.encode())}


@pytest.mark.parametrize(
    "spec", ["a@ex\u00e4mple.org", "\u00e4@x.org", "a@x\u3002org", "a@x\uff0eorg", "b c@x.org"]
)
def test_whom_mail_programs_cannot_address_is_left_out_and_named(spec: str, tmp_path: Path) -> None:
    """Letters that are not ASCII used to end in a traceback when the message was written."""
    with pytest.raises(MailError, match=r"is not a mail address|xn--"):
        mail.one_address(f"A Name <{spec}>")
    file = tmp_path / "answered.eml"
    for coded in (spec.encode(), spec.encode("utf-16-le").replace(b"\0", b"\xff")):
        file.write_bytes(
            b"From: a@example.org\nTo: N <" + coded + b">, t@example.org\nSubject: s\n"
            b"References: <" + coded + b"@b> <1@x.org> <" + b"a" * 2000 + b"@b>\n"
            b"Message-ID: <2@x.org>\n\nx\n"
        )
        asked = reply.answered(str(file))
        assert asked.note.startswith("left out of To and Cc: ") and "\n" not in asked.note
        assert asked.references == ("<1@x.org>",) and asked.cc == ("t@example.org",)
        message = mail.compose("the body\n", subject="s", sender="z@x.org", reply=asked)
        assert message.as_bytes().isascii()
    with pytest.raises(MailError, match="which looks like"):
        reply.answered("<\u00e4@b>")


def test_what_is_read_back_is_what_was_meant() -> None:
    meant = {"Subject": "a subject"}
    headers.verify(b"Subject: a subject\n\nx", meant)
    for written in (
        b"Subject: another\n\nx",
        b"Subject: a\n\nsubject",
        b"Subject: a subject\nBcc: x@example.org\n\nx",
        b"Subject: a subject\rBcc: x@example.org\n\nx",
        b"Subject: a subject\nSubject: a subject\n\nx",
        b"X: y\n\nx",
        b"\n\nx",
    ):
        with pytest.raises(MailError):
            headers.verify(written, meant)


def test_lint_finds_what_was_smuggled_into_a_message_of_ours() -> None:
    data = mail.compose("x\n", subject="s", **ADDRESSED).as_bytes()  # type: ignore[arg-type]
    assert [one for one in mail_lint.check(data) if one.level == "error"] == []
    for more in ("X-Smuggled: yes", "Bcc: e@example.org", "Resent-To: e@example.org"):
        smuggled = data.replace(b"\n", f"\n{more}\n".encode(), 1)
        assert [one.level for one in mail_lint.check(smuggled)] == ["error"], more
    twice = data.replace(b"Subject: s", f"Subject: {by_q(by_q('s' + chr(10) + 'Bcc'))}".encode())
    assert "header-injection" in {one.rule for one in mail_lint.check(twice)}


@pytest.mark.parametrize("deep", ["(" * 50_000, "<" * 50_000, '"' * 50_001, "a@" * 20_000])
def test_a_deep_header_is_a_sentence(deep: str, tmp_path: Path) -> None:
    file = tmp_path / "deep.eml"
    file.write_text(f"From: {deep}\nMessage-ID: <d@example.org>\nSubject: {deep}\n\nx\n")
    assert any(one.level == "error" for one in mail_lint.check(file.read_bytes()))
    asked = reply.answered(str(file))
    mail.compose("x", subject="s", to=["a@example.org"], reply=asked)


def test_a_message_that_was_read_can_be_shown() -> None:
    many = [f'"Nam\u00e9 {number}, of a list" <a{number}@example.org>' for number in range(9)]
    data = mail.compose("x\n", subject="s", to=many).as_bytes()
    read = mail_file.parse(data)
    assert "a8@example.org" in read.as_string() and len(read["To"].addresses) == 9
    assert len(headers.addresses(read, "To")) == 9


def test_words_that_are_no_trick_stay_as_they_are() -> None:
    for words in (
        "Re: [PATCH] mm: a=?b, 100 %",
        "Gr\u00fc\u00dfe \u2192 \u00b1 2 %",
        "=?=",
        "a = ?",
    ):
        assert headers.one_line(words) == words
        message = mail.compose("x", subject=words, to=["a@example.org"])
        read = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
        assert read["Subject"] == words
    assert quopri.decodestring("=41") == b"A"


def test_a_subject_of_any_length_is_folded_and_read_back() -> None:
    """No line is empty, and every blank is where it was."""
    for number in [*range(1, 120), 997, 1200]:
        for words in (
            f"anonvma: {'z' * number} and more",
            ("some words " * number)[:number].strip(),
            "a  b " * (number // 9) + "c",
            "\u00e9" * number + " of others " + "x" * number,
        ):
            data = mail.compose("x\n", subject=words, to=["a@example.org"]).as_bytes()
            head = data.partition(b"\n\n")[0].split(b"\nSubject:")[1].split(b"\nDate:")[0]
            assert all(line.strip() for line in head.split(b"\n")), (words, head)
            assert max(map(len, head.split(b"\n"))) < 998
            assert email.message_from_bytes(data, policy=email.policy.default)["Subject"] == words
