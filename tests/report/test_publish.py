# SPDX-License-Identifier: GPL-2.0-only
"""Publishing: the files, the mail as a reader gets it, the page as a browser shows it."""

from __future__ import annotations

import base64
import email
import email.policy
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import nbformat
import pexpect
import pypdf
import pyte
import pytest
from browser import browser, chromium, complaints, network_off, requests_of
from commands import run_here
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.print_page_options import PrintOptions
from waiting import PATIENCE

from anonvma.base.errors import AnonvmaError, RunError
from anonvma.base.section import Section
from anonvma.base.text import printable
from anonvma.report import (
    html_page,
    mail,
    mail_body,
    mail_file,
    mail_lint,
    notebooks,
    publication,
    publish,
    reproduction,
    run_report,
)
from anonvma.report.publish import Envelope, Published
from anonvma.report.verdict import Answer
from anonvma.run import runs
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, to_table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # aiosmtpd asks pkg-config-like questions at import
    from aiosmtpd.controller import Controller

__all__ = ["browser", "chromium"]

ROOT = Path(__file__).resolve().parents[2]
PAIR = "early-small-allocs-mt-[1-5]..delayed-small-allocs-mt-[1-5]"  # of nineteen boots
ENVELOPE = Envelope(sender="A Dev <a@example.org>", to=("linux-mm@example.com",))
ASKED = (
    "From: Ann Asker <ann@example.org>\nTo: linux-mm@example.com\nCc: Jane <jane@example.com>\n"
    "Subject: [PATCH] a puzzle\nDate: Fri, 26 Apr 2024 15:01:05 +0100\n"
    "Message-ID: <asked@example.org>\n\nIs there perhaps a VMA?\n"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The recorded run with its specimens, published."""
    place = tmp_path_factory.mktemp("published")
    return publish.write(
        ["small-allocs-mt"], place, ENVELOPE, output=place / "out", made="specimens"
    )


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A run and a comparison, published together."""
    place = tmp_path_factory.mktemp("several")
    names = ["delayed-anon-w-seq-mt-1", PAIR]
    return publish.write(names, place, ENVELOPE, output=place / "out")


def message_of(file: Path) -> EmailMessage:
    read = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    return read


# ---- what is written ----


def test_the_mail_reads_like_a_mail(published: Published) -> None:
    body = message_of(published.files["eml"]).get_content()
    question, first = body.split("\n\n")[:2]
    assert "> Is there perhaps a VMA for which we have a NULL vm_ops" in question
    assert first.startswith("Yes. After a run of small-allocs-mt on Linux ")
    assert body[: body.index("bare")].endswith("VMAs are ")  # and in brackets it says what that is
    assert body[: body.index("\nEvidence\n")].count("\n") < 48
    assert "[symbol" not in body
    heads = ["Evidence", "How it was found", "What could not be observed", "How to repeat it"]
    places = [body.index(f"\n{head}\n{'-' * len(head)}\n") for head in heads]
    assert places == sorted(places)
    assert re.search(r"\n-- \nanonvma \S+\n$", body)
    assert re.search(r"^figure +n +mean +low +high +from$", body, re.M)
    assert re.search(r"^of these, read and never written +5 +20,480 +20,480 +20,480 ", body, re.M)
    manifest = runs.find("small-allocs-mt").path / "manifest.json"
    digest = subprocess.run(["sha256sum", manifest], capture_output=True, text=True, check=True)
    assert digest.stdout.split()[0] in body
    assert os.uname().nodename not in re.findall(r"[\w.-]+", body)
    for line in body.splitlines():
        assert len(line) <= (80 if re.search(r"\S  +\S", line) or line.startswith("  ") else 72)


def test_the_message_is_one_a_list_takes(published: Published) -> None:
    assert published.complaints == []
    assert mail_lint.check(published.files["eml"].read_bytes()) == []
    (inside,) = mail_file.split(published.files["mbox"].read_bytes())
    assert inside == published.files["eml"].read_bytes()


def test_text_and_page_say_the_same(published: Published) -> None:
    text = " ".join(published.files["text"].read_text().split())
    html = published.files["html"].read_text()
    mibs = runs.find("small-allocs-mt").table("throughput").groupby("repeat")["kb_per_s"].sum()
    for number in ("20,480", "204,800", "838,860,800", f"{mibs.mean() / 1024:,.0f}"):
        assert number in text and number in html
    assert published.rendered[0].verdict is Answer.YES


def test_every_table_and_figure_has_its_source_or_its_words(published: Published) -> None:
    html = published.files["html"].read_text()
    tables = re.findall(r"<table[^>]*>", html)
    assert len(tables) >= 8
    assert all(
        'title="from small-allocs-mt: ' in t or 'title="from specimens: ' in t for t in tables
    )
    assert html.count("<caption><span>from ") == len(tables)
    alts = re.findall(r'<img[^>]*\balt="([^"]*)"', html)
    assert len(alts) == html.count("<img") == 6 and all(len(alt) > 30 for alt in alts)
    assert "zero-page: 20,480 vmas" in alts[0]


def test_a_comparison_and_several(several: Published) -> None:
    run, pair = several.rendered
    assert (run.verdict, pair.verdict) == (Answer.NO, Answer.YES)
    said = " ".join(pair.text.split())
    assert "took mmap_lock 72,162 times in early and 6,626 in delayed" in said
    assert "So bare VMAs explain 100 % of the change in mmap_lock" in said
    assert re.search(r"^lock path +private /dev/zero +read, stays bare ", pair.text, re.M)
    body = message_of(several.files["eml"]).get_content()
    assert "\n\nYes: 1 of 2 reports find " in body
    assert len(re.findall(r"^(?:early|delayed)-\S+ +(?:yes|no) +\d", body, re.M)) == 11
    assert "anonvma pair --boots 5 --cpus 2" in body and body.count("In a new clone") == 1
    assert reproduction.manifests_sha256([*run.about.runs, *pair.about.runs]) in body
    assert reproduction.manifests_sha256(pair.about.runs) in pair.text
    assert "[container" not in body
    assert several.complaints == []
    index = several.files["html"].read_text()
    links = re.findall(r'<a href="([^"]+)"', index)
    assert len(links) == 2 and all((several.directory / link).is_file() for link in links)


def test_wide_tables_are_set_in_two() -> None:
    import pandas as pd

    table = pd.DataFrame({f"column number {n}": [n * 10**9] for n in range(9)})
    parts = [Section("A", ["x"]), Section("B", [], table)]
    lines = mail_body.body(parts).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("column number 0") for line in lines) >= 2
    assert {name for name in table if any(name in line for line in lines)} == set(table)


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(AnonvmaError, match="is there already and was not published"):
        publish.write(["small-allocs-mt"], tmp_path, ENVELOPE, output=tmp_path / "out")
    assert (tmp_path / "out" / "precious").read_text() == "x"


