# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe faults`` wrote, as frames: groups of like faults, and the call paths of faults.

The counts are one JSON object, made in the kernel by groups of like faults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from anonvma.base.errors import FaultsError
from anonvma.probe.counts import (
    STATE_OF_BITS,
    add_buckets,
    header_of,
    losses_of,
    object_of,
    processes_of,
    rows_of,
    text_of,
)
from anonvma.probe.vma_kinds import origin_of_kind
from anonvma.run import schema
from anonvma.run.vocabulary import STATES


@dataclasses.dataclass(frozen=True)
class Faults:
    """The counts of one tracing.

    Attributes
    ----------
    faults : DataFrame
        One row per group of like faults, columns as in the table ``faults``.
    header : dict
        source (``fentry``, ``kprobe`` or ``tracepoint``), why_not_fentry and why_not_kprobe (None
        if not tried), preemption (the kernel's model, in its own word), timed, lock_paths (whether
        each is known), why_no_lock_paths, why_no_reasons, misses (of each program, how often the
        kernel did not run it), charged (by the tasks' own counts), refused (exceptions with page
        faults disabled, which are none), page_size, begun_ns, ended_ns (CLOCK_MONOTONIC),
        faults_before (of the processes named, before they were traced), unseen_gup, and, of a
        command, minor_faults and major_faults by its rusage.
    losses : dict
        Counts of `anonvma.run.vocabulary.TRACING_LOSSES`; all zero in a perfect tracing, None where
        it cannot be told.
    processes : DataFrame
        One row per program in a process: process, tgid, parent, how (named, forked, execed), comm.
    kinds : DataFrame
        By their id, the origin, vm_ops and file of the kinds of VMA.
    """

    faults: pd.DataFrame
    header: dict[str, Any]
    losses: dict[str, int | None]
    processes: pd.DataFrame
    kinds: pd.DataFrame


def _kinds(found: Mapping[str, Any]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [{"kind": 0, "origin": None, "vm_ops": None, "file": None}]
    rows += [
        {
            "kind": each["id"],
            "origin": origin_of_kind(each),
            "vm_ops": text_of(each["vm_ops"]),
            "file": text_of(each["file"]),
        }
        for each in found["kinds"]
    ]
    return pd.DataFrame(rows).astype({"kind": "int64"}).set_index("kind").astype("object")


_WHAT = ("process", "kind", "mode", "access", "before", "after", "path", "result", "reason")
_TIMES = ("time_ns", "wait_ns", "log2_ns")
_HEADER = ("source", "why_not_fentry", "why_not_kprobe", "timed", "lock_paths", "page_size")


def read_faults(text: bytes) -> Faults:
    """Decode the counts that ``vmaprobe faults`` wrote.

    Raises
    ------
    FaultsError
        One sentence: not such counts, or damaged.
    """
    found = object_of(text, "the counts of faults", ("source", "groups", "kinds", "processes"))
    try:
        processes, kinds = processes_of(found), _kinds(found)
        groups = rows_of(found["groups"], [*_WHAT, "count", *_TIMES])
        if "user_stacks" in found:
            groups = _without_stacks(groups)
        _name_words(groups)
        if not found["timed"]:
            groups[list(_TIMES)] = None
        frame = groups.merge(processes, on="process", how="left").join(kinds, on="kind")
        lost = losses_of(found) | _reconciled(found, groups)
        header = {name: found[name] for name in _HEADER}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FaultsError(
            f"the counts of faults are damaged, or of a vmaprobe of another version: {error!r}."
        ) from None
    frame[["tgid", "comm"]] = frame[["tgid", "comm"]].fillna({"tgid": 0, "comm": ""})
    frame = frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    return Faults(
        faults=frame[schema.columns("faults")],
        header=header | header_of(found) | {"unseen_gup": found.get("unseen_gup", 0)},
        losses=lost,
        processes=processes,
        kinds=kinds,
    )


def _name_words(groups: pd.DataFrame) -> None:
    groups["reason"] = groups["reason"].replace("", None)
    for name in ("before", "after"):
        groups[name] = [STATES[STATE_OF_BITS[bits & 15]] for bits in groups[name]]


def _without_stacks(groups: pd.DataFrame) -> pd.DataFrame:
    """Put together again what was told apart by its stacks alone."""
    rows = [
        {
            **dict(zip(_WHAT, key, strict=True)),
            **{name: int(part[name].sum()) for name in ("count", "time_ns", "wait_ns")},
            "log2_ns": add_buckets(part["log2_ns"]),
        }
        for key, part in groups.groupby(list(_WHAT), sort=False)
    ]
    return pd.DataFrame(rows, columns=groups.columns)


def read_call_paths(text: bytes) -> pd.DataFrame:
    """Decode the call paths that ``vmaprobe faults --stacks`` wrote.

    Returns
    -------
    DataFrame
        One row per group of like faults with one call path, most faults first; columns as in
        the table ``call_paths``.

    Raises
    ------
    FaultsError
        One sentence: without call paths, or damaged.
    """
    found = object_of(text, "the call paths of faults", ("groups", "stacks", "user_stacks"))
    try:
        groups = rows_of(found["groups"], [*_WHAT, "kernel_stack", "user_stack", "count"])
        _name_words(groups)
        names = [
            _call_path(found, *ids)
            for ids in groups[["process", "user_stack", "kernel_stack"]].itertuples(index=False)
        ]
        frame = groups.assign(call_path=names)
        frame = frame.merge(processes_of(found), on="process", how="left").join(
            _kinds(found), on="kind"
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FaultsError(f"the call paths of faults are damaged: {error!r}.") from None
    frame[["tgid", "comm"]] = frame[["tgid", "comm"]].fillna({"tgid": 0, "comm": ""})
    # Addresses that got no name may have got one and the same: they are one path then.
    keys = [name for name in schema.columns("call_paths") if name != "count"]
    table = frame.groupby(keys, dropna=False, sort=False)["count"].sum().reset_index()
    table = table.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    found_paths: pd.DataFrame = table[schema.columns("call_paths")]
    return found_paths


def _call_path(found: Mapping[str, Any], process: int, user: int, kernel: int) -> str:
    """Join the functions, which come innermost first, with the outermost first."""
    outer = found["user_stacks"].get(f"{process}:{user}") or ["unknown"]
    inner = found["stacks"].get(str(kernel)) or []
    functions = [text_of(name) or "unknown" for name in [*inner, *outer]]
    return ";".join(name.replace(";", ":") for name in reversed(functions))


def _reconciled(found: Mapping[str, Any], groups: pd.DataFrame) -> dict[str, int | None]:
    """What the counts lack of those that getrusage() has, and what they do not know."""
    ended = groups[groups["result"].isin(["minor", "major"])]
    unknown = (ended["before"] == "not looked at") & (ended["kind"] == 0)
    half_seen = int(ended.loc[unknown, "count"].sum())
    if "minor_faults" not in found:
        return {"half_seen": half_seen, "unaccounted": None}
    used = found["minor_faults"] + found["major_faults"] - found["faults_before"]
    known = int(ended["count"].sum()) + found["unseen_gup"]
    known += found["faults_missed"] + found["faults_lost"] + found["pending"]
    # Those that nobody waited for are traced, and not in getrusage().
    return {"half_seen": half_seen, "unaccounted": max(used - known, 0)}
