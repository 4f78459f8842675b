# SPDX-License-Identifier: GPL-2.0-only
"""Images without what is not seen: no text, date, thumbnail or position of where they were made."""

from __future__ import annotations

import re
import struct

__all__ = ["bare_jpeg", "bare_png"]

_PNG = b"\x89PNG\r\n\x1a\n"
# What decides how the pixels look (PNG specification, 4.7); everything else is words.
_SEEN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD"}
_SEEN |= {b"pHYs"}


def bare_png(data: bytes) -> bytes | None:
    """Return a PNG with the chunks that show, and nothing behind its end; None if it is none."""
    if not data.startswith(_PNG):
        return None
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + size
        if end > len(data):
            return None
        if kind in _SEEN:
            kept.append(data[place:end])
        if kind == b"IEND":
            return b"".join(kept)
        place = end
    return None


def bare_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG without its APP1 to APP15 and comment segments; None if it is none."""
    if not data.startswith(b"\xff\xd8"):
        return None
    kept, place = [b"\xff\xd8"], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, (size,) = data[place + 1], struct.unpack_from(">H", data, place + 2)
        end = place + 2 + size
        if marker == 0xDA:  # from here on it is pixels, to the end-of-image marker
            last = re.search(rb"\xff\xd9", data[place:])
            return None if last is None else b"".join(kept) + data[place : place + last.end()]
        if not (0xE1 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[place:end])
        place = end
    return None
