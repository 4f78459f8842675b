# SPDX-License-Identifier: GPL-2.0-only
"""Redaction: planted secrets do not get out, shapes are known, and what is ours stays."""

from __future__ import annotations

import base64
import html
import os
import re
import urllib.parse
import zlib
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from planted import (
    CORES,
    ENVIRONMENT,
    IN_IMAGES,
    planted_checkout,
    planted_run,
    png_with,
)

from anonvma.base.errors import RedactionError
from anonvma.report import (
    identities,
    images,
    layout,
    markup,
    notebooks,
    public_words,
    publish,
    redaction,
    run_report,
    subject,
)
from anonvma.run import runs


def everything_in(data: bytes) -> str:
    """A file's text and all that is packed in it: base64, compressed chunks, escapes."""
    text = data.decode("utf-8", "replace")
    parts = [text, html.unescape(text), urllib.parse.unquote(text)]
    for coded in re.findall(r"base64,([A-Za-z0-9+/=%]+)", text):
        raw = base64.b64decode(urllib.parse.unquote(coded))
        parts.append(raw.decode("utf-8", "replace"))
        for start in re.finditer(rb"x[\x01\x5e\x9c\xda]", raw):
            try:
                parts.append(
                    zlib.decompressobj().decompress(raw[start.start() :]).decode("latin-1")
                )
            except zlib.error:
                continue
    joined = "\n".join(parts)
    return joined + re.sub(r"\s+", "", joined)


def test_the_oracle_finds_what_is_packed() -> None:
    """Otherwise the test below could not fail."""
    picture = base64.b64encode(png_with(IN_IMAGES)).decode()
    found = everything_in(f'<img src="data:image/png;base64,{picture}">'.encode())
    assert all(word in found for word in IN_IMAGES)


def test_two_hundred_planted_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, value in enumerate(ENVIRONMENT):
        monkeypatch.setenv(f"PLANTED_{number}", value)
    run = planted_run(tmp_path / "runs")
    # They are there to be found: in the run's files, and in the report as it would be without.
    raw = "".join(layout.text(run_report.sections(run), run_report.title(run)).split())
    assert sum(core in raw for core in CORES) > 60
    checkout = planted_checkout(tmp_path / "checkout")
    monkeypatch.setattr(notebooks.paths, "root", lambda: checkout)
    (tmp_path / "scratch").mkdir()
    done = publish.write(
        [str(run.path)], tmp_path / "scratch", publish.Envelope(), output=tmp_path / "out"
    )
    written = [file for file in done.directory.rglob("*") if file.is_file()]
    assert {file.name for file in written} == {
        "report.txt",
        "report.eml",
        "report.mbox",
        "report.html",
        ".anonvma",
    }
    for file in written:
        found = everything_in(file.read_bytes())
        assert [core for core in CORES if core in found] == [], file.name
    page = done.files["html"].read_text()
    # What was not secret is still there, figures and all.
    assert "kept words" in page and page.count("<img") == 5 + 2
    assert 'alt="a pixel"' in page and 'alt="a square"' not in page  # an SVG
    text = done.files["text"].read_text()
    assert "[process 1]" in text or "[process" in text
    said = done.files["eml"].read_text()
    assert re.search(r"Withheld, since it may\s+name the machine", said)
    assert any(value in kept for kept in done.withheld.values() for value in ENVIRONMENT)


