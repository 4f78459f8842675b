# SPDX-License-Identifier: GPL-2.0-only
r"""The census file: what ``vmaprobe census`` wrote, as frames.

The layout is that of analysis/probe/census.h, read through NumPy structured dtypes:
columns of a million records are views into the file, not a million objects. Names are
bytes to the kernel; in the frames what is not UTF-8 shows as ``\xNN``, and the bytes
themselves stay in `Census.strings`.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import CensusError
from anonvma.probe import census_layout
from anonvma.probe.chains import chain_frame, slab_frame
from anonvma.probe.vma_kinds import ORIGINS, categorical, classify, origins, why_apart

_PROTECTIONS = tuple(
    ("r" if p & 1 else "-")
    + ("w" if p & 2 else "-")
    + ("x" if p & 4 else "-")
    + ("s" if p & 8 else "p")
    for p in range(16)
)


@dataclasses.dataclass(frozen=True)
class Census:
    """One decoded census file.

    Attributes
    ----------
    vmas : DataFrame
        One row per VMA, columns as `anonvma.run.schema` declares them.
    mms : DataFrame
        One row per mm: mm, tgid, tid, comm, tasks (how many share it), vmas, attempts,
        changed, unwatched, leader_gone.
    processes : DataFrame
        One row per process: tgid, mm, comm. Two processes with one mm are two rows here
        and one in `mms`.
    chains : DataFrame
        One row per anon_vma_chain, columns as `anonvma.run.schema` declares them.
    slabs : DataFrame
        One row per slab cache of theirs, of the whole machine, likewise.
    header : dict
        release, arch, page_size, boot_id, pages_how (text), start_ns and end_ns
        (CLOCK_REALTIME), start_monotonic_ns and end_monotonic_ns.
    losses : dict
        Counts of what changed or vanished while being read; all zero in a perfect census.
    records : ndarray
        The records as written, dtype `RECORD`.
    strings : dict
        The bytes behind ``records["path"]`` and ``records["name"]``, undecoded.
    """

    vmas: pd.DataFrame
    mms: pd.DataFrame
    processes: pd.DataFrame
    chains: pd.DataFrame
    slabs: pd.DataFrame
    header: dict[str, Any]
    losses: dict[str, int]
    records: npt.NDArray[np.void]
    strings: dict[int, bytes]


LOSSES = {
    "mms_changed": "address spaces written to in each of three attempts to read them",
    "mms_unwatched": "address spaces whose changes this kernel does not show (no mm_lock_seq)",
    "mms_vanished": "address spaces gone before their VMAs were read",
    "mms_late": "address spaces born while the census was taken, and not in it",
    "paths_lost": "file paths longer than PATH_MAX",
    "links_lost": "chains of an anon_vma, of VMAs with more than 512 of them",
    "scans_failed": "VMAs whose pages could not be looked at",
    "went_on": "processes that the command left running when it ended, which are in no number",
}


def _text(raw: bytes) -> str:
    r"""Names are bytes to the kernel; what is not UTF-8 shows as \\xNN."""
    return raw.decode("utf-8", "backslashreplace")


def _check_header(data: npt.NDArray[np.uint8], path: Path) -> np.void:
    if len(data) < census_layout.HEADER.itemsize:
        raise CensusError(f"{path}: not a census: {len(data)} bytes are fewer than its header has")
    header: np.void = data[: census_layout.HEADER.itemsize].view(census_layout.HEADER)[0]
    if header["magic"] != census_layout.MAGIC.rstrip(b"\0"):
        raise CensusError(
            f"{path}: not a census: it does not begin with {census_layout.MAGIC[:-1].decode()}"
        )
    if header["byte_order"] != census_layout.BYTE_ORDER:
        raise CensusError(f"{path}: written on a machine of the other byte order; read it there")
    if (
        header["format"] != census_layout.FORMAT
        or header["record_size"] != census_layout.RECORD.itemsize
    ):
        raise CensusError(
            f"{path}: census format {header['format']} with records of {header['record_size']} "
            f"bytes; this version reads format {census_layout.FORMAT} with "
            f"{census_layout.RECORD.itemsize}"
        )
    if header["header_size"] != census_layout.HEADER.itemsize or header["pages_how"] >= len(
        census_layout.PAGES_HOW
    ):
        raise CensusError(f"{path}: damaged: its header contradicts its format")
    if header["page_size"] not in [1 << shift for shift in range(12, 20)]:
        raise CensusError(f"{path}: damaged: a page of {header['page_size']} bytes")
    return header


class _Sections:
    """Cuts the file into its tables, and says which one is cut short."""

    def __init__(self, data: npt.NDArray[np.uint8], path: Path) -> None:
        self.data, self.path, self.at = data, path, census_layout.HEADER.itemsize

    def take(self, dtype: np.dtype[np.void], count: int, what: str) -> npt.NDArray[np.void]:
        size = dtype.itemsize * count
        if self.at + size > len(self.data):
            raise CensusError(f"{self.path}: truncated: {count} {what} do not fit in the file")
        part = self.data[self.at : self.at + size].view(dtype)
        self.at += size
        return part

    def strings(self, count: int) -> dict[int, bytes]:
        found = {}
        for _ in range(count):
            (entry,) = self.take(census_layout.STRING, 1, "strings")
            text = self.take(np.dtype([("b", "u1")]), int(entry["length"]), "bytes of a string")
            found[int(entry["id"])] = text.tobytes()
        if self.at != len(self.data):
            raise CensusError(
                f"{self.path}: {len(self.data) - self.at} bytes follow the last table"
            )
        return found


_CHUNK = 8192  # records; a megabyte, which stays in the processor's cache

_PIECE = 32 * _CHUNK  # records whose pages are kept until they have been read


def _columns(
    records: npt.NDArray[np.void], mapped: mmap.mmap | None = None
) -> census_layout.Columns:
    """Lay each member of the records out as a column.

    A column of the records themselves is strided: every pass over one would fetch all of
    them from memory again. Here they are fetched once, by as many threads as there are CPUs
    (NumPy copies without Python's lock), and the pages of the file that they are mapped from
    are given back: they would be as much memory as the columns.
    """
    names = [name for name in records.dtype.names or () if name not in ("comm", "reserved")]
    columns = {name: np.empty(len(records), records.dtype[name]) for name in names}

    def lay_out(begin: int) -> None:
        end = min(begin + _PIECE, len(records))
        for start in range(begin, end, _CHUNK):
            part = slice(start, min(start + _CHUNK, end))
            for name in names:
                columns[name][part] = records[name][part]
        if mapped is not None and end == begin + _PIECE:
            mapped.madvise(mmap.MADV_DONTNEED)

    pieces = range(0, len(records), _PIECE)
    if len(pieces) < 2:
        for begin in pieces:
            lay_out(begin)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lay_out, pieces))
    return columns


def _check_references(
    columns: census_layout.Columns,
    ops: npt.NDArray[np.void],
    strings: dict[int, bytes],
    path: Path,
) -> None:
    """Every id in a record must lead somewhere, or the file is damaged."""
    # The probe counts its ids up; a few are skipped where reading was cut short.
    if max(strings, default=0) > 4 * len(strings) + 65536:
        raise CensusError(f"{path}: damaged: a string with an impossible id")
    known = np.array([0, *strings], np.uint32)
    for name, ids, allowed in (
        ("path", columns["path"], known),
        ("name", columns["name"], known),
        ("vm_ops name", ops["name"], known),
        ("vm_ops", columns["ops"], np.append(ops["id"], 0)),
    ):
        if not np.isin(ids, allowed, kind="sort" if len(ids) < 1000 else None).all():
            raise CensusError(f"{path}: damaged: a {name} that is not in its tables")
    if ops["id"].max(initial=0) > np.iinfo(np.uint16).max:
        raise CensusError(f"{path}: damaged: a vm_ops with an impossible id")


def read(path: str | Path) -> Census:
    """Decode a census file.

    Parameters
    ----------
    path : path
        What ``vmaprobe census --output`` wrote.

    Returns
    -------
    Census

    Raises
    ------
    CensusError
        One sentence: not a census, another format, truncated, or inconsistent.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            mapped = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data = np.frombuffer(mapped or b"", np.uint8)
    except OSError as error:
        raise CensusError(f"cannot read {path}: {error.strerror}") from error
    header = _check_header(data, path)
    sections = _Sections(data, path)
    records = sections.take(census_layout.RECORD, int(header["vmas"]), "VMAs")
    mms = sections.take(census_layout.MM, int(header["mms"]), "mms")
    processes = sections.take(census_layout.PROCESS, int(header["processes"]), "processes")
    ops = sections.take(census_layout.OPS, int(header["ops"]), "vm_operations_structs")
    links = sections.take(census_layout.LINK, int(header["links"]), "chains")
    strings = sections.strings(int(header["strings"]))
    columns = _columns(records, mapped)
    _check_references(columns, ops, strings, path)
    vmas = _frame(columns, records["comm"], ops, strings, int(header["page_size"]))
    return Census(
        vmas=vmas,
        mms=_mm_frame(mms),
        processes=pd.DataFrame(
            {
                "tgid": processes["tgid"],
                "mm": processes["mm"],
                "comm": [_text(comm) for comm in processes["comm"]],
            }
        ),
        chains=chain_frame(links, vmas, path),
        slabs=slab_frame(header),
        header={
            "release": _text(header["release"]),
            "arch": _text(header["arch"]),
            "boot_id": _text(header["boot_id"]),
            "page_size": int(header["page_size"]),
            "pages_how": census_layout.PAGES_HOW[header["pages_how"]],
        }
        | {
            name: int(header[name])
            for name in census_layout.HEADER.names or ()
            if name.endswith("_ns")
        },
        losses={name: int(header[name]) for name in LOSSES},
        records=records,
        strings=strings,
    )


def _mm_frame(mms: npt.NDArray[np.void]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **{name: mms[name] for name in ("mm", "tgid", "tid", "tasks", "vmas", "attempts")},
            "comm": [_text(comm) for comm in mms["comm"]],
            "changed": (mms["bits"] & census_layout.MM_CHANGED) != 0,
            "unwatched": (mms["bits"] & census_layout.MM_UNWATCHED) != 0,
            "leader_gone": (mms["bits"] & census_layout.MM_LEADER_GONE) != 0,
        }
    )


