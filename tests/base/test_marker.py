# SPDX-License-Identifier: GPL-2.0-only
"""Marks: what anonvma did not write is never replaced or removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from anonvma.base import marker, scratch
from anonvma.base.errors import AnonvmaError
from anonvma.run import runs
from anonvma.run.writer import record, sweep


def write(place: Path, *names: str) -> None:
    with marker.replacing(place) as draft:
        for name in names:
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_text("ours")


def everything(place: Path) -> dict[str, str]:
    return {str(f.relative_to(place)): f.read_text() for f in place.rglob("*") if f.is_file()}


def test_what_we_wrote_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out", "report.eml", "one/report.txt")
    write(tmp_path / "out", "report.txt")
    assert set(everything(tmp_path / "out")) == {"report.txt", marker.MARK}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "x")


@pytest.mark.parametrize(
    "theirs",
    ["report.eml", "my-notes.txt", "sub/deep/notes", "report.txt", ".hidden", "cells.json"],
)
def test_what_is_somebody_else_s_stays(tmp_path: Path, theirs: str) -> None:
    place, beside = tmp_path / "out", tmp_path / "out.partial"
    for directory in (place, beside):
        (directory / theirs).parent.mkdir(parents=True)
        (directory / theirs).write_text("theirs")
    before = everything(tmp_path)
    with pytest.raises(AnonvmaError, match="was not published by anonvma"):
        write(place, "report.txt")
    assert everything(tmp_path) == before
    write(tmp_path / "other", "report.txt")
    (tmp_path / "other" / theirs).parent.mkdir(parents=True, exist_ok=True)
    if theirs != "report.txt":
        (tmp_path / "other" / theirs).write_text("theirs")
        with pytest.raises(AnonvmaError, match="which anonvma did not write"):
            write(tmp_path / "other", "x")
        assert (tmp_path / "other" / theirs).read_text() == "theirs"


def test_what_was_changed_is_somebody_s(tmp_path: Path) -> None:
    """And so is a directory of theirs, though nothing is in it; a copy of ours is ours."""
    for change in (
        lambda out: (out / "report.txt").write_text("theirs"),
        lambda out: (out / "mine").mkdir(),
        lambda out: (out / "link").symlink_to("report.txt"),
        lambda out: (out / "one" / "report.txt").unlink() or (out / "one/report.txt").mkdir(),
    ):
        write(tmp_path / "out", "report.txt", "one/report.txt")
        shutil.copytree(tmp_path / "out", tmp_path / "copy")
        change(tmp_path / "out")
        before = everything(tmp_path / "out")
        with pytest.raises(AnonvmaError, match=r"did not write|was changed after"):
            write(tmp_path / "out", "x")
        assert everything(tmp_path / "out") == before
        write(tmp_path / "copy", "x")
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "copy")


def test_what_comes_at_the_last_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes into the place when it has been looked at, before it is moved aside."""
    write(tmp_path / "out", "x")
    rename = Path.rename

    def late(path: Path, to: Path) -> Path:
        if path.name == "out":
            (path / "notes").write_text("theirs")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(AnonvmaError, match="'notes'"):
        write(tmp_path / "out", "y")
    assert set(everything(tmp_path)) == {"out/x", "out/notes", f"out/{marker.MARK}"}


def test_where_one_is_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (".", "..", "/", str(tmp_path / "here"), "../here", ""):
        with pytest.raises(AnonvmaError, match="the directory you are in"):
            write(Path(place), "x")


def test_a_link_or_a_file_is_no_place(tmp_path: Path) -> None:
    write(tmp_path / "out", "x")
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(AnonvmaError, match="is no directory"):
            write(tmp_path / name, "y")
    assert set(everything(tmp_path / "out")) == {"x", marker.MARK}


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "out", "x")
    with pytest.raises(ZeroDivisionError), marker.replacing(tmp_path / "out"):
        raise ZeroDivisionError
    assert set(everything(tmp_path)) == {"out/x", f"out/{marker.MARK}"}


def test_drafts_of_the_dead_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name, maker in ((".out.aaaa.partial", [1 << 22, 5]), (".out.bbbb.partial", [1, -1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / marker.MARK).write_text(json.dumps({"maker": maker}))
    for name in (".out.cccc.partial", ".other.dddd.partial", "out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "theirs").touch()
    write(tmp_path / "out", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.dddd.partial",
        ".out.cccc.partial",
        "out",
        "out.partial",
    ]


def test_a_directory_of_somebody_s_among_the_runs_is_not_swept(tmp_path: Path) -> None:
    for name in ("thesis.partial", "20260101T000000Z-thesis.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chapter-1").write_text("theirs")
    (tmp_path / "20260101T000000Z-x.partial").mkdir()
    (tmp_path / "20260101T000000Z-x.partial" / "manifest.json.tmp").touch()
    assert [path.name for path in sweep(tmp_path)] == ["20260101T000000Z-x.partial"]


def test_recording_touches_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "kept.partial").mkdir()
    (tmp_path / "kept.partial" / "theirs").touch()
    made = record(runs.find("specimens"), "kept", tmp_path)
    assert (tmp_path / "kept.partial" / "theirs").exists() and not (
        made.path / marker.MARK
    ).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "kept.partial"]


def test_a_new_file_goes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    for name in ("it.json", "it.json.tmp", ".it.json.partial"):
        (tmp_path / name).symlink_to("theirs")
    before = set(tmp_path.iterdir())
    with marker.new_file(tmp_path / "it.json") as draft:
        draft.write_text("ours")
    assert (tmp_path / "it.json").read_text() == "ours" and set(tmp_path.iterdir()) == before
    assert (tmp_path / "theirs").read_text() == "theirs"
    with pytest.raises(ZeroDivisionError), marker.new_file(tmp_path / "it.json"):
        raise ZeroDivisionError
    assert (tmp_path / "it.json").read_text() == "ours" and set(tmp_path.iterdir()) == before
    # What a killed writer left is gone with the next.
    for maker, left in ((os.getpid(), True), (2**22 + 1, False)):
        killed = tmp_path / ".it.json.x.partial"
        killed.mkdir()
        start = scratch.start_time(maker) or 0
        (killed / marker.MARK).write_text(json.dumps({"maker": [maker, start]}))
        with marker.new_file(tmp_path / "it.json") as draft:
            draft.write_text("ours")
        assert killed.exists() == left
        shutil.rmtree(killed, ignore_errors=True)