# ---- hostile names ----

HOSTILE = "<script>alert(1)</script>\x1b]0;title\x07\u202e\nBcc: victim@example.org"


def test_hostile_names_show_harmlessly(tmp_path: Path, browser: webdriver.Chrome) -> None:
    """Even where nothing is withheld: in the user's own report, the mail and the page."""
    recorded = runs.find("small-allocs-mt")
    told: dict[str, Any] = json.loads(recorded.manifest.model_dump_json())
    for name in ("format", "anonvma", "created", "finished", "tables", "raw"):
        told.pop(name)
    told["workload"]["name"] = HOSTILE
    told["notes"] = [f"note {HOSTILE}", "[click](javascript:alert(2)) ![x](http://example.org/x)"]
    told["unobserved"] = [{"what": HOSTILE, "reason": HOSTILE, "remedy": HOSTILE}]
    tables = {name: recorded.table(name) for name in recorded.manifest.tables}
    for name, column in (("locks", "asked_by"), ("census", "comm"), ("faults", "comm")):
        frame = tables[name]
        said = frame[column].astype(object).where(frame.index % 2 == 0, HOSTILE)
        tables[name] = frame.assign(**{column: said.astype("category")})
    with RunWriter(tmp_path / "runs", "hostile") as writer:
        written = {n: to_table(frame, SCHEMAS[n]) for n, frame in tables.items()}
        run = writer.finish(written, told)
    parameters = {"run": str(run.path), "specimens": ""}
    notebook = notebooks.execute("06-report", tmp_path / "out.ipynb", parameters)
    file = tmp_path / "hostile.html"
    file.write_text(html_page.page(notebook, run_report.title(run)), encoding="utf-8")
    body = mail_body.body(run_report.sections(run))
    data = mail.compose(
        body,
        subject=printable(run_report.title(run)),
        sender="a@example.org",
        to=["b@c.org"],
    ).as_bytes()
    assert {one.rule for one in mail_lint.check(data)} <= {"table-width", "prose-width"}
    assert b"\nBcc:" not in data and b"\x1b" not in data
    assert "\\x1b]0;title\\x07" in body and "alert(1)" in body
    browser.get(file.as_uri())
    shown = browser.find_element(By.TAG_NAME, "body").text
    assert "<script>alert(1)</script>" in shown and "\u202e" not in shown
    assert complaints(browser) == []
    assert not [asked for asked in requests_of(browser) if "example.org" in asked]
    links = [a.get_attribute("href") for a in browser.find_elements(By.TAG_NAME, "a")]
    assert all(str(link).startswith(f"{file.as_uri()}#") for link in links)  # of its contents


