# SPDX-License-Identifier: GPL-2.0-only
"""What ``perf stat`` wrote for somebody else: JSON (-j), fields (-x,), or for a person to read.

All three, since what is sent around is mostly the last, and whoever was sent it cannot measure
again. No library reads any of them.

Each may have intervals (-I) and a summary, and several executions one after the other (--append).
Output by processor, socket, thread or cgroup is summed up, each event over its places. Every line
is accounted for: a count, one that `anonvma.perf.stat_lines` knows to be none, or the file is
refused with its number.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable
from anonvma.perf import tool
from anonvma.perf.stat_lines import NEITHER, Line, Locale, fields, for_people

_HEAD = re.compile(
    r"\s*Performance counter stats for .*?(?:\((?P<runs>[0-9]+) runs\))?:\s*", re.DOTALL
)
_LONG_HEAD = re.compile(r"\s*Performance counter stats for '[^\n]*")
_ITS_END = re.compile(r".*'(?: \([0-9]+ runs\))?:\s*")
_INTERVALS = re.compile(r"#\s+time\s+.*(?:counts|events).*")
_STARTED = "# started on "
_ELAPSED = re.compile(
    r"\s*(?P<seconds>[0-9]+[.,\u066b][0-9]+)\s+(?:\+-\s+[0-9.,\u066b]+\s+)?seconds\s+"
    r"(?P<what>time elapsed|user|sys)\s*(?:\(\s*\+-.*\))?\s*"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


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
        Wall time, if it was told.
    runs : int
        How many executions these are the means of, as far as it is told.
    """

    totals: list[dict[str, Any]]
    intervals: list[dict[str, Any]]
    seconds: float | None
    runs: int = 1


def is_stat(start: bytes) -> bool:
    """Tell whether text that begins so claims to be of ``perf stat``; `read` tells if it is."""
    lines = _lines(start)
    if any(_HEAD.fullmatch(text) or _INTERVALS.fullmatch(text) for _, text in lines):
        return True
    told = [each for each in lines if not NEITHER.fullmatch(each[1])][:1]
    if not told:
        return any(text.startswith(_STARTED) for _, text in lines)
    try:
        return '"counter-value"' in told[0][1] or bool(fields(told, Locale()))
    except ProfileError:
        return False


def read(text: bytes) -> list[Counts]:
    """Return the counts in what ``perf stat`` wrote, one for each execution.

    Raises
    ------
    ProfileError
        When there is no count in it, or a line that is not perf stat's.
    """
    lines, locale = _lines(text), Locale()
    if any(_HEAD.fullmatch(text) or _INTERVALS.fullmatch(text) for _, text in lines):
        blocks = list(_blocks_for_people(lines))
        parts = [for_people(block.counters, locale) if block.counters else [] for block in blocks]
    else:
        blocks = list(_blocks_of_lines(lines))
        parts = [_of_machine(block.counters, locale) for block in blocks]
    for block in blocks:
        for number, seconds in block.elapsed:
            locale.fraction(seconds, number)
    found = [
        _counts(block, part, locale) for block, part in zip(blocks, parts, strict=True) if part
    ]
    if not found:
        raise ProfileError("there is no count of perf stat in the text.")
    return found


def _lines(text: bytes) -> list[tuple[int, str]]:
    """Return the lines with their numbers, without the colours of a terminal."""
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError:  # U+00A0 as older locales have it
        decoded = text.decode("latin-1")
    decoded = _COLOUR.sub("", decoded)
    lines = [(n, line.rstrip("\r")) for n, line in enumerate(decoded.split("\n"), 1)]
    return list(_with_whole_heads(lines))


