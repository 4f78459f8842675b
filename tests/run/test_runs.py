# SPDX-License-Identifier: GPL-2.0-only
"""anonvma.run.runs: what has the name of a run is one."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.run import dictionary, manifest, runs
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.writer import RunWriter, sweep, to_table

ROWS = [
    {"repeat": 1, "task": 0, "bytes": 1024, "usecs": 10, "kb_per_s": 100000},
    {"repeat": 1, "task": 1, "bytes": 2048, "usecs": 10, "kb_per_s": 200000},
]
MANIFEST: dict[str, Any] = {
    "target": {"kind": "local", "kernel_release": "6.18.0", "cpus": 2, "page_size": 4096},
    "workload": {"name": "x", "argv": ["x"]},
    "parameters": {},
    "repeats": 1,
    "features": {},
    "unobserved": [{"what": "cycles", "reason": "no PMU", "remedy": "a PMU"}],
    "losses": {"mms_vanished": 0},
    "notes": [],
}


def make(directory: Path, name: str = "small-allocs-mt") -> Run:
    with RunWriter(directory, name) as writer:
        writer.raw("repeat-1", "stdout").write_bytes(b"said\n")
        table = to_table(ROWS, SCHEMAS["throughput"])
        return writer.finish({"throughput": table}, MANIFEST)


def edit(run: Run, change: Callable[[dict[str, Any]], Any]) -> None:
    file = run.path / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_run_opens_as_it_was_written(tmp_path: Path) -> None:
    made = make(tmp_path)
    opened = Run.open(made.path)
    assert opened.manifest == made.manifest
    assert opened.id == made.path.name
    assert opened.table("throughput").to_dict("records") == ROWS
    assert opened.raw("raw/repeat-1/stdout").read_bytes() == b"said\n"
    assert sorted(p.name for p in made.path.iterdir()) == [
        "manifest.json",
        "raw",
        "throughput.parquet",
    ]
    assert [p.name for p in tmp_path.iterdir()] == [made.id]


def test_ids_hold_the_time_and_the_name_and_are_never_taken_twice(tmp_path: Path) -> None:
    with RunWriter(tmp_path, "../Ev il\n") as first, RunWriter(tmp_path, "../Ev il\n") as second:
        assert first.id.endswith("Z-ev-il")
        assert second.id != first.id
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path, "x"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot make a run in .*: Not a directory"):
        RunWriter(tmp_path / "file" / "runs", "x")


def _damage_table(run: Run) -> None:
    file = run.path / "throughput.parquet"
    file.write_bytes(file.read_bytes()[:-9])


def _other_columns(run: Run) -> None:
    table = pa.table({"repeat": pa.array([1], pa.int32()), "task": ["zero"]})
    _replace_table(run, table)


def _more_columns(run: Run) -> None:
    table = to_table(ROWS, SCHEMAS["throughput"])
    _replace_table(run, table.append_column("more", pa.array([1, 2])))


def _replace_table(run: Run, table: pa.Table) -> None:
    file = run.path / "throughput.parquet"
    pq.write_table(table, file)
    _accept_hash(run)


def _not_parquet(run: Run) -> None:
    (run.path / "throughput.parquet").write_bytes(b"PAR1 but not really PAR1")
    _accept_hash(run)


def _accept_hash(run: Run) -> None:
    digest = hashlib.sha256((run.path / "throughput.parquet").read_bytes()).hexdigest()
    edit(run, lambda m: m["tables"]["throughput"].update(sha256=digest))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda r: (r.path / "manifest.json").unlink(), "is not a run: it has no manifest.json"),
        (lambda r: (r.path / "manifest.json").write_bytes(b""), "is not whole JSON"),
        (
            lambda r: (r.path / "manifest.json").write_bytes(
                (r.path / "manifest.json").read_bytes()[:-20]
            ),
            "is not whole JSON",
        ),
        (lambda r: (r.path / "manifest.json").write_bytes(b"\xff\xfe"), "is not whole JSON"),
        (lambda r: (r.path / "manifest.json").write_bytes(b"[" * 100000), "is not whole JSON"),
        (lambda r: (r.path / "manifest.json").write_bytes(b"[1]"), "is not a manifest of anonvma"),
        (
            lambda r: (r.path / "manifest.json").write_bytes(b'{"name": "npm", "format": 1}'),
            "is not a manifest of anonvma",
        ),
        (lambda r: edit(r, lambda m: m.update(format=2)), "format 2, newer than the 1"),
        (lambda r: edit(r, lambda m: m.update(format=0)), "its format is 0"),
        (lambda r: edit(r, lambda m: m.update(format="1")), "its format is '1'"),
        (lambda r: edit(r, lambda m: m.pop("repeats")), "repeats: Field required"),
        (lambda r: edit(r, lambda m: m.update(surprise=1)), "surprise: Extra inputs"),
        (
            lambda r: edit(r, lambda m: m["tables"]["throughput"].update(file="../x.parquet")),
            "does not lie in the run directory",
        ),
        (
            lambda r: edit(r, lambda m: m["raw"][0].update(file="/etc/passwd")),
            "does not lie in the run directory",
        ),
        (
            lambda r: edit(r, lambda m: m["tables"].update(secret=m["tables"]["throughput"])),
            "a table 'secret' that is not known",
        ),
        (lambda r: (r.path / "throughput.parquet").unlink(), "not whole: .*No such file"),
        (_damage_table, "throughput.parquet was changed: its hash"),
        (_not_parquet, "is not a Parquet file"),
        (_other_columns, "task is string, not int32"),
        (_more_columns, "more is not declared"),
        (
            lambda r: edit(r, lambda m: m["tables"]["throughput"].update(rows=3)),
            "has 2 rows, its manifest says 3",
        ),
        (lambda r: (r.path / "raw/repeat-1/stdout").unlink(), "not whole: .*stdout: No such file"),
        (
            lambda r: (r.path / "raw/repeat-1/stdout").write_bytes(b"longer than it was"),
            "has 18 bytes, its manifest says 5",
        ),
    ],
)
def test_what_is_not_a_whole_run_is_refused_in_one_sentence(
    damage: Callable[[Run], Any], sentence: str, tmp_path: Path
) -> None:
    run = make(tmp_path)
    damage(run)
    with pytest.raises(RunError, match=sentence) as caught:
        Run.open(run.path)
    assert "\n" not in str(caught.value)


def test_an_older_format_is_told_from_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path)
    monkeypatch.setattr(manifest, "FORMAT", 2)
    with pytest.raises(RunError, match="format 1, older than the 2"):
        Run.open(run.path)


def test_a_raw_file_is_hashed_when_it_is_asked_for(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / "raw/repeat-1/stdout").write_bytes(b"sAid\n")
    opened = Run.open(run.path)
    with pytest.raises(RunError, match="was changed"):
        opened.raw("raw/repeat-1/stdout")
    with pytest.raises(RunError, match="has no raw file"):
        opened.raw("raw/../manifest.json")


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such directory"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="has no table 'census': it has throughput"):
        make(tmp_path).table("census")


SLEEPER = """
import sys, time
from pathlib import Path
from anonvma.run.writer import RunWriter
with RunWriter(Path(sys.argv[1]), "x") as writer:
    print(writer.path, flush=True)
    time.sleep(60)
