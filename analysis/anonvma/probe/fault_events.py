# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe faults --events`` wrote, as a frame: each fault.

The events are fixed-size records (analysis/probe/faults.h), read through a NumPy structured dtype:
a column of a million faults is a view into the file, not a million objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import FaultsError
from anonvma.probe.counts import STATE_OF_BITS, categories
from anonvma.probe.faults_file import Faults
from anonvma.run import schema
from anonvma.run.vocabulary import REASONS, STATES

MAGIC = b"VMAFALT"
FORMAT = 3
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
        ("reason", "u1"),
        ("reserved", "u1"),
    ]
)

MODES = ("unknown", "user", "kernel", "gup")
ACCESSES = ("unknown", "read", "write", "exec")
PATHS = ("unknown", "vma", "mmap", "retry")
RESULTS = ("unknown", "minor", "major", "error")


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
        "comm": categories(process, dict(counted.processes.set_index("process")["comm"])),
        "origin": categories(kind, dict(counted.kinds["origin"])),
    }
    states = np.array(STATE_OF_BITS, np.int8)
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
    # One that has none, 0, comes out as -1, which is null.
    columns["reason"] = _words(events["reason"][order].astype(np.int8) - np.int8(1), REASONS)
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
