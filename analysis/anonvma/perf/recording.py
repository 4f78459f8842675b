# SPDX-License-Identifier: GPL-2.0-only
"""perf.data: what a recording is, before any program is let near it, and who its threads were.

Of the file only this is read here: the header, which events it samples, on what machine, where its
records are, and those that name threads. tools/perf/Documentation/perf.data-file-format.txt and
include/uapi/linux/perf_event.h have the format. `anonvma.perf.deduplicated` reads the samples, and
``perf script`` resolves their addresses, see `anonvma.perf.script`; but names of threads come from
here, whole, since text cannot carry a name with newlines in it, and so does the number of samples,
which tells whether text held something that was none.

A file may come from anyone: sizes are checked before they are believed, and nothing that a file
names is opened.
"""

from __future__ import annotations

import dataclasses
import enum
import mmap
import struct
from array import array
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable

__all__ = [
    "LATEST",
    "Attr",
    "File",
    "Heads",
    "Names",
    "Record",
    "Recording",
    "Sample",
    "blank_host_name",
    "read",
]

_MAGIC = b"PERFILE2"
_HEADER = struct.Struct("<8sQQ2Q2Q2Q4Q")  # struct perf_file_header
_SIZE_OF_RECORDS = 48  # where that is in the header
_PIPE_SIZE = 16  # of the header when perf wrote to a pipe
_SECTION = struct.Struct("<QQ")  # offset, size
_ATTR = struct.Struct("<IIQQQQQ")  # type, size, config, period, sample_type, read_format, flags
_WORD = struct.Struct("<Q")
PIECE = 8 << 20  # words of a file whose pages are kept at a time
_TASK = struct.Struct("<IIII")  # pid, ppid, tid, ptid


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


# In the order in which sample_id has them at a record's end.
_AFTER_TIME = (Sample.ID, Sample.STREAM_ID, Sample.CPU, Sample.IDENTIFIER)
_FREQUENCY, _SAMPLE_ID_ALL = 1 << 10, 1 << 18  # bits of perf_event_attr's flags

LATEST = (1 << 63) - 1
"""The last time in ns, and the largest number, that is believed."""
_NO_TIME = (1 << 64) - 1  # what perf gives to records that it made up itself

# Features, by their bit in the header.
_HOSTNAME, _OSRELEASE, _ARCH, _NRCPUS, _CPUDESC, _EVENT_DESC = 3, 4, 6, 7, 8, 12
_AUXTRACE_FEATURE = 18

_MAX_ATTRS = 4096
_MAX_STRING = 4096


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


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a perf.data file is.

    Attributes
    ----------
    arch, release, cpu : str or None
        Of the machine that it was recorded on.
    cpus : int or None
        How many were online.
    events : list of str
        What was sampled, as perf called it when it recorded; empty if it did not say.
    call_graph, has_cpu, has_period : bool
        Whether samples have stacks, a processor, a period; where one event's have not, none.
    periods : list of int
        What each event's samples stand for where they have no period of their own.
    samples, lost : int
        How many it has, and how many the kernel said were lost; `samples` is -1 in a compressed
        recording, which is not looked into.
    names : Names
        Of its threads.
    """

    arch: str | None
    release: str | None
    cpu: str | None
    cpus: int | None
    events: list[str]
    call_graph: bool
    has_cpu: bool
    has_period: bool
    periods: list[int]
    samples: int
    lost: int
    names: Names


class Attr(NamedTuple):
    """An event of a recording: what its samples hold, and which ids they may have."""

    kind: Sample
    period: int
    ids: tuple[int, int]
    """Offset and size of its ids, an u64 each, in the file."""
    on_all: bool
    """Whether records that are no samples have a time, too."""

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
    kind, misc, size : array of int64
        See `Record`; the bits PERF_RECORD_MISC_*; in bytes.
    """

    offset: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    misc: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]

    @classmethod
    def of(cls, offset: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]) -> Heads:
        """Take the heads apart, each of which is a word."""
        kind, misc, size = words & 0xFFFFFFFF, words >> 32 & 0xFFFF, words >> 48
        return cls(offset, *(part.astype(np.int64) for part in (kind, misc, size)))


