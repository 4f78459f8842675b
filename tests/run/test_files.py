# SPDX-License-Identifier: GPL-2.0-only
"""What lies in a run directory: files of a sane size, or a sentence; and never a wait."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonvma.base import marker
from anonvma.base.errors import AnonvmaError, RunError
from anonvma.report import publication
from anonvma.run import catalogue, files, runs
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.study import job
from anonvma.study.seals import Seals
from anonvma.study.store import Store

RECORDED = Path(__file__).resolve().parents[2] / "data" / "recorded"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(RECORDED / "specimens", tmp_path / "bad")
    shutil.copytree(RECORDED / "specimens", tmp_path / "good")
    return tmp_path / "bad"


def _device(file: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes a device")
    os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 5))


KINDS: dict[str, Callable[[Path], Any]] = {
    "FIFO": os.mkfifo,
    "device": _device,
    "link": lambda file: file.symlink_to("/dev/zero"),
    "directory": Path.mkdir,
    "link to nothing": lambda file: file.symlink_to("nowhere"),
    "too large": lambda file: (file.touch(), os.truncate(file, 1 << 40)),
}


@pytest.fixture
def no_wait() -> Iterator[None]:
    """What waits for a FIFO waits for ever."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("file", ["manifest.json", "census.parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_one_sentence(run: Path, file: str, kind: str) -> None:
    (run / file).unlink()
    KINDS[kind](run / file)
    with pytest.raises(RunError) as refused:
        Run.open(run)
    assert file in str(refused.value) and "\n" not in str(refused.value)
    with Store([run.parent]) as store:
        assert list(store.query("select distinct run from census")["run"]) == ["good"]
        assert len(store.damaged) == 1 and file in store.damaged[0]


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize("kind", KINDS)
def test_what_only_looks_at_a_manifest_does_not_wait_either(run: Path, kind: str) -> None:
    for file in ("manifest.json", "cell.json", ".anonvma"):
        (run / file).unlink(missing_ok=True)
        KINDS[kind](run / file)
    assert catalogue._tables(run) == []
    assert job.complete(run, "x", "y") is None
    assert publication._said(run, "parameters") == {}
    with pytest.raises(AnonvmaError):
        marker.check(run)
    with Store([run.parent]) as store:
        assert list(store.runs()["run"]) == ["good"]


