# SPDX-License-Identifier: GPL-2.0-only
"""Messages: new ones, replies, and what the standard library and b4 make of them."""

from __future__ import annotations

import email
import email.policy
import gzip
import http.server
import mailbox
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from anonvma.base.errors import MailError
from anonvma.report import mail, mail_file, mail_lint, reply

# The shape of the mail that anonvma answers; its people and ids are invented.
ASKED = """\
From: Ann Asker <ann@example.org>
To: Ben Builder <ben@example.org>
Cc: =?utf-8?q?J=C3=BCrgen_Gro=C3=9F?= <j@example.com>, linux-mm@example.com,
 "Doe, Jane" <jane@example.com>
Subject: Re: [PATCH] mm: Always sanity check anon_vma first for
 per-vma locks
Date: Fri, 26 Apr 2024 15:01:05 +0100
Message-ID: <a-long-message-id-that-does-not-fit-a-line-of-78-columns.{pad}@host.example.org>
In-Reply-To: <2@example.org>
References: <1@example.org> <2@example.org>
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

On Fri, Apr 12, 2024 at 04:14:16AM +0100, Ann Asker wrote:
> Suren, what would you think to this?

Is there perhaps a VMA for which we have a NULL vm_ops, but don't set
an anon_vma on a page fault?

--{blank}
Ann
""".replace("{pad}", "x" * 60).replace("{blank}", " ")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "saved.eml"
    file.write_text(ASKED, encoding="utf-8")
    return file


def test_a_new_message_has_what_a_list_wants() -> None:
    body = "Yes: \u00b1 2 %.\n\n-- \nanonvma\n"
    message = mail.compose(
        body, subject="a subject", sender="A Dev <a@example.org>", to=["l@example.com"]
    )
    data = message.as_bytes()
    assert mail_lint.check(data) == []
    read = email.message_from_bytes(data, policy=email.policy.default)
    assert read.get_content() == body
    assert read.get_content_type() == "text/plain" and read.get_content_charset() == "utf-8"
    assert read["Content-Transfer-Encoding"] == "8bit" and "In-Reply-To" not in read
    assert read["Message-ID"].endswith("@example.org>")


def test_the_message_id_is_new_each_time_and_does_not_name_the_host() -> None:
    ids = {mail.compose("x", subject="x")["Message-ID"] for _ in range(20)}
    assert len(ids) == 20
    assert {one.partition("@")[2] for one in ids} == {"anonvma.invalid>"}


def test_a_reply_to_a_saved_message(saved: Path) -> None:
    asked = reply.answered(str(saved))
    message = mail.compose(
        "Yes.\n",
        subject="not used",
        sender="Ben Builder <ben@example.org>",
        to=["ann@example.org", "new@example.org"],
        cc=["LINUX-MM@example.com"],
        reply=asked,
    )
    data = message.as_bytes()
    assert mail_lint.check(data) == []
    read = email.message_from_bytes(data, policy=email.policy.default)
    parent = ASKED.partition("Message-ID: ")[2].partition("\n")[0]
    assert read["In-Reply-To"] == parent
    assert read["References"].split() == ["<1@example.org>", "<2@example.org>", parent]
    assert read["Subject"] == "Re: [PATCH] mm: Always sanity check anon_vma first for per-vma locks"
    assert [a.addr_spec for a in read["To"].addresses] == ["ann@example.org", "new@example.org"]
    # Everyone once, and the sender not at all.
    names = [(a.display_name, a.addr_spec) for a in read["Cc"].addresses]
    assert names == [
        ("J\u00fcrgen Gro\u00df", "j@example.com"),
        ("", "linux-mm@example.com"),
        ("Doe, Jane", "jane@example.com"),
    ]
    text = read.get_content()
    assert text.startswith("On Fri, Apr 26, 2024 at 03:01:05PM +0100, Ann Asker wrote:\n> On Fri,")
    assert ">> Suren, what would you think to this?" in text
    assert "> an anon_vma on a page fault?\n\nYes.\n" in text
    assert "Ann\n" not in text.partition("Yes.")[0].rpartition("wrote:")[2]


def test_ids_are_never_encoded_or_broken(saved: Path) -> None:
    """The standard library turns a long one into an encoded word, which threads with nothing."""
    data = mail.compose("x", subject="s", reply=reply.answered(str(saved))).as_bytes()
    parent = ASKED.partition("Message-ID: ")[2].partition("\n")[0].encode()
    assert data.count(parent) == 2
    ids = [line for line in data.partition(b"\n\n")[0].splitlines() if b"@host" in line]
    assert len(ids) == 2 and not any(b"=?" in line for line in ids)


