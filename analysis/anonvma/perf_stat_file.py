# SPDX-License-Identifier: GPL-2.0-only
"""What ``perf stat`` wrote for somebody else: JSON (-j), fields (-x,), or for a person to read.

Each may have intervals (-I) and a summary. Per-CPU and per-socket output is summed up, each event
over its places. tools/perf/util/stat-display.c has the formats.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

from anonvma import perf
from anonvma.errors import ProfileError

__all__ = ["Counts", "is_stat", "read"]

_LINE = re.compile(
    r"\s*(?P<value>[\d.,]+|<not supported>|<not counted>)\s+"
    r"(?:(?P<unit>msec|ns|MiB|Joules|Bytes)\s+)?"
    r"(?P<event>\S+)\s*(?:#.*?)?(?:\(\s*\+-.*?\)\s*)?(?:\(\s*(?P<running>[\d.]+)%\)\s*)?"
)
_INTERVAL = re.compile(r"\s*(?P<seconds>\d+\.\d{9})\s+(?P<rest>\S.*)")
_ELAPSED = re.compile(r"\s*(?P<seconds>[\d.,]+)\s+(?:\+-\s+[\d.,]+\s+)?seconds time elapsed")
_HEAD = "Performance counter stats for"


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was counted.

    Attributes
    ----------
    totals : list of dict
        As of `anonvma.perf.parse_stat`.
    intervals : list of dict
        As of `anonvma.perf.parse_intervals`; empty without.
    seconds : float or None
        Wall time, if it was told.
    """

    totals: list[dict[str, Any]]
    intervals: list[dict[str, Any]]
    seconds: float | None


def is_stat(start: bytes) -> bool:
    """Tell whether text that begins so is of ``perf stat``."""
    try:
        read(start)
    except ProfileError:
        return False
    return True


def read(text: bytes) -> Counts:
    """Return the counts in what ``perf stat`` wrote.

    Raises
    ------
    ProfileError
        When there is no count in it.
    """
    lines = text.decode(errors="replace").splitlines()
    found = list(_json(text)) or list(_fields(lines)) or list(_for_people(lines))
    if not found:
        raise ProfileError("there is no count of perf stat in the text.")
    intervals = _summed(row for row in found if row.get("seconds") is not None)
    totals = _summed({**row, "seconds": None} for row in found if row.get("seconds") is None)
    if not totals:
        totals = _summed({**row, "seconds": None} for row in intervals)
    for row in totals:
        del row["seconds"]
    return Counts(totals, intervals, _seconds(lines, totals, intervals))


def _seconds(
    lines: Iterable[str], totals: list[dict[str, Any]], intervals: list[dict[str, Any]]
) -> float | None:
    for line in lines:
        match = _ELAPSED.match(line)
        if match:
            return _number(match["seconds"])
    duration = perf.times(totals).get("duration_time")
    if duration is not None:
        return duration
    return max((row["seconds"] for row in intervals), default=None)


def _summed(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add up rows of the same event and interval: of several processors, or of intervals."""
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


# ---- the three formats ----


def _json(text: bytes) -> Iterator[dict[str, Any]]:
    if b'"counter-value"' in text:
        yield from perf.parse_intervals(text)
        alone = b"\n".join(line for line in text.split(b"\n") if b'"interval"' not in line)
        yield from ({"seconds": None, **row} for row in perf.parse_stat(alone))


def _fields(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Lines of -x: [time,] [place, [number,]] value, unit, event, time counted, share, ...."""
    for line in lines:
        for separator in (",", ";", "\t"):
            words = [word.strip() for word in line.split(separator)]
            row = _row_of_fields(words)
            if row is not None:
                yield row
                break


def _row_of_fields(words: list[str]) -> dict[str, Any] | None:
    seconds = None
    if words[0] == "summary":
        words = words[1:]
    elif re.fullmatch(r"\d+\.\d{9}", words[0]):
        seconds, words = float(words[0]), words[1:]
    if words and re.fullmatch(r"(S|D|N|CPU|C)\d+(-\w+)*", words[0]):
        words = words[1:] if words[0].startswith("CPU") else words[2:]
    if len(words) < 5 or not _is_value(words[0]) or not re.fullmatch(r"[\w.:/=-]+", words[2]):
        return None
    if not re.fullmatch(r"\d+", words[3]) or not re.fullmatch(r"[\d.]+", words[4]):
        return None
    row = _row(words[0], words[1], words[2], float(words[4]))
    return {"seconds": seconds, **row}


def _for_people(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    begun = False
    for line in lines:
        if _HEAD in line or re.match(r"#\s+time\s+counts", line):
            begun = True
            continue
        if not begun or _ELAPSED.match(line):
            continue
        seconds = None
        interval = _INTERVAL.fullmatch(line)
        if interval:
            seconds, line = float(interval["seconds"]), interval["rest"]
        match = _LINE.fullmatch(line)
        if match and match["event"] != "seconds":
            running = 100.0 if match["running"] is None else float(match["running"])
            yield {
                "seconds": seconds,
                **_row(match["value"], match["unit"] or "", match["event"], running),
            }


def _is_value(word: str) -> bool:
    return word in ("<not supported>", "<not counted>") or _number(word) is not None


def _row(value: str, unit: str, event: str, running: float) -> dict[str, Any]:
    supported = value != "<not supported>"
    return {
        "event": event,
        "value": _number(value),
        "unit": unit,
        "running_share": running / 100 if supported else None,
        "supported": supported,
    }


def _number(text: str) -> float | None:
    """Return a number with or without separators of thousands, as either kind of locale has it."""
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(\.\d{3})+,\d+", text):
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:  # <not counted>, <not supported>
        return None
