# SPDX-License-Identifier: GPL-2.0-only
"""The same table of many runs as one, which is read when it is asked for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from anonvma.run.manifest import TableFile
from anonvma.run.schema import SCHEMAS
from anonvma.study.store_views import HEADLINES, OF_HEADLINES


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One run's part of a view."""

    run: str
    directory: Path
    table: str
    told: dict[str, Any]

    @functools.cached_property
    def entry(self) -> TableFile:
        """What the manifest says of the table."""
        return TableFile.model_validate(self.told)

    @property
    def file(self) -> Path:
        """Its Parquet file."""
        return self.directory / self.entry.file


def headlines_of(parts: Sequence[Part]) -> dict[str, dict[str, float]]:
    """Return the headlines of those runs that have these tables."""
    found: dict[str, dict[str, float]] = {}
    with duckdb.connect(":memory:") as connection:
        for name in OF_HEADLINES:
            own = [part for part in parts if part.table == name]
            connection.register(name, dataset(SCHEMAS[name], own))
        for run, metric, value in connection.execute(HEADLINES).fetchall():
            found.setdefault(run, {})[metric] = value
    return found


def dataset(declared: pa.Schema, parts: Sequence[Part]) -> ds.Dataset:
    """Return the same table of many runs as one, which is read when it is asked for."""
    plain = [pa.field("run", pa.string())]
    for column in declared:
        kind = column.type
        plain.append(
            pa.field(column.name, kind.value_type if pa.types.is_dictionary(kind) else kind)
        )
    schema, form, local = pa.schema(plain), ds.ParquetFileFormat(), fs.LocalFileSystem()
    if not parts:
        return ds.dataset(schema.empty_table())
    fragments = [
        form.make_fragment(
            str(part.file),
            filesystem=local,
            partition_expression=ds.field("run") == part.run,
        )
        for part in parts
    ]
    return ds.FileSystemDataset(fragments, schema, form, local)
