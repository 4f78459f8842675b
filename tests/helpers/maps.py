# SPDX-License-Identifier: GPL-2.0-only
"""The VMAs of a process by /proc/PID/maps and by a census, both in the same form."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from anonvma.probe import census_layout
from anonvma.tables import census

LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)"
)


def from_maps(path: str) -> list[tuple[object, ...]]:
    """What /proc/PID/maps says, the gate VMA aside: it belongs to no mm."""
    rows = []
    for line in Path(path).read_bytes().splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        start, end, prot, offset, major, minor, inode, name = match.groups()
        if name == b"[vsyscall]":
            continue
        device = (int(major, 16), int(minor, 16))
        rows.append((int(start, 16), int(end, 16), prot, int(offset, 16), device, int(inode), name))
    return rows


def maps_name(found: census.Census, vma: np.void) -> bytes:
    """The last column as show_map_vma() (fs/proc/task_mmu.c) writes it."""
    name = found.strings.get(int(vma["name"]))
    if vma["bits"] & census_layout.HAS_FILE:
        if name is not None:
            return b"[anon_shmem:" + name + b"]"
        return found.strings[int(vma["path"])].replace(b"\n", b"\\012")
    if vma["bits"] & census_layout.SPECIAL:
        assert name is not None
        return name
    if vma["bits"] & census_layout.HEAP:
        return b"[heap]"
    if vma["bits"] & census_layout.STACK:
        return b"[stack]"
    return b"[anon:" + name + b"]" if name is not None else b""


def from_census(found: census.Census) -> list[tuple[object, ...]]:
    rows = []
    for vma, prot in zip(found.records, found.vmas["prot"], strict=True):
        offset = int(vma["pgoff"]) * found.header["page_size"]
        if not vma["bits"] & census_layout.HAS_FILE:
            offset = 0  # /proc/PID/maps prints it for files only
        device = (int(vma["dev"]) >> 20, int(vma["dev"]) & 0xFFFFF)
        row = (int(vma["start"]), int(vma["end"]), prot.encode(), offset, device)
        rows.append((*row, int(vma["ino"]), maps_name(found, vma)))
    return rows
