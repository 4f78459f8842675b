# SPDX-License-Identifier: GPL-2.0-only
"""What a recording tells of its machine: the features behind its samples."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from anonvma.base.text import printable
from anonvma.perf import recording_format

if TYPE_CHECKING:
    from anonvma.perf.recording import File


class Features:
    """The features of a recording.

    Attributes
    ----------
    bits : list of int
        Which it has, in the order of their table.
    sections : dict
        Offset and size of each, by its bit.

    Raises
    ------
    ProfileError
        When the file ends before them.
    """

    def __init__(self, file: File, bits: list[int]) -> None:
        self._file, self._data, self.bits = file, file.data, bits
        self.sections = self._read()

    def _read(self) -> dict[int, tuple[int, int]]:
        """Return offset and size of each, by its bit: the table is behind the samples."""
        table = sum(self._file.records)
        if table + recording_format.SECTION.size * len(self.bits) > len(self._data):
            raise self._file.short("the table behind its samples is not whole")
        found = {}
        for place, bit in enumerate(self.bits):
            offset, size = recording_format.SECTION.unpack_from(
                self._data, table + place * recording_format.SECTION.size
            )
            if offset + size > len(self._data):
                raise self._file.short(f"its feature {bit} ends at byte {offset + size}")
            found[bit] = (offset, size)
        return found

    def text(self, bit: int) -> str | None:
        """Return a feature that is one string; None where it is not there."""
        offset, size = self.sections.get(bit, (0, 0))
        return self._string(offset, offset + size)[0] if size >= 4 else None

    def _string(self, offset: int, end: int) -> tuple[str, int]:
        """Return a string and where it ends; it is stored with its length, padded with zeros."""
        if offset + 4 > end:
            raise self._file.damaged("a string lies outside of its section")
        (length,) = struct.unpack_from("<I", self._data, offset)
        if length > recording_format.MAX_STRING or offset + 4 + length > end:
            raise self._file.damaged(f"it claims a string of {length} bytes")
        text = self._data[offset + 4 : offset + 4 + length].partition(b"\0")[0]
        shown = printable(text.decode("utf-8", "backslashreplace"))
        return shown, offset + 4 + length

    def cpus(self) -> int | None:
        """Return how many processors were online."""
        offset, size = self.sections.get(recording_format.NRCPUS, (0, 0))
        return int(struct.unpack_from("<I", self._data, offset)[0]) if size >= 8 else None

    def event_names(self) -> list[str]:
        """Return the names of the events: nr, attr_size, and for each attr, nr_ids, name, ids."""
        offset, size = self.sections.get(recording_format.EVENT_DESC, (0, 0))
        end = offset + size
        if size < 8:
            return []
        count, attr_size = struct.unpack_from("<II", self._data, offset)
        if count > recording_format.MAX_ATTRS or attr_size > size:
            raise self._file.damaged(f"it claims {count} descriptions of events")
        names, offset = [], offset + 8
        for _ in range(count):
            if offset + attr_size + 8 > end:
                raise self._file.damaged("the description of an event lies outside of its section")
            (ids,) = struct.unpack_from("<I", self._data, offset + attr_size)
            name, offset = self._string(offset + attr_size + 4, end)
            names.append(name)
            offset += 8 * ids
        return names


def blank_host_name(path: Path) -> None:
    """Take the machine's name out of a recording of ours; leave any other file as it is.

    Features follow the data, each with an offset and a size, in the order of their bits; a string
    is its length and its bytes.
    """
    with path.open("r+b") as file:
        head = file.read(recording_format.HEADER.size)
        if len(head) < recording_format.HEADER.size or not head.startswith(recording_format.MAGIC):
            return
        _, size, _, _, _, data, data_size, _, _, bits, *_ = recording_format.HEADER.unpack(head)
        if (
            size != recording_format.HEADER.size or not bits >> recording_format.HOSTNAME & 1
        ):  # the former: written to a pipe
            return
        earlier = (bits & ((1 << recording_format.HOSTNAME) - 1)).bit_count()
        file.seek(data + data_size + recording_format.SECTION.size * earlier)
        offset, size = recording_format.SECTION.unpack(file.read(recording_format.SECTION.size))
        if 4 < size <= recording_format.MAX_STRING:
            file.seek(offset + 4)
            file.write(bytes(size - 4))
