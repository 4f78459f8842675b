# SPDX-License-Identifier: GPL-2.0-only
"""What a workload says on its standard output: who holds, what it used, how fast it was."""

from __future__ import annotations

import json
import re
from typing import Any

from anonvma.base.errors import WorkloadError
from anonvma.base.text import last_line
from anonvma.run.schema import columns


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


def parse_specimens(text: bytes) -> list[dict[str, Any]]:
    """Return the rows of the table ``specimens`` from what the program ``specimens`` says.

    Raises
    ------
    WorkloadError
        When a line is not what it should be.
    """
    wanted = columns("specimens")
    rows = []
    for line in text.splitlines():
        try:
            found: dict[str, Any] = dict(json.loads(line))
            if "hold" in found:
                continue
            row: dict[str, Any] = {name: found.get(name) for name in wanted}
            for edge in ("start", "end"):
                row[edge] = None if row[edge] is None else int(row[edge], 16)
        except (ValueError, TypeError):
            shown = last_line(line)
            raise WorkloadError(f"specimens said something unexpected: {shown}") from None
        rows.append(row)
    return rows
