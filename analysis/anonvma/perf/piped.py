# SPDX-License-Identifier: GPL-2.0-only
"""What ``perf record -o -`` wrote: whether its last record is whole.

Nothing in such a stream says how long it is to be, and of one that was cut ``perf script`` prints
what is there and ends with 0 (tools/perf/util/session.c, __perf_session__process_pipe_events). So
a recording that lacks half of its samples would pass for all of it.
"""

from __future__ import annotations

import struct
from pathlib import Path

from anonvma.base.errors import ProfileError
from anonvma.perf.recording_format import PIPE_SIZE, Record

_HEAD = struct.Struct("<IHH")  # struct perf_event_header: type, misc, size
_BEHIND = {Record.TRACING_DATA: struct.Struct("<I"), Record.AUXTRACE: struct.Struct("<Q")}
"""By the type of a record that more follows behind than its head says: how it says how much."""


def check_whole(path: Path) -> None:
    """Step from record to record.

    Raises
    ------
    ProfileError
        When the file ends within one, or a record's size cannot be.
    """
    end, place = path.stat().st_size, PIPE_SIZE
    with path.open("rb") as file:
        file.seek(place)
        while head := file.read(_HEAD.size):
            size, more = _HEAD.size, 0
            if len(head) == _HEAD.size:
                kind, _, size = _HEAD.unpack(head)
                if size < _HEAD.size:
                    raise ProfileError(
                        f"{path} is damaged: the record at byte {place} claims {size} bytes."
                    )
                if (form := _BEHIND.get(kind)) and len(told := file.read(form.size)) == form.size:
                    (more,) = form.unpack(told)
            place += size + more
            if place > end:
                raise ProfileError(
                    f"{path} is cut short: its last record ends at byte {place}, and the file has "
                    f"{end}; copy it again, or record again and let perf end by itself."
                )
            file.seek(place)