# ---- sending ----


class Kept:
    """What a server was given."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture
def server() -> Iterator[tuple[Kept, int]]:
    """A real SMTP server, on this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = Kept()
    controller = Controller(kept, hostname="127.0.0.1", port=port, decode_data=False)
    controller.start()
    yield kept, port
    controller.stop()


@pytest.fixture
def environment(tmp_path: Path, server: tuple[Kept, int]) -> dict[str, str]:
    """That of a user whose git sends mail to that server."""
    path = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    if not (Path(path.stdout.strip()) / "git-send-email").exists():
        pytest.skip("git cannot send mail (Debian: git-email)")
    configuration = tmp_path / "gitconfig"
    for key, value in {
        "user.name": "A Dev",
        "user.email": "a@example.org",
        "sendemail.smtpServer": "127.0.0.1",
        "sendemail.smtpServerPort": str(server[1]),
        "sendemail.smtpEncryption": "",
    }.items():
        subprocess.run(["git", "config", "--file", configuration, key, value], check=True)
    return {
        **os.environ,
        "GIT_CONFIG_GLOBAL": str(configuration),
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "PAGER": "cat",
        "TERM": "dumb",
        "ANONVMA_RUNS": str(tmp_path / "data" / "runs"),
    }


def executed(published: Published, run: str) -> Path:
    """The notebook of a run that was published: what it would be executed again."""
    return published.directory.parent / f"{run}.ipynb"


# anonvma, but for executing the notebook: that takes longer than all else.
ANONVMA = """
import sys
import nbformat
from anonvma.cli import main
from anonvma.report import notebooks

notebook = nbformat.read(sys.argv.pop(1), 4)
notebooks.execute = lambda name, output, parameters: notebook
main()
"""


def anonvma_in_a_terminal(
    notebook: Path, words: list[str], environment: dict[str, str], answer: str
) -> tuple[int, str]:
    """Run a command in a terminal of 80 columns, answer its question, and return how it ended."""
    argv = ["-c", ANONVMA, str(notebook), *words]
    child = pexpect.spawn(
        sys.executable,
        argv,
        env=environment,
        encoding="utf-8",
        timeout=PATIENCE,
        dimensions=(24, 80),
    )
    child.expect(r"by git send-email\? \[y/N\]: ")
    shown = child.before or ""
    child.sendline(answer)
    child.expect(pexpect.EOF)
    shown += child.before or ""
    child.close()
    return child.exitstatus, shown


