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
import mmap
from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonvma.base.errors import ProfileError
from anonvma.perf import recording_format
from anonvma.perf.features import Features
from anonvma.perf.recording_format import Attr, Heads, Record, Sample
from anonvma.perf.thread_names import Names, named

PIECE = 1 << 20  # words of a file whose pages are kept at a time
_PLACES = 1 << 17  # of words that are looked up at a time


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
        How many it has, and how many the kernel said were lost; `samples` is -1 where that is not
        what perf prints: of a compressed recording, which is not looked into, and of groups that
        their leader samples.
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
            if offset < recording_format.HEADER.size or offset + size > self._size:
                raise self.short(f"its {what} end at byte {offset + size}")
        self.attrs = self._read_attrs()

    def _header(self) -> tuple[Any, ...]:
        path, data = self._path, self.data
        if data[:8] == recording_format.MAGIC[::-1]:
            raise ProfileError(
                f"{path} was recorded on a machine of the other byte order: run 'perf script' "
                "there, and import its text."
            )
        if data[:8] != recording_format.MAGIC:
            raise ProfileError(f"{path} is no recording of perf: it does not begin with PERFILE2.")
        if (
            self._size >= 16
            and recording_format.WORD.unpack_from(data, 8)[0] == recording_format.PIPE_SIZE
        ):
            raise ProfileError(
                f"{path} was written to a pipe: record with 'perf record -o FILE', or import the "
                "text of 'perf script'."
            )
        if self._size < recording_format.HEADER.size:
            raise self.short("its header is not whole")
        found = recording_format.HEADER.unpack_from(data, 0)
        if found[1] != recording_format.HEADER.size:
            raise self.damaged(
                f"its header claims {found[1]} bytes instead of {recording_format.HEADER.size}"
            )
        return found

    def short(self, what: str) -> ProfileError:
        """Return the error about a file that ends too early."""
        return ProfileError(
            f"{self._path} is cut short: {what}, and the file has {self._size}; copy it again, or "
            "record again and let perf end by itself."
        )

    def damaged(self, what: str) -> ProfileError:
        """Return the error about a file that contradicts itself."""
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
        features = Features(self, self._features)
        if recording_format.AUXTRACE_FEATURE in features.sections:
            raise ProfileError(
                f"{self._path} holds the trace of a processor (such as Intel PT), not samples: "
                "import the text of 'perf script --itrace=i1ms' on that machine."
            )
        counts = self._counts()
        compressed = counts.get(Record.COMPRESSED, 0) + counts.get(Record.COMPRESSED2, 0)
        grouped = any(attr.is_group for attr in self.attrs)
        if not counts.get(Record.SAMPLE) and not compressed:
            raise ProfileError(f"{self._path} holds no samples: nothing ran while it recorded.")
        return Recording(
            arch=features.text(recording_format.ARCH),
            release=features.text(recording_format.OSRELEASE),
            cpu=features.text(recording_format.CPUDESC),
            cpus=features.cpus(),
            events=features.event_names(),
            call_graph=any(kind & Sample.CALLCHAIN for kind in kinds),
            has_cpu=all(kind & Sample.CPU for kind in kinds),
            has_period=all(kind & Sample.PERIOD for kind in kinds),
            periods=[attr.period for attr in self.attrs],
            samples=-1 if compressed or grouped else counts.get(Record.SAMPLE, 0),
            lost=self._lost(),
            names=Names(list(named(self))),
        )

    def _read_attrs(self) -> list[Attr]:
        """Return the events."""
        offset, size = self._attrs
        if (
            self._attr_size < recording_format.ATTR.size + recording_format.SECTION.size
            or size % self._attr_size
            or not size
        ):
            raise self.damaged(f"its {size} bytes of events are no multiple of {self._attr_size}")
        if size // self._attr_size > recording_format.MAX_ATTRS:
            raise self.damaged(f"it claims {size // self._attr_size} events")
        attrs = []
        for start in range(offset, offset + size, self._attr_size):
            _, _, _, period, kind, form, flags = recording_format.ATTR.unpack_from(self.data, start)
            ids = recording_format.SECTION.unpack_from(
                self.data, start + self._attr_size - recording_format.SECTION.size
            )
            period = (
                1 if flags & recording_format.FREQUENCY else min(period, recording_format.LATEST)
            )
            on_all = bool(flags & recording_format.SAMPLE_ID_ALL)
            group = bool(kind & Sample.READ and form & recording_format.FORMAT_GROUP)
            attrs.append(Attr(Sample(kind), period, ids, on_all, group))
        return attrs

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

    def gathered(self, at: npt.NDArray[np.int64], behind: int = 0) -> npt.NDArray[np.uint64]:
        """Return the words so far behind these places, without keeping the pages they lie in.

        Of a large file those would be as much memory as it is long.
        """
        found, kept = np.empty(len(at), np.uint64), 0
        for start in range(0, len(at), _PLACES):
            part = at[start : start + _PLACES] + behind
            found[start : start + _PLACES] = self.words[part]
            if abs(int(part[-1]) - kept) > PIECE:
                self.give_back()
                kept = int(part[-1])
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
        behind = begin + size + recording_format.SECTION.size * len(self._features)
        with output.open("wb") as file:
            start = bytearray(data[:begin])
            recording_format.WORD.pack_into(start, recording_format.SIZE_OF_RECORDS, left)
            file.write(start)
            for first, last in zip(places[::2], places[1::2], strict=True):
                file.write(memoryview(data)[first:last])
            for offset, length in Features(self, self._features).sections.values():
                moved = size - left if offset >= begin + size else 0
                file.write(recording_format.SECTION.pack(offset - moved, length))
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
            (word,) = recording_format.WORD.unpack_from(self.data, offset)
            size = word >> 48
            if size < 8 or offset + size > end:
                raise self.damaged(f"the record at byte {offset} claims {size} bytes")
            places.append(offset)
            words.append(word)
            offset += size
        if offset != end:
            raise self.damaged(f"its last record, at byte {offset}, is not whole")
        return Heads.of(np.frombuffer(places, np.int64), np.frombuffer(words, np.uint64))

    def _counts(self) -> dict[int, int]:
        """Return how many records there are of each type."""
        kinds, numbers = np.unique(self.heads.kind, return_counts=True)
        counts = dict(zip(kinds.tolist(), numbers.tolist(), strict=True))
        if Record.AUXTRACE in counts:
            raise self.damaged("it holds the trace of a processor that it does not announce")
        return counts

    def _lost(self) -> int:
        lost = 0
        for kind, place in ((Record.LOST, 16), (Record.LOST_SAMPLES, 8)):
            for offset, size in self.records_of(kind):
                if size >= place + 8:
                    lost += recording_format.WORD.unpack_from(self.data, offset + place)[0]
        return lost

    def records_of(self, *kinds: Record) -> Iterator[tuple[int, int]]:
        """Yield offset and size of the records of some types."""
        heads = self.heads
        mine = np.isin(heads.kind, kinds)
        yield from zip(heads.offset[mine].tolist(), heads.size[mine].tolist(), strict=True)

    def time_of(self, offset: int, size: int) -> int:
        """Return the time of a record that is no sample; 0 is before everything else."""
        place = self._time_place(offset, size)
        if not place or size < 16 + place:
            return 0
        (time,) = recording_format.WORD.unpack_from(self.data, offset + size - place)
        if time == recording_format.NO_TIME:
            return 0
        if time > recording_format.LATEST:
            raise self.damaged(f"the record at byte {offset} has a time that no clock shows")
        return int(time)

    def _time_place(self, offset: int, size: int) -> int:
        """Return where a record has its time: that depends on the event it came with."""
        places = self._time_places
        if len(set(places.values())) == 1 or size < 16:
            return places[0]
        (identifier,) = recording_format.WORD.unpack_from(self.data, offset + size - 8)
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
