# SPDX-License-Identifier: GPL-2.0-only
"""perf.data: what a recording is, before any program is let near it, and who its threads were.

Of the file only this is read here: the header, which events it samples, on what machine, and the
small records that name threads. tools/perf/Documentation/perf.data-file-format.txt and
include/uapi/linux/perf_event.h have the format. Samples are left to ``perf script``, which resolves
them, see `anonvma.perf_script`; but names of threads come from here, whole, since text cannot
carry a name with newlines in it, and so does the number of samples, which tells whether text held
something that was none.

A file may come from anyone: sizes are checked before they are believed, and nothing that a file
names is opened.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonvma.errors import ProfileError

__all__ = ["Names", "Recording", "blank_host_name", "read"]

_MAGIC = b"PERFILE2"
_HEADER = struct.Struct("<8sQQ2Q2Q2Q4Q")  # struct perf_file_header
_PIPE_SIZE = 16  # of the header when perf wrote to a pipe
_SECTION = struct.Struct("<QQ")  # offset, size
_ATTR = struct.Struct("<IIQQQQQ")  # type, size, config, period, sample_type, read_format, flags
_RECORD = struct.Struct("<IHH")  # type, misc, size
_TASK = struct.Struct("<IIII")  # pid, ppid, tid, ptid

# enum perf_event_sample_format, in the order in which sample_id has them at a record's end.
_TID, _TIME, _ID, _STREAM_ID, _CPU, _IDENTIFIER = 1 << 1, 1 << 2, 1 << 6, 1 << 9, 1 << 7, 1 << 16
_AFTER_TIME = (_ID, _STREAM_ID, _CPU, _IDENTIFIER)
_CALLCHAIN, _PERIOD = 1 << 5, 1 << 8
_FREQUENCY, _SAMPLE_ID_ALL = 1 << 10, 1 << 18  # bits of perf_event_attr's flags

# enum perf_event_type, and perf's own from 64 on.
_LOST, _COMM, _FORK, _SAMPLE, _LOST_SAMPLES = 2, 3, 7, 9, 13
_AUXTRACE, _COMPRESSED = 71, 81

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


def read(path: str | Path, limit: int | None = None) -> Recording:
    """Look into a recording.

    Parameters
    ----------
    path : path
        A file that ``perf record -o`` wrote.
    limit : int, optional
        Bytes that it may have at most.

    Raises
    ------
    ProfileError
        One sentence: no such file, damaged, cut short, too large, of another byte order, of a pipe,
        or of a hardware tracer.
    """
    path = Path(path)
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
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _File(path, data).recording()
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}.") from None


class _File:
    """A recording in memory."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._size = path, data, len(data)
        if data[:8] == _MAGIC[::-1]:
            raise ProfileError(
                f"{path} was recorded on a machine of the other byte order: run 'perf script' "
                "there, and import its text."
            )
        if data[:8] != _MAGIC:
            raise ProfileError(f"{path} is no recording of perf: it does not begin with PERFILE2.")
        if self._size >= 16 and struct.unpack_from("<Q", data, 8)[0] == _PIPE_SIZE:
            raise ProfileError(
                f"{path} was written to a pipe: record with 'perf record -o FILE', or import the "
                "text of 'perf script'."
            )
        if self._size < _HEADER.size:
            raise self._short("its header is not whole")
        found = _HEADER.unpack_from(data, 0)
        if found[1] != _HEADER.size:
            raise self._damaged(f"its header claims {found[1]} bytes instead of {_HEADER.size}")
        self._attr_size, self._attrs, self._records = found[2], found[3:5], found[5:7]
        self._features = [
            64 * word + bit for word in range(4) for bit in range(64) if found[9 + word] >> bit & 1
        ]
        for what, (offset, size) in (("events", self._attrs), ("samples", self._records)):
            if offset < _HEADER.size or offset + size > self._size:
                raise self._short(f"its {what} end at byte {offset + size}")

    def _short(self, what: str) -> ProfileError:
        return ProfileError(
            f"{self._path} is cut short: {what}, and the file has {self._size}; copy it again, or "
            "record again and let perf end by itself."
        )

    def _damaged(self, what: str) -> ProfileError:
        return ProfileError(f"{self._path} is damaged: {what}.")

    def recording(self) -> Recording:
        """Return what it is."""
        if self._records[1] == 0:
            raise ProfileError(
                f"{self._path} holds no samples: perf record was killed before it was done, or "
                "nothing ran."
            )
        types, periods = self._sample_types()
        if not all(kind & _TID and kind & _TIME for kind in types):
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
        counts, events = self._walk()
        if not counts.get(_SAMPLE) and not counts.get(_COMPRESSED):
            raise ProfileError(f"{self._path} holds no samples: nothing ran while it recorded.")
        return Recording(
            arch=self._text(sections, _ARCH),
            release=self._text(sections, _OSRELEASE),
            cpu=self._text(sections, _CPUDESC),
            cpus=self._cpus(sections),
            events=self._event_names(sections),
            call_graph=any(kind & _CALLCHAIN for kind in types),
            has_cpu=all(kind & _CPU for kind in types),
            has_period=all(kind & _PERIOD for kind in types),
            periods=periods,
            samples=-1 if counts.get(_COMPRESSED) else counts.get(_SAMPLE, 0),
            lost=counts.get(_LOST, 0),
            names=Names(events),
        )

    # ---- which events ----

    def _sample_types(self) -> tuple[list[int], list[int]]:
        """Return the types of samples and the periods asked for, and learn where times are."""
        offset, size = self._attrs
        if self._attr_size < _ATTR.size + _SECTION.size or size % self._attr_size or not size:
            raise self._damaged(f"its {size} bytes of events are no multiple of {self._attr_size}")
        if size // self._attr_size > _MAX_ATTRS:
            raise self._damaged(f"it claims {size // self._attr_size} events")
        types, periods, places = [], [], set()
        for start in range(offset, offset + size, self._attr_size):
            _, _, _, period, kind, _, flags = _ATTR.unpack_from(self._data, start)
            types.append(kind)
            periods.append(1 if flags & _FREQUENCY else period)
            if flags & _SAMPLE_ID_ALL and kind & _TIME:
                places.add(8 + 8 * sum(bool(kind & bit) for bit in _AFTER_TIME))
        self._time_place = places.pop() if len(places) == 1 else None  # from a record's end
        return types, periods

    # ---- the machine ----

    def _feature_sections(self) -> dict[int, tuple[int, int]]:
        table = self._records[0] + self._records[1]
        if table + _SECTION.size * len(self._features) > self._size:
            raise self._short("the table behind its samples is not whole")
        found = {}
        for place, bit in enumerate(self._features):
            offset, size = _SECTION.unpack_from(self._data, table + place * _SECTION.size)
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
        (length,) = struct.unpack_from("<I", self._data, offset)
        if length > _MAX_STRING or offset + 4 + length > end:
            raise self._damaged(f"it claims a string of {length} bytes")
        text = self._data[offset + 4 : offset + 4 + length].partition(b"\0")[0]
        shown = text.decode("utf-8", "backslashreplace")
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
        return shown, offset + 4 + length

    def _cpus(self, sections: dict[int, tuple[int, int]]) -> int | None:
        offset, size = sections.get(_NRCPUS, (0, 0))
        return int(struct.unpack_from("<I", self._data, offset)[0]) if size >= 8 else None

    def _event_names(self, sections: dict[int, tuple[int, int]]) -> list[str]:
        """Return the names of the events: nr, attr_size, and for each attr, nr_ids, name, ids."""
        offset, size = sections.get(_EVENT_DESC, (0, 0))
        end = offset + size
        if size < 8:
            return []
        count, attr_size = struct.unpack_from("<II", self._data, offset)
        if count > _MAX_ATTRS or attr_size > size:
            raise self._damaged(f"it claims {count} descriptions of events")
        names, offset = [], offset + 8
        for _ in range(count):
            if offset + attr_size + 8 > end:
                raise self._damaged("the description of an event lies outside of its section")
            (ids,) = struct.unpack_from("<I", self._data, offset + attr_size)
            name, offset = self._string(offset + attr_size + 4, end)
            names.append(name)
            offset += 8 * ids
        return names

    # ---- the records ----

    def _walk(self) -> tuple[dict[int, int], list[tuple[int, int, bytes]]]:
        """Step from record to record: how many of each type, and the names of threads."""
        data, unpack = self._data, _RECORD.unpack_from
        offset, end = self._records[0], sum(self._records)
        counts: dict[int, int] = {}
        tasks: list[tuple[int, int]] = []
        lost, samples = 0, 0
        while offset + 8 <= end:
            kind, _, size = unpack(data, offset)
            if size < 8 or offset + size > end:
                raise self._damaged(f"the record at byte {offset} claims {size} bytes")
            if kind == _SAMPLE:
                samples += 1
            else:
                counts[kind] = counts.get(kind, 0) + 1
                if kind in (_COMM, _FORK):
                    tasks.append((offset, size))
                elif kind == _LOST and size >= 24:
                    lost += struct.unpack_from("<Q", data, offset + 16)[0]
                elif kind == _LOST_SAMPLES and size >= 16:
                    lost += struct.unpack_from("<Q", data, offset + 8)[0]
                elif kind == _AUXTRACE:
                    raise self._damaged(
                        "it holds the trace of a processor that it does not announce"
                    )
            offset += size
        if offset != end:
            raise self._damaged(f"its last record, at byte {offset}, is not whole")
        return counts | {_SAMPLE: samples, _LOST: lost}, list(self._named(tasks))

    def _named(self, tasks: list[tuple[int, int]]) -> Iterator[tuple[int, int, bytes]]:
        """Yield tid, time and name, in the order of time; a child has its parent's name."""
        present: dict[int, bytes] = {}
        for time, kind, offset, size in sorted(self._timed(tasks), key=lambda each: each[0]):
            if kind == _FORK:
                if size < 8 + _TASK.size:
                    raise self._damaged(f"the record at byte {offset} is too short")
                _, _, tid, parent = _TASK.unpack_from(self._data, offset + 8)
                name = present.get(parent)
            else:
                if size < 17:
                    raise self._damaged(f"the record at byte {offset} is too short")
                (tid,) = struct.unpack_from("<I", self._data, offset + 12)
                name = self._data[offset + 16 : offset + size].partition(b"\0")[0]
            if name is not None:
                present[tid] = name
                yield tid, time, name

    def _timed(self, tasks: list[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
        """Yield time, type, offset and size of records; 0 is before everything else."""
        for offset, size in tasks:
            (kind,) = struct.unpack_from("<I", self._data, offset)
            time = 0
            if self._time_place is not None and size >= 16 + self._time_place:
                (time,) = struct.unpack_from("<Q", self._data, offset + size - self._time_place)
            yield time, kind, offset, size


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
