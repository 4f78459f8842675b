# SPDX-License-Identifier: GPL-2.0-only
"""perf: the program that counts and samples, and what its output says."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anonvma.base.errors import ParameterError, TargetError
from anonvma.base.nearest import hint
from anonvma.perf.events import HARDWARE_EVENTS, SOFTWARE_EVENTS, TIME_EVENTS
from anonvma.target import architecture
from anonvma.target.local import Local
from anonvma.target.target import Target

CALL_GRAPHS = ("fp", "dwarf", "lbr")
"""How perf may find callers: frame pointers, DWARF of copied stacks, the processor's record."""

_EVENT = re.compile(r"[\w{][\w.:/=@{}-]*")
_MAX_FREQUENCY = 100_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user may change of what perf does.

    Attributes
    ----------
    events : str
        Events for ``perf stat``, with commas between, beside the kernel's own ones; the
        processor's usual ones by default.
    frequency : int
        Samples a second and processor. The default is prime, so as not to fall into step with
        anything, and the samples are of executions that nothing else is taken from.
    call_graph : str
        One of `CALL_GRAPHS`.
    interval_ms : int
        Between two looks of ``perf stat`` at its counters.

    Raises
    ------
    ParameterError
        One sentence, for an impossible value.
    """

    events: str = ",".join(HARDWARE_EVENTS)
    frequency: int = 997
    call_graph: str = "fp"
    interval_ms: int = 100

    def __post_init__(self) -> None:
        # A notebook's parameter may be anything.
        if not all(_EVENT.fullmatch(word) for word in str(self.events).split(",")):
            raise ParameterError(
                f"events is {self.events!r}: names of events with commas between are needed, such "
                "as 'cycles,dTLB-load-misses'; 'perf list' has them."
            )
        if type(self.frequency) is not int or not 1 <= self.frequency <= _MAX_FREQUENCY:
            raise ParameterError(
                f"frequency is {self.frequency!r}: samples a second from 1 to {_MAX_FREQUENCY:,} "
                "are needed."
            )
        if self.call_graph not in CALL_GRAPHS:
            raise ParameterError(
                f"call_graph is {self.call_graph!r}: it can be {', '.join(CALL_GRAPHS)}."
            )
        if type(self.interval_ms) is not int or self.interval_ms < 10:  # perf refuses less
            raise ParameterError(f"interval_ms is {self.interval_ms!r}: at least 10 ms are needed.")

    @property
    def counted(self) -> tuple[str, ...]:
        """The events to count beside `SOFTWARE_EVENTS`."""
        return tuple(dict.fromkeys(e for e in self.events.split(",") if e not in SOFTWARE_EVENTS))


class Perf(NamedTuple):
    """A perf that really runs on a target.

    Attributes
    ----------
    path, version : str
    offsets : bool
        Whether ``perf script`` tells where in its file a frame is by a field of its own (dsoff).
        Before there was one (6.4) it printed that in place of the address.
    """

    path: str
    version: str
    offsets: bool = False

    @property
    def command(self) -> list[str]:
        """The words that start it.

        The user's perf configuration would change what is printed, and a translated message what
        is understood; with LANGUAGE set to a language that has no translation it stays English.
        An address in DEBUGINFOD_URLS would be asked for symbols over the network.
        """
        words = ["env", "-u", "DEBUGINFOD_URLS", "PERF_CONFIG=/dev/null", "LANGUAGE=C"]
        return [*words, self.path]

    def stat(self, output: str, events: Iterable[str], interval_ms: int | None = None) -> list[str]:
        """Return ``perf stat`` with JSON into `output`; the caller adds ``--`` and a command.

        With an interval it also says what was counted in each, but no longer what only the end
        tells: user_time and system_time.
        """
        every = [] if interval_ms is None else ["-I", str(interval_ms)]
        return [*self.command, "stat", "-j", *every, "-o", output, "-e", ",".join(events)]

    def record(self, output: str, event: str, settings: Settings) -> list[str]:
        """Return ``perf record`` with call graphs into `output`; the caller adds a command.

        -N: without it perf leaves copies of what was sampled in the user's ~/.debug.
        """
        how = ["--call-graph", settings.call_graph, "-F", str(settings.frequency)]
        return [
            *self.command,
            "record",
            "-q",
            "-N",
            "--sample-cpu",
            *how,
            "-e",
            event,
            "-o",
            output,
        ]

    def script(self, recording: str, *words: str) -> list[str]:
        """Return ``perf script``, with its symbols but nothing from another program.

        What is inlined perf asks addr2line for, once a frame, and misnames the innermost function
        (6.1); `anonvma.perf.inlined` does it once a file.
        """
        offsets = ["-F", "+dsoff"] if self.offsets else []
        return [
            *self.command,
            "script",
            "--force",
            "--no-inline",
            "-i",
            recording,
            *words,
            *offsets,
        ]


class _Brought(Perf):
    """A perf that was brought to a guest, where there is no env, no configuration, no language."""

    __slots__ = ()

    @property
    def command(self) -> list[str]:
        """The words that start it: its own loader, told where its libraries are."""
        place = self.path.rpartition("/")[0]
        return [f"{place}/{_LOADER}", "--library-path", place, self.path]


_LOADER = architecture.here().loader


def bring(target: Target) -> Perf | None:
    """Copy this machine's perf and its libraries to a guest, and return it if it runs there.

    Some 35 MB, in about two seconds, that nothing else in a guest needs. On another architecture
    it does not run.
    """
    if target.programs:
        return None
    with Local() as here:
        found = find(here)
        if found is None or here.which("ldd") is None:
            return None
        listed = here.run(["ldd", found.path]).stdout.decode(errors="replace")
    libraries = [word for word in listed.split() if word.startswith("/")]
    if not any(Path(library).name == _LOADER for library in libraries):
        return None
    for library in libraries:
        target.push(Path(library))
    brought = _Brought(target.push(Path(found.path)), found.version, found.offsets)
    done = target.run([*brought.command, "--version"])
    return brought if done.returncode == 0 else None


def find(target: Target) -> Perf | None:
    """Return a perf that runs on the target, or None.

    On Ubuntu /usr/bin/perf is a script that looks for the perf of the very kernel that runs and
    fails without it, although any of those in /usr/lib/linux-tools would serve.
    """
    candidates = [target.which("perf")]
    if target.which("find"):
        listed = target.run(
            ["find", "/usr/lib", "-maxdepth", "3", "-path", "/usr/lib/linux-tools*/perf"]
        )
        candidates += sorted(listed.stdout.decode().splitlines(), reverse=True)
    for path in candidates:
        if path is None or target.which(path) is None:
            continue
        try:
            done = target.run([path, "--version"])
        except TargetError:  # what `bring` left in a guest needs its own loader
            continue
        match = re.match(rb"perf version (\S+)", done.stdout)
        if done.returncode == 0 and match:
            # Refused as usage (129) where there is no such field, before the file is looked at.
            trial = target.run([path, "script", "-F", "ip,sym,dso,dsoff", "-i", "/dev/null"])
            return Perf(path, match[1].decode(errors="replace"), trial.returncode != 129)
    return None


def refusal(target: Target, perf: Perf, events: Sequence[str]) -> str | None:
    """Return why perf will not count `events` on this target, or None if it will."""
    output = target.place("perf-trial.json")
    try:
        # Of all programs perf itself is surely there.
        trial = [*perf.stat(output, events), "--", *perf.command, "--version"]
        done = target.run(trial, privileged=True)
    except TargetError as error:
        return str(error)
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return (said[0] if said else f"exit status {done.returncode}") if done.returncode else None


def check_events(target: Target, events: Sequence[str]) -> None:
    """Refuse events that somebody asked for and the target's perf does not take.

    Where perf counts nothing at all, or is not there, that is another matter, and no error.

    Raises
    ------
    ParameterError
        One sentence that names the first such event.
    """
    found = find(target)
    if found is None or refusal(target, found, events) is None:
        return
    if refusal(target, found, SOFTWARE_EVENTS):
        return
    wrong = next((event for event in events if refusal(target, found, [event])), None)
    if wrong is None:  # each for itself, but not together
        raise ParameterError(f"events: {refusal(target, found, events)}")
    listed = target.run([*found.command, "list", "--raw-dump"]).stdout.decode(errors="replace")
    otherwise = "'perf list' has those that there are."
    known = [*HARDWARE_EVENTS, *listed.split()]
    raise ParameterError(
        f"events: perf {found.version} takes no event {wrong!r} on target {target.name}: "
        f"{hint(wrong, known, otherwise)}"
    )


def parse_stat(text: bytes) -> list[dict[str, Any]]:
    """Return the counts in the output of ``perf stat -j``.

    Lines that are not about a counter are passed over: perf begins with a comment and adds lines
    that hold only metrics. Some releases print numbers the way the user's locale does.

    Parameters
    ----------
    text : bytes
        The file that ``perf stat -j -o`` wrote.

    Returns
    -------
    list of dict
        ``event`` (str), ``value`` (float, None when there is no count), ``unit`` (str, empty for a
        plain number), ``running_share`` (float, 0 to 1: less than 1 when the counter was
        multiplexed; None without support), ``supported`` (bool).
    """
    found = (_counter(line) for line in text.decode(errors="replace").splitlines())
    return [_row(counter) for counter in found if counter is not None]


def parse_intervals(text: bytes) -> list[dict[str, Any]]:
    """Return the counts in the output of ``perf stat -j -I``.

    Returns
    -------
    list of dict
        As of `parse_stat`, and ``seconds`` (float): when the interval ended, since the start.
    """
    found = (_counter(line) for line in text.decode(errors="replace").splitlines())
    return [
        {"seconds": float(counter["interval"]), **_row(counter)}
        for counter in found
        if counter is not None and isinstance(counter.get("interval"), int | float)
    ]


def _row(counter: dict[str, Any]) -> dict[str, Any]:
    value = str(counter["counter-value"])
    supported = value != "<not supported>"
    running = _number(str(counter.get("pcnt-running", 100.0)))
    return {
        "event": str(counter["event"]),
        "value": _number(value),
        "unit": str(counter.get("unit") or ""),
        "running_share": running / 100 if supported and running is not None else None,
        "supported": supported,
    }


def _counter(line: str) -> dict[str, Any] | None:
    """Return the object of a line that describes a counter."""
    found = json_line(line)
    return found if found and "event" in found and "counter-value" in found else None


def json_line(line: str) -> dict[str, Any] | None:
    """Return the object in a line of ``perf stat -j``; None if there is none."""
    if not line.lstrip().startswith("{"):
        return None
    # Neither is JSON: a decimal comma, "pcnt-running" : 100,00, and C's idea of no number.
    line = re.sub(r'(" : -?\d+),(\d+)(?=[,}])', r"\1.\2", line)
    line = re.sub(r'" : -?(nan|inf)\b', '" : null', line)
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:  # <not counted>, <not supported>
        return None


def times(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return ``user_time``, ``system_time`` and ``duration_time`` in seconds, those that are known.

    perf calls a time of nothing "not counted": where it knows the duration, it was 0.
    """
    found = {row["event"]: row["value"] for row in rows if row["event"] in TIME_EVENTS}
    if found.get("duration_time") is None:
        return {}
    return {event: float(value or 0) / 1e9 for event, value in found.items()}


def unsupported(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the events that this machine cannot count, in the order asked for."""
    return list(dict.fromkeys(row["event"] for row in rows if not row["supported"]))
