# SPDX-License-Identifier: GPL-2.0-only
"""The samples of a recording as columns, as the kernel wrote them: numbers and bare addresses.

PERF_RECORD_SAMPLE in include/uapi/linux/perf_event.h: after its head a word each of what the
event's sample_type asks for, in a fixed order, then the chain of addresses, its length before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anonvma.perf.recording import File
from anonvma.perf.recording_format import Attr, Record, Sample

_Ints = npt.NDArray[Any]  # of as many bits as their numbers need: there are millions

_WORDS = (
    Sample.IDENTIFIER,
    Sample.IP,
    Sample.TID,
    Sample.TIME,
    Sample.ADDR,
    Sample.ID,
    Sample.STREAM_ID,
    Sample.CPU,
    Sample.PERIOD,
)
"""What takes a word each, in this order, before READ, of varying length, and the chain."""


class Samples(NamedTuple):
    """Samples in the order of the file, an array for each.

    Attributes
    ----------
    record, misc : array
        Which record of the file it is; the bits PERF_RECORD_MISC_*.
    time, cpu, pid, tid, period : array
        -1 for a processor that was not recorded.
    event : array
        Place among the file's events.
    begin, length : array
        The chain's addresses, as a place among the file's words, and how many they are; the one
        address of a sample without a chain.
    bare : array of bool
        Whether it has no chain.
    """

    record: _Ints
    misc: _Ints
    time: _Ints
    cpu: _Ints
    pid: _Ints
    tid: _Ints
    period: _Ints
    event: _Ints
    begin: _Ints
    length: _Ints
    bare: npt.NDArray[np.bool_]


def read(file: File) -> Samples | None:
    """Return the samples; None where they are not as a kernel of today writes them."""
    heads = file.heads
    if (heads.size & 7).any() or any(attr.kind & Sample.READ for attr in file.attrs):
        return None
    record = np.flatnonzero(heads.kind == Record.SAMPLE)
    at = (heads.offset[record] - file.records[0]) // 8
    size = heads.size[record] // 8
    event = _events(file, at, size)
    if event is None:
        return None
    time, period, begin = np.full((3, len(at)), -1, np.int64)
    cpu, pid, tid, length = np.full((4, len(at)), -1, np.int32)
    numbers = (time, cpu, pid, tid, period, event, begin, length)
    found = Samples(record, heads.misc[record], *numbers, np.zeros(len(at), bool))
    for number, attr in enumerate(file.attrs):
        mine = event == number if len(file.attrs) > 1 else slice(None)
        if not _take(file, attr, found, mine, at[mine], size[mine]):
            return None
    if (time < 0).any() or (period < 0).any():
        return None  # no clock is that late
    return found


def _take(
    file: File, attr: Attr, found: Samples, mine: _Ints | slice, at: _Ints, size: _Ints
) -> bool:
    """Fill in the samples of one event; tell whether they hold what they should."""
    places = {bit: 1 + place for place, bit in enumerate(b for b in _WORDS if attr.kind & b)}
    end = 1 + len(places)
    if (size < end + bool(attr.kind & Sample.CALLCHAIN)).any():
        return False

    def word(bit: Sample) -> _Ints:
        return file.gathered(at, places[bit]).view(np.int64)

    task = word(Sample.TID)
    found.pid[mine], found.tid[mine] = task.astype(np.int32), (task >> 32).astype(np.int32)
    found.time[mine] = word(Sample.TIME)
    found.period[mine] = word(Sample.PERIOD) if Sample.PERIOD in places else attr.period
    if Sample.CPU in places:
        found.cpu[mine] = word(Sample.CPU).astype(np.int32)
    if attr.kind & Sample.CALLCHAIN:
        length = file.gathered(at, end).view(np.int64)
        found.begin[mine], found.length[mine] = at + end + 1, length
        return bool(((length >= 0) & (length < size - end)).all())
    found.begin[mine] = at + places.get(Sample.IP, 0)
    found.length[mine] = Sample.IP in places
    found.bare[mine] = True
    return True


def _events(file: File, at: _Ints, size: _Ints) -> _Ints | None:
    """Return which event each sample is of: its id is one of the event's."""
    if len(file.attrs) == 1:
        return np.zeros(len(at), np.int32)
    by = Sample.IDENTIFIER if file.attrs[0].kind & Sample.IDENTIFIER else Sample.ID
    places = {
        sum(bool(attr.kind & bit) for bit in _WORDS[: _WORDS.index(by)])
        for attr in file.attrs
        if attr.kind & by
    }
    if len(places) != 1 or not all(attr.kind & by for attr in file.attrs):
        return None
    place = 1 + places.pop()
    tables = [file.ids(attr) for attr in file.attrs]
    ids = np.concatenate(tables)
    if not len(ids) or (size <= place).any():
        return None
    order = np.argsort(ids)
    mine = file.gathered(at, place)
    found = order[np.minimum(np.searchsorted(ids, mine, sorter=order), len(ids) - 1)]
    if (ids[found] != mine).any():
        return None
    events = np.arange(len(tables), dtype=np.int32)
    return np.repeat(events, [len(table) for table in tables])[found]
