# SPDX-License-Identifier: GPL-2.0-only
"""A recording cut down to what perf is needed for: a name for each address, once.

perf resolves symbols better than anyone else, and prints the stack of each sample as if it had
never seen one; of the text of a million samples nearly all is repetition. What an address resolves
to depends on the mode of the processor, on the process, and on what was mapped at the time, and on
nothing else. So the samples are read here, as columns; as many of them are kept, in a recording
that is otherwise the same, as it takes to have every address in one; and what ``perf script``
prints of that is put back into the stacks of all.

That is not taken on trust: what is printed has to be the samples kept, with as many frames as they
have addresses, and the same address always the same line. Where it is not, and where perf does
more than to resolve addresses (it unwinds copies of stacks by DWARF, and mends stacks by the
processor's records of branches), perf has to print it all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.perf import raw_samples
from anonvma.perf.raw_samples import Samples
from anonvma.perf.recording import PIECE, File
from anonvma.perf.recording_format import Record, Sample
from anonvma.perf.stacks import Columns, Comms, Frames, Inline, Printed, Profile

_Ints = npt.NDArray[np.int64]

_MORE_THAN_ADDRESSES = Sample.BRANCH_STACK | Sample.REGS_USER | Sample.STACK_USER

# Records that change what an address means, and those that do not. A recording with any other is
# read in full.
_MAPS = (Record.MMAP, Record.MMAP2, Record.FORK, Record.EXIT, Record.COMM)
_KERNEL_MAPS = (Record.KSYMBOL, Record.BPF_EVENT, Record.TEXT_POKE)
_NO_MAPS = (
    *(Record.SAMPLE, Record.LOST, Record.LOST_SAMPLES, Record.THROTTLE, Record.UNTHROTTLE),
    *(Record.READ, Record.SWITCH, Record.SWITCH_CPU_WIDE, Record.NAMESPACES, Record.CGROUP),
    *(Record.FINISHED_ROUND, Record.FINISHED_INIT, Record.ID_INDEX, Record.THREAD_MAP),
    *(Record.CPU_MAP, Record.EVENT_UPDATE, Record.TIME_CONV, Record.HEADER_FEATURE),
)

# include/uapi/linux/perf_event.h: bits of a record's misc, and what stands in a chain before the
# addresses of each mode.
_CPUMODE, _KERNEL_MODE, _EXEC = 7, 1, 1 << 13
_KERNEL, _USER = -128, -512
_CONTEXTS = (-32, _KERNEL, _USER, -2048, -2176, -2560)  # PERF_CONTEXT_HV to _GUEST_USER
_CONTEXT_MAX = -4095
_BARE = 8  # as a mode: of a sample without a chain
_AT_ONCE = 1 << 16  # samples whose places are Python's numbers, which take five times the memory


class Abridged(NamedTuple):
    """What it takes to read the whole of a recording, given the names in a part of it.

    Attributes
    ----------
    samples : Samples
        All of them.
    kept : array of int64
        Which of them the part has.
    stack : array of int64
        The stack of each sample.
    lengths, address : array of int64
        How many addresses each stack has, and these, one stack after the other. An address here
        is whatever resolves alike.
    """

    samples: Samples
    kept: _Ints
    stack: _Ints
    lengths: _Ints
    address: _Ints

    def whole(
        self, printed: Printed, comms: Comms | None = None, inlines: Inline | None = None
    ) -> Profile | None:
        """Return the samples of the whole recording; None if the part was not what was printed.

        Parameters
        ----------
        printed : Printed
            What ``perf script`` said of the part.
        comms, inlines : callable, optional
            See `anonvma.perf.script.Parser.finish`.
        """
        order = np.argsort(printed.columns.time, kind="stable")
        kept = self.kept[np.argsort(self.samples.time[self.kept], kind="stable")]
        if not self._is_part(printed.columns, order, kept):
            return None
        lines = self._lines(printed, order, kept)
        names = _table(self.samples.event[kept], printed.columns.event[order])
        if lines is None or names is None:
            return None
        used, place = np.unique(lines, return_inverse=True)
        frames = Frames.named([printed.lines[line] for line in used.tolist()], inlines)
        stack, stacks = _distinct(*frames.stacks(place[self.address], self.lengths)[:2])
        samples = self.samples
        codes, known = comms(samples.tid, samples.time) if comms else (_none(samples.tid), [])
        columns = Columns(
            samples.time,
            samples.cpu,
            samples.pid,
            samples.tid,
            samples.period,
            names[samples.event],
            stack[self.stack],
        )
        return Profile(columns.table(printed.event_names, codes, known), *stacks, frames.table)

    def _is_part(self, columns: Columns, order: _Ints, kept: _Ints) -> bool:
        """Tell whether these are the samples that were kept."""
        if len(order) != len(kept):
            return False
        pairs = (
            (columns.time, self.samples.time),
            (columns.pid, self.samples.pid),
            (columns.tid, self.samples.tid),
        )
        return all(np.array_equal(theirs[order], ours[kept]) for theirs, ours in pairs)

    def _lines(self, printed: Printed, order: _Ints, kept: _Ints) -> _Ints | None:
        """Return the line of each address."""
        stacks = [printed.stacks[stack] for stack in printed.columns.stack[order].tolist()]
        lengths = self.lengths[self.stack[kept]]
        if [len(stack) for stack in stacks] != lengths.tolist():
            return None
        ends = np.cumsum(self.lengths)
        addresses = self.address[_ranges((ends - self.lengths)[self.stack[kept]], lengths)]
        flat = np.fromiter((line for stack in stacks for line in stack), np.int64, len(addresses))
        return _table(addresses, flat)


def abridge(file: File, output: Path) -> Abridged | None:
    """Write the part of a recording that has every address.

    Parameters
    ----------
    file : File
        The recording.
    output : path
        Where to.

    Returns
    -------
    Abridged or None
        None, and nothing is written, where perf has to print it all.
    """
    if any(attr.kind & _MORE_THAN_ADDRESSES for attr in file.attrs):
        return None
    if not np.isin(file.heads.kind, (*_MAPS, *_KERNEL_MAPS, *_NO_MAPS)).all():
        return None
    samples = raw_samples.read(file)
    spaces = _spaces(file, samples) if samples else None
    if samples is None or spaces is None:
        return None
    stack = _stacks(file, samples, spaces)
    first = _firsts(stack)
    lengths, address = _addresses(file, samples, spaces, first)
    kept = np.zeros(len(stack), bool)
    kept[first[np.repeat(np.arange(len(first)), lengths)[_firsts(address)]]] = True
    kept[np.unique(samples.event, return_index=True)[1]] = True  # perf names the events, too
    wanted = np.ones(len(file.heads.kind), bool)
    wanted[samples.record[~kept]] = False
    file.copy(output, wanted)
    return Abridged(samples, np.flatnonzero(kept), stack, lengths, address)


# ---- what an address depends on ----


class _Spaces(NamedTuple):
    """For each sample, what was mapped then in its process, and in the kernel; as numbers."""

    user: _Ints
    kernel: _Ints


def _spaces(file: File, samples: Samples) -> _Spaces | None:
    """Number what was mapped when; None if the order of records does not tell."""
    found = _changes(file, int(file.heads.offset[samples.record[0]]))
    if found is None:
        return None
    kernel = np.array([time for pid, time in found if pid == _IN_KERNEL], np.int64)
    own = np.array([each for each in found if each[0] != _IN_KERNEL], np.int64).reshape(-1, 2)
    # One number for a process and a time, which counts up with the time.
    pid, _ = pd.factorize(np.concatenate([samples.pid, own[:, 0]]))
    time = np.concatenate([samples.time, own[:, 1]])
    steps = 2 * len(own) + 1
    moment = pid * steps + _rank(np.sort(own[:, 1]), time)
    count = len(samples.pid)
    user = pid[:count] * steps + _rank(np.sort(moment[count:]), moment[:count])
    return _Spaces(user, _rank(np.sort(kernel), samples.time))


_IN_KERNEL = -1


def _changes(file: File, begun: int) -> list[tuple[int, int]] | None:
    """Return pid and time of all that changed what is mapped; None if that cannot be told.

    What has no time perf made up before the first sample, which is at byte `begun`.
    """
    found = []
    for offset, size in file.records_of(*_MAPS, *_KERNEL_MAPS):
        time = file.time_of(offset, size)
        if size < 24 or (not time and offset > begun):
            return None
        kind, misc, _, pid, other, tid = struct.unpack_from("<IHHiii", file.data, offset)
        if kind in _KERNEL_MAPS:
            pid = _IN_KERNEL
        elif kind in (Record.MMAP, Record.MMAP2):
            pid = _IN_KERNEL if misc & _CPUMODE == _KERNEL_MODE else pid
        elif kind == Record.FORK and pid == other:
            continue  # a thread, with its parent's maps
        elif (kind == Record.EXIT and pid != tid) or (kind == Record.COMM and not misc & _EXEC):
            continue
        if time:
            found.append((pid, time))
    return found


def _rank(among: _Ints, values: _Ints) -> _Ints:
    """Return where values are among sorted ones; what is equal to one has a rank of its own."""
    return np.searchsorted(among, values, "left") + np.searchsorted(among, values, "right")


def _stacks(file: File, samples: Samples, spaces: _Spaces) -> _Ints:
    """Number the stacks: the same addresses with the same maps in the same mode."""
    known = dict[bytes, int]()

    def numbers() -> Iterator[int]:
        data, number, kept = file.data, known.setdefault, 0
        for first in range(0, len(samples.begin), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            begins = file.records[0] + 8 * samples.begin[part]
            ends = begins + 8 * samples.length[part]
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
                if begin - kept > 8 * PIECE:
                    file.give_back()
                    kept = begin
                yield number(data[begin:end], len(known))

    chains = np.fromiter(numbers(), np.int64, len(samples.begin))
    return _number(chains, spaces.user, spaces.kernel, _modes(samples))


def _modes(samples: Samples) -> _Ints:
    return (samples.misc & _CPUMODE) + _BARE * samples.bare


def _addresses(file: File, samples: Samples, spaces: _Spaces, first: _Ints) -> tuple[_Ints, _Ints]:
    """Return how many addresses each stack has, and their numbers.

    Parameters
    ----------
    file, samples, spaces
    first : array of int64
        A sample that has it, for each stack.
    """
    length = samples.length[first]
    words = file.gathered(_ranges(samples.begin[first], length)).view(np.int64)
    stack = np.repeat(np.arange(len(first)), length)
    marks = (words < 0) & (words >= _CONTEXT_MAX)
    # Where frame pointers are used for something else, a value may look like a mark. perf drops
    # such a chain (tools/perf/util/machine.c, add_callchain_ip).
    dropped = np.zeros(len(first), bool)
    dropped[stack[marks][~np.isin(words[marks], _CONTEXTS)]] = True
    # The mode is what the last mark before says, in the same chain, else the sample's own.
    last = np.maximum.accumulate(np.where(marks, np.arange(len(words)), -1))
    marked = last >= (np.cumsum(length) - length)[stack]
    mode = np.where(marked, words[last], _modes(samples)[first][stack])
    user = np.where(mode == _KERNEL, -1, spaces.user[first][stack])
    kernel = np.where(mode == _USER, -1, spaces.kernel[first][stack])
    chosen = ~marks & ~dropped[stack]
    columns = (column[chosen] for column in (words, mode, user, kernel))
    return np.bincount(stack[chosen], minlength=len(first)), _number(*columns)


# ---- numbers ----


def _number(*columns: _Ints) -> _Ints:
    """Number the distinct rows of columns, as they appear."""
    number = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        codes, distinct = pd.factorize(column)
        if len(distinct) > 1:
            number = pd.factorize(number * len(distinct) + codes)[0]
    return number


def _firsts(numbers: _Ints) -> _Ints:
    """Return where each number is for the first time; they are numbered as they appear."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(numbers), prepend=-1))


