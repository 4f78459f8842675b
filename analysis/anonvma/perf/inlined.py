# SPDX-License-Identifier: GPL-2.0-only
"""Inlined functions: the names that a frame has beside the one it is called by.

A compiler that inlines leaves one frame where the source has several functions. The debugging
information tells them, and addr2line reads it. perf would ask addr2line for each frame by itself,
and (perf 6.1) only for stacks that it unwound by DWARF; so this is done here, once a file, with all
its addresses together. LLVM's addr2line is asked where there is one: that of binutils (2.40) calls
the innermost function by the name of the outermost where the inlined code is in several pieces.
A function with such a wrong name is left out, and its time counts for its caller.

Only for what was recorded here: addr2line opens the files that a recording names.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from anonvma.base.errors import TargetError
from anonvma.target.target import Target

_ELF64 = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOAD, _EXECUTABLE = 1, 1
_LARGEST = 256 << 20


class Inlines:
    """Asks a target's addr2line.

    Parameters
    ----------
    target : Target
        Where it was recorded, and the programs are.

    Attributes
    ----------
    reason : str or None
        Why nothing can be asked, if so.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tool = target.which("llvm-addr2line") or target.which("addr2line") or ""
        self.reason = None if self._tool else "there is no addr2line on the target"

    def __call__(self, frames: Sequence[tuple[bytes, bytes, int]]) -> list[list[bytes]]:
        """Return what is inlined at each frame (symbol, file, address), innermost first."""
        found: list[list[bytes]] = [[] for _ in frames]
        files: dict[bytes, list[int]] = {}
        for place, (_, file, _) in enumerate(frames):
            if file.startswith(b"/"):
                files.setdefault(file, []).append(place)
        for file, places in files.items():
            answers = self._ask(file, [frames[place][2] for place in places])
            for place, names in zip(places, answers, strict=True):
                found[place] = names
        return found

    def _ask(self, file: bytes, addresses: list[int]) -> list[list[bytes]]:
        """Return what is inlined at addresses, which perf gives as offsets in the file."""
        none: list[list[bytes]] = [[] for _ in addresses]
        if not self._tool:
            return none
        try:
            path = file.decode()
            shift = _shift(self._target.read(path))
        except (UnicodeDecodeError, TargetError):
            return none
        if shift is None:
            return none
        lines = "".join(f"{address + shift:#x}\n" for address in addresses)
        # Or an address there would be asked for debugging information over the network.
        words = ["env", "-u", "DEBUGINFOD_URLS", self._tool, "-a", "-i", "-f", "-C", "-e", path]
        answers = _split(self._target.run(words, input=lines.encode()).stdout)
        if len(answers) != len(addresses):
            return none
        return [_inner(names) for names in answers]


def _inner(names: list[bytes]) -> list[bytes]:
    """Return what is inlined in the last of these functions, which is the frame's own."""
    inner, own = names[:-1], names[-1:]
    return inner[1:] if inner[:1] == own else inner


def _split(text: bytes) -> list[list[bytes]]:
    """Return the functions of each answer: an address, then lines of a name and a place each."""
    answers: list[list[bytes]] = []
    for line in text.split(b"\n"):
        if line.startswith(b"0x"):
            answers.append([])
            name = True
        elif answers and line:
            if name:
                answers[-1].append(_without_parameters(line))
            name = not name
    return answers


def _without_parameters(name: bytes) -> bytes:
    """Return a C++ function's name as perf prints it: without what it takes."""
    depth = 0
    for place in range(len(name) - 1, -1, -1):
        depth += (name[place : place + 1] == b")") - (name[place : place + 1] == b"(")
        if not depth and name[place : place + 1] == b"(":
            return name[:place] if place else name
        if not depth and not name.endswith((b")", b" const")):
            break
    return name


def _shift(content: bytes) -> int | None:
    """Return what is between an offset in a file and the address that its code was linked for."""
    if len(content) > _LARGEST or content[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        header = _ELF64.unpack_from(content)
        table, size, count = header[5], header[9], header[10]
        for number in range(count):
            kind, flags, offset, address, *_ = _SEGMENT.unpack_from(content, table + number * size)
            if kind == _LOAD and flags & _EXECUTABLE:
                return int(address - offset)
    except struct.error:
        return None
    return None
