# SPDX-License-Identifier: GPL-2.0-only
"""Samples, their stacks and frames, as the tables of a run have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.perf import script_lines
from anonvma.run import schema


@dataclasses.dataclass(frozen=True)
class Profile:
    """Samples of one recording.

    Attributes
    ----------
    samples : DataFrame
        One row per sample in the order of time, columns as in the table ``samples``.
    offsets, frame_ids : array of int64, array of uint32
        Stack `i` is ``frame_ids[offsets[i]:offsets[i + 1]]``, the innermost frame first.
    frames : DataFrame
        One row per frame, columns as in the table ``frames``.
    lost : int
        Samples that the kernel said were lost, as far as the text has it.
    """

    samples: pd.DataFrame
    offsets: npt.NDArray[np.int64]
    frame_ids: npt.NDArray[np.uint32]
    frames: pd.DataFrame
    lost: int = 0

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
        parts = [script_lines.frame_of(line) for line in lines]
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
                "symbol": pd.Series([script_lines.shown(key[0]) for key in known], dtype="str"),
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


def _is_kernel(address: int, file: bytes) -> bool:
    """Tell kernel mode: the upper half of addresses, or the kernel's name."""
    if file == b"[vsyscall]":
        return False
    return address >= 1 << 63 or file.startswith((b"[kernel", b"[guest.kernel"))


def _base(file: bytes) -> str | None:
    """Return the last component of a file's name: the rest tells whose it is."""
    if not file or file == script_lines.UNKNOWN:
        return None
    return script_lines.shown(
        file if file.startswith(b"[") else PurePosixPath(script_lines.shown(file)).name.encode()
    )


def _categories(codes: npt.NDArray[Any], names: list[bytes]) -> pd.Categorical:
    """Return a column of names; different bytes that decode alike are one."""
    decoded = [name.decode("utf-8", "backslashreplace") for name in names]
    distinct = list(dict.fromkeys(decoded))
    places = {name: place for place, name in enumerate(distinct)}
    table = np.array([places[name] for name in decoded] + [-1], np.int32)
    return pd.Categorical.from_codes(table[codes], categories=pd.Index(distinct, dtype="str"))


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

    def profile(self, comms: Comms | None = None, inlines: Inline | None = None) -> Profile:
        """Return the samples, their frames named.

        Parameters
        ----------
        comms : callable, optional
            Given arrays of tids and times in ns, returns an array of codes and the names they
            stand for.
        inlines : callable, optional
            Given symbol, file and address of every frame, returns for each the functions inlined
            there, the innermost first.
        """
        codes, names = self.comms, self.comm_names
        if comms:
            codes, names = comms(self.columns.tid, self.columns.time)
        flat = np.fromiter(chain(*self.stacks), np.int64)
        lines, frames = np.unique(flat, return_inverse=True)
        named = Frames.named([self.lines[line] for line in lines.tolist()], inlines)
        lengths = np.fromiter(map(len, self.stacks), np.int64, len(self.stacks))
        return Profile(
            self.columns.table(self.event_names, codes, names), *named.stacks(frames, lengths)
        )
