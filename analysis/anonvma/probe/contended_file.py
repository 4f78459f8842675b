# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe locks`` wrote of contended locks, each by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from anonvma.probe.counts import STATE_OF_BITS, add_buckets, text_of
from anonvma.probe.vma_kinds import origin_of_kind
from anonvma.run import schema
from anonvma.run.vocabulary import STATES, VMA_LOCK

# Of the locks themselves: kernel/locking/ and the headers that call it.
_OF_LOCKS = re.compile(
    r"(__)?(pv_|native_)?(queued_|_?raw_|rwsem_|down_|mutex_|ww_mutex_|rt_|rtlock_|percpu_|osq_)"
    r"|(__)?(down|up|rt_spin_lock|pv_queued_spin_lock_slowpath)\b"
)
_WHERE = ["owner", "foreign", "device", "inode", "file", "start", "end", "origin", "state"]


def read_contended(found: Mapping[str, Any], processes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group of like waits, columns as in the table ``contended``."""
    things = {each["id"]: each for each in found["things"]}
    keys = ["process", "asked_by", "lock", "type", "function", "because_of", *_WHERE, "success"]
    rows = []
    for each in found["contended"]:
        thing = things.get(each["thing"])
        where = _where(each["lock"], thing)
        lock = (thing or {}).get("symbol") or each["lock"]
        said = {"function": _function(found["stacks"].get(str(each["kernel_stack"]), []))}
        rows.append({**each, **where, **said, "lock": lock, "owner": each["thing"]})
    counts = ["count", "contended", "wait_ns", "longest_ns", "log2_ns"]
    groups = pd.DataFrame(rows, columns=[*keys, *counts])
    merged = [
        {
            **dict(zip(keys, key, strict=True)),
            **{name: int(part[name].sum()) for name in ("count", "contended", "wait_ns")},
            "longest_ns": int(part["longest_ns"].max()),
            "log2_ns": add_buckets(part["log2_ns"]),
        }
        for key, part in groups.groupby(keys, sort=False, dropna=False)
    ]
    frame = pd.DataFrame(merged, columns=[*keys, *counts])
    frame = frame.merge(processes, on="process", how="left")
    frame = frame.astype({"foreign": bool, "success": bool})
    frame[["tgid", "comm"]] = frame[["tgid", "comm"]].fillna({"tgid": 0, "comm": ""})
    frame = frame.sort_values("wait_ns", ascending=False, kind="stable", ignore_index=True)
    table: pd.DataFrame = frame[schema.columns("contended")]
    return table


def _where(lock: str, thing: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a lock belongs to; `thing` is None where nothing is known of it."""
    nothing: dict[str, Any] = {"foreign": False, "inode": 0, "start": 0, "end": 0}
    if thing is None:
        return dict.fromkeys(_WHERE) | nothing
    of_vma, has_file = lock == VMA_LOCK, thing["inode"] or thing["file"]
    return dict.fromkeys(_WHERE) | {
        "foreign": thing["foreign"],
        "device": f"{thing['dev'] >> 20}:{thing['dev'] & 0xFFFFF}" if has_file else None,
        "inode": thing["inode"],
        "file": text_of(thing["file"]) or None,
        "start": thing["start"],
        "end": thing["end"],
        "origin": origin_of_kind(thing) if of_vma else None,
        "state": STATES[STATE_OF_BITS[thing["found"] & 15]] if of_vma else None,
    }


def _function(stack: list[str]) -> str:
    """Return the innermost function that is not of the lock itself."""
    return next((text_of(name) or "" for name in stack if not _OF_LOCKS.match(name)), "unknown")