def test_sent_received_threaded_and_read(
    server: tuple[Kept, int],
    environment: dict[str, str],
    tmp_path: Path,
    published: Published,
    several: Published,
) -> None:
    kept, _ = server
    (tmp_path / "asked.eml").write_text(ASKED)
    words = ["publish", "small-allocs-mt", "--specimens", "specimens", "--send"]
    words += ["--reply-to", str(tmp_path / "asked.eml"), "--output", str(tmp_path / "out")]
    other = ["publish", "delayed-anon-w-seq-mt-1", "--send", "--to", "linux-mm@example.com"]
    other += ["--output", str(tmp_path / "other")]
    beside = executed(several, "delayed-anon-w-seq-mt-1")
    code, shown = anonvma_in_a_terminal(beside, other, environment, "n")
    assert (code, kept.envelopes) == (0, []) and "not sent" in shown
    notebook = executed(published, "small-allocs-mt")
    code, shown = anonvma_in_a_terminal(notebook, words, environment, "y")
    assert code == 0, shown[-2000:]
    assert "Yes. After a run of small-allocs-mt" in shown and "anonvma: sent." in shown
    (envelope,) = kept.envelopes
    assert envelope.mail_from == "a@example.org"
    assert sorted(envelope.rcpt_tos) == [
        "ann@example.org",
        "jane@example.com",
        "linux-mm@example.com",
    ]
    received = envelope.content.replace(b"\r\n", b"\n")
    assert mail_lint.check(received) == []
    message = email.message_from_bytes(received, policy=email.policy.default)
    ours = message_of(tmp_path / "out" / "report.eml")
    assert message.get_content() == ours.get_content()
    for name in ("Message-ID", "Subject", "From", "In-Reply-To", "References"):
        assert message[name] == ours[name], name
    assert message["In-Reply-To"] == message["References"] == "<asked@example.org>"
    assert message["Subject"] == "Re: [PATCH] a puzzle"
    above = "On Fri, Apr 26, 2024 at 03:01:05PM +0100, Ann Asker wrote:\n> Is there perhaps a VMA?"
    assert message.get_content().startswith(f"{above}\n\nYes.")
    read_by_mutt(received, message.get_content(), tmp_path)


def read_by_mutt(received: bytes, body: str, directory: Path) -> None:
    """A text reader threads it below what it answers, and shows its tables as they are."""
    if shutil.which("mutt") is None:
        pytest.skip("no mutt (Debian: mutt)")
    box = directory / "box"
    between = "From a@example.org Fri Apr 26 15:01:05 2024\n"
    box.write_bytes(f"{between}{ASKED}\n{between}".encode() + received + b"\n")
    (directory / "muttrc").write_text(
        "set sort=threads\nset wait_key=no\nset pager_stop=yes\nset record=''\nset quit=yes\n"
        f"set folder='{directory}'\nset header_cache=''\nset beep=no\n"
    )
    rows = 600  # all of it on one page
    screen = pyte.Screen(80, rows)
    stream = pyte.Stream(screen)
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(directory)}
    argv = ["-n", "-R", "-F", str(directory / "muttrc"), "-f", str(box)]
    child = pexpect.spawn(
        "mutt", argv, env=environment, encoding="utf-8", dimensions=(rows, 80), timeout=PATIENCE
    )

    def until(done: Callable[[list[str]], bool]) -> list[str]:
        """The screen, as soon as it is as awaited and nothing more comes for a moment."""
        end = time.monotonic() + PATIENCE
        before: list[str] = []
        while time.monotonic() < end:
            try:
                stream.feed(child.read_nonblocking(65536, timeout=0.3))
            except pexpect.TIMEOUT:
                now = list(screen.display)
                if now == before and done(now):  # twice alike: nothing is being drawn any more
                    return [line.rstrip() for line in now]
                before = now
        raise AssertionError("\n".join(screen.display))

    index = until(lambda shown: any("Msgs:2" in line for line in shown))
    first, second = (line for line in index if re.match(r" +[12] ", line))
    assert "[PATCH] a puzzle" in first and "\u2514\u2500>" in second  # drawn as a thread
    child.send("\r")
    until(lambda shown: "1/2: Ann Asker" in shown[rows - 2])
    child.send("j")  # to the next message
    lines = until(lambda shown: "2/2: A Dev" in shown[rows - 2])
    assert re.search(r"\((?:end|all)\)$", lines[-2]), lines[-2]
    child.close(force=True)
    tables = [line for line in body.splitlines() if re.search(r"\S  +\S", line)]
    assert len(tables) > 60 and max(map(len, tables)) == 80
    assert [line for line in tables if line.rstrip() not in lines] == []