def test_what_is_ours_is_not_touched() -> None:
    for name in ("small-allocs-mt", "early-small-allocs-mt-1"):
        about = subject.find(name, "specimens")
        wall = redaction.Wall.around(about.runs)
        plain = layout.text(about.sections(), about.title)
        assert wall.scrub(plain) == plain
        shared = about.shared(wall)
        assert layout.text(shared.sections(), shared.title) == plain
        assert wall.summary(plain) == {} and wall.said(plain) == ""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("address", "192.168.17.4"),
        ("address", "2001:db8::8a2e:370:7334"),
        ("address", "fe80::1"),
        ("address", "52:54:00:12:34:56"),
        ("pointer", "ffff888104a3b2c0"),
        ("pointer", "0xffffffff81a3b2c0"),
        ("pointer", "0xc01a2b3c"),
        ("path", "/home/someone/file"),
        ("path", "/root"),
        ("path", "/srv/project/x"),
        ("path", "~/notes/x.txt"),
        ("machine id", "0123456789abcdef0123456789abcdef"),
        ("machine id", "8a0f2f3e-1b2c-4d5e-8f90-a1b2c3d4e5f6"),
        ("container", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("cgroup", "user@1000.service"),
        ("cgroup", "docker-8a0f2f3e1b2c.scope"),
        ("cgroup", "kubepods/burstable/pod42"),
        ("host", "db01.prod.internal"),
        ("mail address", "someone@example.org"),
        ("secret", "API_TOKEN=abc123"),
        ("kernel log", "[   12.345678] usb 1-1: new device"),
    ],
)
def test_shapes(kind: str, words: str) -> None:
    wall = redaction.Wall([])
    assert wall.scrub(f"it was {words}") == f"it was [{kind} 1]"
    assert wall.scrub(f"it was {words}") == f"it was [{kind} 1]"
    assert redaction.Wall([], {words}).scrub(f"it was {words}") == f"it was {words}"


@pytest.mark.parametrize(
    "words",
    [
        "do_anonymous_page() (mm/memory.c)",
        "Linux 6.12.117, QEMU 7.2.22, at 12:30:45",
        "20,480 of 20,495 VMAs; 99.97 %; 838,860,800 bytes",
        "bare -> anon_vma, vma->anon_vma, a/b and 3/4",
        "/dev/zero, /proc/config.gz, /sys/kernel/mm, /usr/lib",
        "git checkout 6b321730a29a",
        "std::vector, a::b::c, 10:20",
        "[ 1.0, 2.0 ] and [1.5, 2.5]",
        "notebooks/01-collect.ipynb and .venv/bin/anonvma",
    ],
)
def test_what_has_none_of_these_shapes(words: str) -> None:
    assert redaction.Wall([]).scrub(words) == words


def test_a_fact_is_found_however_it_is_spelt() -> None:
    value = 'a&b <"x">\u00e9/zeta9'
    wall = redaction.Wall([("path", value), ("command line", "zeta7 --one two --three four")])
    for spelt in (
        value,
        value.upper(),
        html.escape(value),
        urllib.parse.quote(value),
        'a\\u0026b \\u003c\\"x\\"\\u003e\\u00e9/zeta9',
    ):
        assert "[path 1]" in wall.scrub(f"see {spelt} there"), spelt
    for wrapped in ("zeta7 --one two\n--three four", "zeta7 --one \\\n        two --three four"):
        assert wall.scrub(f"ran {wrapped} here") == "ran [command line 1] here"
    assert wall.leaks("zeta7 --one two\n> --three four")


def test_a_short_fact_is_found_as_a_word_only() -> None:
    wall = redaction.Wall([("user", "qzx"), ("host", "zq9")])
    assert wall.scrub("qzx's qzx_file, qzx@zq9: qzxy aqzx") == (
        "[user 1]'s [user 1]_file, [user 1]@[host 1]: qzxy aqzx"
    )


def test_facts_of_this_machine() -> None:
    environment = {"HOSTNAME": "zeta9.example", "USER": "qzxuser", "X_TOKEN": "value-of-zeta"}
    facts: dict[str, str] = {}
    for kind, value in identities.facts_of_machine(environment):
        facts.setdefault(value, kind)
    assert facts["zeta9.example"] == facts["zeta9"] == "host"
    assert facts["qzxuser"] == "user" and facts["value-of-zeta"] == "environment"
    for file in Path("/sys/class/net").glob("*/address"):
        assert facts[file.read_text().strip()] == "address"
    machine_id = Path("/etc/machine-id")
    if machine_id.exists() and machine_id.read_text().strip():
        assert facts[machine_id.read_text().strip()] == "machine id"
    assert os.path.expanduser("~") in facts


