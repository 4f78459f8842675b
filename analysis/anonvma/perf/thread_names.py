# SPDX-License-Identifier: GPL-2.0-only
"""The names that threads of a recording had, and since when."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anonvma.perf.recording_format import TASK, Record

if TYPE_CHECKING:
    from anonvma.perf.recording import File


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of threads, and since when.

    Attributes
    ----------
    events : list of tuple
        tid, time in ns, name; in the order of time.
    """

    events: list[tuple[int, int, bytes]]

    def __call__(
        self, tids: npt.NDArray[Any], times: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.int32], list[bytes]]:
        """Return, for each thread at its time, a code, and the names that codes stand for.

        The code is -1 where no name is known. A name set in the very nanosecond of a sample is
        taken for the older, as perf does.
        """
        names: dict[bytes, int] = {}
        codes = np.full(len(tids), -1, np.int32)
        of_tid: dict[int, list[tuple[int, int]]] = {0: [(0, names.setdefault(b"swapper", 0))]}
        for tid, time, name in self.events:
            of_tid.setdefault(tid, []).append((time, names.setdefault(name, len(names))))
        for tid in np.unique(tids).tolist():
            if tid not in of_tid:
                continue
            since, code = np.array(of_tid[tid], np.int64).T
            mine = tids == tid
            # Before the first it has the first: perf learns a running thread's name late.
            place = np.searchsorted(since, times[mine], side="left") - 1
            codes[mine] = code[np.maximum(place, 0)]
        return codes, list(names)


def named(file: File) -> Iterator[tuple[int, int, bytes]]:
    """Yield tid, time and name, in the order of time; a child has its parent's name."""
    present: dict[int, bytes] = {}
    tasks = [
        (file.time_of(*record), *record) for record in file.records_of(Record.COMM, Record.FORK)
    ]
    for time, offset, size in sorted(tasks, key=lambda each: each[0]):
        (kind,) = struct.unpack_from("<I", file.data, offset)
        if kind == Record.FORK:
            if size < 8 + TASK.size:
                raise file.damaged(f"the record at byte {offset} is too short")
            _, _, tid, parent = TASK.unpack_from(file.data, offset + 8)
            name = present.get(parent)
        else:
            if size < 17:
                raise file.damaged(f"the record at byte {offset} is too short")
            (tid,) = struct.unpack_from("<I", file.data, offset + 12)
            name = file.data[offset + 16 : offset + size].partition(b"\0")[0]
        if name is not None:
            present[tid] = name
            yield tid, time, name
