# SPDX-License-Identifier: GPL-2.0-only
"""A kernel image: whether it is one, which release it says it is, and the modules beside it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from anonvma.base import bounded
from anonvma.base.errors import TargetError
from anonvma.target import compression, kernel_header
from anonvma.target.architecture import Architecture


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
    architecture : Architecture
        Of the machines that it is for.
    unpacked : bytes or None
        What a machine boots, where that is not the file itself.
    """

    path: Path
    release: str
    needs_bytes: int
    sha256: str
    architecture: Architecture
    unpacked: bytes | None = None


_LARGEST = 1 << 30


def open_image(path: str | Path) -> Image:
    """Make sure that a file is a kernel that guests can be, and return what its header says.

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
    header = kernel_header.read(content, path)
    return Image(
        path=Path(path).resolve(),
        release=header.release,
        needs_bytes=header.needs_bytes,
        sha256=hashlib.sha256(content).hexdigest(),
        architecture=header.architecture,
        unpacked=header.unpacked,
    )


# A kernel build, and packages unpacked: Debian's and Ubuntu's until 2026, Fedora's, Debian's since.
_PLACES = (
    *("bzImage", "arch/x86/boot/bzImage", "Image", "arch/arm64/boot/Image"),
    *("vmlinuz*", "boot/vmlinuz*"),
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


# ---- modules ----


class Module(NamedTuple):
    """A kernel module as the kernel takes it."""

    name: str
    content: bytes


_FORMS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}
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
        form = _FORMS.get(file.suffix)
        return compression.unpack(raw, form, _LARGEST) if form else raw
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot read the module {file}: {error}.") from None


def _needs(content: bytes) -> list[str]:
    """Return the modules that a module says it depends on, in its section .modinfo."""
    match = re.search(rb"\0depends=([^\0]*)\0", content)
    names = match[1].decode(errors="replace") if match else ""
    return [name.replace("-", "_") for name in names.split(",") if name]
