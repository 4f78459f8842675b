# SPDX-License-Identifier: GPL-2.0-only
"""The explorer's controls and views, driven from Python; a browser does it in its own test."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import start_ipython

from anonvma.base.errors import SelectionError
from anonvma.explore import controls, views_compare, views_faults
from anonvma.explore import explorer as explore
from anonvma.explore import source as source_module
from anonvma.explore.filter import Filter
from anonvma.explore.selection import Vmas
from anonvma.explore.source import Source
from anonvma.explore.views import VIEWS
from anonvma.probe import faults_file
from anonvma.report.html_page import page as page_of
from anonvma.run import runs

RUN = "specimens"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def explorer() -> explore.Explorer:
    return explore.Explorer(RUN)


# ---- narrowing, by each control ----


def test_every_control_narrows(explorer: explore.Explorer) -> None:
    c, frame = explorer.controls, runs.find(RUN).table("census")
    c["state"].value = ("zero-page",)
    assert len(explorer.selection) == (frame["class"] == "zero-page").sum()
    c["origin"].value = ("private anonymous",)
    both = (frame["class"] == "zero-page") & (frame["origin"] == "private anonymous")
    assert len(explorer.selection) == both.sum()
    tgid = c["process"].options[0][1]
    c["process"].value = (tgid,)
    assert len(explorer.selection) == (both & (frame["tgid"] == tgid)).sum()
    c["size"].value = (16384, 1 << 47)
    assert explorer.filter().smallest == 16384 and explorer.filter().largest is None
    c["having"].value = ("WRITE",)
    writable = frame["flags"].map(lambda flags: bool(int(flags) & 2))
    assert (
        len(explorer.selection)
        == (both & (frame["tgid"] == tgid) & writable & (frame["bytes"] >= 16384)).sum()
    )
    c["lacking"].value = ("WRITE",)
    assert explorer.summary().startswith("Nothing is selected: no VMA meets every condition")
    c["clear"].click()
    assert len(explorer.selection) == len(frame)
    assert explorer.filter() == Filter()


def test_a_row_is_looked_at_everywhere(explorer: explore.Explorer) -> None:
    c = explorer.controls
    c["state"].value = ("zero-page",)
    c["key"].value, c["descending"].value = "size", True
    place = c["row"].options[0][1]
    largest = explorer.selection.frame()["bytes"].max()
    c["row"].value = place
    row = runs.find(RUN).table("census").iloc[place]
    assert row["bytes"] == largest
    address = f"{row['start']:x}-{row['end']:x}"
    for name in ("vmas", "map", "pages", "faults"):
        assert address in explorer.view(name), name
    for name in ("map", "pages", "faults", "call paths", "vmas"):
        c[f"to {name}"].click()
        assert list(controls.TABS)[explorer.tabs.selected_index] == name
    c["none"].click()
    assert address not in explorer.view("map")
    # A filter that leaves it out looks at it no longer.
    explorer.look_at(place)
    c["state"].value = ("guard",)
    assert explorer.shown is not None and explorer.shown.chosen is None


def test_the_list_goes_on_in_parts() -> None:
    explorer = explore.Explorer("small-allocs-mt")
    c = explorer.controls
    assert c["page"].max == 103 and len(c["row"].options) == controls.ROWS
    first = c["row"].options
    c["page"].value = 103
    assert len(c["row"].options) == len(explorer.selection) - 102 * controls.ROWS
    assert not {place for _, place in first} & {place for _, place in c["row"].options}
    c["state"].value = ("guard",)
    assert c["page"].value == 1 and len(c["row"].options) == len(explorer.selection)


def test_the_repeat_is_chosen() -> None:
    explorer = explore.Explorer("small-allocs-mt")
    table = runs.find("small-allocs-mt").table("census")
    explorer.controls["repeat"].value = 2
    assert "repeat 2 of 5" in explorer.view("overview")
    assert set(explorer.selection.frame()["tgid"]) == set(table.loc[table["repeat"] == 2, "tgid"])


def test_the_filter_outlives_the_run(explorer: explore.Explorer) -> None:
    explorer.controls["state"].value = ("zero-page",)
    explorer.controls["run"].value = "early-specimens-1"
    frame = runs.find("early-specimens-1").table("census")
    assert explorer.filter().states == ("zero-page",)
    assert len(explorer.selection) == (frame["class"] == "zero-page").sum()


def test_a_range_of_addresses(explorer: explore.Explorer) -> None:
    c, frame = explorer.controls, runs.find(RUN).table("census")
    middle = int(frame["start"].iloc[len(frame) // 2])
    c["from"].value = f"{middle:x}"
    assert len(explorer.selection) == (frame["start"] >= middle).sum()
    c["to"].value = "not hexadecimal"
    assert explorer.trouble == "'to' is 'not hexadecimal': an address in hexadecimal is needed."
    assert len(explorer.selection) == (frame["start"] >= middle).sum()


# ---- faults and call paths ----


def test_faults_of_a_vma_are_those_in_its_range(explorer: explore.Explorer) -> None:
    run = runs.find(RUN)
    events, frame = run.table("fault_events"), run.table("census")
    assert explorer.shown is not None
    for place in np.flatnonzero(frame["class"] == "zero-page")[::5]:
        row = frame.iloc[place]
        inside = (
            (events["tgid"] == row["tgid"])
            & (events["address"] >= row["start"])
            & (events["address"] < row["end"])
        )
        explorer.look_at(int(place))
        view = views_faults.fault_view(explorer.shown)
        assert f"{inside.sum():,} of {len(events):,} traced page faults" in " ".join(view.words)


def test_another_execution_is_matched_by_origin_and_says_so() -> None:
    run = runs.find("small-allocs-mt")
    explorer = explore.Explorer("small-allocs-mt")
    explorer.controls["state"].value = ("zero-page",)
    events = run.table("fault_events")
    kept = (events["origin"] == "private /dev/zero") & (events["after"] == "bare")
    assert explorer.shown is not None
    said = " ".join(views_faults.fault_view(explorer.shown).words)
    assert f"{kept.sum():,} of {len(events):,} traced page faults" in said
    assert "by origin alone" in said and "addresses differ" in said


def test_call_paths_are_there_or_say_why_not(explorer: explore.Explorer) -> None:
    explorer.controls["state"].value = ("zero-page",)
    assert explorer.shown is not None
    view = views_faults.call_paths(explorer.shown)
    (table,) = view.tables
    assert table["call_path"].str.contains("apply_touch → asm_exc_page_fault").any()
    assert set(table["change"]) == {"bare -> bare"}
    without = views_faults.call_paths(explore.Explorer("early-small-allocs-mt-3").shown)  # type: ignore[arg-type]
    assert not without.tables
    assert "No call paths of page faults were recorded here" in without.words[0]
    assert "collect it anew" in without.words[0]


def test_call_paths_add_up_to_the_faults() -> None:
    """Told apart by stack and then put together again, the faults are as many."""
    frames = {}
    for name in ("faults", "call_paths"):
        table = runs.find(RUN).table(name)
        keys = ["tgid", "origin", "access", "before", "after", "path", "result"]
        frames[name] = table.astype({"origin": "str"}).groupby(keys, observed=True)["count"].sum()
    pd.testing.assert_series_equal(frames["faults"], frames["call_paths"])


def test_call_paths_of_hostile_functions() -> None:
    group = {"process": 1, "kind": 0, "mode": "user", "access": "read", "before": 1, "after": 3}
    group |= {"path": "vma", "result": "minor", "reason": "", "count": 2}
    group |= {"kernel_stack": 5, "user_stack": 9}
    found = {
        "groups": [group | {"time_ns": 0, "wait_ns": 0, "log2_ns": []}],
        "kinds": [],
        "processes": [{"id": 1, "tgid": 3, "parent": 0, "how": "named", "comm": "x"}],
        "stacks": {"5": ["inner", "outer"]},
        "user_stacks": {"1:9": ["a;b<script>", "main"]},
    }
    table = faults_file.read_call_paths(json.dumps(found).encode())
    assert table["call_path"].tolist() == ["main;a:b<script>;outer;inner"]
    del found["groups"][0]["count"]
    with pytest.raises(faults_file.FaultsError, match="call paths of faults are damaged"):
        faults_file.read_call_paths(json.dumps(found).encode())


# ---- two runs ----


def test_what_differs_is_what_the_runs_hold() -> None:
    explorer = explore.Explorer("early-small-allocs-mt-1", "delayed-small-allocs-mt-1")
    assert explorer.shown is not None
    view = views_compare.differs(explorer.shown)
    table, transitions, environment = view.tables
    for name, run in (("A", "early-small-allocs-mt-1"), ("B", "delayed-small-allocs-mt-1")):
        census = runs.find(run).table("census")
        zero = (census["class"] == "zero-page") & (census["origin"] == "private /dev/zero")
        row = table[(table["state"] == "zero-page") & (table["origin"] == "private /dev/zero")]
        expected = zero.sum() / census["repeat"].nunique()
        assert row[name].item() == expected
        faults = runs.find(run).table("faults")
        for path in ("vma", "mmap"):
            like = {"before": "bare", "after": "bare", "path": path}
            left = faults[(faults[list(like)].astype("str") == pd.Series(like)).all(axis=1)]
            row = transitions[(transitions[list(like)] == pd.Series(like)).all(axis=1)]
            assert row[name].item() == left["count"].sum() / faults["repeat"].nunique()
    regimes = environment.set_index("fact").loc["regime"]
    assert (regimes["A"], regimes["B"]) == ("early", "delayed")
    assert not any("Beware" in words for words in view.words)
    explorer.controls["state"].value = ("zero-page",)
    assert set(views_compare.differs(explorer.shown).tables[0]["state"]) == {"zero-page"}
    explorer.controls["other"].value = "specimens"
    assert any(
        "Beware: not the same work" in w for w in views_compare.differs(explorer.shown).words
    )


# ---- wrong, half-written, empty, hostile ----


@pytest.fixture
def copy_of_run(tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(runs.find(RUN).path, copy)
    return copy


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda run: (run / "manifest.json").unlink(), "it has no manifest.json"),
        (lambda run: (run / "census.parquet").write_bytes(b"PAR1"), "census.parquet"),
        (lambda run: (run / "manifest.json").write_text("{"), "manifest.json"),
        (lambda run: run.rename(run.with_name("x.partial")), "x.partial is an unfinished run"),
        (lambda run: run.rename(run.with_name("x.failed")), "x.failed is the record of a run"),
        (lambda run: shutil.rmtree(run), "there is no run"),
    ],
)
def test_a_wrong_run_is_said_and_leaves_what_was_shown(
    explorer: explore.Explorer, copy_of_run: Path, damage: object, sentence: str
) -> None:
    assert callable(damage)
    damage(copy_of_run)
    path = next(copy_of_run.parent.iterdir(), copy_of_run)
    before = len(explorer.selection)
    explorer.controls["directory"].value = str(path)
    assert sentence in explorer.trouble and "\n" not in explorer.trouble
    assert "anonvma-trouble" in explorer._status.value and 'role="alert"' in explorer._status.value
    assert len(explorer.selection) == before
    explorer.controls["state"].value = ("guard",)
    assert not explorer.trouble
    alone = explore.Explorer(str(path))
    assert sentence in alone.summary()
    with pytest.raises(SelectionError, match=re.escape(alone.summary()[:40])):
        alone.twin("map")


def test_a_run_without_a_census_says_so(copy_of_run: Path) -> None:
    manifest = json.loads((copy_of_run / "manifest.json").read_text())
    del manifest["tables"]["census"]
    (copy_of_run / "manifest.json").write_text(json.dumps(manifest))
    assert "has no census" in explore.Explorer(copy_of_run).summary()


def test_a_damaged_column_is_one_sentence(
    copy_of_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged after it was opened, as when a disk fails."""
    run = runs.Run.open(copy_of_run)
    file = copy_of_run / "census.parquet"
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(content)
    with pytest.raises(SelectionError, match="its census cannot be read"):
        source_module.source_of_run(run)