def accept(run: Path, name: str) -> None:
    """Renew the hash and the rows of a table that was changed."""
    manifest = json.loads((run / "manifest.json").read_text())
    entry = manifest["tables"][name]
    entry["sha256"] = files.hash_of(run / entry["file"])
    entry["rows"] = pq.ParquetFile(run / entry["file"]).metadata.num_rows
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_table_that_is_small_until_it_is_unpacked(run: Path) -> None:
    rows, schema = 60_000_000, SCHEMAS["throughput"]
    once = pa.Table.from_pylist([{n: 1 for n in schema.names}] * 1_000_000, schema=schema)
    with pq.ParquetWriter(run / "throughput.parquet", schema, compression="zstd") as writer:
        for _ in range(rows // len(once)):
            writer.write_table(once)
    assert (run / "throughput.parquet").stat().st_size < 20 << 20
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["tables"]["throughput"] = {"file": "throughput.parquet", "rows": 0, "sha256": ""}
    (run / "manifest.json").write_text(json.dumps(manifest))
    accept(run, "throughput")
    with pytest.raises(RunError, match="too large to be held in memory: 60,000,000 rows"):
        Run.open(run).table("throughput")
    with Store([run.parent]) as store:
        assert store.query("select count(*) as n from throughput")["n"][0] == rows


def test_pages_that_are_damaged_though_the_hash_is_right(run: Path) -> None:
    file = run / "census.parquet"
    data = bytearray(file.read_bytes())
    for at in range(30, 400, 7):
        data[at] ^= 0xFF
    file.write_bytes(data)
    accept(run, "census")
    with pytest.raises(RunError, match=r"census\.parquet is damaged"):
        Run.open(run).table("census")
    with Store([run.parent]) as store:
        found = store.query("select run, sum(repeat) as n from census group by run")
        assert set(found["run"]) == {"good"}
        assert any("bad/census.parquet is damaged" in said for said in store.damaged)


def test_a_column_that_is_there_twice(run: Path) -> None:
    table = pq.read_table(run / "vmstat.parquet", partitioning=None)
    pq.write_table(table.append_column("after", table.column("after")), run / "vmstat.parquet")
    accept(run, "vmstat")
    with pytest.raises(RunError, match=r"vmstat\.parquet has other columns .*after is there 2"):
        Run.open(run)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("losses", "mms_late"), 10**30, "more than 64 bits"),
        (("tables", "census", "file"), "\ud800", "not Unicode"),
        (("features", "regime", "name"), 1.5, "regime has something other than words"),
        (("features", "regime"), "x", "regime is not an object"),
        (("features", "features"), [], "features is not an object"),
        (("target", "kernel_release"), ["6.12"], "kernel_release is not words"),
        (("target", "image_sha256"), "a" * 5000, "image_sha256 is no SHA-256"),
        (("target", "append"), "a" * 9000, "append has 9000 characters"),
        (("target", "cpus"), "two", "cpus is not a whole number"),
        (("target", "cpus"), 0, "no machine whose cpus is 0"),
        (("target", "page_size"), 0, "no machine whose page_size is 0"),
        (("target", "memory_bytes"), True, "memory_bytes is not a whole number"),
        (("target", "config"), "y", "config is not an object"),
        (("repeats",), 1 << 40, "repeats"),
        (("notes",), [[["x"]]], "notes"),
        (("parameters", "threads"), float("inf"), "is no number"),
    ],
)
def test_a_manifest_that_no_table_could_hold(
    run: Path, where: tuple[str, ...], value: object, said: str
) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    *parents, last = where
    inner = manifest
    for name in parents:
        inner = inner[name]
    inner[last] = value
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=said):
        Run.open(run)
    with Store([run.parent]) as store:
        assert list(store.runs()["run"]) == ["good"] and said in store.damaged[0]


def test_seals_hold_until_a_table_moves(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = files.hash_of

    def counted(file: Path) -> str:
        hashed.append(str(file.relative_to(run.parent)))
        return real(file)

    monkeypatch.setattr(files, "hash_of", counted)
    sql = "select distinct run from census"

    def ask() -> tuple[set[str], list[str]]:
        hashed.clear()
        with Store([run.parent]) as store:
            return set(store.query(sql)["run"]), store.damaged

    assert ask() == ({"bad", "good"}, []) and len(hashed) == 2
    assert ask() == ({"bad", "good"}, []) and hashed == []
    os.utime(run / "census.parquet")  # moved, but the same
    assert ask() == ({"bad", "good"}, []) and hashed == ["bad/census.parquet"]
    # Another run's table, with its times, in the place of this one.
    shutil.copy2(RECORDED / "small-allocs-mt" / "census.parquet", run / "census.parquet")
    answered, damaged = ask()
    assert answered == {"good"} and "its hash is not the one" in damaged[0]
    for broken in ("{", "[]", '{"format": 1, "files": 3}', "\ud800".encode(errors="surrogatepass")):
        data = broken if isinstance(broken, bytes) else broken.encode()
        (run.parent / ".seals").write_bytes(data)
        assert ask()[0] == {"good"}


def test_seals_need_no_place(run: Path) -> None:
    seals = Seals(run)
    seals.put(run / "census.parquet", "x")
    (run / ".seals").mkdir()
    (run / ".seals" / "x").touch()
    seals.save()
    assert [path.name for path in run.glob(".seals*")] == [".seals"]
    assert Seals(run).holds(run / "census.parquet", "x") is False


def test_a_bad_run_among_those_of_a_condition_is_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "manifest.json").write_text("{}")
    assert [found.id for found in runs.find_all(f"{run.parent}/*d")] == ["good"]
    assert "left out: " in capsys.readouterr().err
    with pytest.raises(RunError):
        runs.find_all(f"{run.parent}/bad*")
