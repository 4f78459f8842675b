# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe faults`` and ``vmaprobe locks`` wrote, as frames.

The counts are one JSON object, made in the kernel by groups of like faults; the events are
fixed-size records (analysis/probe/faults.h), read through a NumPy structured dtype: a column of a
million faults is a view into the file, not a million objects.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import FaultsError
from anonvma.probe.vma_kinds import origin_of_kind
from anonvma.run import schema
from anonvma.run.vocabulary import STATES, TRACING_LOSSES

__all__ = [
    "PATHS",
    "Faults",
    "Locks",
    "processes_of",
    "read_call_paths",
    "read_events",
    "read_faults",
    "read_locks",
]

MAGIC = b"VMAFALT"
FORMAT = 2
BYTE_ORDER = 0x01020304
HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("format", "u4"),
        ("byte_order", "u4"),
        ("header_size", "u4"),
        ("event_size", "u4"),
        ("page_size", "u4"),
        ("source", "u4"),
    ]
)
EVENT = np.dtype(
    [
        ("start_ns", "u8"),
        ("address", "u8"),
        ("vm_start", "u8"),
        ("duration_ns", "u4"),
        ("process", "u4"),
        ("tid", "u4"),
        ("kind", "u4"),
        ("mode", "u1"),
        ("access", "u1"),
        ("before", "u1"),
        ("after", "u1"),
        ("path", "u1"),
        ("result", "u1"),
        ("reserved", "u2"),
    ]
)

MODES = ("unknown", "user", "kernel", "gup")
ACCESSES = ("unknown", "read", "write", "exec")
PATHS = ("unknown", "vma", "mmap", "retry")
RESULTS = ("unknown", "minor", "major", "error")

# By the bits FOUND_VMA, FOUND_ANON, FOUND_ANON_VMA; NOT_LOOKED_AT stands alone.
_STATE_OF_BITS = (0, 3, 0, 1, 0, 4, 0, 2, *[5] * 8)


@dataclasses.dataclass(frozen=True)
class Faults:
    """The counts of one tracing.

    Attributes
    ----------
    faults : DataFrame
        One row a group of like faults, columns as in the table ``faults``.
    header : dict
        source (``fentry``, ``kprobe`` or ``tracepoint``), why_not_fentry and why_not_kprobe (None
        if not tried), preemption (the kernel's model, in its own word), timed, lock_paths (whether
        each is known), why_no_lock_paths, misses (of each program, how often the kernel did not run
        it), charged (by the tasks' own counts), refused (exceptions with page faults disabled,
        which are no faults), page_size, begun_ns and ended_ns (CLOCK_MONOTONIC), faults_before (of
        the processes named, before they were traced), unseen_gup, and, of a command, minor_faults
        and major_faults by its rusage.
    losses : dict
        Counts of `anonvma.run.vocabulary.TRACING_LOSSES`; all zero in a perfect tracing, None where
        it cannot be told.
    processes : DataFrame
        One row a program in a process: process, tgid, parent, how (named, forked, execed), comm.
    kinds : DataFrame
        By their id, the origin, vm_ops and file of the kinds of VMA.
    """

    faults: pd.DataFrame
    header: dict[str, Any]
    losses: dict[str, int | None]
    processes: pd.DataFrame
    kinds: pd.DataFrame


@dataclasses.dataclass(frozen=True)
class Locks:
    """Who took mmap_lock during one tracing.

    Attributes
    ----------
    locks : DataFrame
        One row a group of like acquisitions, columns as in the table ``locks``.
    header : dict
        begun_ns and ended_ns, contention_known, misses as in `Faults`, preemptible (whether another
        task may be preempted in a program, and cause them), witness (what a histogram of the same
        tracepoint has, or None and why_no_witness), and, of a command, minor_faults and
        major_faults.
    losses : dict
        Counts of `anonvma.run.vocabulary.TRACING_LOSSES`.
    processes : DataFrame
        As in `Faults`.
    """

    locks: pd.DataFrame
    header: dict[str, Any]
    losses: dict[str, int | None]
    processes: pd.DataFrame


