# SPDX-License-Identifier: GPL-2.0-only
"""How the schema of a table is declared: its columns, and what they are called for short."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

WORD = pa.dictionary(pa.int8(), pa.string())
TEXT = pa.dictionary(pa.int32(), pa.string())
BUCKETS = pa.list_(pa.uint32())


def field(
    name: str, kind: pa.DataType, unit: str, description: str, *, later: bool = False
) -> pa.Field:
    """Return a column of a declared schema, with what the data dictionary says of it.

    One that came `later` runs may lack: it is null in those, which do not tell.
    """
    about = {"unit": unit, "description": description, **({"later": "yes"} if later else {})}
    return pa.field(name, kind, metadata=about)


def of_kind(kind: pa.DataType, unit: str = "") -> Callable[..., pa.Field]:
    """Return what declares columns of one kind."""
    return lambda name, description, **later: field(name, kind, unit, description, **later)


count, string = of_kind(pa.int64()), of_kind(pa.string())
seconds = of_kind(pa.float64(), "s")
choice, text = of_kind(WORD), of_kind(TEXT)

REPEAT = field("repeat", pa.int32(), "", "which repeat of the run, from 1")


def table(description: str, *columns: pa.Field) -> pa.Schema:
    """Return the schema of a table, each row of which says which repeat it is of."""
    return pa.schema([REPEAT, *columns], metadata={"description": description})


WHO = [
    field("process", pa.uint32(), "id", "program in a process, numbered as they came"),
    field("tgid", pa.uint32(), "pid", "its process"),
    text("comm", "its name when it began"),
]
