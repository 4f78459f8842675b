# SPDX-License-Identifier: GPL-2.0-only
"""Flame graphs: widths and colours by hand, hostile names, and a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.colors import to_rgb
from waiting import PATIENCE

from anonvma import cli
from anonvma.base.errors import ProfileError
from anonvma.perf import export, flame
from anonvma.perf import profile as perf_profile
from anonvma.perf.script import read
from anonvma.run import runs

BASE = pd.Series({"w;main;fault;lock": 60, "w;main;fault;map": 20, "w;main;spin": 20})
HEAD = pd.Series({"w;main;fault;map": 30, "w;main;spin": 70})
HOSTILE = "</script><script>alert(1)</script>$x^2${{%s}}&amp;\"'\x1b[31m\n"


def by_label(boxes: list[flame.Box]) -> dict[str, flame.Box]:
    return {box.label: box for box in boxes}


def test_widths_are_shares_and_children_are_within_their_parents() -> None:
    drawn = flame.boxes(BASE)
    found = by_label(drawn)
    assert {name: round(box.width, 6) for name, box in found.items()} == {
        "all": 1, "w": 1, "main": 1, "fault": 0.8, "lock": 0.6, "map": 0.2, "spin": 0.2,
    }  # fmt: skip
    for box in drawn[1:]:
        below = drawn[box.parent]
        assert box.depth == below.depth + 1
        assert below.left - 1e-9 <= box.left
        assert box.left + box.width <= below.left + below.width + 1e-9


def test_in_a_differential_one_nothing_vanishes() -> None:
    found = by_label(flame.boxes(HEAD, BASE))
    assert found["lock"].share == 0 and found["lock"].base == pytest.approx(0.6)
    assert found["lock"].width == pytest.approx(0.3)  # the mean of both
    assert found["spin"].width == pytest.approx((0.7 + 0.2) / 2)
    assert found["all"].width == 1


def test_what_one_function_calls() -> None:
    found = by_label(flame.boxes(HEAD, BASE, below="fault"))
    assert found["fault"].width == 1 and "main" not in found
    assert found["fault"].share == pytest.approx(0.3) and found["fault"].base == pytest.approx(0.8)
    with pytest.raises(ProfileError, match="no stack has nothing in it"):
        flame.boxes(HEAD, below="nothing")


def test_narrow_boxes_are_left_out_and_runs_of_nothing_are_one() -> None:
    stacks = pd.Series({"w;a": 9999, "w;b": 1, "w;[unknown];[unknown];[unknown];c": 5000})
    found = flame.boxes(stacks, least=0.01)
    assert [box.label for box in found].count("[unknown]") == 1
    assert "b" not in by_label(found)


def test_a_run_is_the_mean_of_its_repeats_and_a_kind_the_mean_of_its_runs() -> None:
    every = runs.find_all("early-profile-*")
    shares = [perf_profile.children(p).get("vm_mmap_pgoff", 0.0)
              for p in perf_profile.of_run(every[0]).values()]  # fmt: skip
    boxes = [b for b in flame.boxes(every[0], below="vm_mmap_pgoff") if b.depth == 1]
    assert 100 * boxes[0].share == pytest.approx(np.mean(shares))
    whole = [flame.boxes(run, below="vm_mmap_pgoff")[1].share for run in every]
    assert flame.boxes(every, below="vm_mmap_pgoff")[1].share == pytest.approx(np.mean(whole))


def test_the_pairs_difference_is_blue_where_the_fault_path_takes_the_rwsem() -> None:
    early, delayed = (runs.find_all(f"{name}-profile-*") for name in ("early", "delayed"))
    ax = flame.plot(delayed, early, below="asm_exc_page_fault")
    drawn = flame.boxes(delayed, early, below="asm_exc_page_fault")
    colours = ax.collections[0].get_facecolor()
    assert len(colours) == len(drawn)
    for name in ("lock_mm_and_find_vma", "down_read_killable", "rwsem_down_read_slowpath"):
        place = next(i for i, box in enumerate(drawn) if box.label == name)
        red, _, blue = colours[place][:3]
        assert blue > red + 0.15, name
    # And nothing else below the handler, but what leads there, loses as much.
    way = {"all", "asm_exc_page_fault", "exc_page_fault", "do_user_addr_fault"}
    lost = min((box for box in drawn if box.label not in way), key=lambda box: box.share - box.base)
    assert lost.label == "lock_mm_and_find_vma"
    plt.close("all")


# ---- hostile names ----


def hostile() -> pd.Series:
    return pd.Series({f"w;main;{HOSTILE.replace(';', ':')}": 1, "w;main;ok": 1})


def test_hostile_names_are_text(tmp_path: Path) -> None:
    fragment = flame.interactive(hostile(), HEAD, title=HOSTILE, names=(HOSTILE, "b"))
    assert "<script>alert" not in fragment and fragment.count("<script>") == 1
    assert "\x1b" not in fragment

    labels = []

    class Labels(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            labels.append(dict(attrs).get("aria-label") or "")

    Labels().feed(fragment)
    assert any("alert(1)" in label and "&amp;" in label for label in labels)
    for name in ("flame.png", "flame.svg"):
        flame.plot(hostile()).figure.savefig(tmp_path / name)
    ElementTree.parse(tmp_path / "flame.svg")
    plt.close("all")


def test_a_fragment_refers_to_no_address() -> None:
    fragment = flame.page(flame.interactive(runs.find("early-profile-1")), "t")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|src=|fetch\(|import\(", fragment)
    assert "default-src 'none'" in fragment


def test_ink_can_be_read() -> None:
    def light(colour: str) -> float:
        parts = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for found in re.findall(
        r'fill="(#\w+)"/><text [^>]*fill="(#\w+)"', flame.interactive(HEAD, BASE)
    ):
        bright, dark = sorted(map(light, found), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, found  # WCAG AA


# ---- a real browser ----

KEYS = r"""
<script>
const out = [], root = document.querySelector('.anonvma-flame');
const here = () => document.activeElement;
const at = () => here().getAttribute('aria-label') || here().tagName;
const press = key => here().dispatchEvent(
  new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
const width = label => {
  const box = [...root.querySelectorAll('svg.b')].find(
    b => b.getAttribute('aria-label').startsWith(label));
  return box.style.display === 'none' ? 0 : Math.round(parseFloat(box.getAttribute('width')));
};
root.querySelector('svg.b[tabindex="0"]').focus(); out.push(at());
press('ArrowUp'); press('ArrowUp'); press('ArrowUp'); out.push(at());
press('ArrowRight'); out.push(at());
press('ArrowLeft'); press('Enter'); out.push([width('fault'), width('spin'), width('lock')]);
press('Escape'); out.push([width('fault'), width('spin')]);
press('/'); out.push(at());
const field = root.querySelector('input');
field.value = 'LOCK'; field.dispatchEvent(new Event('input'));
out.push(root.querySelectorAll('svg.f').length, root.querySelector('p').textContent);
document.body.innerHTML = ''; document.body.textContent = 'RESULT' + JSON.stringify(out) + 'END';
</script></body>"""


def test_keys_zoom_and_search_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: install chromium")
    page = tmp_path / "flame.html"
    whole = flame.page(flame.interactive(BASE), "t").replace("</body>", KEYS)
    page.write_text(whole, encoding="utf-8")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*words, page.as_uri()], capture_output=True, check=True, timeout=PATIENCE
    )
    found = re.search(rb"RESULT(.*)END", done.stdout)
    assert found, done.stdout[-500:]
    assert json.loads(html.unescape(found[1].decode())) == [
        "all: 100 %",
        "fault: 80 %",
        "spin: 20 %",
        [100, 0, 75],
        [80, 20],
        "INPUT",
        1,
        "1 boxes have it: 60.0 % of the width",
    ]


# ---- for other programs ----

TEXT = (
    b"a b 1/2 [003] 1.000000:  30 cpu-clock: \n\tffffffff81000001 in kernel ([kernel.kallsyms])\n"
    b"\t 7 main; (/tmp/my file)\n\na b 1/2 [003] 1.500000:  10 cpu-clock: \n\t 7 main; "
    b"(/tmp/my file)\n\nc 1/3 [000] 1.700000:  60 cpu-clock: \n\t 9 other (/tmp/w)\n\n"
)


def test_folded_stacks_are_lines() -> None:
    assert export.folded(read([TEXT], theirs=True)) == (
        "a b;main: 10\na b;main:;in kernel 30\nc;other 60\n"
    )


def test_text_for_firefox_is_text_of_perf_script() -> None:
    profile = read([TEXT], theirs=True)
    again = read([export.firefox(profile).encode()], theirs=True)
    assert list(again.samples["period"]) == [30, 10, 60]
    assert list(again.samples["comm"]) == ["a b", "a b", "c"]
    assert dict(perf_profile.self_(again)) == pytest.approx(dict(perf_profile.self_(profile)))
    # What the Firefox profiler takes for a frame: an address, a symbol, a file without blanks.
    for line in export.firefox(profile).splitlines():
        assert not line.startswith("\t") or re.fullmatch(r"\s+\w+ .+ \(\S+\)", line)


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("f.html", b"<!DOCTYPE html>"),
        ("f.png", b"\x89PNG"),
        ("f.svg", b"<?xml"),
        ("f.folded", b"vmload;"),
        ("f.perf.txt", b"vmload "),
    ],
)
def test_the_command_writes_each(name: str, begins: bytes, tmp_path: Path) -> None:
    words = ["profile", "delayed-profile-1", "--base", "early-profile-1", "-o"]
    done = CliRunner().invoke(cli.main, [*words, str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_bytes().startswith(begins)
    plt.close("all")


def test_the_command_prints_tables_or_says_why_not() -> None:
    invoke = CliRunner().invoke
    done = invoke(cli.main, ["profile", "delayed-profile-1", "--base", "early-profile-1", "--json"])
    found = json.loads(done.output)
    assert {row["part"] for row in found["purpose"]} == set(perf_profile.PARTS)
    done = invoke(cli.main, ["profile", "specimens"])
    assert done.exit_code == 1 and "no table samples" in done.output
    done = invoke(cli.main, ["profile", "early-profile-1", "-o", "x.pdf"])
    assert done.exit_code == 2 and ".perf.txt" in done.output
