# SPDX-License-Identifier: GPL-2.0-only
"""A kernel image: whether it is one, which release it says it is, and the modules beside it."""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import os
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from anonvma.base import bounded
from anonvma.base.errors import TargetError


class Image(NamedTuple):
    """A kernel that can be booted.

    Attributes
    ----------
    path : Path
        Where it is, links followed.
    release : str
        What ``uname -r`` will say.
    needs_bytes : int
        Memory without which it cannot even unpack itself.
    sha256 : str
        Of the file.
    """

    path: Path
    release: str
    needs_bytes: int
    sha256: str


# Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
_LARGEST = 1 << 30
_MAGIC = (0x202, b"HdrS")
_VERSION = 0x206
_KERNEL_VERSION = 0x20E  # where the release is, less 0x200
_XLOADFLAGS = 0x236
_PREF_ADDRESS = 0x258  # where it wants to be, ...
_INIT_SIZE = 0x260  # ... and how much it needs from there
_HEADER_END = 0x264
_HAS_INIT_SIZE = 0x20C  # both of the last are there, and the load flags, from this version on
_XLF_KERNEL_64 = 1

_OTHERS = (
    (b"\x7fELF", "an ELF file; of a kernel build take arch/x86/boot/bzImage, not vmlinux"),
    (b"\x1f\x8b", "compressed by gzip, as kernels of other architectures are"),
    (b"070701", "an initramfs"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: an initramfs, or a module"),
    (b"\xfd7zXZ", "compressed by xz: an initramfs, or a module"),
)


def open_image(path: str | Path) -> Image:
    """Make sure that a file is an x86-64 kernel, and return what its header says.

    A directory stands for the one image in it, wherever a distribution's package puts that.

    Raises
    ------
    TargetError
        One sentence: it cannot be read, or is something else, and what.
    """
    try:
        if Path(path).is_dir():
            path = _only_image(Path(path))
        content = bounded.regular(Path(path), _LARGEST)
    except OSError as error:
        # Distributions let only root read what is in /boot.
        hint = "; copy it, as root, to where you can" if error.errno == errno.EACCES else ""
        raise TargetError(f"cannot read the kernel image {path}: {error.strerror}{hint}.") from None
    where, magic = _MAGIC
    if content[where : where + 4] != magic or len(content) < _HEADER_END:
        what = next((text for start, text in _OTHERS if content.startswith(start)), "no bzImage")
        raise TargetError(f"{path} is not a kernel image that can be booted: it is {what}.")
    version, flags = _u16(content, _VERSION), _u16(content, _XLOADFLAGS)
    if version < _HAS_INIT_SIZE or not flags & _XLF_KERNEL_64:
        raise TargetError(f"{path} is not an x86-64 kernel; the programs are built for that.")
    start = 0x200 + _u16(content, _KERNEL_VERSION)
    release = content[start : start + 256].split(b"\0")[0].split(b" ")[0]
    (wanted,) = struct.unpack_from("<Q", content, _PREF_ADDRESS)
    (size,) = struct.unpack_from("<I", content, _INIT_SIZE)
    return Image(
        path=Path(path).resolve(),
        release=release.decode(errors="replace"),
        needs_bytes=wanted + size,
        sha256=hashlib.sha256(content).hexdigest(),
    )


# A kernel build, and packages unpacked: Debian's and Ubuntu's until 2026, Fedora's, Debian's since.
_PLACES = (
    *("bzImage", "arch/x86/boot/bzImage", "vmlinuz*", "boot/vmlinuz*"),
    *("lib/modules/*/vmlinuz*", "usr/lib/modules/*/vmlinuz*"),
)


def _only_image(directory: Path) -> Path:
    found = {file.resolve() for place in _PLACES for file in directory.glob(place)}
    if len(found) == 1:
        return found.pop()
    if found:
        names = ", ".join(sorted(str(file.relative_to(directory.resolve())) for file in found))
        raise TargetError(f"{directory} holds {len(found)} kernel images, {names}: name one.")
    raise TargetError(f"{directory} holds no kernel image: none of {', '.join(_PLACES)} is there.")


def _u16(content: bytes, offset: int) -> int:
    (value,) = struct.unpack_from("<H", content, offset)
    return int(value)


# ---- modules ----


class Module(NamedTuple):
    """A kernel module as the kernel takes it."""

    name: str
    content: bytes


_SUFFIX = re.compile(r"\.ko(\.gz|\.xz|\.zst)?$")


def module_directory(image: Image) -> Path | None:
    """Return the directory of an image's modules, from where distributions put the two.

    ``boot/vmlinuz-X`` goes with ``lib/modules/X``; some keep the image among its modules.
    """
    folder = image.path.parent
    if folder.name == image.release:
        return folder
    for root in (folder.parent, folder):
        for modules in (root / "lib/modules", root / "usr/lib/modules"):
            if (modules / image.release).is_dir():
                return modules / image.release
    return None


def find_modules(directory: Path, wanted: Iterable[str]) -> list[Module]:
    """Return modules and those they need, each after those.

    What each needs is read from the module itself, where modpost wrote it: ``modules.dep``, which
    depmod makes at installation, is missing beside a kernel that was only unpacked. A module that
    is not there is built in, or the kernel does not have it; either is seen when it runs.

    Raises
    ------
    TargetError
        When the directory or a module cannot be read.
    """
    files = _files(directory)
    found: dict[str, Module] = {}

    def add(name: str, above: Sequence[str]) -> None:
        if name in found or name not in files or name in above:
            return
        content = _content(files[name])
        for need in _needs(content):
            add(need, [*above, name])
        found[name] = Module(name, content)

    for name in wanted:
        add(name, [])
    return list(found.values())


def _files(directory: Path) -> dict[str, Path]:
    """Return every module below a directory by its name, which is spelt with ``_`` throughout."""
    found: dict[str, Path] = {}

    def fail(error: OSError) -> None:
        raise TargetError(f"cannot read the modules in {directory}: {error.strerror}.") from None

    for folder, _, names in os.walk(directory, onerror=fail):
        for name in names:
            if _SUFFIX.search(name):
                found[_SUFFIX.sub("", name).replace("-", "_")] = Path(folder, name)
    return found


def _content(file: Path) -> bytes:
    """Return a module uncompressed: not every kernel can do that itself."""
    try:
        raw = file.read_bytes()
        if file.suffix == ".gz":
            return gzip.decompress(raw)
        if file.suffix == ".xz":
            return lzma.decompress(raw)
        if file.suffix == ".zst":
            import pyarrow as pa  # half a second, for the one distribution family that needs it

            with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
                return bytes(stream.read())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise TargetError(f"cannot read the module {file}: {error}.") from None
    return raw


def _needs(content: bytes) -> list[str]:
    """Return the modules that a module says it depends on, in its section .modinfo."""
    match = re.search(rb"\0depends=([^\0]*)\0", content)
    names = match[1].decode(errors="replace") if match else ""
    return [name.replace("-", "_") for name in names.split(",") if name]