"""


def test_partial_runs_of_the_dead_are_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as dying:
        assert dying.stdout
        left = Path(dying.stdout.readline().strip())
        with RunWriter(tmp_path, "alive") as alive:
            assert sweep(tmp_path) == []
            with pytest.raises(RunError, match="unfinished run"):
                Run.open(left)
            dying.kill()
            dying.wait()
            assert sweep(tmp_path) == [left]
            assert alive.path.is_dir()
    assert sweep(tmp_path / "nowhere") == []


def test_the_dictionary_describes_every_column_of_every_table() -> None:
    text = dictionary.dictionary()
    for name, declared in SCHEMAS.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        for column in declared:
            line = next(x for x in section.splitlines() if x.startswith(f"| {column.name} |"))
            assert column.metadata[b"description"].decode().replace("|", r"\|") in line
            assert len(column.metadata[b"description"]) > 4


def test_a_large_run_opens_without_being_read(tmp_path: Path) -> None:
    count = 200_000
    rows = pa.table(
        {column.name: pa.array(range(count)).cast(column.type) for column in SCHEMAS["throughput"]},
        schema=SCHEMAS["throughput"],
    )
    with RunWriter(tmp_path, "large") as writer:
        writer.raw("perf.data").write_bytes(bytes(64 << 20))
        run = writer.finish({"throughput": rows}, MANIFEST)
    before = bytes_read()
    Run.open(run.path)
    assert bytes_read() - before < 16 << 20  # the table of 3 MB, which is hashed; not the raw file


def bytes_read() -> int:
    """What this process has read so far, from whatever."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_latest_is_the_workload_not_the_specimens_that_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONVMA_RUNS", str(tmp_path))
    recorded = paths.recorded()
    shutil.copytree(recorded / "specimens", tmp_path / "20260101T000002Z-specimens")
    assert runs.find("latest").id == "20260101T000002Z-specimens"
    shutil.copytree(recorded / "early-small-allocs-mt-1", tmp_path / "20260101T000001Z-small")
    assert runs.find("latest").id == "20260101T000001Z-small"