def test_the_list_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "allow"
    file.write_text("# a comment\n\nzeta-proc01qz\n  /srv/acme/dir02qz/ledger.db \n")
    allowed = redaction.allowed_by(file)
    assert allowed == {"zeta-proc01qz", "/srv/acme/dir02qz/ledger.db"}
    run = planted_run(tmp_path / "runs")
    wall = redaction.Wall.around([run], allowed)
    comm = set(redaction.Shared(run, wall).table("census")["comm"].dropna())
    assert "zeta-proc01qz" in comm and "vmload" in comm and "zeta-proc02qz" not in comm
    with pytest.raises(RedactionError, match="cannot read the list"):
        redaction.allowed_by(tmp_path / "absent")


def test_a_shared_run_keeps_its_types_and_numbers(tmp_path: Path) -> None:
    run = planted_run(tmp_path)
    shared = redaction.Shared(run, redaction.Wall.around([run]))
    for name in run.manifest.tables:
        one, other = run.table(name), shared.table(name)
        assert list(one.dtypes.index) == list(other.dtypes.index) and len(one) == len(other)
        assert one["comm"].nunique() == other["comm"].nunique() if "comm" in one else True
    assert shared.manifest.tables == run.manifest.tables


def test_a_shared_run_is_shared_however_its_tables_are_read(tmp_path: Path) -> None:
    """Metrics are made of columns as Arrow has them; their names stand in figures."""
    run = planted_run(tmp_path)
    shared = redaction.Shared(run, redaction.Wall.around([run]))
    for name, column in (("faults", "comm"), ("locks", "asked_by"), ("census", "name")):
        told = run.arrow(name, ["repeat", column]).column(column)
        kept = shared.arrow(name, ["repeat", column])
        assert (
            kept.column_names == ["repeat", column] and kept.schema.field(column).type == told.type
        )
        kinds = kept.column(column).combine_chunks().dictionary.to_pylist()
        words = str(kept.to_pydict()) + str(kinds)
        assert any(core in str(told.to_pylist()) for core in CORES)
        assert [core for core in CORES if core in words] == []
    alike = pa.array(["Zeta7", "zeta7", None, "vmload"]).dictionary_encode()
    replaced = redaction._replaced(alike, {"Zeta7": "[process 1]", "zeta7": "[process 1]"})
    assert replaced.to_pylist() == ["[process 1]", "[process 1]", None, "vmload"]


@pytest.mark.parametrize(
    ("fact", "told", "shown"),
    [
        ("kernel_release", "6.12.117-early", "6.12.117-early"),
        ("kernel_release", "6.18.44-fc-v595", "6.18.44-fc-v595"),
        ("kernel_release", "7.3.4+deb13-arm64", "7.3.4+deb13-arm64"),
        ("kernel_release", "6.12.0-alice-node+", "6.12.0-[kernel name 1]-[kernel name 2]+"),
        ("kernel_release", "6.12.0-zo-rg", "6.12.0-[kernel name 1]-[kernel name 2]"),
        ("kernel", "6.12.0-12345678901234", "6.12.0-[kernel name 1]"),
        ("append", "quiet panic=-1 console=ttyS0,115200", None),
        ("append", "zeta7=on transparent_hugepage=never", "[kernel parameter 1] trans"),
        ("append", "pass=4111111111111111", "[kernel parameter 1]"),
        ("append", "console=ttyZETA mark", "[kernel parameter 1] [kernel parameter 2]"),
        ("cpu_model", "QEMU TCG CPU version 2.5+", "QEMU TCG CPU version 2.5+"),
        ("cpu_model", "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", None),
        ("cpu_model", "AMD EPYC-Milan-v2 Processor", "AMD EPYC-Milan-v2 Processor"),
        ("cpu_model", "implementer 0x00, part 0x051", None),
        ("cpu_model", "AMD Milan_zeta7 (zeta)", "AMD [cpu name 1] [cpu name 2]"),
        ("cpu_model", "Intel mark", "Intel [cpu name 1]"),
    ],
)
def test_what_a_kernel_or_a_machine_was_named(fact: str, told: str, shown: str | None) -> None:
    """Common words, too: what is not a word of releases, parameters or processors was chosen."""
    found = redaction._named_apart({fact: told}, redaction.Wall([]))[fact]
    assert found.startswith(shown or told)