def _with_whole_heads(lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Put heads together again whose command has newlines in it."""
    place = 0
    while place < len(lines):
        number, text = lines[place]
        place += 1
        if _LONG_HEAD.fullmatch(text) and not _ITS_END.fullmatch(text):
            rest = range(place, min(place + 1000, len(lines)))
            end = next((n for n in rest if _ITS_END.fullmatch(lines[n][1])), None)
            if end is not None:
                text = "\n".join([text, *(line for _, line in lines[place : end + 1])])
                place = end + 1
        yield number, text


# ---- executions ----


@dataclasses.dataclass
class _Block:
    """The lines of one execution."""

    counters: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    elapsed: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    headed: bool = False  # whether "Performance counter stats for" was met
    runs: int = 1


def _blocks_for_people(lines: Iterable[tuple[int, str]]) -> Iterator[_Block]:
    """Yield executions. What stands before the first of perf's own lines is the command's."""
    block: _Block | None = None
    for number, text in lines:
        head = _HEAD.fullmatch(text)
        if head or text.startswith(_STARTED) or _INTERVALS.fullmatch(text):
            # After intervals the head is that of their summary.
            ended = block and (block.headed or (text.startswith(_STARTED) and block.counters))
            if block and ended:
                yield block
            if block is None or ended:
                block = _Block()
            if head:
                block.headed, block.runs = True, int(head["runs"] or 1)
            continue
        elapsed = _ELAPSED.fullmatch(text)
        if block is None or (not elapsed and NEITHER.fullmatch(text)):
            continue
        if elapsed:
            if elapsed["what"] == "time elapsed":
                block.elapsed.append((number, elapsed["seconds"]))
            continue
        block.counters.append((number, text))
    if block:
        yield block


def _blocks_of_lines(lines: Iterable[tuple[int, str]]) -> Iterator[_Block]:
    block = _Block()
    for number, text in lines:
        if text.startswith(_STARTED) and block.counters:
            yield block
            block = _Block()
        elif not NEITHER.fullmatch(text):
            block.counters.append((number, text))
    yield block


def _of_machine(lines: Sequence[tuple[int, str]], locale: Locale) -> list[Line]:
    if not lines:
        return []
    if lines[0][1].lstrip().startswith("{"):
        return [found for number, text in lines for found in _json(number, text, locale)]
    return fields(lines, locale) or []


def _json(number: int, text: str, locale: Locale) -> Iterator[Line]:
    """Take a line of -j apart; nothing comes of one that has only a metric."""
    found = tool.json_line(text)
    if found is None:
        raise ProfileError(f"line {number} is not whole: perf stat -j writes an object a line.")
    if "event" not in found or "counter-value" not in found:
        if any(str(name).startswith("metric") for name in found):
            return
        raise ProfileError(f"line {number} has no counter in it, nor a metric.")
    value, seconds = str(found["counter-value"]), found.get("interval")
    if not re.fullmatch(r"-?[0-9]+(?:[.,][0-9]+)?|<not supported>|<not counted>", value):
        raise ProfileError(f"line {number} has no count but {value[:40]!r}.")
    if seconds is not None and not _is_number(seconds):
        raise ProfileError(f"line {number} has no time but {str(seconds)[:40]!r}.")
    running = found.get("pcnt-running")
    if running is not None and not _is_number(running):
        raise ProfileError(f"line {number} has no share of time but {str(running)[:40]!r}.")
    names = ("cpu", "core", "die", "socket", "node", "cluster", "cache", "thread", "cgroup")
    place = " ".join(str(found[name]) for name in names if name in found)
    told = None if seconds is None else repr(float(seconds))
    share = None if running is None else repr(float(running))
    value = value.replace(",", ".")  # never grouped
    locale.fraction(".", number)
    unit = str(found.get("unit") or "")
    yield Line(number, told, place, value, unit, str(found["event"]), share)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1e12


# ---- counts ----


def _counts(block: _Block, lines: Sequence[Line], locale: Locale) -> Counts:
    rows: dict[tuple[float | None, str, str], dict[str, Any]] = {}
    before = 0.0
    for line in lines:
        seconds = None if line.seconds is None else float(line.seconds)
        key = (seconds, line.place, line.event)
        if key in rows or (seconds is not None and seconds < before):
            raise ProfileError(
                f"line {line.number} counts {printable(line.event)} a second time: of several "
                "executions in one file each is to begin with perf's line '# started on', or have "
                "a file of its own."
            )
        before = before if seconds is None else seconds
        rows[key] = {"seconds": seconds, **_row(line, locale)}
    intervals = _summed(row for row in rows.values() if row["seconds"] is not None)
    totals = _summed(row for row in rows.values() if row["seconds"] is None)
    if not totals:
        totals = _summed({**row, "seconds": None} for row in intervals)
    for row in totals:
        del row["seconds"]
    seconds = next((locale.number(text) for _, text in block.elapsed), None)
    if seconds is None:
        seconds = tool.times(totals).get("duration_time")
    if seconds is None:
        seconds = max((row["seconds"] for row in intervals), default=None)
    return Counts(totals, intervals, seconds, block.runs)


_MOST = 2.0**64  # counters are u64, and so is what a scaled one is made up to


def _row(line: Line, locale: Locale) -> dict[str, Any]:
    supported = line.value != "<not supported>"
    running = 100.0 if line.running is None else locale.number(line.running)
    if running is None or not 0 <= running <= 100.005:
        raise ProfileError(f"line {line.number} says {line.running} % of the time were counted.")
    value = locale.number(line.value)
    if value is not None and not 0 <= value < _MOST:
        raise ProfileError(f"line {line.number} counts {value:g}, which no counter can.")
    return {
        "event": printable(line.event),
        "value": value,
        "unit": line.unit,
        "running_share": min(running / 100, 1.0) if supported else None,
        "supported": supported,
    }


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
