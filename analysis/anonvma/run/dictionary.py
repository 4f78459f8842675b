# SPDX-License-Identifier: GPL-2.0-only
"""The data dictionary: what data/README.md says of every table and column."""

from __future__ import annotations

import pyarrow as pa

from anonvma.run.schema import SCHEMAS


def dictionary() -> str:
    """Return the data dictionary of the tables, as Markdown."""
    parts = []
    for name, declared in sorted(SCHEMAS.items()):
        parts += [f"## {name}", "", declared.metadata[b"description"].decode(), ""]
        parts += ["| column | type | unit | what it is |", "|---|---|---|---|"]
        for column in declared:
            about = {key.decode(): value.decode() for key, value in column.metadata.items()}
            text = about["description"].replace("|", r"\|")
            parts.append(f"| {column.name} | {_kind(column.type)} | {about['unit']} | {text} |")
        parts.append("")
    return "\n".join(parts)


def _kind(kind: pa.DataType) -> str:
    return "category" if pa.types.is_dictionary(kind) else str(kind)
