# SPDX-License-Identifier: GPL-2.0-only
"""What ``perf script`` prints, as samples with their stacks stored once.

perf resolves symbols, unwinds and demangles better than anyone else, and its only fast way out is
text: a line about each sample, a line for each frame of its stack, and an empty line. A million
samples are some 400 MB of it, nearly all of which has been seen before. So a block of text is taken
apart only the first time it is met, a line likewise, and the numbers of all samples are converted
by column.

`fields` asks for no names of processes, which may hold newlines and whatever else would pass for
text of perf's own; `anonvma.perf.recording` reads them from the recording itself. Paths and symbols
may hold newlines, too: what does not begin as a sample or a frame does belongs to the line before
it. Text that somebody else printed has the names in it. There the last thing in a line that looks
like a thread, processor and time is taken for these, since a name is short and stands before them.
And each of its lines is accounted for: it is of a sample, of a frame, what `_NEITHER` knows to be
neither (a header, records such as PERF_RECORD_MMAP2, a warning), or the text is refused with the
line's number. What stands before a sample is never taken for a part of its name, unless the two
together are no longer than the 15 bytes that a name with a newline can have.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import ProfileError
from anonvma.base.text import printable
from anonvma.run import schema

__all__ = [
    "Columns",
    "Comms",
    "Frames",
    "Inline",
    "Parser",
    "Printed",
    "Profile",
    "fields",
    "is_script",
    "read",
]


def fields(cpu: bool = True, period: bool = True) -> tuple[str, ...]:
    """Return what to ask ``perf script`` for, of samples that have a processor and a period."""
    names = ["pid", "tid", *["cpu"] * cpu, "time", *["period"] * period, "event", "ip,sym,dso"]
    return ("--ns", "-F", ",".join(names))


# A line about a sample: as `fields` has it, and as anybody's settings may. Tabs, too, may stand in
# somebody's name.
_OURS = re.compile(
    rb" *(?P<pid>-?\d+)/(?P<tid>-?\d+) +(?:\[(?P<cpu>\d+)\] +)?(?P<s>\d+)\.(?P<ns>\d{9}):"
    rb" +(?:(?P<period>\d+) )? *(?P<event>.*?):(?: +(?P<frame>[0-9a-f]+ .*))?\s*",
    re.DOTALL,
)
_THEIRS = re.compile(
    rb"\s*(?P<comm>.{0,62}\S|)\s+(?:(?P<pid>-?\d+)/)?(?P<tid>-?\d+)\s+(?:\[(?P<cpu>\d+)\]\s+)?"
    rb"(?:[KUHGgMESp]+\s+)?"  # -F +misc: the mode of the processor
    rb"(?P<s>\d+)\.(?P<ns>\d{6,9}):\s+(?:(?P<period>\d+)\s+)?(?P<event>\S+):(?:\s+(?P<frame>.*))?",
    re.DOTALL,
)
_NEITHER = re.compile(
    rb"""(?:
        \#.*                                                      # of perf script --header
        |(?:.*\s)?(?:\d+\.\d{6,9}:\s+)?PERF_RECORD_[A-Z_0-9]+\b.*  # --show-mmap-events, ...
        |\s+\[?\d+/\w+:\s\d+/(?:0x)?[0-9a-f]+[\],].*              # of PERF_RECORD_NAMESPACES
        |.*\swith\ build\ id\ [0-9a-f]*\ not\ found,\ continuing\ without\ symbols
        |build\ id\ event\ received\ for\ .*                        # of -v, as the next
        |(?:Using|Looking\ at|Overlapping|symsrc__init|dso__\w+|overlapping\ maps).*
        |Warning:|(?:Warning:\s)?\d+\ out\ of\ order\ events\ recorded\.
        |Processed\ \d+\ (?:events\ and\ lost\ \d+\ chunks!|samples\ and\ lost\ .*)
        |Check\ IO/CPU\ overload!
        |(?:No|no)\ symbols?\ found\ in\ .*
        |(?:Failed\ to|Can't|Cannot|Could\ not|Couldn't|Unable\ to)\ .*
        |(?:addr2line|cmd__addr2line|BFD|perf|libunwind|unwind)[:\ ].*
        |Kernel\ address\ maps\ \(/proc/.*|Check\ /proc/sys/kernel/kptr_restrict\ .*
        |Symbol\ resolution\ may\ be\ skewed\ .*
        |Samples\ in\ kernel\ .*\ can't\ be\ resolved.*
        |.*\ was\ found,\ but\ .*
        |\[\ perf\ (?:record|script):\ .*\]?
        |Lowering\ default\ frequency\ rate\ .*
        |Please\ consider\ tweaking\ .*
    )\s*""",
    re.VERBOSE,
)
_RECORD = re.compile(rb".*\s\d+\.\d{6,9}:\s+PERF_RECORD_[A-Z_0-9]+\b.*")
_LONGEST_NAME = 63  # of a kernel's worker, with what it works on; TASK_COMM_LEN - 1 of all others
_LONGEST_BROKEN = 15
_FRAME = re.compile(rb"\s*(?P<ip>[0-9a-f]+) (?P<symbol>.*)", re.DOTALL)
_FILE = re.compile(rb" \((?=/|\[|inlined\)|anon_inode:)")
_SOURCE = re.compile(rb"  \S+:\d+|  \S+\[[0-9a-f]+\]")  # a line of source, after a frame
_OFFSET = re.compile(rb"\+0x[0-9a-f]+$")

_CHUNK = 4 << 20  # bytes of text at a time
_KEPT = 1 << 17  # texts of stacks that are remembered
_LONGEST = 64 << 20  # bytes of one sample: this is no longer text of perf


@dataclasses.dataclass(frozen=True)
class Profile:
    """Samples of one recording.

    Attributes
    ----------
    samples : DataFrame
        One row a sample in the order of time, columns as in the table ``samples``.
    offsets, frame_ids : array of int64, array of uint32
        Stack `i` is ``frame_ids[offsets[i]:offsets[i + 1]]``, the innermost frame first.
    frames : DataFrame
        One row a frame, columns as in the table ``frames``.
    """

    samples: pd.DataFrame
    offsets: npt.NDArray[np.int64]
    frame_ids: npt.NDArray[np.uint32]
    frames: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables ``samples``, ``stacks`` and ``frames``, without ``repeat``."""
        number = np.arange(len(self.offsets) - 1, dtype=np.uint32)
        parts = np.split(self.frame_ids, self.offsets[1:-1])
        stacks = pd.DataFrame({"stack": number, "frames": parts[: len(number)]})
        return {"samples": self.samples, "stacks": stacks, "frames": self.frames}

    @classmethod
    def of_tables(
        cls, samples: pd.DataFrame, stacks: pd.DataFrame, frames: pd.DataFrame
    ) -> Profile:
        """Return the profile that such tables hold."""
        lists = list(stacks.sort_values("stack")["frames"])
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        ids = np.concatenate([np.zeros(0, np.uint32), *lists]).astype(np.uint32)
        return cls(
            samples.reset_index(drop=True),
            offsets,
            ids,
            frames.sort_values("frame").reset_index(drop=True),
        )


Comms = Callable[[npt.NDArray[Any], npt.NDArray[Any]], tuple[npt.NDArray[Any], list[bytes]]]
Inline = Callable[[list[tuple[bytes, bytes, int]]], list[list[bytes]]]


class Parser:
    """Takes text of ``perf script`` piece by piece.

    Parameters
    ----------
    theirs : bool
        Whether it is text of somebody else's settings, with the names of processes in it.
    cpu, period : bool
        Otherwise, what `fields` was given.

    Attributes
    ----------
    lines : dict of bytes to int
        The lines of frames met so far, each with its number.
    """

    def __init__(self, *, theirs: bool = False, cpu: bool = True, period: bool = True) -> None:
        self._cpu, self._period = cpu, period
        self._header = _THEIRS if theirs else _OURS
        self._theirs = theirs
        self._rest = b""
        self._waiting: list[bytes] = []
        self._size = 0
        self._texts: dict[bytes, int] = {}
        self.lines: dict[bytes, int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}
        self._numbers: list[npt.NDArray[np.int64]] = []  # pid, tid, cpu, time, period
        self._events: list[npt.NDArray[np.int32]] = []
        self._event_names: dict[bytes, int] = {}
        self._comms: list[npt.NDArray[np.int32]] = []
        self._comm_names: dict[bytes, int] = {}
        self._ids: list[npt.NDArray[np.uint32]] = []
        self.fragments = 0  # pieces of text that are no sample
        self._line = 1  # number of the next
        self._left = b""  # what may be the beginning of a name that goes on in the next piece

    # ---- text in ----

    def feed(self, text: bytes) -> None:
        """Take more text; its end may be anywhere.

        Raises
        ------
        ProfileError
            When it is no such text.
        """
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= _CHUNK:
            self._advance()

    def _advance(self) -> None:
        """Take as many whole samples as there are."""
        self._rest = b"".join([self._rest, *self._waiting])
        self._waiting, self._size = [], 0
        cut = self._cut()
        if cut > 0:
            whole, self._rest = self._rest[:cut], self._rest[cut + 2 :]
            self._take(whole)
            self._line += whole.count(b"\n") + 2
            if self._left:
                self._rest = b"\n\n".join([self._left, self._rest])
                self._line -= self._left.count(b"\n") + 2
        elif len(self._rest) > _LONGEST:
            raise ProfileError("a single sample has more than 64 MiB of text: perf prints no such.")

    def _cut(self) -> int:
        """Return where the last empty line is that a sample follows, or -1."""
        cut = len(self._rest) - 256  # enough to see what follows
        while (cut := self._rest.rfind(b"\n\n", 0, max(cut, 0))) > 0:
            follows = self._rest[cut + 2 : cut + 258].partition(b"\n\t")[0]
            if self._header.match(follows) if not self._theirs else _begins_sample(follows):
                return cut
        return -1

    def _take(self, text: bytes) -> None:
        """Take whole samples."""
        if self._theirs:
            self._take_patiently(text)
            return
        heads, ids = [], []
        known = self._texts.get
        for block in text.split(b"\n\n"):
            head, _, stack = block.partition(b"\n")
            number = known(stack)
            if number is None:
                # Frames begin with a tab; anything else is for the patient.
                if stack.count(b"\n") != stack.count(b"\n\t") or stack[:1] != b"\t":
                    break
                number = self._stack(stack.split(b"\n"))
                if len(self._texts) >= _KEPT:
                    self._texts.clear()
                self._texts[stack] = number
            heads.append(head)
            ids.append(number)
        else:
            if self._fast(heads):
                self._ids.append(np.array(ids, np.uint32))
                return
        self._take_patiently(text)

    def _stack(self, text: list[bytes]) -> int:
        """Return the number of the stack that has these lines."""
        lines = self.lines
        try:
            numbers = tuple(map(lines.__getitem__, text))
        except KeyError:
            for line in text:
                lines.setdefault(line, len(lines))
            numbers = tuple(map(lines.__getitem__, text))
        return self._stacks.setdefault(numbers, len(self._stacks))

    def _fast(self, heads: list[bytes]) -> bool:
        """Take the lines about samples, if each has the words of an ordinary one."""
        words, each = b" ".join(heads).split(), 3 + self._cpu + self._period
        if len(words) != each * len(heads) or not heads:
            return False
        tokens = iter(words[start::each] for start in range(each))
        pids = next(tokens)
        cpus = next(tokens) if self._cpu else [b"-1"] * len(heads)
        times = next(tokens)
        periods = next(tokens) if self._period else [b"1"] * len(heads)
        events = next(tokens)
        tasks = b" ".join(pids).replace(b"/", b" ")
        processors = b" ".join(cpus).translate(None, b"[]")
        nanoseconds = b" ".join(times)
        if nanoseconds.count(b":") != len(heads) or nanoseconds.count(b".") != len(heads):
            return False
        names = self._event_names
        try:
            columns = [
                *_integers(tasks, 2 * len(heads)).reshape(-1, 2).T,
                _integers(processors, len(heads)),
                _integers(nanoseconds.translate(None, b".:"), len(heads)),
                _integers(b" ".join(periods), len(heads)),
            ]
        except (ValueError, OverflowError):
            return False
        codes = [names.setdefault(word, len(names)) for word in events]
        self._numbers.append(np.vstack(columns))
        self._events.append(np.array(codes, np.int32))
        return True

    def _take_patiently(self, text: bytes) -> None:
        """Take samples whose text is not as regular: names with newlines, samples of one line."""
        rows, events, comms, ids = [], [], [], []
        for match, stack in (self._their_samples if self._theirs else self._samples)(text):
            found = match.groupdict()
            scale = 10 ** (9 - len(found["ns"]))
            time = int(found["s"]) * 1_000_000_000 + int(found["ns"]) * scale
            tid = int(found["tid"])
            pid = int(found["pid"]) if found["pid"] else tid
            cpu = int(found["cpu"]) if found["cpu"] else -1
            # perf prints no period of an event that it was not asked to vary.
            rows.append((pid, tid, cpu, time, int(found["period"] or 1)))
            name = found["event"].rstrip(b":")
            events.append(self._event_names.setdefault(name + b":", len(self._event_names)))
            comm = found.get("comm", b"")
            comms.append(self._comm_names.setdefault(comm, len(self._comm_names)))
            ids.append(self._stack(stack))
        if rows:
            try:
                numbers = np.array(rows, np.int64).T
                too_large = bool((np.abs(numbers[:3]) >= 1 << 31).any())  # pid, tid, cpu
            except OverflowError:
                too_large = True
            if too_large:
                raise ProfileError(
                    "a sample's time or number is larger than any that a kernel has: the "
                    "recording is damaged."
                )
            self._numbers.append(np.ascontiguousarray(numbers))
            self._events.append(np.array(events, np.int32))
            if self._theirs:
                self._comms.append(np.array(comms, np.int32))
            self._ids.append(np.array(ids, np.uint32))

    def _samples(self, text: bytes) -> Iterator[tuple[re.Match[bytes], list[bytes]]]:
        """Yield each sample: what its first line says, and the lines of its frames."""
        head: list[bytes] = []  # lines that may yet turn out to be one about a sample
        match: re.Match[bytes] | None = None
        frames: list[bytes] = []
        for line in text.split(b"\n"):
            if line[:1] == b"\t" and match and not head and _FRAME.fullmatch(line):
                frames.append(line)
                continue
            whole = not frames or self._closed(frames[-1])
            if not head and whole and (not line or _SOURCE.fullmatch(line)):
                continue
            candidate = b"\n".join([*head, line])
            begun = self._header.fullmatch(candidate)
            if begun is None:
                # The rest of a path with a newline, or the beginning of a name with one.
                if frames and not head and not whole:
                    frames[-1] += b"\n" + line
                elif len(candidate) < 4096:
                    head.append(line)
                else:
                    self.fragments += 1
                    head = []
                continue
            if match:
                yield match, frames
            match, head = begun, []
            frame = match["frame"]
            frames = [b"\t" + frame.strip()] if frame and _FRAME.fullmatch(frame) else []
        self.fragments += bool(head)
        if match:
            yield match, frames

    def _their_samples(self, text: bytes) -> Iterator[tuple[re.Match[bytes], list[bytes]]]:
        """Do as `_samples` does with somebody else's text, of which no line is passed over.

        Raises
        ------
        ProfileError
            When a line is none of those that perf script prints; it is named.
        """
        waiting: list[bytes] = []  # lines that may be the beginning of a name
        match: re.Match[bytes] | None = None
        frames: list[bytes] = []
        for number, line in enumerate(text.split(b"\n"), self._line):
            line = line.removesuffix(b"\r")
            inside = match and not waiting and line[:1] == b"\t"
            if inside and (line in self.lines or _FRAME.fullmatch(line)):
                frames.append(line)
                continue
            begun = _their_head(b"\n".join([*waiting, line]))
            if begun:
                if match:
                    yield match, frames
                match, waiting = begun, []
                frame = match["frame"]
                frames = [b"\t" + frame.strip()] if frame and _FRAME.fullmatch(frame) else []
            elif not waiting and (not line.strip() or _NEITHER.fullmatch(line)):
                continue
            elif match and not waiting and _of_stack(line):
                if _FRAME.fullmatch(line):
                    frames.append(b"\t" + line.strip())
            elif frames and not waiting and not _is_closed(frames[-1]):
                frames[-1] += b"\n" + line  # the rest of a path
            elif len(b"\n".join([*waiting, line]).lstrip()) < _LONGEST_BROKEN:
                waiting.append(line)
            else:
                raise _strange(number - len(waiting), (waiting or [line])[0])
        self._left = b"\n".join(waiting)
        if match:
            yield match, frames

    def _closed(self, line: bytes) -> bool:
        """Tell whether a frame's line has its end."""
        return line.endswith(b")")

    # ---- columns out ----

    def printed(self) -> Printed:
        """Return the samples as they stand in the text, once all of it was fed.

        Raises
        ------
        ProfileError
            When there was text but no sample in it.
        """
        self._advance()
        rest, self._rest = self._rest.rstrip(b"\n"), b""
        if rest:
            self._take(rest)
        if self._left.strip():
            raise _strange(self._line + rest.count(b"\n") - self._left.count(b"\n"), self._left)
        if not self._numbers:
            raise ProfileError("there is no sample in the text of perf script.")
        pid, tid, cpu, time, period = np.hstack(self._numbers)
        # Text that turned out to be irregular has left stacks that no sample has.
        used, stack = np.unique(np.concatenate(self._ids), return_inverse=True)
        every = list(self._stacks)
        comms = np.concatenate(self._comms) if self._theirs else np.full(len(tid), -1, np.int32)
        return Printed(
            Columns(time, cpu, pid, tid, period, np.concatenate(self._events), stack),
            [name.rstrip(b":") for name in self._event_names],
            comms,
            list(self._comm_names),
            [every[number] for number in used.tolist()],
            list(self.lines),
        )

    def finish(self, comms: Comms | None = None, inlines: Inline | None = None) -> Profile:
        """Return the samples, once all text was fed.

        Parameters
        ----------
        comms : callable, optional
            Given arrays of tids and times in ns, returns an array of codes and the names they
            stand for.
        inlines : callable, optional
            Given symbol, file and address of every frame, returns for each the functions inlined
            there, the innermost first.

        Raises
        ------
        ProfileError
            When there was text but no sample in it.
        """
        found = self.printed()
        codes, names = found.comms, found.comm_names
        if comms:
            codes, names = comms(found.columns.tid, found.columns.time)
        flat = np.fromiter(chain(*found.stacks), np.int64)
        lines, frames = np.unique(flat, return_inverse=True)
        named = Frames.named([found.lines[line] for line in lines.tolist()], inlines)
        lengths = np.fromiter(map(len, found.stacks), np.int64, len(found.stacks))
        return Profile(
            found.columns.table(found.event_names, codes, names), *named.stacks(frames, lengths)
        )


class Columns(NamedTuple):
    """Samples in whatever order, an array of int64 for each: see the table ``samples``.

    Attributes
    ----------
    time, cpu, pid, tid, period, stack : array
        The time since the machine was booted; -1 for a processor that is not known.
    event : array
        Codes.
    """

    time: npt.NDArray[np.int64]
    cpu: npt.NDArray[np.int64]
    pid: npt.NDArray[np.int64]
    tid: npt.NDArray[np.int64]
    period: npt.NDArray[np.int64]
    event: npt.NDArray[Any]
    stack: npt.NDArray[np.int64]

    def table(
        self, events: list[bytes], comms: npt.NDArray[Any], names: list[bytes]
    ) -> pd.DataFrame:
        """Return the table ``samples``, given what the codes of events and of names stand for."""
        order = np.argsort(self.time, kind="stable")
        cpu = self.cpu[order].astype(np.int32)
        columns = {
            "time_ns": (self.time - self.time.min())[order],
            "cpu": pd.arrays.IntegerArray(cpu, cpu < 0),
            "pid": self.pid[order].astype(np.int32),
            "tid": self.tid[order].astype(np.int32),
            "comm": _categories(comms[order], names),
            "event": _categories(self.event[order], events),
            "period": self.period[order],
            "stack": self.stack[order].astype(np.uint32),
        }
        return pd.DataFrame(columns, columns=schema.columns("samples"), copy=False)


class Printed(NamedTuple):
    """What text of ``perf script`` says, before anything is made of it.

    Attributes
    ----------
    columns : Columns
        Samples in the order of the text.
    event_names : list of bytes
        What the codes of events stand for.
    comms, comm_names : array, list of bytes
        Codes of the names of threads, -1 where the text has none, and what they stand for.
    stacks : list of tuple of int
        Numbers of lines, the innermost first.
    lines : list of bytes
        The lines about frames.
    """

    columns: Columns
    event_names: list[bytes]
    comms: npt.NDArray[np.int32]
    comm_names: list[bytes]
    stacks: list[tuple[int, ...]]
    lines: list[bytes]


class Frames(NamedTuple):
    """What lines about frames say: each is a frame, or several where functions were inlined.

    Attributes
    ----------
    table : DataFrame
        Columns as in the table ``frames``.
    first, ids : array of int64, array of uint32
        Line `i` is the frames ``ids[first[i]:first[i + 1]]``, the innermost first.
    """

    table: pd.DataFrame
    first: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint32]

    @classmethod
    def named(cls, lines: list[bytes], inlines: Inline | None) -> Frames:
        """Name the frames: lines that differ in the address alone are one."""
        parts = [_frame(line) for line in lines]
        within = inlines(parts) if inlines else [[] for _ in parts]
        known: dict[tuple[bytes, bytes, bool, bool], int] = {}
        ids, first = [], [0]
        for (symbol, file, address), inner in zip(parts, within, strict=True):
            kernel = _is_kernel(address, file)
            keys = [(name, file, kernel, True) for name in inner]
            keys.append((symbol, b"" if file == b"inlined" else file, kernel, file == b"inlined"))
            ids += [known.setdefault(key, len(known)) for key in keys]
            first.append(len(ids))
        frames = pd.DataFrame(
            {
                "frame": np.arange(len(known), dtype=np.uint32),
                "symbol": pd.Series([_shown(key[0]) for key in known], dtype="str"),
                "file": pd.Categorical([_base(key[1]) for key in known]),
                "kernel": np.array([key[2] for key in known], bool),
                "inlined": np.array([key[3] for key in known], bool),
            },
            columns=schema.columns("frames"),
        )
        return cls(frames, np.array(first, np.int64), np.array(ids, np.uint32))

    def stacks(
        self, lines: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], pd.DataFrame]:
        """Return offsets, frames and table of a `Profile`.

        Parameters
        ----------
        lines : array
            The lines of all stacks, one stack after the other.
        lengths : array
            How many each stack has.
        """
        each = np.diff(self.first)[lines]
        ends = np.concatenate(([0], np.cumsum(each)))
        within = np.arange(ends[-1]) - np.repeat(ends[:-1], each)
        offsets = ends[np.concatenate(([0], np.cumsum(lengths)))]
        return offsets, self.ids[np.repeat(self.first[lines], each) + within], self.table


