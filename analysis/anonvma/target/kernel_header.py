# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel image says of itself: of x86-64 a bzImage, of arm64 an Image, or one compressed.

Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header", and Documentation/arch/arm64/
booting.rst, "Call the kernel image", have the formats; drivers/firmware/efi/libstub/zboot-header.S
has the one of an EFI program that unpacks an Image.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from anonvma.base.errors import TargetError
from anonvma.target import compression
from anonvma.target.architecture import ARM64, X86, Architecture


class Header(NamedTuple):
    """What the image of a kernel says.

    Attributes
    ----------
    architecture : Architecture
        Of the machines that it is for.
    release : str
        What ``uname -r`` will say.
    needs_bytes : int
        Memory without which it cannot even unpack itself.
    unpacked : bytes or None
        What a machine boots, where that is not the file itself.
    """

    architecture: Architecture
    release: str
    needs_bytes: int
    unpacked: bytes | None = None


_LARGEST = 1 << 30
_OTHERS = (
    (
        b"\x7fELF",
        "an ELF file; of a kernel build take arch/x86/boot/bzImage or arch/arm64/boot/Image, not "
        "vmlinux",
    ),
    (b"070701", "an initramfs"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: an initramfs, or a module"),
    (b"\xfd7zXZ", "compressed by xz: an initramfs, or a module"),
)


def read(content: bytes, name: object) -> Header:
    """Return what a kernel image says.

    Parameters
    ----------
    content : bytes
        All of the file.
    name : object
        What to call it in a sentence.

    Raises
    ------
    TargetError
        It is no kernel that can be booted here, and what it is.
    """
    found = _x86(content, name) or _arm64(content, name)
    if found:
        return found
    packed = _packed(content)
    if packed:
        what, form, start, end = packed
        try:
            image = compression.unpack(content[start:end], form, _LARGEST)
        except ValueError as error:
            raise TargetError(f"{name} is {what}, and damaged: {error}.") from None
        found = _arm64(image, name)
        if found:
            return found._replace(unpacked=image)
        what += ", and what that holds is no Image of an arm64 kernel"
    else:
        what = next((text for start, text in _OTHERS if content.startswith(start)), "no bzImage")
    raise TargetError(f"{name} is not a kernel image that can be booted: it is {what}.")


# ---- x86-64 ----

_MAGIC = (0x202, b"HdrS")
_VERSION = 0x206
_KERNEL_VERSION = 0x20E  # where the release is, less 0x200
_XLOADFLAGS = 0x236
_PREF_ADDRESS = 0x258  # where it wants to be, ...
_INIT_SIZE = 0x260  # ... and how much it needs from there
_HEADER_END = 0x264
_HAS_INIT_SIZE = 0x20C  # both of the last are there, and the load flags, from this version on
_XLF_KERNEL_64 = 1


def _x86(content: bytes, name: object) -> Header | None:
    where, magic = _MAGIC
    if content[where : where + 4] != magic or len(content) < _HEADER_END:
        return None
    version, flags = _u16(content, _VERSION), _u16(content, _XLOADFLAGS)
    if version < _HAS_INIT_SIZE or not flags & _XLF_KERNEL_64:
        raise TargetError(f"{name} is a kernel for x86 of 32 bits; guests are x86-64 or arm64.")
    start = 0x200 + _u16(content, _KERNEL_VERSION)
    release = content[start : start + 256].split(b"\0")[0].split(b" ")[0]
    (wanted,) = struct.unpack_from("<Q", content, _PREF_ADDRESS)
    (size,) = struct.unpack_from("<I", content, _INIT_SIZE)
    return Header(X86, release.decode(errors="replace"), wanted + size)


def _u16(content: bytes, offset: int) -> int:
    (value,) = struct.unpack_from("<H", content, offset)
    return int(value)


# ---- arm64 ----

_ARM64_MAGIC = (0x38, b"ARM\x64")
_ARM64_END = 0x40
_BIG_ENDIAN = 1
_BANNER = re.compile(rb"Linux version ([!-~]{1,64}) \(")  # init/version.c: linux_banner


def _arm64(image: bytes, name: object) -> Header | None:
    where, magic = _ARM64_MAGIC
    if image[where : where + 4] != magic or len(image) < _ARM64_END:
        return None
    offset, size, flags = struct.unpack_from("<QQQ", image, 8)
    if flags & _BIG_ENDIAN:
        raise TargetError(f"{name} is a big-endian kernel; the programs are little-endian.")
    release = _BANNER.search(image)
    if release is None:
        raise TargetError(f"{name} is an arm64 Image that does not say which Linux it is.")
    return Header(ARM64, release[1].decode(), offset + size)


def _packed(content: bytes) -> tuple[str, str, int, int] | None:
    """Return what an image is that is compressed, how, and from where to where."""
    if content.startswith(b"\x1f\x8b"):
        return "compressed by gzip", "gzip", 0, len(content)
    if content[:2] != b"MZ" or content[4:8] != b"zimg" or len(content) < _ARM64_END:
        return None
    start, size = struct.unpack_from("<II", content, 8)
    form = content[0x18:0x38].split(b"\0")[0].decode(errors="replace")
    return f"an EFI program that unpacks a kernel, compressed by {form}", form, start, start + size
