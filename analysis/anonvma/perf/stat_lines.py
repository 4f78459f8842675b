# SPDX-License-Identifier: GPL-2.0-only
"""Lines of ``perf stat``, each taken apart: what is counted, where, and what stands beside it.

tools/perf/util/stat-display.c prints them for a person, with fields (-x SEP) or as JSON (-j), and
numbers as the locale has them: thousands by a point (de), U+202F (fr, pl), U+00A0 (cs, ru), U+2019
(de_CH) or not at all, decimals by a point or a comma. A number alone does not tell 4,321 from
4.321, but perf's formats do: what it groups has three digits behind each mark, and its decimals
are two (of a value or a share), six or nine (of seconds). So `Locale` learns
the marks from all of a file, and a file whose marks contradict each other is refused.

In what follows a *place* is what ``-A``, ``--per-socket``, ``--per-thread`` and their like put
before the value; all lines of a file have it in one shape.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable

# ---- numbers ----

_MARKS = ".,' \u00a0\u202f\u2009\u2019\u066b\u066c"
_NUMBER = (
    rf"(?:[0-9]{{1,3}}(?: [0-9]{{3}})+(?:,[0-9]+)?|[0-9]+(?:[{_MARKS.replace(' ', '')}][0-9]+)*)"
)
_VALUE = rf"(?P<value>-?{_NUMBER}|<not supported>|<not counted>)"


class Locale:
    """How a file writes its numbers: which mark is the decimal one, and which groups thousands."""

    def __init__(self) -> None:
        self._decimal: dict[str, int] = {}  # each mark, and the line that has it first
        self._group: dict[str, int] = {}

    def value(self, text: str, line: int) -> None:
        """Learn from a number that may be grouped."""
        marks = [] if text.startswith("<") else re.findall(rf"[{_MARKS}]", text)
        if marks:
            last = len(text) - 1 - max(text.rfind(mark) for mark in marks)
            if last != 3 or (len(marks) > 1 and marks[-1] != marks[0]):
                self._decimal.setdefault(marks.pop(), line)
            for mark in marks:
                self._group.setdefault(mark, line)
        self._agree(line)

    def fraction(self, text: str | None, line: int) -> None:
        """Learn from a number that perf never groups."""
        for mark in re.findall(rf"[{_MARKS}]", text or ""):
            self._decimal.setdefault(mark, line)
        self._agree(line)

    def _agree(self, line: int) -> None:
        both = set(self._decimal) & set(self._group)
        if both or len(self._decimal) > 1 or len(self._group) > 1:
            raise ProfileError(
                f"line {line} writes numbers in another way than lines before it, so that "
                "thousands cannot be told from decimals: record with 'perf stat -j' or "
                "'perf stat -x,', or with LC_ALL=C."
            )

    def number(self, text: str | None) -> float | None:
        """Return a number; None for <not counted> and <not supported>."""
        if text is None or text.startswith("<"):
            return None
        for mark in self._group:
            text = text.replace(mark, "")
        for mark in self._decimal:
            text = text.replace(mark, ".")
        return float(text)


# ---- lines ----


@dataclasses.dataclass(frozen=True)
class Line:
    """A line about a counter, as it stands there.

    Attributes
    ----------
    number : int
        Of the line, from 1.
    seconds : str or None
        End of the interval.
    place : str
        CPU0, S0-D0, worker-4711, the name of a cgroup, or several of these.
    value, unit, event : str
    running : str or None
        Per cent of the time that it was counted; None where that is not said: all of it.
    """

    number: int
    seconds: str | None
    place: str
    value: str
    unit: str
    event: str
    running: str | None


_TOPOLOGY = r"(?:S[0-9]+|D[0-9]+|N[0-9]+|C[0-9]+|CLS[0-9]+|L[0-9]+|ID[0-9]+)"
_AGGREGATE = rf"{_TOPOLOGY}(?:-{_TOPOLOGY})*"
PLACES = {
    "none": "()",
    "cpu": r"(CPU-?[0-9]+)",
    "aggregate": rf"({_AGGREGATE}){{gap}}[0-9]+",
    "core": rf"({_AGGREGATE})",
    "thread": r"(\S.*?-[0-9]+)",
}
"""By the shape of the place, what matches it; ``gap`` is what stands between two columns."""

# Units that perf or a PMU's sysfs directory names. Another word before the event is the event.
_UNITS = (
    r"msec|ns|nsec|sec|MiB|KiB|GiB|MB|KB|GB|Joules|Bytes|bytes|GHz|MHz|Cycles|C|W|mW|%|Watts|"
    r"millidegrees"
)
_PMU_EVENT = r"[\w.-]+/[^/\s]*/[\w:]*(?:\s|$)"
_EVENT = r"(?P<event>(?:[^\s/#]|/[^/]*/)+(?: \((?:msec|ns|Bytes)\))?)"
_BEHIND = (
    rf"(?:\s+\#.*?)?(?:\s+\(\s*\+-\s*(?P<noise>{_NUMBER}|-?nan|inf)\s?%\s*\))?"
    rf"(?:\s+[(\[]\s*(?:scaled from\s+)?(?P<running>{_NUMBER})\s?%[)\]])?"
)
_BLANKS = r"\s+"
_SECONDS = r"(?:(?P<seconds>[0-9]+\.[0-9]{9})\s+)?"
NEITHER = re.compile(
    r"""\s*(?:
        \#(?!\S*-[0-9]+\s+[0-9]).*                            # headers, metrics; no thread
        |[0-9.,]+\s+\([+-][0-9.,]+\)[ \#]*                    # of perf stat -r --table
        |Some\ events\ weren't\ counted.*|echo\ [01]\ >\ /proc/sys/.*|perf\ stat\ \.\.\.
        |The\ events\ in\ group\ usually\ have\ to\ be\ from\ the\ same\ PMU.*
        |WARNING:.*|Events\ with\ CPUs\ not\ matching.*|anon\ group\ \{.*
        |Warning:.*|\S+\ event\ is\ not\ supported\ by\ the\ kernel\.
        |\[\ perf\ stat:.*|.*:\ (?:Terminated|Interrupt|Killed)
    )?\s*""",
    re.VERBOSE,
)
"""What perf stat prints among counters that is no counter."""


def for_people(lines: Sequence[tuple[int, str]], locale: Locale) -> list[Line]:
    """Take the lines of a block apart that was printed for a person, all in one shape.

    Parameters
    ----------
    lines : sequence of (int, str)
        Numbers and texts of those that are to be about counters.
    locale : Locale
        Learns from them.

    Raises
    ------
    ProfileError
        When a line is about no counter; it is named.
    """
    best: list[re.Match[str]] = []
    for pattern in _people_patterns():
        matches = []
        for _, text in lines:
            match = pattern.fullmatch(text)
            if match is None or len(text) > _LONGEST:
                break
            matches.append(match)
        if len(matches) == len(lines):
            break
        best = max(best, matches, key=len)
    else:
        raise _strange(*lines[len(best)])
    found = []
    for (number, _), match in zip(lines, matches, strict=True):
        words = match.groupdict()
        locale.value(words["value"], number)
        for name in ("noise", "running"):
            locale.fraction(words[name], number)
        place = " ".join(filter(None, (match["place"], words.get("cgroup"))))
        found.append(
            Line(
                number,
                words["seconds"],
                place,
                words["value"],
                words["unit"] or "",
                words["event"].partition(" (")[0],
                words["running"],
            )
        )
    return found


def _people_patterns() -> Iterable[re.Pattern[str]]:
    for place in PLACES.values():
        behind = "" if place == "()" else r"\s+"
        before = rf"\s*{_SECONDS}(?P<place>{place.replace('{gap}', _BLANKS)}){behind}"
        for cgroup in ("", r"\s+(?P<cgroup>[^\s#(\[]\S*)"):
            unit = rf"(?:(?P<unit>{_UNITS}|\S+(?=\s+{_PMU_EVENT}))\s+)?"
            yield re.compile(rf"{before}{_VALUE}\s+{unit}{_EVENT}{cgroup}{_BEHIND}\s*")


_SEPARATORS = (",", ";", "\t", "|", ":", " ")  # the usual ones; -x takes any text
_LONGEST = 4096  # characters of a line


def fields(lines: Sequence[tuple[int, str]], locale: Locale) -> list[Line] | None:
    """Take lines of ``perf stat -x SEP`` apart; None if they are of another format.

    In each: [time,] [place,] [CPUs,] value, unit, event, [cgroup,] [deviation%,] time counted,
    share, metric, its unit.

    Raises
    ------
    ProfileError
        When most lines are of this format and one is not; it is named.
    """
    best, shape = 0, None
    for separator in _separators(lines):
        for place in PLACES.values():
            pattern = _csv_pattern(separator, place)
            count, counts_any = 0, False
            for _, text in lines:
                match = pattern.fullmatch(text) if len(text) <= _LONGEST else None
                if match is None:
                    break
                count, counts_any = count + 1, counts_any or match["event"] is not None
            if counts_any and count > best:
                best, shape = count, pattern
    if shape is None:
        return None
    if best < len(lines):
        raise _strange(*lines[best])
    found = []
    for number, text in lines:
        match = shape.fullmatch(text)
        assert match is not None
        if match["event"] is None:  # a further metric of the line before
            continue
        locale.fraction(match["value"] if not match["value"].startswith("<") else None, number)
        locale.fraction(match["running"], number)
        place = " ".join(filter(None, (match["place"], match["cgroup"])))
        found.append(
            Line(
                number,
                match["seconds"],
                place,
                match["value"],
                match["unit"],
                match["event"],
                match["running"],
            )
        )
    return found


def _separators(lines: Sequence[tuple[int, str]]) -> Iterable[str]:
    """Return what may stand between fields: what stands behind the first numbers, or begins so."""
    behind = re.findall(r"[0-9]([^\w<-]{1,4})", lines[0][1][:256]) if lines else []
    return dict.fromkeys([*_SEPARATORS, *(marks[:n] for marks in behind for n in range(1, 5))])


def _csv_pattern(separator: str, place: str) -> re.Pattern[str]:
    sep = re.escape(separator)
    word = rf"[^{sep}]*"
    points = ".,".replace(separator, "")
    number = rf"[0-9]+(?:[{points}][0-9]+)?"
    gap = place.replace("{gap}", sep)
    before = rf"\s*(?:summary{sep})?(?:(?P<seconds>[0-9]+\.[0-9]{{9}}){sep})?(?P<place>{gap})"
    before += "" if place == "()" else sep
    event = rf"(?P<event>(?:[^{sep}/]|/[^/]*/)+)"
    counter = (
        rf"(?P<value>-?{number}|<not supported>|<not counted>){sep}(?P<unit>{word}){sep}"
        rf"{event}{sep}"
        rf"(?:(?P<cgroup>{word}){sep})?(?:(?:{number}|-?nan|inf)%{sep})?"
        rf"[0-9]+{sep}(?P<running>[0-9]+[{points}][0-9]{{2}})(?:{sep}.*)?"
    )
    further = rf"{sep}{{4,}}(?:-?(?:{number}|nan){sep}.*)?"
    return re.compile(rf"{before}(?:{counter}|{further})\s*")


def _strange(number: int, text: str) -> ProfileError:
    shown = printable(text.strip())[:60]
    return ProfileError(
        f"line {number} is neither a count nor anything else that perf stat prints: {shown!r}."
    )
