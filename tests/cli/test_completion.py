# SPDX-License-Identifier: GPL-2.0-only
"""Completion, asked for as a shell asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from anonvma.cli import main


def offered(*words: str) -> set[str]:
    """What bash is offered for the last of these words."""
    complete = BashComplete(main, {}, "anonvma", "_ANONVMA_COMPLETE")
    return {item.value for item in complete.get_completions(list(words[:-1]), words[-1])}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host big box*\n  User me\nHost small\n")
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs" / "20260101T000000Z-mine").mkdir(parents=True)
    (tmp_path / "runs" / "20260101T000000Z-mine" / "manifest.json").touch()


def test_runs() -> None:
    for command in ("profile", "publish", "record"):
        assert offered(command, "la") == {"latest"}
        assert offered(command, "2026") == {"20260101T000000Z-mine"}
    assert offered("profile", "specimens", "--base", "small") == {"small-allocs-mt"}
    assert "early-small-allocs-mt-*" in offered("compare", "early-small")


def test_targets() -> None:
    assert offered("census", "--target", "l") == {"local"}
    assert offered("doctor", "--target", "ssh:") == {"ssh:big", "ssh:small"}  # no pattern


def test_workloads(build: Path) -> None:
    assert "small-allocs-mt" in offered("report", "--workload", "small")
    assert offered("experiment", "x", "--workload", "spec") == {"specimens"}