def test_nothing_selected_is_said_in_every_view(explorer: explore.Explorer) -> None:
    explorer.controls["origin"].value = ("heap",)
    explorer.controls["state"].value = ("guard",)
    for name in VIEWS:
        if name != "differs":
            assert "Nothing is selected" in explorer.view(name), name
    explorer.compare("specimens")
    assert "The filter leaves nothing of either" in explorer.view("differs")
    assert "none." in explorer.paragraph()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_hostile_names_do_nothing(
    explorer: explore.Explorer, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "<script>alert(1)</script>\x1b[31m\n&"
    vmas = Vmas.of_run(runs.find(RUN))
    frame = vmas.frame.copy()
    for column in ("comm", "path", "name"):
        frame[column] = pd.Categorical([name] * len(frame))
    source = Source("hostile", name, Vmas(frame, 4096), runs.find(RUN))
    explorer._take(source)
    for view in VIEWS:
        text = explorer.view(view)
        tags = _Tags()
        tags.feed(text)
        assert not {tag for tag, _ in tags.seen} & {"script", "iframe", "link"}, view
        assert "\x1b" not in text
    for label, _ in [*explorer.controls["process"].options, *explorer.controls["row"].options]:
        assert "\x1b" not in label and "\n" not in label
    explorer.twin("vmas")
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_no_view_is_said(explorer: explore.Explorer) -> None:
    with pytest.raises(SelectionError, match="there is no view 'x': choose overview, vmas, map"):
        explorer.twin("x")
    with pytest.raises(SelectionError, match="nothing is open"):
        explore.Explorer().twin("map")


# ---- export ----


@pytest.fixture
def shell() -> InteractiveShell:
    found = start_ipython() or InteractiveShell.instance()
    assert isinstance(found, InteractiveShell)
    return found


def test_export_reaches_the_notebook(
    explorer: explore.Explorer,
    shell: InteractiveShell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path))
    monkeypatch.setattr(explore, "get_ipython", lambda: shell)
    c = explorer.controls
    c["state"].value = ("zero-page",)
    c["variable"].value, c["name"].value, c["into"].value = "mine", "file", "here"
    c["export"].click()
    assert explorer.trouble == ""
    frame = shell.user_ns["mine"]
    assert len(frame) == len(explorer.selection) == len(pd.read_csv(tmp_path / "here/file.csv"))
    assert (tmp_path / "here" / "file.txt").read_text() == explorer.paragraph()
    for variable in ("not a name", "class", ""):
        c["variable"].value = variable
        c["export"].click()
        assert explorer.trouble == f"{variable!r} cannot be the name of a variable."


