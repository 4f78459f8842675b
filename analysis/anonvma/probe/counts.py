# SPDX-License-Identifier: GPL-2.0-only
"""What the counts of every tracer have in common: processes, losses, words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import FaultsError
from anonvma.run.vocabulary import TRACING_LOSSES

# By the bits FOUND_VMA, FOUND_ANON, FOUND_ANON_VMA; NOT_LOOKED_AT stands alone.
STATE_OF_BITS = (0, 3, 0, 1, 0, 4, 0, 2, *[5] * 8)

_OF_ANY_LOCK = ("finds_it_taken", "gets_it")
"""The programs of contention_begin and _end, which interrupts come upon, and the maps of BPF.

Where no task is preempted in a program, only these can find it running, and be turned away:
neither of them waits for mmap_lock, which sleeps. What it hides of other locks is `waits_lost`.
"""

_OF_OWN_FAULTS = "kernel_fault_begins"
"""The program of page_fault_kernel that takes stacks: to follow frame pointers may fault itself.

It is called with interrupts off, so nothing else finds it running.
"""


def object_of(text: bytes, what: str, needed: Iterable[str]) -> dict[str, Any]:
    """Return the JSON object, its strings such as Parquet takes them."""
    try:
        found = json.loads(text.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise FaultsError(f"{what} is damaged: it is not whole JSON ({error}).") from None
    if not isinstance(found, dict) or not all(name in found for name in needed):
        raise FaultsError(f"{what} is not what vmaprobe writes.")
    return found


def rows_of(objects: Iterable[Mapping[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Lay objects out as rows, each of which must have every column."""
    return pd.DataFrame([[each[name] for name in columns] for each in objects], columns=columns)


def text_of(value: str | None) -> str | None:
    r"""Names are bytes to the kernel; what is not UTF-8 shows as \xNN."""
    if value is None:
        return None
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def add_buckets(lists: Iterable[list[int]]) -> list[int]:
    """Add histograms of different lengths."""
    total = np.zeros(max(map(len, lists), default=0), np.int64)
    for buckets in lists:
        total[: len(buckets)] += np.asarray(buckets, np.int64)
    return [int(value) for value in total]


def processes_of(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return the processes that a tracer followed, in the order they began."""
    rows = [
        {
            "process": each["id"],
            "tgid": each["tgid"],
            "parent": each["parent"],
            "how": each["how"],
            "comm": text_of(each["comm"]) or "",
        }
        for each in found["processes"]
    ]
    columns = ["process", "tgid", "parent", "how", "comm"]
    return pd.DataFrame(rows, columns=columns).sort_values("process", ignore_index=True)


def header_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a tracing as a whole, as far as it is there."""
    names = ["begun_ns", "ended_ns", "minor_faults", "major_faults", "faults_before"]
    names += ["contention_known", "preemption", "why_no_lock_paths", "misses", "charged", "refused"]
    names += ["preemptible", "witness", "why_no_witness", "why_no_reasons"]
    names += ["calls", "why_no_calls", "vma_locks", "writers_seen", "readers_seen"]
    return {name: found[name] for name in names if name in found}


def _is_loss(program: str, found: Mapping[str, Any]) -> bool:
    """Whether something is lost where the kernel did not run a program."""
    if program == _OF_OWN_FAULTS:
        return "user_stacks" not in found
    return found.get("preemptible", True) or not program.startswith(_OF_ANY_LOCK)


def losses_of(found: Mapping[str, Any]) -> dict[str, int | None]:
    """Return what a tracing lost, by `TRACING_LOSSES`; None where it cannot be told."""
    counted = [name for name in TRACING_LOSSES if name in found and name != "misses"]
    told: dict[str, int | None] = {name: int(found[name]) for name in counted}
    missed = [count for program, count in found["misses"].items() if _is_loss(program, found)]
    told["misses"] = None if None in missed else sum(missed)
    return told


def categories(ids: npt.NDArray[Any], names: Mapping[Any, object]) -> pd.Categorical:
    """A column of ids as text; equal names are one category, None and unknown ids are null."""
    known = {key: name for key, name in names.items() if isinstance(name, str)}
    distinct = list(dict.fromkeys(known.values()))
    codes = {key: distinct.index(name) for key, name in known.items()}
    kind = np.int8 if len(distinct) < 127 else np.int32
    table = np.full(max([*map(int, codes), int(ids.max(initial=0))], default=0) + 1, -1, kind)
    for key, code in codes.items():
        table[int(key)] = code
    return pd.Categorical.from_codes(table[ids], categories=pd.Index(distinct, dtype="str"))
