# SPDX-License-Identifier: GPL-2.0-only
"""Files of a run directory: opened only if they are files, and of a size that can be read.

A run may come from anybody. In the place of a file there may be a FIFO, which is waited for for
ever, a device, which never ends, a link to something else, or a table of a few megabytes that is
gigabytes once it is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from anonvma.base.errors import RunError

_ROWS_MOST = 50_000_000
_UNPACKED_MOST = 4 << 30
_TABLE_MOST = 8 << 30
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
}


def size_of(file: Path) -> int:
    """Return how long a file is.

    Raises
    ------
    RunError
        When it is missing, or no regular file.
    """
    with opened(file) as stream:
        return os.fstat(stream.fileno()).st_size


def opened(file: Path, most: int = 1 << 62) -> io.BufferedReader:
    """Open a file for reading that is a regular one, no link, and has so many bytes at the most.

    Raises
    ------
    RunError
        When it is missing or anything else.
    """
    try:
        # Without O_NONBLOCK a FIFO would wait here for somebody to write.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(file, flags)
    except (OSError, ValueError) as error:
        raise RunError(f"the run is not whole: {_shown(file)}: {_why(file, error)}.") from None
    about = os.fstat(descriptor)
    kind = _KINDS.get(stat.S_IFMT(about.st_mode))
    if kind or about.st_size > most:
        os.close(descriptor)
        what = f"{kind}, not a file" if kind else f"too large: {about.st_size:,} bytes"
        raise RunError(f"{_shown(file)} is {what}.")
    return open(descriptor, "rb")


def _why(file: Path, error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        if os.path.islink(file):
            return "it is a link, not a file"
        return str(error.strerror)
    return "it has a name that no file can have"


def _shown(file: Path) -> str:
    """Return a path as it can be printed, whatever bytes are in it."""
    return os.fsencode(file).decode(errors="backslashreplace")


def contents(file: Path, most: int) -> bytes:
    """Return what is in a file of so many bytes at the most, as `opened` opens it."""
    with opened(file, most) as stream:
        data = stream.read(most + 1)
    if len(data) > most:  # one of /proc, or one that grows
        raise RunError(f"{_shown(file)} is too large.")
    return data


def hash_of(file: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    RunError
        As `opened` does.
    """
    with opened(file, _TABLE_MOST) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_unpacked(file: Path, parquet: pq.ParquetFile) -> None:
    """Make sure that a table can be held in memory before it is read.

    Raises
    ------
    RunError
        With how large it would be.
    """
    rows = parquet.metadata.num_rows
    size = rows * sum(_width(column.type) for column in parquet.schema_arrow)
    groups = (parquet.metadata.row_group(n) for n in range(parquet.metadata.num_row_groups))
    size = max(size, sum(group.total_byte_size for group in groups))
    most = min(_UNPACKED_MOST, _available() // 2)
    if rows > _ROWS_MOST or size > most:
        raise RunError(
            f"{_shown(file)} is too large to be held in memory: {rows:,} rows, some "
            f"{size / 1e9:.1f} GB; anonvma query reads such a table piece by piece."
        )


def _width(kind: pa.DataType) -> int:
    """Return how many bytes a value takes, at the least."""
    if pa.types.is_dictionary(kind):
        return int(kind.index_type.bit_width) // 8
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # of no fixed width: words
        return 8


def _available() -> int:
    """Return how much memory there is to be had, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _UNPACKED_MOST