def read(path: str | Path, limit: int | None = None) -> Recording:
    """Look into a recording; see `File` for the parameters and the errors."""
    return File(path, limit).recording()


class File:
    """A recording in memory, mapped.

    Parameters
    ----------
    path : path
        A file that ``perf record -o`` wrote.
    limit : int, optional
        Bytes that it may have at most.

    Attributes
    ----------
    data : mmap
        All of it.
    records : tuple of int
        Offset and size of its records.
    attrs : list of Attr
        Its events.

    Raises
    ------
    ProfileError
        One sentence: no such file, damaged, cut short, too large, of another byte order, of a pipe,
        or of a hardware tracer.
    """

    def __init__(self, path: str | Path, limit: int | None = None) -> None:
        self._path = Path(path)
        self.data = _mapped(self._path, limit)
        self._size = len(self.data)
        found = self._header()
        self._attr_size, self._attrs, self.records = found[2], found[3:5], found[5:7]
        self._features = [
            64 * word + bit for word in range(4) for bit in range(64) if found[9 + word] >> bit & 1
        ]
        for what, (offset, size) in (("events", self._attrs), ("samples", self.records)):
            if offset < _HEADER.size or offset + size > self._size:
                raise self._short(f"its {what} end at byte {offset + size}")
        self.attrs = self._read_attrs()

    def _header(self) -> tuple[Any, ...]:
        path, data = self._path, self.data
        if data[:8] == _MAGIC[::-1]:
            raise ProfileError(
                f"{path} was recorded on a machine of the other byte order: run 'perf script' "
                "there, and import its text."
            )
        if data[:8] != _MAGIC:
            raise ProfileError(f"{path} is no recording of perf: it does not begin with PERFILE2.")
        if self._size >= 16 and _WORD.unpack_from(data, 8)[0] == _PIPE_SIZE:
            raise ProfileError(
                f"{path} was written to a pipe: record with 'perf record -o FILE', or import the "
                "text of 'perf script'."
            )
        if self._size < _HEADER.size:
            raise self._short("its header is not whole")
        found = _HEADER.unpack_from(data, 0)
        if found[1] != _HEADER.size:
            raise self._damaged(f"its header claims {found[1]} bytes instead of {_HEADER.size}")
        return found

    def _short(self, what: str) -> ProfileError:
        return ProfileError(
            f"{self._path} is cut short: {what}, and the file has {self._size}; copy it again, or "
            "record again and let perf end by itself."
        )

    def _damaged(self, what: str) -> ProfileError:
        return ProfileError(f"{self._path} is damaged: {what}.")

    def recording(self) -> Recording:
        """Return what it is."""
        if self.records[1] == 0:
            raise ProfileError(
                f"{self._path} holds no samples: perf record was killed before it was done, or "
                "nothing ran."
            )
        kinds = [attr.kind for attr in self.attrs]
        if not all(kind & Sample.TID and kind & Sample.TIME for kind in kinds):
            raise ProfileError(
                f"{self._path} does not say when its samples were, or of whom: record without "
                "--no-timestamp, as perf does by itself."
            )
        sections = self._feature_sections()
        if _AUXTRACE_FEATURE in sections:
            raise ProfileError(
                f"{self._path} holds the trace of a processor (such as Intel PT), not samples: "
                "import the text of 'perf script --itrace=i1ms' on that machine."
            )
        counts = self._counts()
        compressed = counts.get(Record.COMPRESSED, 0) + counts.get(Record.COMPRESSED2, 0)
        if not counts.get(Record.SAMPLE) and not compressed:
            raise ProfileError(f"{self._path} holds no samples: nothing ran while it recorded.")
        return Recording(
            arch=self._text(sections, _ARCH),
            release=self._text(sections, _OSRELEASE),
            cpu=self._text(sections, _CPUDESC),
            cpus=self._cpus(sections),
            events=self._event_names(sections),
            call_graph=any(kind & Sample.CALLCHAIN for kind in kinds),
            has_cpu=all(kind & Sample.CPU for kind in kinds),
            has_period=all(kind & Sample.PERIOD for kind in kinds),
            periods=[attr.period for attr in self.attrs],
            samples=-1 if compressed else counts.get(Record.SAMPLE, 0),
            lost=self._lost(),
            names=Names(list(self._named())),
        )

    # ---- which events ----

    def _read_attrs(self) -> list[Attr]:
        """Return the events."""
        offset, size = self._attrs
        if self._attr_size < _ATTR.size + _SECTION.size or size % self._attr_size or not size:
            raise self._damaged(f"its {size} bytes of events are no multiple of {self._attr_size}")
        if size // self._attr_size > _MAX_ATTRS:
            raise self._damaged(f"it claims {size // self._attr_size} events")
        attrs = []
        for start in range(offset, offset + size, self._attr_size):
            _, _, _, period, kind, _, flags = _ATTR.unpack_from(self.data, start)
            ids = _SECTION.unpack_from(self.data, start + self._attr_size - _SECTION.size)
            period = 1 if flags & _FREQUENCY else min(period, LATEST)
            attrs.append(Attr(Sample(kind), period, ids, bool(flags & _SAMPLE_ID_ALL)))
        return attrs

    # ---- the machine ----

    def _feature_sections(self) -> dict[int, tuple[int, int]]:
        table = self.records[0] + self.records[1]
        if table + _SECTION.size * len(self._features) > self._size:
            raise self._short("the table behind its samples is not whole")
        found = {}
        for place, bit in enumerate(self._features):
            offset, size = _SECTION.unpack_from(self.data, table + place * _SECTION.size)
            if offset + size > self._size:
                raise self._short(f"its feature {bit} ends at byte {offset + size}")
            found[bit] = (offset, size)
        return found

    def _text(self, sections: dict[int, tuple[int, int]], bit: int) -> str | None:
        offset, size = sections.get(bit, (0, 0))
        return self._string(offset, offset + size)[0] if size >= 4 else None

    def _string(self, offset: int, end: int) -> tuple[str, int]:
        """Return a string and where it ends; it is stored with its length, padded with zeros."""
        if offset + 4 > end:
            raise self._damaged("a string lies outside of its section")
        (length,) = struct.unpack_from("<I", self.data, offset)
        if length > _MAX_STRING or offset + 4 + length > end:
            raise self._damaged(f"it claims a string of {length} bytes")
        text = self.data[offset + 4 : offset + 4 + length].partition(b"\0")[0]
        shown = printable(text.decode("utf-8", "backslashreplace"))
        return shown, offset + 4 + length

    def _cpus(self, sections: dict[int, tuple[int, int]]) -> int | None:
        offset, size = sections.get(_NRCPUS, (0, 0))
        return int(struct.unpack_from("<I", self.data, offset)[0]) if size >= 8 else None

    def _event_names(self, sections: dict[int, tuple[int, int]]) -> list[str]:
        """Return the names of the events: nr, attr_size, and for each attr, nr_ids, name, ids."""
        offset, size = sections.get(_EVENT_DESC, (0, 0))
        end = offset + size
        if size < 8:
            return []
        count, attr_size = struct.unpack_from("<II", self.data, offset)
        if count > _MAX_ATTRS or attr_size > size:
            raise self._damaged(f"it claims {count} descriptions of events")
        names, offset = [], offset + 8
        for _ in range(count):
            if offset + attr_size + 8 > end:
                raise self._damaged("the description of an event lies outside of its section")
            (ids,) = struct.unpack_from("<I", self.data, offset + attr_size)
            name, offset = self._string(offset + attr_size + 4, end)
            names.append(name)
            offset += 8 * ids
        return names

    # ---- the records ----

    @cached_property
    def words(self) -> npt.NDArray[np.uint64]:
        """The records as words, without what is not a whole one at their end."""
        offset, size = self.records
        return np.frombuffer(self.data, "<u8", size // 8, offset)

    @cached_property
    def heads(self) -> Heads:
        """The heads of all records.

        Raises
        ------
        ProfileError
            When their sizes do not add up.
        """
        return self._aligned_heads() or self._any_heads()

    def gathered(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Return the words at these places, without keeping the pages of the file they lie in.

        Of a large file those would be as much memory as it is long.
        """
        found = np.empty(len(at), np.uint64)
        edges = [0, *(np.flatnonzero(np.diff(at // PIECE)) + 1).tolist(), len(at)]
        for start, stop in pairwise(edges):
            found[start:stop] = self.words[at[start:stop]]
            self.give_back()
        return found

    def give_back(self) -> None:
        """Let go of the pages of the file that have been looked at; they can be read again."""
        self.data.madvise(mmap.MADV_DONTNEED)

    def ids(self, attr: Attr) -> npt.NDArray[np.uint64]:
        """Return the ids of an event's samples; none if they are not in the file."""
        offset, size = attr.ids
        if offset + size > self._size:
            return np.zeros(0, np.uint64)
        return np.frombuffer(self.data, "<u8", size // 8, offset)

    def copy(self, output: Path, wanted: npt.NDArray[np.bool_]) -> None:
        """Write the recording with some of its records.

        Parameters
        ----------
        output : path
        wanted : array of bool
            For each record.
        """
        begin, size = self.records
        heads, data = self.heads, self.data
        edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
        places = np.append(heads.offset, begin + size)[edges].tolist()
        left = int(heads.size[wanted].sum())
        behind = begin + size + _SECTION.size * len(self._features)
        with output.open("wb") as file:
            start = bytearray(data[:begin])
            _WORD.pack_into(start, _SIZE_OF_RECORDS, left)
            file.write(start)
            for first, last in zip(places[::2], places[1::2], strict=True):
                file.write(memoryview(data)[first:last])
            for offset, length in self._feature_sections().values():
                moved = size - left if offset >= begin + size else 0
                file.write(_SECTION.pack(offset - moved, length))
            file.write(data[behind:])

    def _aligned_heads(self) -> Heads | None:
        """Step from record to record by words, of which the kernel's all are; None for others."""
        offset, size = self.records
        words = memoryview(self.data)[offset : offset + size // 8 * 8].cast("Q")
        places, place, end = array("q"), 0, len(words)
        add = places.append
        while place < end:
            stop = min(place + PIECE, end)
            while place < stop:
                add(place)
                step = words[place] >> 51  # the size is the highest of four u16
                if not step:
                    return None
                place += step
            self.give_back()
        if place != end or size % 8:
            return None
        at = np.frombuffer(places, np.int64)
        heads = Heads.of(offset + 8 * at, self.gathered(at))
        return None if (heads.size & 7).any() else heads

    def _any_heads(self) -> Heads:
        """Step by bytes: compressed records may end anywhere."""
        offset, end = self.records[0], sum(self.records)
        places, words = array("q"), array("Q")
        while offset + 8 <= end:
            (word,) = _WORD.unpack_from(self.data, offset)
            size = word >> 48
            if size < 8 or offset + size > end:
                raise self._damaged(f"the record at byte {offset} claims {size} bytes")
            places.append(offset)
            words.append(word)
            offset += size
        if offset != end:
            raise self._damaged(f"its last record, at byte {offset}, is not whole")
        return Heads.of(np.frombuffer(places, np.int64), np.frombuffer(words, np.uint64))

    def _counts(self) -> dict[int, int]:
        """Return how many records there are of each type."""
        kinds, numbers = np.unique(self.heads.kind, return_counts=True)
        counts = dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
        if Record.AUXTRACE in counts:
            raise self._damaged("it holds the trace of a processor that it does not announce")
        return counts

    def _lost(self) -> int:
        lost = 0
        for kind, place in ((Record.LOST, 16), (Record.LOST_SAMPLES, 8)):
            for offset, size in self.records_of(kind):
                if size >= place + 8:
                    lost += _WORD.unpack_from(self.data, offset + place)[0]
        return lost

    def records_of(self, *kinds: Record) -> Iterator[tuple[int, int]]:
        """Yield offset and size of the records of some types."""
        heads = self.heads
        mine = np.isin(heads.kind, kinds)
        yield from zip(heads.offset[mine].tolist(), heads.size[mine].tolist(), strict=True)

    def _named(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield tid, time and name, in the order of time; a child has its parent's name."""
        present: dict[int, bytes] = {}
        tasks = [
            (self.time_of(*record), *record) for record in self.records_of(Record.COMM, Record.FORK)
        ]
        for time, offset, size in sorted(tasks, key=lambda each: each[0]):
            (kind,) = struct.unpack_from("<I", self.data, offset)
            if kind == Record.FORK:
                if size < 8 + _TASK.size:
                    raise self._damaged(f"the record at byte {offset} is too short")
                _, _, tid, parent = _TASK.unpack_from(self.data, offset + 8)
                name = present.get(parent)
            else:
                if size < 17:
                    raise self._damaged(f"the record at byte {offset} is too short")
                (tid,) = struct.unpack_from("<I", self.data, offset + 12)
                name = self.data[offset + 16 : offset + size].partition(b"\0")[0]
            if name is not None:
                present[tid] = name
                yield tid, time, name

    def time_of(self, offset: int, size: int) -> int:
        """Return the time of a record that is no sample; 0 is before everything else."""
        place = self._time_place(offset, size)
        if not place or size < 16 + place:
            return 0
        (time,) = _WORD.unpack_from(self.data, offset + size - place)
        if time == _NO_TIME:
            return 0
        if time > LATEST:
            raise self._damaged(f"the record at byte {offset} has a time that no clock shows")
        return int(time)

    def _time_place(self, offset: int, size: int) -> int:
        """Return where a record has its time: that depends on the event it came with."""
        places = self._time_places
        if len(set(places.values())) == 1 or size < 16:
            return places[0]
        (identifier,) = _WORD.unpack_from(self.data, offset + size - 8)
        return places.get(identifier, 0)

    @cached_property
    def _time_places(self) -> dict[int, int]:
        """The place of the time by the event's id, with which a record ends; 0 for the first."""
        found = {0: self.attrs[0].time_place}
        for attr in self.attrs:
            if not attr.kind & Sample.IDENTIFIER and attr.time_place != found[0]:
                return {0: 0}
            found |= dict.fromkeys(self.ids(attr).tolist(), attr.time_place)
        return found


def _mapped(path: Path, limit: int | None) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if not path.is_file():
                raise ProfileError(f"{path} is not a regular file, which a recording is.")
            if size == 0:
                raise ProfileError(f"{path} is empty: perf record wrote nothing into it.")
            if limit is not None and size > limit:
                raise ProfileError(
                    f"{path} has {size >> 20} MiB, more than the {limit >> 20} MiB that are taken: "
                    "cut it with 'perf script --time' and import that text, or give --limit."
                )
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}.") from None


def blank_host_name(path: Path) -> None:
    """Take the machine's name out of a recording of ours; leave any other file as it is.

    Features follow the data, each with an offset and a size, in the order of their bits; a string
    is its length and its bytes.
    """
    with path.open("r+b") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            return
        _, size, _, _, _, data, data_size, _, _, bits, *_ = _HEADER.unpack(head)
        if size != _HEADER.size or not bits >> _HOSTNAME & 1:  # the former: written to a pipe
            return
        earlier = (bits & ((1 << _HOSTNAME) - 1)).bit_count()
        file.seek(data + data_size + _SECTION.size * earlier)
        offset, size = _SECTION.unpack(file.read(_SECTION.size))
        if 4 < size <= _MAX_STRING:
            file.seek(offset + 4)
            file.write(bytes(size - 4))