def _ranges(begins: _Ints, lengths: _Ints) -> _Ints:
    """Return the numbers of ranges, one range after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(begins - (ends - lengths), lengths) + np.arange(lengths.sum())


def _table(keys: _Ints, values: _Ints) -> _Ints | None:
    """Return a value for each key from 0; None unless each has one and always the same."""
    table = np.full(keys.max(initial=-1) + 1, -1, np.int64)
    table[keys] = values
    return table if (table[keys] == values).all() and (table >= 0).all() else None


def _none(like: _Ints) -> npt.NDArray[np.int32]:
    return np.full(len(like), -1, np.int32)


def _distinct(
    offsets: _Ints, ids: npt.NDArray[np.uint32]
) -> tuple[_Ints, tuple[_Ints, npt.NDArray[np.uint32]]]:
    """Give stacks that have the same frames one number; return it for each, and these stacks."""
    raw, known = ids.tobytes(), dict[bytes, int]()
    places = (4 * offsets).tolist()
    number = known.setdefault
    codes = np.fromiter(
        (number(raw[begin:end], len(known)) for begin, end in pairwise(places)),
        np.int64,
        len(offsets) - 1,
    )
    lengths = np.fromiter(map(len, known), np.int64, len(known)) // 4
    kept = np.frombuffer(b"".join(known), np.uint32)
    return codes, (np.concatenate(([0], np.cumsum(lengths))), kept)
