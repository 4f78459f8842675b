# SPDX-License-Identifier: GPL-2.0-only
"""The JSON that ``perf stat -j`` wrote for somebody else, an object per line.

It may have intervals (-I) and a summary, and several executions one after the other (--append).
Output by processor, socket, thread or cgroup is summed up, each event over its places. Every line
is accounted for: a count, a comment, a metric, or the file is refused with its number. What perf
prints for people and with -x depends on a locale, a release and options that it does not tell; it
is not read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable
from anonvma.perf import tool

_STARTED = "# started on "
_PLACES = ("cpu", "core", "die", "socket", "node", "cluster", "cache", "thread", "cgroup")
_MOST = 2.0**64  # counters are u64, and so is what a scaled one is made up to


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was counted in one execution, or on average of several (``perf stat -r``).

    Attributes
    ----------
    totals : list of dict
        As of `anonvma.perf.tool.parse_stat`.
    intervals : list of dict
        As of `anonvma.perf.tool.parse_intervals`; empty without.
    seconds : float or None
        Wall time, if it was counted.
    """

    totals: list[dict[str, Any]]
    intervals: list[dict[str, Any]]
    seconds: float | None


def is_stat(start: bytes) -> bool:
    """Tell whether text that begins so claims to be of ``perf stat -j``; `read` tells if it is."""
    lines = (line for _, line in _lines(start) if not _is_comment(line))
    return '"counter-value"' in next(lines, "")


def read(text: bytes) -> list[Counts]:
    """Return the counts in what ``perf stat -j`` wrote, one for each execution.

    Raises
    ------
    ProfileError
        When there is no count in it, or a line that is not perf stat's.
    """
    executions: list[_Rows] = [{}]
    for number, line in _lines(text):
        if line.startswith(_STARTED) and executions[-1]:
            executions.append({})
        elif not _is_comment(line):
            _take(number, line, executions[-1])
    found = [_counts(rows) for rows in executions if rows]
    if not found:
        raise ProfileError("there is no count of perf stat in the text.")
    return found


_Rows = dict[tuple[float | None, str, str], dict[str, Any]]
"""Counts by the end of their interval, their place and their event."""


def _lines(text: bytes) -> list[tuple[int, str]]:
    return list(enumerate(text.decode("utf-8-sig", "replace").split("\n"), 1))


def _is_comment(line: str) -> bool:
    return not line.strip() or line.startswith("#")


def _take(number: int, line: str, rows: _Rows) -> None:
    """Add what a line counts to the rows of its execution."""
    found = tool.json_line(line)
    if found is None:
        raise ProfileError(f"line {number} is not whole: perf stat -j writes an object a line.")
    if "event" not in found or "counter-value" not in found:
        if any(str(name).startswith("metric") for name in found):
            return
        raise ProfileError(f"line {number} has no counter in it, nor a metric.")
    seconds = found.get("interval")
    if seconds is not None and not _is_time(seconds):
        raise ProfileError(f"line {number} has no time but {str(seconds)[:40]!r}.")
    row = {"seconds": seconds, **_row(number, found)}
    place = " ".join(str(found[name]) for name in _PLACES if name in found)
    key = (seconds, place, row["event"])
    earlier = next(reversed(rows), key)[0]
    if key in rows or (seconds or math.inf) < (earlier or 0.0):
        raise ProfileError(
            f"line {number} counts {row['event']} a second time: of several executions in one "
            "file each is to begin with perf's line '# started on', or have a file of its own."
        )
    rows[key] = row


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1e12


def _row(number: int, found: dict[str, Any]) -> dict[str, Any]:
    row = tool.row(found)
    value, share = row["value"], row["running_share"]
    if value is None and found["counter-value"] not in ("<not supported>", "<not counted>"):
        raise ProfileError(f"line {number} has no count but {str(found['counter-value'])[:40]!r}.")
    if value is not None and not 0 <= value < _MOST:
        raise ProfileError(f"line {number} counts {value:g}, which no counter can.")
    if row["supported"] and (share is None or not 0 <= share <= 1.00005):
        said = str(found["pcnt-running"])[:40]
        raise ProfileError(f"line {number} says that {said!r} % of the time were counted.")
    return {
        **row,
        "event": printable(row["event"]),
        "running_share": None if share is None else min(share, 1.0),
    }


def _counts(rows: _Rows) -> Counts:
    intervals = _summed(row for row in rows.values() if row["seconds"] is not None)
    totals = _summed(row for row in rows.values() if row["seconds"] is None)
    if not totals:
        totals = _summed({**row, "seconds": None} for row in intervals)
    for row in totals:
        del row["seconds"]
    seconds = tool.times(totals).get("duration_time")
    if seconds is None:
        seconds = max((row["seconds"] for row in intervals), default=None)
    return Counts(totals, intervals, seconds)


def _summed(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add up rows of the same event and interval: of several places, or of intervals."""
    found: dict[tuple[Any, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["seconds"], row["event"])
        if key not in found:
            found[key] = dict(row)
            continue
        known = found[key]
        values = [each["value"] for each in (known, row) if each["value"] is not None]
        known["value"] = sum(values) if values else None
        shares = [e["running_share"] for e in (known, row) if e["running_share"] is not None]
        known["running_share"] = min(shares, default=None)
        known["supported"] = known["supported"] or row["supported"]
    return list(found.values())
