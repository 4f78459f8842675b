# SPDX-License-Identifier: GPL-2.0-only
"""Tables whose rows are not what is computed from: refused when they are read, by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fuzz
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonvma.base import paths
from anonvma.base.errors import RunError
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS
from anonvma.run.soundness import fault

RECORDED = sorted(path.parent for path in paths.recorded().glob("*/manifest.json"))


def a_run_with(table: str) -> Path:
    """A recorded run that has a table, of several rows."""
    for path in RECORDED:
        entry = json.loads((path / "manifest.json").read_text())["tables"].get(table)
        if entry and entry["rows"] > 1:
            return path
    pytest.skip(f"no recorded run has {table}")


def test_what_was_recorded_is_sound() -> None:
    for path in RECORDED:
        run = Run.open(path)
        for name in run.manifest.tables:
            run.arrow(name)


@pytest.mark.parametrize("name", ["throughput", "tracing", "vmstat", "time", "frames", "repeats"])
@pytest.mark.parametrize("how", ["null", "twice"])
def test_a_run_with_impossible_rows_is_damaged(tmp_path: Path, name: str, how: str) -> None:
    shutil.copytree(a_run_with(name), tmp_path / "run")
    file = tmp_path / "run" / f"{name}.parquet"
    table = pq.read_table(file, partitioning=None)
    if how == "twice":
        table = pa.concat_tables([table, table])
    else:
        table = table.set_column(0, "repeat", pa.nulls(len(table), pa.int32()))
    pq.write_table(table, file)
    fuzz.renew(tmp_path / "run", name)
    with pytest.raises(RunError, match=f"{name}.parquet is damaged: .*(no repeat|several rows of)"):
        Run.open(tmp_path / "run").table(name)


def test_a_column_may_lack_what_its_schema_says() -> None:
    """Whatever the data dictionary says may be null is not refused for that."""
    for name, schema in SCHEMAS.items():
        for column in schema:
            if b"null" in column.metadata[b"description"]:
                table = pa.table({column.name: pa.nulls(3, column.type)})
                assert fault(name, table) is None, (name, column.name)


def test_what_was_measured_tells_its_machine(tmp_path: Path) -> None:
    shutil.copytree(a_run_with("census"), tmp_path / "run")
    file = tmp_path / "run" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["target"]["page_size"] = None
    file.write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="page_size is missing"):
        Run.open(tmp_path / "run")