def read(
    pieces: Iterable[bytes],
    *,
    theirs: bool = False,
    cpu: bool = True,
    period: bool = True,
    limit: int | None = None,
    **names: Any,
) -> Profile:
    """Return the samples in text of ``perf script``.

    Parameters
    ----------
    pieces : iterable of bytes
        The text, in pieces of any size.
    theirs, cpu, period : bool
        See `Parser`.
    limit : int, optional
        Bytes of text that are taken at most.
    **names
        See `Parser.finish`.

    Raises
    ------
    ProfileError
        One sentence: no such text, or more than `limit`.
    """
    parser = Parser(theirs=theirs, cpu=cpu, period=period)
    size = 0
    for piece in pieces:
        size += len(piece)
        if limit is not None and size > limit:
            raise ProfileError(too_long(limit))
        parser.feed(piece)
    return parser.finish(**names)


def too_long(limit: int) -> str:
    """Return the sentence about text of more than `limit` bytes."""
    return (
        f"the text of perf script is longer than {limit >> 20} MiB: take a part of the recording "
        "with 'perf script --time', or give more with --limit."
    )


def is_script(start: bytes) -> bool:
    """Tell whether text that begins so is of ``perf script``: has a sample or record, and when."""
    lines = [line for line in start.split(b"\n") if len(line) < 4096]
    return any(_THEIRS.fullmatch(line) or _RECORD.fullmatch(line) for line in lines)