_OF_ANY_LOCK = "finds_it_taken"
"""The program of contention_begin, which interrupts come upon as well, and the maps of BPF.

Where no task is preempted in a program, only these can find it running, and be turned away:
neither of them waits for mmap_lock, which sleeps.
"""

_OF_OWN_FAULTS = "kernel_fault_begins"
"""The program of page_fault_kernel that takes stacks: to follow frame pointers may fault itself.

It is called with interrupts off, so nothing else finds it running.
"""


def _objects(text: bytes, what: str, needed: Iterable[str]) -> dict[str, Any]:
    """Return the JSON object, its strings such as Parquet takes them."""
    try:
        found = json.loads(text.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise FaultsError(f"{what} is damaged: it is not whole JSON ({error}).") from None
    if not isinstance(found, dict) or not all(name in found for name in needed):
        raise FaultsError(f"{what} is not what vmaprobe writes.")
    return found


def _rows(objects: Iterable[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Lay objects out as rows, each of which must have every column."""
    return pd.DataFrame([[each[name] for name in columns] for each in objects], columns=columns)


def _text(value: str | None) -> str | None:
    r"""Names are bytes to the kernel; what is not UTF-8 shows as \xNN."""
    if value is None:
        return None
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def processes_of(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return the processes that a tracer followed, in the order they began."""
    rows = [
        {
            "process": each["id"],
            "tgid": each["tgid"],
            "parent": each["parent"],
            "how": each["how"],
            "comm": _text(each["comm"]) or "",
        }
        for each in found["processes"]
    ]
    columns = ["process", "tgid", "parent", "how", "comm"]
    return pd.DataFrame(rows, columns=columns).sort_values("process", ignore_index=True)


def _kinds(found: Mapping[str, Any]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [{"kind": 0, "origin": None, "vm_ops": None, "file": None}]
    rows += [
        {
            "kind": each["id"],
            "origin": origin_of_kind(each),
            "vm_ops": _text(each["vm_ops"]),
            "file": _text(each["file"]),
        }
        for each in found["kinds"]
    ]
    return pd.DataFrame(rows).astype({"kind": "int64"}).set_index("kind").astype("object")


def read_faults(text: bytes) -> Faults:
    """Decode the counts that ``vmaprobe faults`` wrote.

    Raises
    ------
    FaultsError
        One sentence: not such counts, or damaged.
    """
    found = _objects(text, "the counts of faults", ("source", "groups", "kinds", "processes"))
    try:
        processes, kinds = processes_of(found), _kinds(found)
        columns = ("process", "kind", "mode", "access", "before", "after", "path", "result")
        groups = _rows(found["groups"], [*columns, "count", "time_ns", "log2_ns"])
        if "user_stacks" in found:
            groups = _without_stacks(groups, list(columns))
        _name_states(groups)
        if not found["timed"]:
            groups["time_ns"], groups["log2_ns"] = None, None
        frame = groups.merge(processes, on="process", how="left").join(kinds, on="kind")
        lost = _losses(found) | _reconciled(found, groups)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FaultsError(f"the counts of faults are damaged: {error!r}.") from None
    frame[["tgid", "comm"]] = frame[["tgid", "comm"]].fillna({"tgid": 0, "comm": ""})
    frame = frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)
    header = {
        name: found[name]
        for name in (
            *("source", "why_not_fentry", "why_not_kprobe"),
            *("timed", "lock_paths", "page_size"),
        )
    }
    return Faults(
        faults=frame[schema.columns("faults")],
        header=header | _common(found) | {"unseen_gup": found.get("unseen_gup", 0)},
        losses=lost,
        processes=processes,
        kinds=kinds,
    )


def _name_states(groups: pd.DataFrame) -> None:
    for name in ("before", "after"):
        groups[name] = [STATES[_STATE_OF_BITS[bits & 15]] for bits in groups[name]]


def _without_stacks(groups: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Put together again what was told apart by its stacks alone."""
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            "count": int(part["count"].sum()),
            "time_ns": int(part["time_ns"].sum()),
            "log2_ns": _add_buckets(part["log2_ns"]),
        }
        for key, part in groups.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows, columns=groups.columns)


def read_call_paths(text: bytes) -> pd.DataFrame:
    """Decode the call paths that ``vmaprobe faults --stacks`` wrote.

    Returns
    -------
    DataFrame
        One row a group of like faults with one call path, most faults first; columns as in
        the table ``call_paths``.

    Raises
    ------
    FaultsError
        One sentence: without call paths, or damaged.
    """
    found = _objects(text, "the call paths of faults", ("groups", "stacks", "user_stacks"))
    columns = ("process", "kind", "mode", "access", "before", "after", "path", "result")
    try:
        groups = _rows(found["groups"], [*columns, "kernel_stack", "user_stack", "count"])
        _name_states(groups)
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
    functions = [_text(name) or "unknown" for name in [*inner, *outer]]
    return ";".join(name.replace(";", ":") for name in reversed(functions))


def _common(found: Mapping[str, Any]) -> dict[str, Any]:
    names = ["begun_ns", "ended_ns", "minor_faults", "major_faults", "faults_before"]
    names += ["contention_known", "preemption", "why_no_lock_paths", "misses", "charged", "refused"]
    names += ["preemptible", "witness", "why_no_witness"]
    return {name: found[name] for name in names if name in found}


def _losses(found: Mapping[str, Any]) -> dict[str, int | None]:
    counted = [name for name in TRACING_LOSSES if name in found and name != "misses"]
    told: dict[str, int | None] = {name: int(found[name]) for name in counted}
    missed = [count for program, count in found["misses"].items() if _is_loss(program, found)]
    told["misses"] = None if None in missed else sum(missed)
    return told


def _is_loss(program: str, found: Mapping[str, Any]) -> bool:
    """Whether something is lost where the kernel did not run a program."""
    if program == _OF_OWN_FAULTS:
        return "user_stacks" not in found
    return found.get("preemptible", True) or not program.startswith(_OF_ANY_LOCK)


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


def read_locks(text: bytes) -> Locks:
    """Decode what ``vmaprobe locks`` wrote.

    Raises
    ------
    FaultsError
        One sentence: not such counts, or damaged.
    """
    found = _objects(text, "the counts of mmap_lock", ("mmap_lock_read", "groups", "processes"))
    names = [name for name in schema.columns("locks") if name not in ("tgid", "comm")]
    try:
        processes = processes_of(found)
        lost = _losses(found) | {"witness_differs": _difference(found["witness"])}
        groups = _rows(found["groups"], names)
        # Told apart by stack there, but here by who asked.
        keys = ["process", "asked_by", "mode", "waited_for", "success", "foreign"]
        rows = [
            {
                **dict(zip(keys, key, strict=True)),
                **{name: int(part[name].sum()) for name in ("count", "contended", "wait_ns")},
                "longest_ns": int(part["longest_ns"].max()),
                "log2_ns": _add_buckets(part["log2_ns"]),
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
    return Locks(frame[schema.columns("locks")], _common(found), lost, processes)


def _difference(witness: Mapping[str, int] | None) -> int | None:
    """By how many acquisitions the histogram of the tracepoint differs from what was traced."""
    if witness is None or witness["dropped"]:
        return None
    return sum(abs(witness[mode] - witness[f"traced_{mode}"]) for mode in ("read", "write"))


def _add_buckets(lists: Iterable[list[int]]) -> list[int]:
    """Add histograms of different lengths."""
    total = np.zeros(max(map(len, lists), default=0), np.int64)
    for buckets in lists:
        total[: len(buckets)] += np.asarray(buckets, np.int64)
    return [int(value) for value in total]


# ---- events ----


def read_events(path: str | Path, counted: Faults) -> pd.DataFrame:
    """Decode an events file.

    Parameters
    ----------
    path : path
        What ``vmaprobe faults --events`` wrote.
    counted : Faults
        The counts of the same tracing, which name the processes and kinds.

    Returns
    -------
    DataFrame
        One row per fault in the order they began, columns as in the table ``fault_events``; words
        are categories.

    Raises
    ------
    FaultsError
        One sentence: not such a file, another format, or cut short.
    """
    events = _records(Path(path))
    # They were written as they ended. Column by column, so that nothing is there twice.
    order = np.argsort(events["start_ns"], kind="stable").astype(np.uint32)
    begun = np.uint64(counted.header["begun_ns"])
    columns: dict[str, Any] = {
        "time_ns": (events["start_ns"][order] - begun).view(np.int64),
        **{name: events[name][order] for name in ("address", "vm_start", "duration_ns", "tid")},
    }
    process, kind = events["process"][order], events["kind"][order]
    columns |= {
        "process": process,
        "tgid": _look_up(process, dict(counted.processes.set_index("process")["tgid"])),
        "comm": _categories(process, dict(counted.processes.set_index("process")["comm"])),
        "origin": _categories(kind, dict(counted.kinds["origin"])),
    }
    states = np.array(_STATE_OF_BITS, np.int8)
    for name, words in (
        ("mode", MODES),
        ("access", ACCESSES),
        ("before", STATES),
        ("after", STATES),
        ("path", PATHS),
        ("result", RESULTS),
    ):
        codes = events[name][order]
        columns[name] = _words(states[codes & 15] if words is STATES else codes, words)
    return pd.DataFrame(columns, columns=schema.columns("fault_events"), copy=False)


def _records(path: Path) -> npt.NDArray[np.void]:
    try:
        size = path.stat().st_size
        data = np.asarray(np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8))
    except OSError as error:
        raise FaultsError(f"cannot read {path}: {error.strerror}.") from error
    if len(data) < HEADER.itemsize or data[:8].tobytes().rstrip(b"\0") != MAGIC:
        raise FaultsError(f"{path} holds no events of faults.")
    header = data[: HEADER.itemsize].view(HEADER)[0]
    if header["byte_order"] != BYTE_ORDER:
        raise FaultsError(
            f"{path} was written on a machine of the other byte order; read it there."
        )
    if (header["format"], header["event_size"]) != (FORMAT, EVENT.itemsize):
        raise FaultsError(
            f"{path} has events of format {header['format']} with {header['event_size']} bytes "
            f"each; this version reads format {FORMAT} with {EVENT.itemsize}."
        )
    if header["header_size"] != HEADER.itemsize:
        raise FaultsError(f"{path} is damaged: its header contradicts its format.")
    body = data[HEADER.itemsize :]
    if len(body) % EVENT.itemsize:
        raise FaultsError(f"{path} is cut short: its last event is not whole.")
    events: npt.NDArray[np.void] = body.view(EVENT)
    return events


def _words(codes: npt.NDArray[Any], words: tuple[str, ...]) -> pd.Categorical:
    codes = np.minimum(codes, len(words) - 1).astype(np.int8)
    return pd.Categorical.from_codes(codes, categories=pd.Index(words, dtype="str"))


def _look_up(ids: npt.NDArray[Any], values: Mapping[Any, Any]) -> npt.NDArray[np.uint32]:
    table = np.zeros(max(int(ids.max(initial=0)), *map(int, values), 0) + 1, np.uint32)
    for key, value in values.items():
        table[int(key)] = value
    found: npt.NDArray[np.uint32] = table[ids]
    return found


def _categories(ids: npt.NDArray[Any], names: Mapping[Any, object]) -> pd.Categorical:
    """A column of ids as text; equal names are one category, None and unknown ids are null."""
    known = {key: name for key, name in names.items() if isinstance(name, str)}
    distinct = list(dict.fromkeys(known.values()))
    codes = {key: distinct.index(name) for key, name in known.items()}
    kind = np.int8 if len(distinct) < 127 else np.int32
    table = np.full(max([*map(int, codes), int(ids.max(initial=0))], default=0) + 1, -1, kind)
    for key, code in codes.items():
        table[int(key)] = code
    return pd.Categorical.from_codes(table[ids], categories=pd.Index(distinct, dtype="str"))
