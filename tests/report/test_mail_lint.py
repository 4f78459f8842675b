# SPDX-License-Identifier: GPL-2.0-only
"""Lint: each thing that a list complains about is found, and nothing in a message that is right."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from waiting import PATIENCE

from anonvma.base.errors import MailError
from anonvma.report import mail_file, mail_lint
from anonvma.report import reply as reply_module

HEAD = (
    "From: A Developer <a@example.org>\n"
    "To: linux-mm@kvack.example\n"
    "Subject: a subject\n"
    "Date: Fri, 26 Apr 2024 15:01:05 +0100\n"
    "Message-ID: <1@example.org>\n"
    'Content-Type: text/plain; charset="utf-8"\n'
    "Content-Transfer-Encoding: 8bit\n"
    "MIME-Version: 1.0\n"
)
BODY = "\nYes.\n\nname      n  mean\nfirst     5  1.00\n\n-- \nA\n"
GOOD = HEAD + BODY


def rules(message: str | bytes) -> set[tuple[str, str]]:
    data = message.encode() if isinstance(message, str) else message
    return {(one.level, one.rule) for one in mail_lint.check(data)}


def test_nothing_to_complain_about() -> None:
    assert mail_lint.check(GOOD.encode()) == []
    reply = GOOD.replace(
        "Subject: a", "In-Reply-To: <0@b.org>\nReferences: <0@b.org>\nSubject: Re: a"
    )
    assert mail_lint.check(reply.encode()) == []
    quoted = reply.replace(
        "\nYes.", "\nOn a day, B wrote:\n> Is it?\n>\n> " + "x" * 90 + "\n\nYes."
    )
    assert mail_lint.check(quoted.encode()) == []


def test_git_s_own_messages_pass(tmp_path: Path) -> None:
    """A witness of what kernel lists do take: a patch as git formats it."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "f").write_text("\tone\n")
    subprocess.run([*git, "add", "f"], check=True)
    subprocess.run([*git, "commit", "-qm", "subsystem: a change\n\nWhy."], check=True)
    words = ["format-patch", "--root", "--stdout", "--thread", "--to=l@example.org"]
    made = subprocess.run([*git, *words], capture_output=True, check=True).stdout
    (message,) = [part for part in made.split(b"\nFrom ") if part]
    assert mail_lint.check(message.partition(b"\n")[2]) == []


PART = (
    'Content-Type: multipart/mixed; boundary="B"\nMIME-Version: 1.0\n\n'
    "--B\nContent-Type: text/plain\n\nYes.\n--B\n{}\n--B--\n"
)


