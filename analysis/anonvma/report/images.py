# SPDX-License-Identifier: GPL-2.0-only
"""PNG images without their metadata: no text, date or position of where they were made.

nbconvert embeds images as they are, and the redactor cannot see into what is compressed; whoever
adds a picture to 06-report publishes what is written in it, unless it is taken out here.
"""

from __future__ import annotations

import struct

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