# ---- static twins ----


def test_each_view_has_a_static_twin_in_the_notebook() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "explore.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    source = "\n".join(cell.source for cell in notebook.cells)
    shown = set(re.findall(r'explorer\.twin\("([\w ]+)"\)', source))
    assert shown == {*VIEWS, "live"}
    # What is neither has no answer in it: the tab that exports shows the paragraph.
    assert {name for name in controls.TABS} == {*shown, "export"}
    assert "explorer.paragraph()" in source


def test_a_page_of_the_notebook_loses_no_answer() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "explore.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    page = page_of(notebook, "explore")
    tags = _Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.seen]
    assert "iframe" not in names
    assert names.count("script") == 1  # the page's own, which sorts tables
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert len(images) >= 5
    assert all((image["src"] or "").startswith("data:image/png") for image in images)
    for words in ("At a glance", "apply_touch", "bare -&gt; bare", "B is specimens on Linux 6.12"):
        assert words in page, words
    assert "widget-view" not in page


def test_widget_says_in_words_what_it_shows(explorer: explore.Explorer) -> None:
    shown = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"] == explorer.summary()
    assert "what follows shows each view" in shown["text/html"]


def test_figures_say_what_they_show(explorer: explore.Explorer) -> None:
    for name in ("overview", "map", "pages", "faults"):
        tags = _Tags()
        tags.feed(explorer.view(name))
        images = [attributes for tag, attributes in tags.seen if tag == "img"]
        assert images and all(image["alt"] for image in images), name


def test_every_control_has_words_for_a_screen_reader(explorer: explore.Explorer) -> None:
    assert all(control.tooltip for control in explorer.controls.values())


# ---- a view is what it was when nothing changed ----


def test_views_that_cannot_be_seen_are_drawn_when_they_are(explorer: explore.Explorer) -> None:
    explorer.go_to("map")
    before = explorer._views["map"].value
    explorer.go_to("overview")
    assert explorer._views["map"].value == before
    explorer.controls["state"].value = ("zero-page",)
    assert explorer._views["map"].value == ""  # not what is no longer so
    explorer.go_to("map")
    assert explorer._views["map"].value not in ("", before)
