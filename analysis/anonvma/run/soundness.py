# SPDX-License-Identifier: GPL-2.0-only
"""What the rows of a table hold, beyond the types of its columns.

A run may come from anyone, and be whole by its hashes all the same. What is computed from a table
relies on a value in each row, unless the schema says what null means there, and on one row for what
the rows are of. Both are looked at once, when a table is read, instead of wherever it is used.
"""

from __future__ import annotations

import collections

import pyarrow as pa

from anonvma.run.schema import SCHEMAS

_KINDS = ("origin", "vm_ops", "file", "time_ns", "log2_ns")
_USED = ("user_s", "system_s", "voluntary_ctxt", "involuntary_ctxt", "minor_faults", "major_faults")
_MAY_BE_NULL: dict[str, tuple[str, ...]] = {
    # Of an execution that perf stat counted elsewhere only some is known.
    "repeats": ("started", "seconds", "exit_status", *_USED),
    "perf_stat": ("value", "unit", "running_share"),
    "perf_intervals": ("value", "unit", "running_share"),
    "specimens": ("pid", "start", "end", "missing", "origin_note", "made_by", "explain"),
    "lock_cost": _USED,
    "census": (
        *("vm_ops", "class", "note", "path", "name", "comm"),
        *("present", "zero", "swapped", "huge", "guard"),
    ),
    "anon_vma_chains": ("num_children", "num_active_vmas"),
    # What an operation failed with, and what only fork or a core dump has; or nothing was counted.
    "consequences": (
        *("median_ns", "reads", "writes", "faults", "faults_after", "child_faults", "dumped"),
        *("pages", "vmas", "anon_vma", "error"),
    ),
    "contended": ("device", "file", "origin", "state", "because_of"),
    "forks": ("vmas", "locked", "skipped", "shut_out", "shut_out_ns", "longest_ns"),
    "faults": _KINDS,
    "fault_events": _KINDS[:3],
    "call_paths": _KINDS[:3],
    "time_totals": ("clock_ns", "run_delay_ns"),
    "environment": ("number", "word"),
    "samples": ("cpu", "comm"),
    "frames": ("file",),
}
# An execution without a tracer has no more than these.
_NEVER_NULL_OF_TRACING = ("repeat", "traced", "seconds")
_KEYS: dict[str, tuple[str, ...]] = {
    "repeats": (),
    "throughput": ("task",),
    "tracing": ("traced",),
    "time": ("context", "lock", "cpu"),
    "time_totals": (),
    "environment": ("moment", "fact"),
    "stacks": ("stack",),
    "frames": ("frame",),
    "vmstat": ("counter",),
}
"""What identifies a row, beside its repeat, of tables of which more is asked than sums."""


def fault(name: str, table: pa.Table) -> str | None:
    """Return what is wrong with a table, or with some of its columns; None if nothing is."""
    for column, values in zip(table.column_names, table.columns, strict=True):
        if values.null_count and not _may_be_null(name, column):
            return f"{values.null_count} of its {len(table)} rows have no {column}"
    if name not in _KEYS:
        return None
    key = ["repeat", *_KEYS[name]]
    if not set(key) <= set(table.column_names):
        return None
    rows = list(zip(*(table[column].to_pylist() for column in key), strict=True))
    if len(set(rows)) == len(rows):
        return None
    again = collections.Counter(rows).most_common(1)[0][0]
    what = ", ".join(f"{column} {value}" for column, value in zip(key, again, strict=True))
    return f"it has several rows of {what:.120}"


def _may_be_null(name: str, column: str) -> bool:
    if name == "tracing":
        return column not in _NEVER_NULL_OF_TRACING
    later = b"later" in (SCHEMAS[name].field(column).metadata or {})
    return later or column in _MAY_BE_NULL.get(name, ())