@pytest.mark.parametrize(
    ("level", "rule", "message"),
    [
        (
            "error",
            "html",
            HEAD.partition("Content")[0] + PART.format("Content-Type: text/html\n\n<p>"),
        ),
        (
            "error",
            "attachment",
            HEAD.partition("Content")[0]
            + PART.format("Content-Type: image/png\nContent-Disposition: attachment\n\nx"),
        ),
        (
            "warning",
            "multipart",
            HEAD.partition("Content")[0] + PART.format("Content-Type: text/plain\n\nx"),
        ),
        ("error", "format-flowed", GOOD.replace('"utf-8"', '"utf-8"; format=flowed')),
        ("warning", "base64", HEAD.replace("8bit", "base64") + "\nWWVzLgo=\n"),
        ("warning", "prose-width", GOOD.replace("Yes.", "word " * 16)),
        ("warning", "table-width", GOOD.replace("first     5", "first" + " " * 80 + "5")),
        ("error", "line-length", GOOD.replace("Yes.", "x" * 999)),
        ("error", "control-character", GOOD.replace("Yes.", "Yes\x1b[31m.")),
        ("error", "control-character", GOOD.replace("Yes.", "Yes\u202e.")),
        ("error", "control-character", GOOD.replace("Yes.", "Yes\u200b.")),
        ("warning", "size", GOOD.replace("Yes.", "Yes.\n" * 9000)),
        ("error", "size", GOOD.replace("Yes.", "Yes.\n" * 20000)),
        ("error", "missing-header", GOOD.replace("Date: Fri, 26 Apr 2024 15:01:05 +0100\n", "")),
        ("error", "missing-header", GOOD.replace("Message-ID: <1@example.org>\n", "")),
        ("error", "missing-header", GOOD.replace("From: A Developer <a@example.org>\n", "")),
        ("error", "missing-header", GOOD.replace("Subject: a subject\n", "Subject:\n")),
        ("error", "missing-header", GOOD.replace("To: linux-mm@kvack.example\n", "")),
        ("error", "header-injection", GOOD.replace("a subject", "a subject\nno header at all")),
        ("error", "header-injection", GOOD.replace("a subject", "a subject\nSubject: another")),
        ("error", "header-injection", GOOD.replace("a subject", "a\x00subject")),
        ("error", "header-injection", GOOD.replace("a subject", "=?utf-8?q?a=0ABcc:_x=40y?=")),
        ("error", "header-undecodable", GOOD.replace("a subject", "=?no-such?q?a=FF?=")),
        ("error", "header-undecodable", GOOD.replace("a subject", "gr\u00fcn")),
        ("error", "bcc", GOOD.replace("Subject", "Bcc: b@example.org\nSubject")),
        ("error", "address", GOOD.replace("linux-mm@kvack.example", "linux-mm")),
        ("error", "date", GOOD.replace("Fri, 26 Apr 2024 15:01:05 +0100", "yesterday")),
        ("error", "threading", GOOD.replace("a subject", "Re: a subject")),
        ("error", "threading", GOOD.replace("Subject", "In-Reply-To: <1@example.org>\nSubject")),
        ("error", "threading", GOOD.replace("Subject", "In-Reply-To: nonsense\nSubject")),
        (
            "warning",
            "threading",
            GOOD.replace("Subject: ", "In-Reply-To: <0@b.org>\nSubject: Re: "),
        ),
        (
            "warning",
            "threading",
            GOOD.replace("Subject", "In-Reply-To: <0@b.org>\nReferences: <0@b.org>\nSubject"),
        ),
        ("error", "no-text", HEAD.replace("text/plain", "application/json") + "\n{}\n"),
        ("error", "undecodable", GOOD.replace('"utf-8"', '"no-such-charset"')),
        ("warning", "from-line", GOOD.replace("Yes.", "From here on.")),
        ("warning", "long-quote", GOOD.replace("Yes.", "> said\n" * 70 + "Yes.")),
        (
            "warning",
            "top-posting",
            GOOD.replace("Yes.", "Yes.").replace("\n-- \nA\n", "\n> Is it?\n"),
        ),
    ],
)
def test_what_is_complained_about(level: str, rule: str, message: str) -> None:
    assert (level, rule) in rules(message)


def test_text_that_is_not_what_it_says() -> None:
    assert ("error", "undecodable") in rules(GOOD.encode().replace(b"Yes.", b"gr\xfcn."))
    latin = GOOD.replace('"utf-8"', '"iso-8859-1"').encode().replace(b"Yes.", b"gr\xfcn.")
    assert rules(latin) == {("warning", "charset")}


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe\x00", b"From: \n" * 9, b"a" * 99999])
def test_what_is_no_message_is_complained_about_not_choked_on(data: bytes) -> None:
    assert any(one.level == "error" for one in mail_lint.check(data))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "anonvma", "lint", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)


def test_the_command(tmp_path: Path) -> None:
    good, wide, bad = tmp_path / "good", tmp_path / "wide", tmp_path / "bad.mbox"
    good.write_text(GOOD)
    wide.write_text(GOOD.replace("Yes.", "word " * 16))
    between = "From a@example.org Mon Sep 17 00:00:00 2001\n"
    bad.write_text(f"{between}{GOOD}\n{between}{GOOD.replace('To: linux-mm', 'X: linux-mm')}")
    assert (run(str(good)).returncode, run(str(good)).stdout) == (0, "")
    assert run(str(wide)).returncode == 0 and run(str(wide), "--strict").returncode == 1
    done = run(str(bad), "--json")
    assert done.returncode == 1
    assert {"level", "rule", "line", "sentence"} == set(json.loads(done.stdout)[0])
    said = run(str(wide)).stdout
    assert said.startswith(f"{wide}:10: warning: ") and said.endswith("[prose-width]\n")
    assert run("/no/such/file").returncode == 2


