# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe locks`` wrote, as frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from anonvma.base.errors import FaultsError
from anonvma.probe.contended_file import read_contended
from anonvma.probe.counts import add_buckets, header_of, losses_of, object_of, processes_of, rows_of
from anonvma.run import schema


@dataclasses.dataclass(frozen=True)
class Locks:
    """Who took mmap_lock during one tracing, and who waited for which lock.

    Attributes
    ----------
    locks : DataFrame
        One row per group of like acquisitions, columns as in the table ``locks``.
    contended : DataFrame
        One row per group of like waits for one lock, columns as in the table ``contended``.
    forks : DataFrame
        One row per fork, columns as in the table ``forks``.
    header : dict
        begun_ns and ended_ns, contention_known, misses as in `Faults`, preemptible (whether another
        task may be preempted in a program, and cause them), witness (what a histogram of the same
        tracepoint has, or None and why_no_witness), and, of a command, minor_faults and
        major_faults. Of what the kernel shows of locks: calls
        (fentry or kprobe, None where neither serves, and why_no_calls), vma_locks (whether there
        are any), writers_seen and readers_seen.
    losses : dict
        Counts of `anonvma.run.vocabulary.TRACING_LOSSES`.
    processes : DataFrame
        As in `Faults`.
    """

    locks: pd.DataFrame
    contended: pd.DataFrame
    forks: pd.DataFrame
    header: dict[str, Any]
    losses: dict[str, int | None]
    processes: pd.DataFrame


def read_locks(text: bytes) -> Locks:
    """Decode what ``vmaprobe locks`` wrote.

    Raises
    ------
    FaultsError
        One sentence: not such counts, or damaged.
    """
    found = object_of(text, "the counts of mmap_lock", ("mmap_lock_read", "groups", "processes"))
    names = [name for name in schema.columns("locks") if name not in ("tgid", "comm")]
    try:
        processes = processes_of(found)
        lost = losses_of(found) | {"witness_differs": _difference(found["witness"])}
        lost["waits_lost"] = _waits_lost(found)
        contended, forks = read_contended(found, processes), _forks(found, processes)
        groups = rows_of(found["groups"], names)
        # Told apart by stack there, but here by who asked.
        keys = ["process", "asked_by", "mode", "waited_for", "success", "foreign"]
        rows = [
            {
                **dict(zip(keys, key, strict=True)),
                **{name: int(part[name].sum()) for name in ("count", "contended", "wait_ns")},
                "longest_ns": int(part["longest_ns"].max()),
                "log2_ns": add_buckets(part["log2_ns"]),
            }
            for key, part in groups.groupby(keys, sort=False)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise FaultsError(f"the counts of mmap_lock are damaged: {error!r}.") from None
    frame = pd.DataFrame(rows, columns=names).merge(processes, on="process", how="left")
    # Without rows they would be of no type.
    frame = frame.astype({name: bool for name in ("waited_for", "success", "foreign")})
    frame[["tgid", "comm"]] = frame[["tgid", "comm"]].fillna({"tgid": 0, "comm": ""})
    frame = frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    frame = frame[schema.columns("locks")]
    return Locks(frame, contended, forks, header_of(found), lost, processes)


def _forks(found: Mapping[str, Any], processes: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in schema.columns("forks") if name != "comm"]
    frame = rows_of(found["forks"], names).astype(dict.fromkeys(names, "Int64"))
    frame = frame.astype({"process": "uint32", "child": "uint32"})
    frame = frame.merge(processes[["process", "comm"]], on="process", how="left")
    frame["comm"] = frame["comm"].fillna("")
    table: pd.DataFrame = frame[schema.columns("forks")]
    return table


def _difference(witness: Mapping[str, int] | None) -> int | None:
    """By how many acquisitions the histogram of the tracepoint differs from what was traced."""
    if witness is None or witness["dropped"]:
        return None
    return sum(abs(witness[mode] - witness[f"traced_{mode}"]) for mode in ("read", "write"))


def _waits_lost(found: Mapping[str, Any]) -> int | None:
    """How many waits for locks are not told, be it that a program was not run; None if unknown."""
    of_waits = [n for name, n in found["misses"].items() if name.startswith(("finds_", "gets_"))]
    if None in of_waits:
        return None
    return int(found["waits_lost"]) + int(found["unended"]) + max(of_waits, default=0)
