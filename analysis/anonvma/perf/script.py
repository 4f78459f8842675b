# SPDX-License-Identifier: GPL-2.0-only
"""What ``perf script`` prints, as samples with their stacks stored once.

It is a line about each sample, a line for each frame of its stack, and an empty line. Of a long
recording `anonvma.perf.deduplicated` has perf print a part only.

`fields` asks for no names of processes, which may hold newlines and whatever else would pass for
text of perf's own; `anonvma.perf.recording` reads them from the recording itself. Paths and symbols
may hold newlines, too: what does not begin as a sample or a frame does belongs to the line before
it. Text that somebody else printed has the names in it. There the last thing in a line that looks
like a thread, processor and time is taken for these, since a name is short and stands before them.
And each of its lines is accounted for: it is of a sample, of a frame, what is known to be neither
(`anonvma.perf.script_lines`: a header, records such as PERF_RECORD_MMAP2, a warning), or the text
is refused with the line's number. What stands before a sample is never taken for a part of its
name, unless the two together are no longer than the 15 bytes that a name with a newline can have.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from anonvma.base.errors import ProfileError
from anonvma.perf import script_lines
from anonvma.perf.stacks import Columns, Comms, Inline, Printed, Profile


def fields(cpu: bool = True, period: bool = True) -> tuple[str, ...]:
    """Return what to ask ``perf script`` for, of samples that have a processor and a period."""
    names = ["pid", "tid", *["cpu"] * cpu, "time", *["period"] * period, "event", "ip,sym,dso"]
    return ("--ns", "-F", ",".join(names))


_CHUNK = 4 << 20  # bytes of text at a time
_LONGEST = 64 << 20  # bytes of one sample: this is no longer text of perf


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
        self._header = script_lines.THEIRS if theirs else script_lines.OURS
        self._theirs = theirs
        self._rest = b""
        self._waiting: list[bytes] = []
        self._size = 0
        self.lines: dict[bytes, int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}
        self._numbers: list[npt.NDArray[np.int64]] = []  # pid, tid, cpu, time, period
        self._events: list[npt.NDArray[np.int32]] = []
        self._event_names: dict[bytes, int] = {}
        self._comms: list[npt.NDArray[np.int32]] = []
        self._comm_names: dict[bytes, int] = {}
        self._ids: list[npt.NDArray[np.uint32]] = []
        self.fragments = 0  # pieces of text that are no sample
        self.lost = 0  # samples, by records among them
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
            if (
                self._header.match(follows)
                if not self._theirs
                else script_lines.begins_sample(follows)
            ):
                return cut
        return -1

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

    def _take(self, text: bytes) -> None:
        """Take whole samples."""
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
            if line[:1] == b"\t" and match and not head and script_lines.FRAME.fullmatch(line):
                frames.append(line)
                continue
            whole = not frames or frames[-1].endswith(b")")
            if not head and whole and (not line or script_lines.SOURCE.fullmatch(line)):
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
            frames = (
                [b"\t" + frame.strip()] if frame and script_lines.FRAME.fullmatch(frame) else []
            )
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
            if inside and (line in self.lines or script_lines.FRAME.fullmatch(line)):
                frames.append(line)
                continue
            begun = script_lines.their_head(b"\n".join([*waiting, line]))
            if begun:
                if match:
                    yield match, frames
                match, waiting = begun, []
                frame = match["frame"]
                frames = (
                    [b"\t" + frame.strip()] if frame and script_lines.FRAME.fullmatch(frame) else []
                )
            elif not waiting and (not line.strip() or script_lines.NEITHER.fullmatch(line)):
                lost = script_lines.LOST.fullmatch(line)
                self.lost += int(lost["count"]) if lost else 0
            elif match and not waiting and script_lines.of_stack(line):
                if script_lines.FRAME.fullmatch(line):
                    frames.append(b"\t" + line.strip())
            elif frames and not waiting and not script_lines.is_closed(frames[-1]):
                frames[-1] += b"\n" + line  # the rest of a path
            elif len(b"\n".join([*waiting, line]).lstrip()) < script_lines.LONGEST_BROKEN:
                waiting.append(line)
            else:
                raise script_lines.strange(number - len(waiting), (waiting or [line])[0])
        self._left = b"\n".join(waiting)
        if match:
            yield match, frames

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
            raise script_lines.strange(
                self._line + rest.count(b"\n") - self._left.count(b"\n"), self._left
            )
        if not self._numbers:
            raise ProfileError("there is no sample in the text of perf script.")
        pid, tid, cpu, time, period = np.hstack(self._numbers)
        stack = np.concatenate(self._ids).astype(np.int64)
        comms = np.concatenate(self._comms) if self._theirs else np.full(len(tid), -1, np.int32)
        return Printed(
            Columns(time, cpu, pid, tid, period, np.concatenate(self._events), stack),
            [name.rstrip(b":") for name in self._event_names],
            comms,
            list(self._comm_names),
            list(self._stacks),
            list(self.lines),
        )

    def finish(self, comms: Comms | None = None, inlines: Inline | None = None) -> Profile:
        """Return the samples, once all text was fed; see `Printed.profile`.

        Raises
        ------
        ProfileError
            When there was text but no sample in it.
        """
        return self.printed().profile(comms, inlines)


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
    return dataclasses.replace(parser.finish(**names), lost=parser.lost)


def too_long(limit: int) -> str:
    """Return the sentence about text of more than `limit` bytes."""
    return (
        f"the text of perf script is longer than {limit >> 20} MiB: take a part of the recording "
        "with 'perf script --time', or give more with --limit."
    )