def test_lines_to_quote(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("Is there perhaps a VMA\n\twith a tab\x1b[31m\n")
    above = reply.answered(str(saved), lines).above()
    assert above.endswith("wrote:\n> Is there perhaps a VMA\n> \twith a tab?[31m\n\n")
    # An id, and the lines: all that someone has who reads an archive and has no b4.
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = reply.answered("9@example.org", lines)
    message = mail.compose("Yes.\n", subject="a subject", reply=asked)
    assert "yours to give" in asked.note and asked.note.count("\n") == 0
    assert message["In-Reply-To"] == message["References"] == "<9@example.org>"
    assert message["Subject"] == "Re: a subject"
    assert message.get_content().startswith("somebody wrote:\n> Is there")


def test_a_message_within_an_mbox(saved: Path, tmp_path: Path) -> None:
    box = tmp_path / "thread.mbox"
    between = "From mboxrd@z Thu Jan  1 00:00:00 1970\n"
    other = ASKED.replace("a-long-message", "another").replace("Is there", ">From Is there")
    box.write_text(f"{between}{ASKED}\n{between}{other}\n", encoding="utf-8")
    wanted = other.partition("Message-ID: ")[2].partition("\n")[0]
    asked = reply.answered(wanted, box)
    assert (asked.message_id, asked.author) == (wanted, "Ann Asker")
    assert "\nFrom Is there perhaps" in asked.quoted
    with pytest.raises(MailError, match="has 2 messages: say which one"):
        reply.answered(str(box))


def test_an_mbox_is_what_the_standard_library_reads(tmp_path: Path) -> None:
    message = mail.compose("From here on\n\u00e9\n", subject="s", sender="a@example.org")
    mail_file.to_mbox(message, tmp_path / "one.mbox")
    mail_file.to_mbox(message, tmp_path / "one.mbox")  # is replaced, not added to
    box = mailbox.mbox(tmp_path / "one.mbox")
    (read,) = box
    box.close()
    assert read["Message-ID"] == message["Message-ID"]
    (ours,) = mail_file.read_all(tmp_path / "one.mbox")
    assert ours.get_content() == "From here on\n\u00e9\n"


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r", "\x00", "\u2028", "\x85"])
def test_no_header_can_be_added(break_: str) -> None:
    evil = f"a{break_}Bcc: victim@example.org"
    for arguments in (
        {"subject": evil},
        {"subject": "s", "sender": f"{evil} <a@example.org>"},
        {"subject": "s", "to": [f"{evil} <a@example.org>"]},
        {"subject": "s", "cc": [f"a@example.org{break_}b@example.org"]},
    ):
        try:
            data = mail.compose("x", **arguments).as_bytes()  # type: ignore[arg-type]
        except MailError as error:
            assert "\n" not in str(error)
        else:
            head = data.partition(b"\n\n")[0]
            assert b"\nBcc" not in head and b"\rBcc" not in head


def test_a_hostile_message_adds_no_header_to_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "evil.eml"
    file.write_bytes(
        b"From: =?utf-8?q?a=0ABcc=3A_v=40example.org?= <e@example.org>\n"
        b"Subject: =?utf-8?q?x=0ABcc=3A_v=40example.org=1B=5B31m?=\nMessage-ID: <e@example.org>\n"
        b"\nx\x1b[31m\xff\n"
    )
    try:
        data = mail.compose("x", subject="s", reply=reply.answered(str(file))).as_bytes()
    except MailError as error:
        assert "\n" not in str(error)
        return
    assert not any(line.startswith(b"Bcc") for line in data.splitlines())
    assert b"\x1b" not in data


@pytest.mark.parametrize(
    ("reply_to", "said"),
    [
        ("not an id", "neither a file nor a message id"),
        ("<a@b> <c@d>", "neither a file nor a message id"),
    ],
)
def test_what_is_no_message_id(reply_to: str, said: str) -> None:
    with pytest.raises(MailError, match=said):
        reply.answered(reply_to)


def test_a_message_without_an_id_cannot_be_answered(saved: Path) -> None:
    saved.write_text(ASKED.replace("Message-ID", "X-ID"))
    with pytest.raises(MailError, match="has no Message-ID"):
        reply.answered(str(saved))


DATE = "Date: Fri, 26 Apr 2024 15:01:05 +0100\n"


@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("", "it has no Date."),
        ("Date:\n", "it has no Date."),
        ("Date: Thu, 31 Feb 2024 10:00:00 +0000\n", "what it gives as its Date"),
        ("Date: Mon, 01 Jan 0000 00:00:00 +0000\n", "what it gives as its Date"),  # not 2000
        ("Date: Sun, 01 Jan 0001 00:00:00 +2359\n", "what it gives as its Date"),
        ("Date: Fri, 26 Apr 2024 12:00:00 +9999\n", "what it gives as its Date"),
        (f"Date: {'1' * 400}\n", "what it gives as its Date"),
        ("Date: Fri, 26 Apr 24 12:00:00 EST\n", ""),
        ("Date: Fri, 26 Apr 2024 12:00:00 -0000 (PDT)\n", ""),
    ],
)
def test_odd_dates_are_left_out_and_that_is_said(tmp_path: Path, date: str, said: str) -> None:
    file = tmp_path / "asked.eml"
    file.write_text(f"From: a@b.c\nMessage-ID: <1@b.c>\n{date}\nhi\n")
    asked = reply.answered(str(file))
    assert said in asked.note and bool(said) == bool(asked.note)
    assert bool(asked.date) != bool(said)
    assert ("On " in asked.above()) == bool(asked.date)