# ---- words ----


def _their_head(text: bytes) -> re.Match[bytes] | None:
    """Return what the first line of a sample says; None if it is another's."""
    if len(text) > 1 << 16:
        return None
    match = _THEIRS.fullmatch(text)
    if match is None or (match["event"].startswith(b"PERF_RECORD_")):
        return None
    longest = _LONGEST_BROKEN if b"\n" in match["comm"] else _LONGEST_NAME
    return match if len(match["comm"]) <= longest else None


def _begins_sample(text: bytes) -> bool:
    """Tell whether the next line is the first of a sample, and of nothing before it."""
    return _their_head(text.partition(b"\n")[0]) is not None


def _of_stack(line: bytes) -> bool:
    """Tell whether a line stands among the frames of a sample: one of them, or its source."""
    return bool(_SOURCE.fullmatch(line) or (line[:1].isspace() and _FRAME.fullmatch(line)))


def _is_closed(line: bytes) -> bool:
    """Tell whether a frame's line has its end; somebody may have asked for no files."""
    return line.endswith(b")") or not _FILE.search(line)


def _strange(number: int, line: bytes) -> ProfileError:
    return ProfileError(
        f"line {number} is neither of a sample nor of a frame, nor anything else that perf script "
        f"prints: {_shown(line.strip()[:60])!r}."
    )


