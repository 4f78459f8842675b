# SPDX-License-Identifier: GPL-2.0-only
"""All runs in SQL: against pandas on the same files; and nothing else can be reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from anonvma.base import paths
from anonvma.base.errors import StoreError
from anonvma.run import runs
from anonvma.run.schema import SCHEMAS
from anonvma.study import store, store_views
from anonvma.study.store import Store

RECORDED = paths.recorded()


@pytest.fixture(scope="module")
def recorded() -> Store:
    return Store([RECORDED])


def test_every_run_is_there_and_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "specimens", tmp_path / "a" / "cells" / "specimens")
    for name in ("superseded/x", "failed/x", "work/x", "x.partial", "x.failed"):
        shutil.copytree(RECORDED / "specimens", tmp_path / "a" / name)
    (tmp_path / "link").symlink_to(RECORDED)
    with Store([tmp_path]) as opened:
        assert opened.runs()["run"].tolist() == ["a/cells/specimens"]
    with pytest.raises(StoreError, match="no directory of runs"):
        Store([tmp_path / "none"])


def test_views_say_what_pandas_says(recorded: Store) -> None:
    opened = [runs.Run.open(path.parent) for path in RECORDED.glob("*/manifest.json")]
    table = recorded.runs().set_index("run")
    assert set(table.index) == {run.id for run in opened}
    for name in SCHEMAS:
        having = [run for run in opened if name in run.manifest.tables]
        rows = recorded.query(f"select run, count(*) as n from {name} group by run")
        assert dict(zip(rows["run"], rows["n"], strict=True)) == {
            run.id: run.manifest.tables[name].rows for run in having
        }
    for run in opened:
        if "throughput" not in run.manifest.tables:
            continue
        speed = run.table("throughput").groupby("repeat")["kb_per_s"].sum().mean()
        found = recorded.query("select * from headlines").query("run == @run.id")
        values = found.set_index("metric")["value"]
        assert values["vm-scalability.throughput"] == pytest.approx(speed)
        if "census" in run.manifest.tables:
            census = run.table("census")
            zero = (census["class"] == "zero-page").sum() / census["repeat"].nunique()
            assert values.get("anonvma.bare.zero-page", 0) == zero
        faults = run.table("repeats")["minor_faults"].mean()
        assert values["vm-scalability.time.minor_page_faults"] == pytest.approx(faults)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_parquet('**')",
        "select * from glob('/*')",
        "select * from sys",
        "copy runs to '/tmp/anonvma-written'",
        "copy (select 1) to '/tmp/anonvma-written'",
        "export database '/tmp/anonvma-written'",
        "attach '/tmp/anonvma-written'",
        "install httpfs",
        "load httpfs",
        "create table x as select 1",
        "drop view headlines",
        "set memory_limit = '1TB'",
        "reset enable_external_access",
        "pragma enable_external_access",
        "call pragma_version()",
        "select 1; copy runs to '/tmp/anonvma-written'",
        "",
        ";",
        "selec 1",
        "select nothing from runs",
        "select * from runz",
    ],
)
def test_what_is_no_question_to_the_runs_is_refused(recorded: Store, sql: str) -> None:
    with pytest.raises(StoreError) as raised:
        recorded.query(sql)
    # DuckDB may end with a question of its own: did you mean another table?
    assert "\n" not in str(raised.value) and str(raised.value)[-1] in ".?"
    assert not Path("/tmp/anonvma-written").exists()


def test_hostile_names_are_names(tmp_path: Path) -> None:
    names = ["a'; drop view headlines; --", "*", "[ab]?{x}", 'quo"te', "new\nline", "café %s"]
    for name in names:
        shutil.copytree(RECORDED / "specimens", tmp_path / name)
    shutil.copytree(RECORDED / "specimens", tmp_path / os.fsdecode(b"\xff\xfe"))
    with Store([tmp_path]) as opened:
        found = opened.query("select run, count(*) as n from census group by run")
        assert set(found["run"]) == set(names)
        assert len(opened.damaged) == 1 and r"\xff\xfe is not UTF-8" in opened.damaged[0]
        assert found["n"].nunique() == 1
    done = subprocess.run(
        [sys.executable, "-m", "anonvma", "runs", "--in", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stdout.splitlines()) == len(names) + 1


def test_damaged_runs_are_left_out_and_named(tmp_path: Path) -> None:
    for name in ("good", "cut", "changed"):
        shutil.copytree(RECORDED / "specimens", tmp_path / name)
    (tmp_path / "cut" / "manifest.json").write_text("{")
    (tmp_path / "changed" / "census.parquet").write_bytes(b"PAR1")
    with Store([tmp_path]) as opened:
        assert len(opened.damaged) == 1 and "cut" in opened.damaged[0]
        assert set(opened.runs()["run"]) == {"good", "changed"}
        # A query leaves a changed table out, and says so; once.
        for _ in range(2):
            found = opened.query("select distinct run from census")
            assert set(found["run"]) == {"good"} and len(opened.damaged) == 2
        assert "changed/census.parquet was changed: its hash" in opened.damaged[1]
        assert set(opened.query("select distinct run from specimens")["run"]) == {"good", "changed"}
    with Store([tmp_path], check=True) as opened:
        assert len(opened.damaged) == 2
        # It is out of the tables, too.
        assert opened.query("select count(distinct run) as n from census")["n"][0] == 1


def test_more_than_memory(recorded: Store) -> None:
    """Sorting 24 million rows of 16 bytes in 128 MB, with half a gigabyte beside it."""
    sql = """
        select count(*) as n, sum(h % 7) as s from (
            select hash(address, i) as h, i
            from (select address from fault_events limit 100000), range(240) as r(i)
            order by h limit 20000000)
    """
    with Store([RECORDED], memory="128MB") as small:
        assert small.query(sql)["n"][0] == 20_000_000
        with pytest.raises(StoreError, match="needs more memory than it may have"):
            small.query("select len(list(a.address)) from fault_events a, range(4000)")
    with pytest.raises(StoreError, match="no amount of memory"):
        Store([RECORDED], memory="lots")


def test_every_view_is_described() -> None:
    described = store_views.views().groupby("view")["column"].apply(set)
    with Store([RECORDED]) as opened:
        for name, columns in described.items():
            assert set(opened.query(f"select * from {name} limit 0").columns) == columns
    assert set(described.index) == {"runs", "headlines", *SCHEMAS}


def test_command_line(tmp_path: Path) -> None:
    def anonvma(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "anonvma", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = anonvma(
        "query", "--in", RECORDED, "--json", "select regime, count(*) n from runs group by 1"
    )
    assert {row["regime"]: row["n"] for row in json.loads(done.stdout)}["early"] >= 7
    assert anonvma("query", "--in", RECORDED, "drop table runs").returncode == 1
    listed = json.loads(anonvma("runs", "--in", RECORDED, "--check", "--json").stdout)
    assert pd.DataFrame(listed)["run"].is_unique
    assert "headlines" in anonvma("query").stdout


# ---- the inventory ----


def asked(place: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Runs, headlines and damage, as a store of its own finds them."""
    with Store([place]) as opened:
        headlines = opened.query("select * from headlines order by all")
        return opened.runs(), headlines, opened.damaged


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("early-small-allocs-mt-1", "delayed-small-allocs-mt-1", "specimens"):
        shutil.copytree(RECORDED / name, tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_what_did_not_change_is_not_read_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(place)
    for module in (store, runs):
        monkeypatch.setattr(module, "read_manifest", lambda path: pytest.fail(f"{path} is read"))
    monkeypatch.setattr(runs, "check_table", lambda *about: pytest.fail(f"{about} is hashed"))
    monkeypatch.setattr(store, "headlines_of", lambda parts: pytest.fail(f"{parts} are read"))
    again = asked(place)
    pd.testing.assert_frame_equal(first[0], again[0])
    pd.testing.assert_frame_equal(first[1], again[1])
    assert first[2] == again[2] == []


def test_what_changed_is_noticed(place: Path) -> None:
    table, headlines, _ = asked(place)
    run = place / "early-small-allocs-mt-1"
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["workload"]["name"] = "renamed"
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "cell.json").write_text('{"study": "s", "name": "c", "axes": {}}')
    changed = asked(place)[0].set_index("run")
    assert changed.loc[run.name, ["workload", "study"]].tolist() == ["renamed", "s"]

    # Of the same size and time, with another byte in it.
    file = run / "throughput.parquet"
    about, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    for _ in range(2):
        _, left, damaged = asked(place)
        assert len(damaged) == 1 and "throughput.parquet was changed" in damaged[0]
        lost = headlines[(headlines["run"] == run.name)]
        lost = lost[lost["metric"] == "vm-scalability.throughput"]
        assert len(lost) == 1 and len(left) == len(headlines) - 1

    shutil.rmtree(run)
    assert set(asked(place)[0]["run"]) == set(table["run"]) - {run.name}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"of": 1, "entries": 2}', "\0" * 100])
def test_an_inventory_in_doubt_is_made_anew(place: Path, text: str) -> None:
    first = asked(place)
    for name in (".inventory", ".headlines", ".seals"):
        assert json.loads((place / name).read_text())["entries"]
        (place / name).write_text(text)
    again = asked(place)
    pd.testing.assert_frame_equal(first[0], again[0])
    pd.testing.assert_frame_equal(first[1], again[1])


def test_an_inventory_that_came_with_the_runs_of_others_is_not_believed(
    place: Path, tmp_path: Path
) -> None:
    first = asked(place)
    for name in (".inventory", ".headlines"):
        told = (place / name).read_text()
        assert "small-allocs-mt" in told or "throughput" in told
        (place / name).write_text(told.replace("small-allocs-mt", "xx").replace("0.", "9."))
    # cp -a keeps the times that can be set.
    shutil.copytree(place, tmp_path / "theirs", copy_function=shutil.copy2)
    again = asked(tmp_path / "theirs")
    pd.testing.assert_frame_equal(first[0], again[0])
    pd.testing.assert_frame_equal(first[1], again[1])
