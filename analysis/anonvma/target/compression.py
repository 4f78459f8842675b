# SPDX-License-Identifier: GPL-2.0-only
"""What kernels and their modules are compressed by, undone."""

from __future__ import annotations

import lzma
import zlib


def unpack(packed: bytes, form: str, largest: int) -> bytes:
    """Return what was compressed; what follows its end is left out.

    Parameters
    ----------
    packed : bytes
    form : str
        ``gzip``, ``xz`` or ``zstd``, which EFI's zboot has names for as well.
    largest : int
        How many bytes it may be.

    Raises
    ------
    ValueError
        It is damaged, larger, or compressed by something else: in words.
    """
    try:
        if form == "gzip":
            gzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            content, whole = gzip.decompress(packed, largest), gzip.eof
        elif form in ("xz", "xzkern"):
            xz = lzma.LZMADecompressor()
            content, whole = xz.decompress(packed, largest), xz.eof
        elif form in ("zstd", "zstd22"):
            content, whole = _zstd(packed, largest), True
        else:
            raise ValueError(f"nothing here undoes {form or 'a compression without a name'}")
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(str(error)) from None
    if not whole:
        raise ValueError("its end is missing, or it is larger than a kernel can be")
    return content


def _zstd(packed: bytes, largest: int) -> bytes:
    import pyarrow as pa  # half a second, for the few that need it

    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        content = bytes(stream.read(largest + 1))
    if len(content) > largest:
        raise ValueError("it is larger than a kernel can be")
    return content