@pytest.mark.parametrize(
    "word",
    ["z-e-t-a", "a1-b2-c3-d4", "aa.bb.cc.dd", "12-34-56-78", "%7A%65%74", "=7A=65=74", "ze/ta/7q"],
)
def test_what_is_taken_to_pieces_is_a_word(word: str) -> None:
    assert list(public_words.own_words(f"the run {word}"))
    assert not list(
        public_words.own_words("on 2026-11-27 at 12:30:45, 1.5/2, x86-64, a/b, 6.12.117")
    )


def test_what_would_leak_is_not_written() -> None:
    wall = redaction.Wall([("host", "zeta9host")])
    with pytest.raises(RedactionError, match="would still have 1 of the things"):
        publish._refuse_leaks(wall, "on zeta9host it was")


# ---- markup and images ----


def test_an_image_keeps_what_is_seen() -> None:
    bare = images.bare_png(png_with(IN_IMAGES))
    assert bare is not None and b"IDAT" in bare and bare.endswith(b"IEND\xaeB`\x82")
    assert not any(word.encode() in bare for word in IN_IMAGES)
    for broken in (b"", b"\x89PNG\r\n\x1a\n", png_with(IN_IMAGES)[:60], b"GIF89a"):
        assert images.bare_png(broken) is None


HOSTILE = "\x1b]0;x\x07<script>alert(1)</script>\u202e\r\nX: y\"'><img src=x onerror=alert(2)>"


@pytest.mark.parametrize(
    "markup_",
    [
        "<p>{}</p>",
        "<p title='{}'>x</p>",
        "<script>{}</script><p>x</p>",
        "<svg><script>{}</script><text onload='{}'>x</text></svg>",
        "<style>p {{ background: url(http://example.org/{}) }} @import 'http://e.org';</style>",
        "<a href='javascript:{}'>x</a><a href='https://example.org/'>y</a>",
        "<img src='http://example.org/x.png' onerror='{}'>",
        "<table background='http://example.org/'><tr><td style='background:url(//e.org)'>x",
        "<iframe src='http://example.org'></iframe><object data='x'></object><embed src='x'>",
        "<link rel=stylesheet href='http://example.org/x.css'><base href='http://e.org'>",
        "<meta http-equiv=refresh content='0; url=http://example.org'>",
        "<form action='http://example.org'><input autofocus onfocus='{}'></form>",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;{}'>",
        "<!--><img src=x onerror=alert(3)>-->",
        "<p><b>unclosed <i>{}",
    ],
)
def test_nothing_runs_or_loads(markup_: str) -> None:
    hostile = markup_.format(*[HOSTILE] * markup_.count("{}"))
    clean = markup.harmless(hostile, redaction.Wall([]))
    low = clean.lower()
    assert (
        "<script" not in low and "<iframe" not in low and "<img" not in low.replace("<img data", "")
    )
    assert not re.search(r"<[^>]*\son\w+\s*=", low)
    assert not re.search(r"(?:src|background|data|action)\s*=\s*.?(?:http|//)", low)
    assert "javascript:" not in re.sub(r">[^<]*<", "><", low)
    assert "url(http" not in low and "@import" not in low
    assert not any(c in clean for c in "\x1b\x07\u202e")


def test_of_images_only_png_stay() -> None:
    coded = base64.b64encode(png_with(IN_IMAGES)).decode()
    clean = markup.harmless(f'<img src="data:image/png;base64,{coded}">', redaction.Wall([]))
    (kept,) = re.findall(r"base64,([^\"]+)", clean)
    assert base64.b64decode(kept) == images.bare_png(png_with(IN_IMAGES))
    for kind in ("svg+xml", "jpeg", "gif"):
        image = f'<img src="data:image/{kind};base64,{coded}">'
        assert "data:" not in markup.harmless(image, redaction.Wall([]))