@pytest.mark.parametrize(
    ("kind", "body", "quoted", "said"),
    [
        ("text/plain; charset=koi8-r", "привет".encode("koi8-r"), "> привет", ""),
        ("text/plain; charset=x-unknown", "ä".encode(), "> ä", "'x-unknown', is unknown here"),
        ("text/plain; charset=rot13", b"uv", "> uv", "'rot13', is unknown here"),
        ("text/plain; charset=utf-8", b"a\xffb\xff", "> a\ufffdb\ufffd", "2 places of its text"),
        ("text/plain; charset=us-ascii", "ä".encode(), "> \ufffd\ufffd", "are not us-ascii"),
        ("text/html", b"<b>x</b>", "", "no plain text"),
        ("message/rfc822", b"Subject: x\n\nx", "", "no plain text"),
        ("multipart/mixed", b"x", "", "no plain text"),
        ("text/plain", b"a\r\nb\r\n-- \r\nme\r\n", "> a\n> b", ""),
    ],
)
def test_odd_texts_are_quoted_as_far_as_they_can_be(
    tmp_path: Path, kind: str, body: bytes, quoted: str, said: str
) -> None:
    file = tmp_path / "asked.eml"
    head = f"From: a@b.c\nMessage-ID: <1@b.c> (sent by hand)\n{DATE}MIME-Version: 1.0\n"
    head += f"Content-Transfer-Encoding: 8bit\nContent-Type: {kind}\n\n"
    file.write_bytes(b"\xef\xbb\xbf" + head.encode() + body)  # some mail readers save it so
    asked = reply.answered(str(file))
    assert asked.message_id == "<1@b.c>"
    assert said in asked.note and bool(said) == bool(asked.note)
    assert asked.above().partition("wrote:\n")[2].strip() == quoted


@pytest.mark.parametrize("address", ["", "nobody", "a@b, c@d", "<>", "a b c", "@"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(MailError, match="is not"):
        mail.one_address(address)


# ---- b4 ----


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[str]:
    """A public-inbox on this machine, as far as b4 asks it: ``/ID/t.mbox.gz``."""
    between = "From mboxrd@z Thu Jan  1 00:00:00 1970\n"
    thread = gzip.compress(f"{between}{ASKED}\n".encode())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith("/t.mbox.gz") and "a-long-message-id" in self.path
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(thread if found else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread_ = threading.Thread(target=server.serve_forever)
    thread_.start()
    yield f"http://127.0.0.1:{server.server_port}/all/%s"
    server.shutdown()
    thread_.join()
    server.server_close()


def test_b4_is_asked_where_it_is_installed(
    archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("b4") is None:
        pytest.skip("no b4 (Debian: b4)")
    configuration = tmp_path / "gitconfig"
    for key, value in (("user.name", "A"), ("user.email", "a@b.org"), ("b4.midmask", archive)):
        subprocess.run(["git", "config", "--file", configuration, key, value], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    wanted = ASKED.partition("Message-ID: ")[2].partition("\n")[0]
    asked = reply.answered(wanted)
    assert asked.to == ("Ann Asker <ann@example.org>",)
    assert "linux-mm@example.com" in asked.cc and "Is there perhaps" in asked.quoted
    (tmp_path / "lines").write_text("which VMA?\n")
    asked = reply.answered(wanted, tmp_path / "lines")
    assert (asked.quoted, asked.author, asked.note) == ("which VMA?", "Ann Asker", "")
    with pytest.raises(MailError, match=r"b4 mbox <absent@example\.org> brought nothing"):
        reply.answered("absent@example.org")


def test_without_b4_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MailError, match="b4 has to be installed: save the message"):
        reply.answered("1@example.org")
