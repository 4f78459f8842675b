# SPDX-License-Identifier: GPL-2.0-only
"""Bounded reading: of a file that somebody names, no more than such a file can have."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read(path: Path, most: int) -> bytes:
    """Return what is in a file, a pipe or a device, if that is no more than so many bytes.

    Raises
    ------
    OSError
        As `open` does, and when there is more.
    """
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most >> 20} MiB", str(path))
    return data


def regular(path: Path, most: int) -> bytes:
    """Return what is in a regular file, if that is no more than so many bytes.

    Raises
    ------
    OSError
        As `open` does, and when it is a device, a FIFO or the like, or there is more.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    # One of /proc calls itself regular, and reading it may wait for ever.
    return read(path, most) if about.st_size else b""
