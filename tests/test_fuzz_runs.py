# SPDX-License-Identifier: GPL-2.0-only
"""Runs with something wrong in them, drawn at random: an answer or one sentence, no traceback."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anonvma import headers, redact, report, subject
from anonvma.errors import AnonvmaError
from anonvma.runs import Run
from anonvma.store import Store

RECORDED = Path(__file__).resolve().parent.parent / "data" / "recorded"
VALUES: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**30, 2**63 - 1, float("inf")),
    *("x", "", "\ud800", "\x1b[31m", "/home/u/x", "a" * 5000, "=?utf-8?q?a=0ABcc:_x?="),
    *([], {}, ["x"], {"a": 1}, [[[[]]]]),
]


def places_in(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value[:3])
        for key, item in inner:
            yield from places_in(item, (*above, key))


def spoil(run: Path, chance: random.Random) -> None:
    """Change, or drop, one field of a manifest; or some bytes of it, or of a table."""
    manifest = json.loads((run / "manifest.json").read_text())
    how = chance.choice(["change", "change", "change", "drop", "bytes"])
    if how == "bytes":
        file = chance.choice(sorted(path for path in run.iterdir() if path.is_file()))
        data = bytearray(file.read_bytes())
        for _ in range(5):
            data[chance.randrange(len(data))] = chance.randrange(256)
        file.write_bytes(data)
        return
    *parents, last = chance.choice(list(places_in(manifest)))
    inner = manifest
    for key in parents:
        inner = inner[key]
    if how == "drop":
        del inner[last]
    else:
        inner[last] = chance.choice(VALUES)
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("seed", range(8))
def test_an_answer_or_a_sentence(tmp_path: Path, seed: int) -> None:
    for name in ("bad", "good"):
        shutil.copytree(RECORDED / "specimens", tmp_path / name)
    spoil(tmp_path / "bad", random.Random(seed))
    with Store([tmp_path]) as store:
        assert "good" in set(store.runs()["run"])
        assert "good" in set(store.query("select distinct run from census")["run"])
        store.query("select * from headlines")
        assert not any("\n" in sentence for sentence in store.damaged)
    try:
        run = Run.open(tmp_path / "bad")
        wall = redact.Wall.around([run])
        about = subject.Subject({run.id: [run]}).shared(wall)
        wall.scrub(report.text(about.sections(analysed=True), headers.one_line(about.title)))
    except AnonvmaError as error:
        assert "\n" not in str(error)