def _integers(text: bytes, count: int) -> npt.NDArray[np.int64]:
    """Return the integers of text, of which there are to be `count`."""
    found = np.fromiter(map(int, text.split()), np.int64)
    if len(found) != count:
        raise ValueError
    return found


def _frame(line: bytes) -> tuple[bytes, bytes, int]:
    """Take a frame's line apart: symbol, file, address."""
    match = _FRAME.fullmatch(line)
    if match is None:
        return _UNKNOWN, b"", 0
    text = match["symbol"]
    where = _FILE.search(text)
    if where:
        symbol, file = text[: where.start()], text[where.end() :].removesuffix(b")")
    else:
        symbol, bracket, file = text.rpartition(b" (")
        if not bracket:
            symbol, file = text, b""
        file = file.removesuffix(b")")
    symbol = _OFFSET.sub(b"", symbol.strip())
    return symbol or _UNKNOWN, file.removesuffix(b" (deleted)"), int(match["ip"], 16)


_UNKNOWN = b"[unknown]"


def _is_kernel(address: int, file: bytes) -> bool:
    """Tell kernel mode: the upper half of addresses, or the kernel's name."""
    if file == b"[vsyscall]":
        return False
    return address >= 1 << 63 or file.startswith((b"[kernel", b"[guest.kernel"))


def _base(file: bytes) -> str | None:
    """Return the last component of a file's name: the rest tells whose it is."""
    if not file or file == _UNKNOWN:
        return None
    return _shown(file if file.startswith(b"[") else PurePosixPath(_shown(file)).name.encode())


def _shown(name: bytes) -> str:
    """Decode a symbol; whatever would disturb a line shows as an escape sequence."""
    return printable(name.decode("utf-8", "backslashreplace"))


def _categories(codes: npt.NDArray[Any], names: list[bytes]) -> pd.Categorical:
    """Return a column of names; different bytes that decode alike are one."""
    decoded = [name.decode("utf-8", "backslashreplace") for name in names]
    distinct = list(dict.fromkeys(decoded))
    places = {name: place for place, name in enumerate(distinct)}
    table = np.array([places[name] for name in decoded] + [-1], np.int32)
    return pd.Categorical.from_codes(table[codes], categories=pd.Index(distinct, dtype="str"))
