# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs of a guest: a cpio archive in the kernel's "newc" format, written by no tool.

Any kernel unpacks it, if built with ``CONFIG_BLK_DEV_INITRD``; it needs no root to make, since
device nodes in it are only lines of text; and it is not compressed, so that the kernel need not
know how to undo that. Documentation/driver-api/early-userspace/buffer-format.rst has the format.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Mapping

from anonvma.target.kernel_image import Module

_DIRECTORIES = ("anonvma", "dev", "modules", "proc", "sys", "tmp")
# Documentation/admin-guide/devices.txt. Without CONFIG_DEVTMPFS these are all there are.
_NODES = {
    "dev/console": (5, 1),
    "dev/full": (1, 7),
    "dev/null": (1, 3),
    "dev/random": (1, 8),
    "dev/ttyAMA1": (204, 65),
    "dev/ttyS1": (4, 65),
    "dev/urandom": (1, 9),
    "dev/zero": (1, 5),
}


def pack(init: bytes, programs: Mapping[str, bytes], modules: Iterable[Module]) -> bytes:
    """Return an initramfs.

    Parameters
    ----------
    init : bytes
        The program that becomes ``/init``.
    programs : mapping
        By name, what goes to ``/anonvma``, executable.
    modules : iterable of Module
        What ``init`` is to load, in this order.
    """
    archive = _Archive()
    for name in _DIRECTORIES:
        archive.add(name, stat.S_IFDIR | 0o755)
    for name, device in _NODES.items():
        archive.add(name, stat.S_IFCHR | 0o666, device=device)
    archive.add("init", stat.S_IFREG | 0o755, init)
    for name, content in programs.items():
        archive.add(f"anonvma/{name}", stat.S_IFREG | 0o755, content)
    names = []
    for module in modules:
        archive.add(f"modules/{module.name}.ko", stat.S_IFREG | 0o644, module.content)
        names.append(f"{module.name}.ko\n")
    archive.add("modules/order", stat.S_IFREG | 0o644, "".join(names).encode())
    return archive.finish()


class _Archive:
    """A cpio archive that is being written; everything in it belongs to root."""

    def __init__(self) -> None:
        self._stream = io.BytesIO()
        self._count = 0

    def add(
        self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        """Append one file, directory or node."""
        self._count += 1
        encoded = name.encode() + b"\0"
        user = group = modified = 0
        numbers = [self._count, mode, user, group, 1, modified, len(content), 0, 0]
        numbers += [*device, len(encoded), 0]
        self._stream.write(b"070701" + b"".join(b"%08X" % number for number in numbers))
        self._stream.write(encoded)
        self._align()
        self._stream.write(content)
        self._align()

    def _align(self) -> None:
        self._stream.write(bytes(-self._stream.tell() % 4))

    def finish(self) -> bytes:
        """Return the archive with its end mark."""
        self.add("TRAILER!!!", 0)
        return self._stream.getvalue()
