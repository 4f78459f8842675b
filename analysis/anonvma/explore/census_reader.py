# SPDX-License-Identifier: GPL-2.0-only
"""One repeat of a run's census, read column by column, so that it is never there twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anonvma.base.errors import SelectionError
from anonvma.run.runs import Run


def repeats_of(run: Run) -> list[int]:
    """Return the repeats that a run has a census of.

    Raises
    ------
    SelectionError
        When it has none.
    """
    with _readable(run):
        column = _parquet(run).read(columns=["repeat"])["repeat"].unique().to_pylist()
    if not column:
        raise SelectionError(f"run {run.id} has a census without a single VMA: nothing to show.")
    return sorted(column)


def _parquet(run: Run) -> pq.ParquetFile:
    if "census" not in run.manifest.tables:
        raise SelectionError(
            f"run {run.id} has no census, so there are no VMAs to show: collect it anew."
        )
    return pq.ParquetFile(run.path / run.manifest.tables["census"].file)


@contextmanager
def _readable(run: Run) -> Iterator[None]:
    """Say in a sentence what Parquet has to say of a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise SelectionError(f"run {run.id}: its census cannot be read ({said}).") from None


def read(run: Run, repeat: int) -> pd.DataFrame:
    """Read one repeat column by column, so that nothing but the frame is ever there whole."""
    with _readable(run):
        file = _parquet(run)
        numbers = file.read(columns=["repeat"])["repeat"].to_numpy()
        rows = np.flatnonzero(numbers == repeat)
        # The repeats lie one behind the other: a slice where a selection would be a copy.
        whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        columns = {}
        for name in file.schema_arrow.names:
            if name == "repeat":
                continue
            column = file.read(columns=[name], use_threads=False)[name]
            part = column.slice(rows[0], len(rows)) if whole else column.take(pa.array(rows))
            columns[name] = _to_pandas(part)
            del column, part
    pa.default_memory_pool().release_unused()
    return pd.DataFrame(columns, copy=False)


def _to_pandas(column: pa.ChunkedArray) -> Any:
    if pa.types.is_unsigned_integer(column.type) and column.null_count:
        values = column.fill_null(0).to_numpy().astype(np.uint64)
        return pd.arrays.IntegerArray(values, column.is_null().to_numpy())
    if pa.types.is_dictionary(column.type):
        merged = column.unify_dictionaries().combine_chunks()
        if isinstance(merged, pa.ChunkedArray):
            merged = merged.chunk(0) if merged.num_chunks else pa.array([], column.type)
        codes = merged.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        names = pd.Index(merged.dictionary.to_pylist(), dtype="str")
        return pd.Categorical.from_codes(codes, categories=names)
    return column.to_numpy()
