# SPDX-License-Identifier: GPL-2.0-only
"""The format of perf.data, as far as it is read here: headers, events, types of records."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"PERFILE2"
HEADER = struct.Struct("<8sQQ2Q2Q2Q4Q")  # struct perf_file_header
SIZE_OF_RECORDS = 48  # where that is in the header
PIPE_SIZE = 16  # of the header when perf wrote to a pipe
SECTION = struct.Struct("<QQ")  # offset, size
ATTR = struct.Struct("<IIQQQQQ")  # type, size, config, period, sample_type, read_format, flags
WORD = struct.Struct("<Q")
TASK = struct.Struct("<IIII")  # pid, ppid, tid, ptid


class Sample(enum.IntFlag):
    """What samples hold: enum perf_event_sample_format, as far as it matters here."""

    IP = 1 << 0
    TID = 1 << 1
    TIME = 1 << 2
    ADDR = 1 << 3
    READ = 1 << 4
    CALLCHAIN = 1 << 5
    ID = 1 << 6
    CPU = 1 << 7
    PERIOD = 1 << 8
    STREAM_ID = 1 << 9
    BRANCH_STACK = 1 << 11
    REGS_USER = 1 << 12
    STACK_USER = 1 << 13
    IDENTIFIER = 1 << 16


class Record(enum.IntEnum):
    """Types of records: enum perf_event_type, and perf's own from 64 on."""

    MMAP = 1
    LOST = 2
    COMM = 3
    EXIT = 4
    THROTTLE = 5
    UNTHROTTLE = 6
    FORK = 7
    READ = 8
    SAMPLE = 9
    MMAP2 = 10
    LOST_SAMPLES = 13
    SWITCH = 14
    SWITCH_CPU_WIDE = 15
    NAMESPACES = 16
    KSYMBOL = 17
    BPF_EVENT = 18
    CGROUP = 19
    TEXT_POKE = 20
    TRACING_DATA = 66
    FINISHED_ROUND = 68
    ID_INDEX = 69
    AUXTRACE = 71
    THREAD_MAP = 73
    CPU_MAP = 74
    EVENT_UPDATE = 78
    TIME_CONV = 79
    HEADER_FEATURE = 80
    COMPRESSED = 81
    FINISHED_INIT = 82
    COMPRESSED2 = 83


FORMAT_GROUP = 1 << 3  # a bit of perf_event_attr's read_format

# In the order in which sample_id has them at a record's end.
_AFTER_TIME = (Sample.ID, Sample.STREAM_ID, Sample.CPU, Sample.IDENTIFIER)
FREQUENCY, SAMPLE_ID_ALL = 1 << 10, 1 << 18  # bits of perf_event_attr's flags

LATEST = (1 << 63) - 1
"""The last time in ns, and the largest number, that is believed."""
NO_TIME = (1 << 64) - 1  # what perf gives to records that it made up itself

# Features, by their bit in the header.
HOSTNAME, OSRELEASE, ARCH, NRCPUS, CPUDESC, EVENT_DESC = 3, 4, 6, 7, 8, 12
AUXTRACE_FEATURE = 18

MAX_ATTRS = 4096
MAX_STRING = 4096


class Attr(NamedTuple):
    """An event of a recording: what its samples hold, and which ids they may have."""

    kind: Sample
    period: int
    ids: tuple[int, int]
    """Offset and size of its ids, an u64 each, in the file."""
    on_all: bool
    """Whether records that are no samples have a time, too."""
    is_group: bool = False
    """Whether a sample has the counts of all events of a group, of which perf makes one of each."""

    @property
    def time_place(self) -> int:
        """Where the time of such a record is, in bytes from its end; 0 if it has none."""
        if not self.on_all or not self.kind & Sample.TIME:
            return 0
        return 8 + 8 * sum(bool(self.kind & bit) for bit in _AFTER_TIME)


class Heads(NamedTuple):
    """struct perf_event_header of every record, in the order of the file.

    Attributes
    ----------
    offset : array of int64
        In the file, in bytes.
    kind, misc, size : array of int32
        See `Record`; the bits PERF_RECORD_MISC_*; in bytes.
    """

    offset: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int32]
    misc: npt.NDArray[np.int32]
    size: npt.NDArray[np.int32]

    @classmethod
    def of(cls, offset: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]) -> Heads:
        """Take the heads apart, each of which is a word."""
        halves = words.astype("<u8", copy=False).view("<u4")
        parts = halves[::2], halves[1::2] & 0xFFFF, halves[1::2] >> 16
        kind, misc, size = (part.astype(np.int32) for part in parts)  # no kind is that large
        return cls(offset, kind, misc, size)
