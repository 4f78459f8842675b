# SPDX-License-Identifier: GPL-2.0-only
"""Decoding, classes, origins and tables, against censuses written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonvma.base import paths
from anonvma.base.errors import AnonvmaError, CensusError
from anonvma.probe import census_layout
from anonvma.probe.census_layout import (
    HAS_ANON,
    HAS_FILE,
    HAS_OPS,
    HEADER,
    HEAP,
    MM,
    OPS,
    PROCESS,
    RECORD,
    SPECIAL,
    STACK,
    STRING,
)
from anonvma.run.runs import Run
from anonvma.run.schema import SCHEMAS, columns
from anonvma.tables import census, specimens

PAGE = 4096
UNKNOWN = 0xFFFFFFFFFFFFFFFF
READ, WRITE, EXEC, SHARED = 1, 2, 4, 8
STRINGS = {
    1: b"/dev/zero",
    2: b"shmem_fault",
    3: b"/memfd:x (deleted)",
    4: b"[vdso]",
    5: b"/dev/zero (deleted)",
    6: b"\xffodd\n",
    7: b"/SYSV00000000 (deleted)",
    8: b"anon_inode:[perf_event]",
    9: b"/lib/x.so",
    10: b"/dev/dri/card0",
}


def vma(start: int, pages: int, **fields: Any) -> np.ndarray:
    record = np.zeros(1, RECORD)
    record["start"], record["end"] = start, start + pages * PAGE
    record["prot"], record["mm"], record["tgid"], record["tid"] = READ | WRITE, 1, 10, 10
    record["comm"] = b"work"
    for name in census_layout.PAGE_COUNTS:
        record[name] = UNKNOWN
    bits = fields.get("bits", 0)
    if not bits & (HAS_OPS | HAS_ANON):
        for name in census_layout.PAGE_COUNTS:
            record[name] = 0
    if fields.get("zero"):
        record["present"] = fields["zero"]
    for name, value in fields.items():
        record[name] = value
    return record


def census_bytes(records: list[np.ndarray], **header_fields: Any) -> bytes:
    rows = np.concatenate(records) if records else np.zeros(0, RECORD)
    header = np.zeros(1, HEADER)
    header["magic"], header["format"], header["byte_order"] = (
        b"VMACENS",
        census_layout.FORMAT,
        0x01020304,
    )
    header["header_size"], header["record_size"] = HEADER.itemsize, RECORD.itemsize
    header["page_size"], header["pages_how"], header["release"] = PAGE, 1, b"6.18.0"
    header["vmas"], header["ops"], header["strings"] = len(rows), 1, len(STRINGS)
    mms = np.unique(rows["mm"])
    header["mms"] = header["processes"] = len(mms)
    for name, value in header_fields.items():
        header[name] = value
    mm_rows = np.zeros(len(mms), MM)
    mm_rows["mm"], mm_rows["tasks"], mm_rows["attempts"] = mms, 1, 1
    process_rows = np.zeros(len(mms), PROCESS)
    process_rows["mm"] = mms
    ops = np.array([(1, 2, 2, 0)], OPS)
    text = b"".join(
        np.array([(number, len(name))], STRING).tobytes() + name for number, name in STRINGS.items()
    )
    parts = [header, rows, mm_rows, process_rows, ops]
    return b"".join(part.tobytes() for part in parts) + text


def decode(tmp_path: Path, records: list[np.ndarray], **header_fields: Any) -> census.Census:
    file = tmp_path / "census"
    file.write_bytes(census_bytes(records, **header_fields))
    return census.read(file)


FILE = HAS_OPS | HAS_FILE
CASES: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "read-only memory": ({"zero": 3}, "zero-page", "private anonymous"),
    "nothing in it": ({}, "untouched", "private anonymous"),
    "no access": ({"prot": 0}, "guard", "private anonymous"),
    "no access, zero pages left": ({"prot": 0, "zero": 3}, "guard", "private anonymous"),
    "a page of its own": ({"present": 2, "zero": 1}, "other", "private anonymous"),
    "swap": ({"swapped": 1}, "other", "private anonymous"),
    "guard markers": ({"guard": 1}, "other", "private anonymous"),
    "not looked at": (
        dict.fromkeys(census_layout.PAGE_COUNTS, UNKNOWN),
        "other",
        "private anonymous",
    ),
    "guards unknown": ({"zero": 1, "guard": UNKNOWN}, "zero-page", "private anonymous"),
    "written": ({"bits": HAS_ANON}, None, "private anonymous"),
    "dev zero": ({"bits": HAS_FILE, "path": 1, "zero": 3}, "zero-page", "private /dev/zero"),
    "heap": ({"bits": HEAP | HAS_ANON}, None, "heap"),
    "stack": ({"bits": STACK | HAS_ANON}, None, "stack"),
    "named": ({"name": 6}, "untouched", "named anonymous"),
    "driver": ({"bits": HAS_FILE, "path": 9}, "untouched", "driver without vm_ops"),
    "device": ({"bits": FILE, "ops": 1, "path": 10}, None, "driver"),
    "vdso": ({"bits": HAS_OPS | SPECIAL, "ops": 1, "name": 4}, None, "vdso and vvar"),
    "memfd": ({"bits": FILE, "ops": 1, "path": 3}, None, "memfd"),
    "shared": ({"bits": FILE, "ops": 1, "path": 5, "prot": 11}, None, "shared anonymous"),
    "SysV": ({"bits": FILE, "ops": 1, "path": 7, "prot": 11}, None, "SysV shm"),
    "perf": ({"bits": FILE, "ops": 1, "path": 8, "prot": 11}, None, "anonymous inode"),
    "library": ({"bits": FILE, "ops": 1, "path": 9, "prot": 5}, None, "private file"),
    "file": ({"bits": FILE, "ops": 1, "path": 9, "prot": 9}, None, "shared file"),
    "huge": ({"bits": FILE, "ops": 1, "path": 9, "flags": 0x400000}, None, "hugetlb"),
}


@pytest.mark.parametrize("case", CASES)
def test_class_and_origin(tmp_path: Path, case: str) -> None:
    fields, kind, origin = CASES[case]
    row = decode(tmp_path, [vma(0x10000, 3, **fields)]).vmas.iloc[0]
    assert (row["origin"], row["bare"]) == (origin, kind is not None)
    assert row["class"] == kind if kind else pd.isna(row["class"])


def test_every_other_has_a_note_and_nothing_else_has(tmp_path: Path) -> None:
    records = [vma(0x10000 * n, 3, **CASES[case][0]) for n, case in enumerate(CASES, 1)]
    frame = decode(tmp_path, records).vmas
    assert (frame["note"].notna() == (frame["class"] == "other")).all()
    assert set(frame["note"].dropna()) == set(census.NOTES)


def test_thread_stack_is_what_has_a_guard_below(tmp_path: Path) -> None:
    records = [
        vma(0x100000, 1, prot=0),
        vma(0x101000, 2048, bits=HAS_ANON),  # a stack
        vma(0xA00000, 1, prot=0),
        vma(0xA01000, 3),  # too small: a signal stack
        vma(0xB00000, 1000, prot=0),
        vma(0xEE8000, 64),  # a reservation, not a guard
        vma(0xF00000, 1, prot=0),
        vma(0xF01000, 64, mm=2),  # of another mm
    ]
    origins = decode(tmp_path, records).vmas["origin"].tolist()
    assert origins[:2] == ["stack guard", "thread stack"]
    assert set(origins[2:]) == {"private anonymous"}


def test_names_that_are_not_text(tmp_path: Path) -> None:
    found = decode(tmp_path, [vma(0x1000, 1, name=6, comm=b"\xfe\x1b[0m")])
    assert found.vmas["name"].tolist() == ["\\xffodd\n"]
    assert found.vmas["comm"].tolist() == ["\\xfe\x1b[0m"]
    assert found.strings[6] == b"\xffodd\n"


def test_tables_worked_out_by_hand(tmp_path: Path) -> None:
    records = [
        vma(0x10000, 10, bits=HAS_FILE, path=1, zero=10),
        vma(0x20000, 10, bits=HAS_FILE, path=1, zero=4),
        vma(0x30000, 2),
        vma(0x40000, 1, prot=0),
        vma(0x50000, 5, bits=HAS_ANON),
        vma(0x60000, 5, bits=FILE, ops=1, path=9),
        vma(0x10000, 10, bits=HAS_FILE, path=1, zero=10, mm=2, tgid=20),
    ]
    frame = decode(tmp_path, records).vmas
    table = census.by_class(frame)
    assert table["vmas"].to_dict() == {"guard": 1, "untouched": 1, "zero-page": 3, "other": 0}
    assert table.loc["zero-page"].tolist() == [3, 30 * PAGE, 24, 24]
    by_origin = census.by_origin(frame)
    assert list(by_origin.index) == ["private /dev/zero", "private anonymous"]
    assert by_origin.loc["private /dev/zero"].tolist() == [3, 0, 0, 0, 3, 0, 24]
    assert by_origin.loc["private anonymous"].tolist() == [3, 1, 1, 1, 0, 0, 0]
    by_process = census.by_process(frame)
    assert by_process.loc[10].tolist() == ["work", 6, 5, 4, 1, 1, 2, 0, 14]
    assert by_process.loc[20].tolist() == ["work", 1, 1, 1, 0, 0, 1, 0, 10]
    assert len(census.by_process(frame, most=1)) == 1
    twice = pd.concat([frame.assign(repeat=1), frame[frame["tgid"] == 20].assign(repeat=2)])
    assert census.by_repeat(twice).loc[1].tolist() == census.by_class(frame)["vmas"].tolist()
    assert census.by_repeat(twice).loc[2].tolist() == [0, 0, 1, 0]
    zero = census.zero_pages_per_vma(frame, PAGE)
    assert zero.values.tolist() == [
        ["private /dev/zero", 10, 10, 2],
        ["private /dev/zero", 4, 10, 1],
    ]


def test_figures_draw_what_the_tables_say(tmp_path: Path) -> None:
    frame = decode(tmp_path, [vma(0x10000, 10, bits=HAS_FILE, path=1, zero=10)] * 3).vmas
    widths = [bar.get_width() for bars in census.plot_by_class(frame).containers for bar in bars]
    assert sorted(widths) == [0, 0, 0, 3]
    axes = census.plot_by_origin(frame, ax=_axes())
    assert [bar.get_width() for bars in axes.containers for bar in bars] == [100.0]


def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_empty_census(tmp_path: Path) -> None:
    frame = decode(tmp_path, []).vmas
    assert list(frame.columns) == columns("census")
    assert census.by_class(frame)["vmas"].sum() == 0
    assert census.by_origin(frame).empty
    assert census.by_process(frame).empty


def test_columns_are_those_of_the_schema(tmp_path: Path) -> None:
    assert list(decode(tmp_path, [vma(0x1000, 1)]).vmas.columns) == columns("census")
    assert all(field.metadata[b"description"] for field in SCHEMAS["census"])


BROKEN = {
    "not a census": b"x" * 400,
    "fewer than its header": b"VMACENS\0",
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_what_is_not_a_census_says_so(tmp_path: Path, sentence: str) -> None:
    file = tmp_path / "census"
    file.write_bytes(BROKEN[sentence])
    with pytest.raises(CensusError, match=sentence):
        census.read(file)


def test_other_versions_say_so(tmp_path: Path) -> None:
    with pytest.raises(CensusError, match="format 1 with records"):
        decode(tmp_path, [], format=1)
    with pytest.raises(CensusError, match="other byte order"):
        decode(tmp_path, [], byte_order=0x04030201)
    with pytest.raises(CensusError, match=r"cannot read .*: No such file"):
        census.read(tmp_path / "absent")


WHOLE = census_bytes([vma(0x1000, 2), vma(0x9000, 1, bits=FILE, ops=1, path=9)])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_truncated_anywhere_is_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, end: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "truncated"
    file.write_bytes(WHOLE[:end])
    with pytest.raises(CensusError):
        census.read(file)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "changed"
    data = bytearray(WHOLE)
    data[place] ^= change
    file.write_bytes(data)
    try:
        census.read(file)
    except AnonvmaError as error:
        assert "\n" not in str(error)


def test_specimens_are_looked_up_by_address_and_process(tmp_path: Path) -> None:
    records = [
        vma(0x10000, 2, zero=2),
        vma(0x20000, 2, bits=HAS_ANON),
        vma(0x30000, 2, bits=FILE, ops=1, path=9),
        vma(0x10000, 2, mm=2, tgid=20),
    ]
    frame = decode(tmp_path, records).vmas
    made = pd.DataFrame(
        {
            "kind": ["a", "a", "b", "c", "d", "e"],
            "touch": ["read", "untouched", "read", "untouched", "untouched", "read"],
            "pid": [10, 20, 10, 10, 10, pd.NA],
            "start": [0x11000, 0x10000, 0x30000, 0x20000, 0x12000, pd.NA],
            "explain": "because",
            "missing": [None] * 5 + ["lacking"],
        }
    )
    table = specimens.observed(made, frame)
    states = ["zero-page", "untouched", "vm_ops", "anon_vma", "gone"]
    assert table["state"].tolist() == states
    assert table["surprising"].tolist() == [True, False, False, True, False]
    assert specimens.answers(table)["kind"].tolist() == ["a"]
    assert specimens.missing(made)["missing"].tolist() == ["lacking"]
    assert specimens.grid(table).loc["a"].tolist() == ["untouched", "zero-page"]


def test_specimens_of_dev_zero_are_told_by_how_they_were_mapped(tmp_path: Path) -> None:
    """A kernel that keeps no file for them has nothing in the census to tell them by."""
    frame = decode(tmp_path, [vma(0x10000, 2, zero=2), vma(0x20000, 2, bits=HAS_FILE, path=1)]).vmas
    made = pd.DataFrame(
        {
            "kind": ["private-devzero", "private-devzero", "private-anonymous", "shared-devzero"],
            "touch": "read",
            "pid": 10,
            "start": [0x10000, 0x20000, 0x10000, 0x10000],
            "explain": "because",
            "missing": None,
        }
    )
    table = specimens.observed(made, frame)
    named = ["private /dev/zero"] * 2 + ["private anonymous"] * 2
    assert table["origin"].tolist() == named
    assert (table["explain"] == "because").tolist() == [False, True, True, True]
    assert "keeps no file" in table["explain"][0]


VM_IO, VM_PFNMAP, VM_MIXEDMAP = 0x4000, 0x400, 0x10000000


def test_pages_of_its_own_in_a_bare_vma_raise_an_alarm(tmp_path: Path) -> None:
    """As on a kernel that makes its anon_vmas later."""
    drivers = [
        vma(0x100000 * (n + 2), 2, present=2, zero=0, flags=flag)
        for n, flag in enumerate((VM_IO, VM_PFNMAP, VM_MIXEDMAP))
    ]
    quiet = [
        vma(0x10000, 3, zero=3),
        vma(0x20000, 2),
        vma(0x30000, 2, bits=HAS_ANON, present=2, zero=0),
        vma(0x40000, 2, swapped=1),
        vma(0x50000, 2, **dict.fromkeys(census_layout.PAGE_COUNTS, UNKNOWN)),
        *drivers,
    ]
    assert census.alarm(decode(tmp_path, quiet).vmas) is None
    lazy = [*quiet, vma(0x60000, 4, present=3, zero=1)]
    assert census.alarm(decode(tmp_path, lazy).vmas) == (1, 2)
    lazy += [vma(0x70000, 4, present=4, zero=0)]
    assert census.alarm(decode(tmp_path, lazy).vmas) == (2, 6)


def test_no_recorded_run_raises_an_alarm() -> None:
    for manifest in sorted(paths.recorded().glob("*/manifest.json")):
        place = manifest.parent
        run = Run.open(place)
        if "census" in run.manifest.tables:
            assert census.alarm(run.table("census")) is None, place.name