def _strings_column(ids: npt.NDArray[np.uint32], strings: dict[int, bytes]) -> pd.Categorical:
    """A column of string ids (0: none) as text."""
    codes = np.full(max([*strings, int(ids.max(initial=0))], default=0) + 1, -1, np.int32)
    used = np.zeros(len(codes), bool)
    used[ids] = True
    names: list[str] = []
    for number, text in strings.items():
        if used[number]:
            codes[number] = len(names)
            names.append(_text(text))
    return categorical(codes[ids], names)


def _runs(values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Where a new value begins; records of one mm lie together."""
    if not len(values):
        return np.zeros(0, np.intp)
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))


def _repeated(starts: npt.NDArray[np.intp], count: int, names: Iterable[str]) -> pd.Categorical:
    """A column of `count` rows from the name of each run, given where the runs start."""
    lengths = np.diff(np.append(starts, count))
    return categorical(np.repeat(np.arange(len(starts)), lengths), names)


def _comm_column(mms: npt.NDArray[np.uint32], comms: npt.NDArray[np.bytes_]) -> pd.Categorical:
    starts = _runs(mms)
    return _repeated(starts, len(mms), map(_text, comms[starts].tolist()))


def _device_column(devices: npt.NDArray[np.uint32]) -> pd.Categorical:
    starts = _runs(devices)
    names = (f"{dev >> 20:02x}:{dev & 0xFFFFF:02x}" for dev in devices[starts].tolist())
    return _repeated(starts, len(devices), names)


def _ops_name(entry: np.void, strings: dict[int, bytes]) -> str:
    if entry["name"]:
        return _text(strings[int(entry["name"])])
    if entry["how"] == census_layout.OPS_EMPTY:
        return "(vm_ops without functions)"
    return f"(unnamed vm_ops {entry['id']})"


def _ops_column(
    ids: npt.NDArray[np.uint16], ops: npt.NDArray[np.void], strings: dict[int, bytes]
) -> pd.Categorical:
    names = [_ops_name(entry, strings) for entry in ops]
    codes = np.full(int(ops["id"].max(initial=0)) + 1, -1, np.int32)
    codes[ops["id"]] = np.arange(len(ops))
    return categorical(codes[ids], names)


def _frame(
    columns: census_layout.Columns,
    comms: npt.NDArray[np.bytes_],
    ops: npt.NDArray[np.void],
    strings: dict[int, bytes],
    page_size: int,
) -> pd.DataFrame:
    bits = columns["bits"]
    path = _strings_column(columns["path"], strings)
    bare = (bits & (census_layout.HAS_OPS | census_layout.HAS_ANON)) == 0
    kind, note = classify(columns, bare)
    frame: dict[str, Any] = {
        "mm": columns["mm"],
        "tgid": columns["tgid"],
        "tid": columns["tid"],
        "comm": _comm_column(columns["mm"], comms),
        "start": columns["start"],
        "end": columns["end"],
        "bytes": columns["end"] - columns["start"],
        "flags": columns["flags"],
        "prot": categorical(columns["prot"] & 15, _PROTECTIONS),
        "anonymous": (bits & census_layout.HAS_OPS) == 0,
        "vm_ops": _ops_column(columns["ops"], ops, strings),
        "anon_vma": (bits & census_layout.HAS_ANON) != 0,
        "bare": bare,
        "class": kind,
        "note": note,
        "origin": categorical(origins(columns, path), ORIGINS),
        "device": _device_column(columns["dev"]),
        "inode": columns["ino"],
        "path": path,
        "offset": np.multiply(columns["pgoff"], np.uint64(page_size), out=columns["pgoff"]),
        "name": _strings_column(columns["name"], strings),
    }
    for name in census_layout.PAGE_COUNTS:
        unknown = columns[name] == census_layout.UNKNOWN
        columns[name][unknown] = 0  # in place: nothing else needs it any more
        frame[name] = pd.arrays.IntegerArray(columns[name], unknown)
    frame["apart"], frame["apart_alone"] = why_apart(columns["apart"])
    return pd.DataFrame(frame, copy=False)