def test_ours_may_have_a_script() -> None:
    wall = redaction.Wall([("process", "zeta9comm")])
    clean = markup.harmless(
        '<script>const name = "zeta9comm", x = /a/b/;</script>', wall, ours=True
    )
    assert clean == '<script>const name = "[process 1]", x = /a/b/;</script>'


def test_every_run_of_the_project_may_be_shared() -> None:
    for directory in sorted((Path(__file__).parents[2] / "data" / "recorded").glob("*/")):
        run = runs.Run.open(directory)
        redaction.Shared(run, redaction.Wall.around([run]))


def withheld_in(column: str, frame: pd.DataFrame) -> list[str]:
    (found,) = [words for name, _, words in identities.foreign(frame) if name == column]
    return found


def test_functions_that_everybody_has_are_not_withheld() -> None:
    """Of the kernel, the C library and our own programs; not those of a program of the user's."""
    files = {
        "[kernel.kallsyms]": ["do_anonymous_page", "zeta7_fault", "bpf_prog_6deef7357e7b4530"],
        "vmload": ["run_task", "__memset_avx2_unaligned_erms", "_int_malloc", "[unknown]"],
        "libc.so.6": ["__GI___mmap64", "qsort_r"],
        "/usr/lib/libstdc++.so.6": ["std::basic_istream<char>::read(char*, long)"],
    }
    named = [(symbol, file) for file in files for symbol in files[file]]
    assert withheld_in("symbol", pd.DataFrame(named, columns=["symbol", "file"])) == []
    recorded = runs.find("small-allocs-mt").table("frames")
    assert withheld_in("symbol", recorded) == []
    # Whatever program has it: its name is no proof.
    private = [
        ("acme_ledger", "vmload"),
        ("AcmeLedger::post(int)", "libc.so.6"),
        ("a_c_m_e", "libstdc++.so.6"),
        ("acme", "vmaprobe"),
        ("call_4111111111111111", "specimens"),
        ("zeta7_fault", "[zeta7]"),
        ("bpf_prog_6deef7357e7b4530_acme", "[kernel.kallsyms]"),
        ("acme zeta7", "[kernel.kallsyms]"),
        ("do_anonymous_acme", "a.out"),
    ]
    symbols = [symbol for symbol, _ in private]
    shown = pd.DataFrame(named + private, columns=["symbol", "file"])
    assert withheld_in("symbol", shown) == sorted(symbols)


def test_events_that_somebody_named_are_withheld() -> None:
    """Of the kernel, of perf and of processors they are anybody's."""
    public = [
        *("cycles:ppp", "L1-dcache-load-misses", "cpu_core/instructions/u", "r01c4", "r3c:u"),
        *("exceptions:page_fault_user", "probe:do_anonymous_page", "probe_libc:malloc"),
        *("armv8_pmuv3_0/ll_cache_miss_rd/", "power/energy-pkg/", "sched:sched_switch"),
    ]
    private = [
        *("acme", "probe:acme_ledger", "probe_acme:malloc", "probe_alice:secret_fn", "r01c4_acme"),
        *("uprobes:a_c_m_e", "cycles,name=acme/", "L1-a-c-m-e"),
    ]
    for column in ("event", "counter", "fact", "unit", "vm_ops", "asked_by"):
        assert withheld_in(column, pd.DataFrame({column: public + private})) == sorted(private)
    paths = ["__libc_fork;asm_exc_page_fault;exc_page_fault", "run_task;unknown;do_anonymous_page"]
    private = ["acme_ledger;asm_exc_page_fault", "start_thread;acme"]
    assert withheld_in("call_path", pd.DataFrame({"call_path": paths + private})) == private
    with Path("/proc/vmstat").open() as lines:
        counted = pd.DataFrame({"counter": [line.split()[0] for line in lines]})
    assert withheld_in("counter", counted) == []


def test_what_we_call_a_caller_is_no_name_of_anybodys() -> None:
    assert public_words.is_public("reader of /proc") and public_words.is_public("page fault")
    assert not public_words.is_public("reader of /home/alice")