def test_nothing_is_sent_without_a_terminal(
    server: tuple[Kept, int],
    environment: dict[str, str],
    tmp_path: Path,
    several: Published,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", environment["GIT_CONFIG_GLOBAL"])
    notebook = nbformat.read(executed(several, "delayed-anon-w-seq-mt-1"), 4)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(notebooks, "execute", lambda name, output, parameters: notebook)
    words = ["publish", "delayed-anon-w-seq-mt-1", "--json"]
    words += ["--to", "linux-mm@example.com", "--output", str(tmp_path / "out")]
    done = run_here(*words, "--send")
    assert done.returncode == 1 and "standard input is no terminal" in done.stderr
    assert server[0].envelopes == []
    done = run_here(*words)
    told = json.loads(done.stdout)
    assert told["reports"][0]["answer"] == "no" and told["sent"] is False
    assert told["complaints"] == [] and Path(told["files"]["eml"]).is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "nobody"], "is not one mail address"),
        (["--to", "a@b.org\nBcc: c@d.org"], "is not one mail address"),
        (["--quote", "README.md"], "--quote needs --reply-to"),
        (["--reply-to", "nonsense"], "neither a file nor a message id"),
        (["--allow", "/no/such/file"], "does not exist"),
        (["--output", "README.md"], "is there already"),
    ],
)
def test_wrong_words_are_one_sentence_and_cost_nothing(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = run_here("publish", "small-allocs-mt", *words)
    assert done.returncode in (1, 2) and said in done.stderr
    assert "06-report" not in done.stderr


@pytest.mark.parametrize("name", ["nonsense", "nonsense-*..delayed-small-allocs-mt-*", "a.."])
def test_what_is_no_run(name: str) -> None:
    done = run_here("publish", name)
    assert done.returncode == 1 and done.stderr.startswith("anonvma: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("small-allocs-mt", None),
        ("a-*..b-*", ("a-*", "b-*")),
        ("/data/a-*../data/b-*", ("/data/a-*", "/data/b-*")),
        ("./a..../b", ("./a", "../b")),
        ("../a..b", ("../a", "b")),
        ("../a", None),
        ("data/../runs/a", None),
        ("..", None),
        ("a..", None),
        ("..b", None),
    ],
)
def test_how_a_comparison_is_written(text: str, sides: tuple[str, str] | None) -> None:
    given = publication.sides(text)
    assert given == (dict(zip(("base", "head"), sides, strict=True)) if sides else {"run": text})


# ---- the page, in a browser ----


def emulate(browser: webdriver.Chrome, theme: str, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 390)])
def test_the_page_in_a_browser(
    browser: webdriver.Chrome, published: Published, theme: str, width: int
) -> None:
    network_off(browser)
    emulate(browser, theme, width)
    requests_of(browser)
    browser.get(published.files["html"].as_uri())
    assert complaints(browser) == []
    asked = [one for one in requests_of(browser) if not one.startswith(("data:", "chrome:"))]
    assert asked == [published.files["html"].as_uri()]
    drawn = browser.execute_script(
        "return [...document.images].map(i => i.complete && i.naturalWidth > 300 && i.width > 150)"
    )
    assert drawn == [True] * 6
    # Nothing sticks out: what is wide scrolls by itself.
    widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
    wide, window = browser.execute_script(widths)
    assert wide <= window
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", paper))) > 384
    assert light == (theme == "light")