# ---- what no list sees every day ----

SIGNED = (
    HEAD.partition("Content")[0]
    + 'MIME-Version: 1.0\nContent-Type: multipart/signed; boundary="B"; '
    + 'protocol="application/{0}"\n\n'
    + '--B\n{1}\n--B\nContent-Type: application/{0}; name="signature.asc"\n\nAAAA\n--B--\n'
)
PLAIN = "Content-Type: text/plain; charset=us-ascii\n\nYes.\n"
WITH_KEY = (
    'Content-Type: multipart/mixed; boundary="C"\n\n--C\n'
    + PLAIN
    + '\n--C\nContent-Type: application/pgp-keys; name="key.asc"\n'
    + "Content-Disposition: attachment\n\nAAAA\n--C--\n"
)


@pytest.mark.parametrize(
    ("kind", "inside", "levels"),
    [
        ("pgp-signature", PLAIN, set()),
        ("pkcs7-signature", PLAIN, set()),
        ("pgp-signature", WITH_KEY, {"warning"}),
        ("pgp-signature", PLAIN.replace("plain", "html"), {"error"}),
    ],
)
def test_signed_mail(kind: str, inside: str, levels: set[str]) -> None:
    """Kernel lists distribute signed mail; what is signed is looked at as anything else."""
    assert {level for level, _ in rules(SIGNED.format(kind, inside))} == levels


def test_a_second_part_is_no_signature_unless_it_says_so() -> None:
    signed = SIGNED.format("pgp-signature", PLAIN)
    other = signed.replace("Content-Type: application/pgp-signature", "Content-Type: image/png")
    assert ("error", "attachment") in rules(other)


@pytest.mark.parametrize(
    ("date", "level"),
    [
        ("Thu, 99 Nov 999999999999 10:00:00 +0000", "error"),
        ("Thu, 20 Nov 2025 10:00:00 +999999", "error"),
        ("yesterday", "error"),
        ("Thu, 20 Nov 2525 10:00:00 +0000", "warning"),
        ("Thu, 1 Jan 1970 10:00:00 +0000", "warning"),
    ],
)
def test_odd_dates(date: str, level: str) -> None:
    assert rules(GOOD.replace("Fri, 26 Apr 2024 15:01:05 +0100", date)) == {(level, "date")}


@pytest.mark.parametrize(
    "charset", ["u\0tf", "hex", "rot13", "idna", "undefined", "unicode_escape", "x" * 300]
)
def test_odd_charsets(charset: str) -> None:
    found = rules(GOOD.replace('"utf-8"', f'"{charset}"'))
    assert ("error", "undecodable") in found


def test_a_paragraph_that_begins_with_from_does_not_end_a_message() -> None:
    body = "\nYes.\n\nFrom then on it is so.\nNote: the\ntime is 12:30.\n"
    box = ("From a Thu Jan  1 00:00:00 1970\n" + HEAD + body + "\n").encode() * 2
    assert [part.count(b"Note:") for part in mail_file.split(box)] == [1, 1]
    assert mail_file.split(b"From nobody\nno header") == [b"From nobody\nno header"]
    assert ("error", "header-injection") in rules("From nobody\nno header")


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.sampled_from(["Date", "From", "Content-Type", "Subject", "Message-ID", "To", "X-Any"]),
    st.one_of(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=60),
        st.from_regex(r"(=\?[\w-]{0,8}\?[qQbB]\?[\w=]*\?=|[<\[(\"@;:,=.*%']|\w+| ){1,12}"),
    ),
)
def test_no_header_is_a_traceback(name: str, value: str) -> None:
    """The standard library raises what it likes; a message has complaints, or none."""
    head = "".join(f"{line}\n" for line in HEAD.splitlines() if not line.startswith(name))
    data = f"{head}{name}: {value}\n{BODY}".encode()
    mail_lint.check(data)
    with contextlib.suppress(MailError):
        reply_module._from(mail_file.parse(data), None).above()
