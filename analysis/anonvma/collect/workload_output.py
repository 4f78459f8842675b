# SPDX-License-Identifier: GPL-2.0-only
"""What a workload says on its standard output: who holds, what it used, how fast it was."""

from __future__ import annotations

import json
import re

__all__ = ["held_pids", "parse_throughput", "parse_used"]


def held_pids(line: bytes) -> list[int] | None:
    """Return the processes named by the line that says "done, and holding", or None for another.

    vmload says ``hold: 12 13``, specimens ``{"hold": true, "pids": [12, 13]}``.
    """
    if line.startswith(b"hold:"):
        return [int(word) for word in line[5:].split()]
    if line.startswith(b'{"hold"'):
        return [int(pid) for pid in json.loads(line)["pids"]]
    return None


_USED = re.compile(rb"^used: \d+ ([\d.]+) ([\d.]+) (\d+) (\d+)\s*$", re.MULTILINE)


def parse_used(text: bytes) -> dict[str, float]:
    """Return what the processes of vmload used, summed, ended threads included.

    Returns
    -------
    dict
        Columns of the table ``repeats``: user_s, system_s, voluntary_ctxt, involuntary_ctxt; empty
        where nothing tells.
    """
    rows = [match.groups() for match in _USED.finditer(text)]
    names = {"user_s": float, "system_s": float, "voluntary_ctxt": int, "involuntary_ctxt": int}
    return {
        name: sum(kind(row[place]) for row in rows)
        for place, (name, kind) in enumerate(names.items())
        if rows
    }


_THROUGHPUT = re.compile(rb"^(\d+) bytes / (\d+) usecs = (\d+) KB/s\s*$", re.MULTILINE)


def parse_throughput(text: bytes) -> list[dict[str, int]]:
    """Return the throughput of each task, from usemem's lines and vmload's, in their order.

    Returns
    -------
    list of dict
        ``task`` (from 0), ``bytes``, ``usecs``, ``kb_per_s`` (KiB a second).
    """
    return [
        {"task": task, "bytes": int(m[1]), "usecs": int(m[2]), "kb_per_s": int(m[3])}
        for task, m in enumerate(_THROUGHPUT.finditer(text))
    ]