def test_tables_sort_where_scripts_run(browser: webdriver.Chrome, published: Published) -> None:
    browser.get(published.files["html"].as_uri())
    table = browser.find_elements(By.CSS_SELECTOR, "table.dataframe")[0]
    rows = len(table.find_elements(By.CSS_SELECTOR, "tbody tr"))

    def column(number: int) -> list[str]:
        cells = table.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({number})")
        return [cell.text for cell in cells]

    heads = table.find_elements(By.CSS_SELECTOR, "th button")
    mean = [head.text for head in heads].index("mean")
    for order, expected in (("ascending", False), ("descending", True)):
        heads[mean].click()
        assert table.find_elements(By.TAG_NAME, "th")[mean].get_attribute("aria-sort") == order
        values = [float(text.replace(",", "")) for text in column(mean + 1)]
        assert values == sorted(values, reverse=expected) and len(values) == rows
    heads[0].click()
    assert column(1) == sorted(column(1), key=str.casefold)


def without_blanks(text: str) -> str:
    """And without the ligatures that fonts have."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def test_the_page_without_scripts_and_on_paper(
    browser: webdriver.Chrome, published: Published
) -> None:
    network_off(browser)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(published.files["html"].as_uri())
    assert browser.find_elements(By.CSS_SELECTOR, "th button") == []
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "20,480 of 20,495 VMAs" in text and "How to repeat it" in text
    pdf = base64.b64decode(browser.print_page(PrintOptions()))
    pages = pypdf.PdfReader(io.BytesIO(pdf)).pages
    printed = without_blanks("".join(one.extract_text() for one in pages))
    # Every line that the screen shows, and every figure, is on paper; of the flame graph it is the
    # figure: what is too narrow for its name is of use to a mouse alone.
    moving = browser.find_element(By.CSS_SELECTOR, ".anonvma-flame").text
    assert moving in text
    lines = text.replace(moving, "").splitlines()
    missing = [line for line in lines if without_blanks(line) not in printed]
    assert missing == []
    assert sum(len(one.images) for one in pages) == 6


def test_the_index_in_a_browser(browser: webdriver.Chrome, several: Published) -> None:
    network_off(browser)
    browser.get(several.files["html"].as_uri())
    links = browser.find_elements(By.TAG_NAME, "a")
    links[1].click()
    assert "early against delayed" in browser.title
    assert complaints(browser) == []


def test_the_flame_graph_is_in_the_page(browser: webdriver.Chrome, published: Published) -> None:
    """The interactive one, with the kernel's functions by name, under the page's own policy."""
    network_off(browser)
    requests_of(browser)
    browser.get(published.files["html"].as_uri())
    graph = browser.find_element(By.CSS_SELECTOR, ".anonvma-flame svg.g")
    boxes = {
        box.get_attribute("aria-label").partition(":")[0]: box
        for box in graph.find_elements(By.CSS_SELECTOR, "svg.b")
    }
    assert {"do_anonymous_page", "handle_mm_fault", "all"} <= {*boxes}
    before = boxes["handle_mm_fault"].get_attribute("width")
    browser.execute_script("arguments[0].focus()", boxes["handle_mm_fault"])
    boxes["handle_mm_fault"].send_keys(Keys.ENTER)  # it has the width of the graph now
    assert boxes["handle_mm_fault"].get_attribute("width") != before
    assert complaints(browser) == []
    asked = [one for one in requests_of(browser) if not one.startswith(("data:", "chrome:"))]
    assert asked == [published.files["html"].as_uri()]


def test_sides_without_a_census_are_refused() -> None:
    """Of such runs the answer would be a mean of nothing."""
    with pytest.raises(RunError, match=r"no run of early-profile-\* has a census"):
        publication.check_sides("early-profile-*", "delayed-profile-*")
    publication.check_sides("early-small-allocs-mt-*", "delayed-small-allocs-mt-*")
