# SPDX-License-Identifier: GPL-2.0-only
"""tables.faults and probe.faults_file: tables against ones worked out by hand, damaged files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from anonvma.base.errors import FaultsError
from anonvma.collect import tracing
from anonvma.probe import fault_events
from anonvma.probe.fault_events import EVENT, HEADER, read_events
from anonvma.probe.faults_file import read_faults
from anonvma.probe.locks_file import read_locks
from anonvma.run.schema import SCHEMAS
from anonvma.run.vocabulary import REASONS, TRACING_LOSSES
from anonvma.run.writer import to_table
from anonvma.tables import faults, locks, losses

ROW = {
    "repeat": 1,
    "process": 2,
    "tgid": 100,
    "comm": "vmload",
    "origin": "private /dev/zero",
    "mode": "user",
    "access": "read",
    "before": "bare",
    "after": "bare",
    "path": "vma",
    "result": "minor",
    "reason": None,
    "vm_ops": None,
    "file": "zero",
    "time_ns": None,
    "wait_ns": None,
    "log2_ns": None,
}


def traced(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([ROW | row for row in rows])


_WITHOUT_MAP_PAGES = "vm_ops without map_pages"
MIXED = traced(
    {"count": 40},
    {"count": 6, "path": "mmap"},
    {"count": 4, "path": "mmap", "mode": "kernel"},
    {"count": 5, "access": "write", "after": "anon_vma", "path": "retry"},
    {"count": 5, "access": "write", "after": "anon_vma", "origin": "heap"},
    {"count": 30, "access": "write", "before": "anon_vma", "after": "anon_vma", "origin": "heap"},
    {"count": 9, "access": "exec", "before": "vm_ops", "after": "vm_ops", "origin": "private file"},
    {"count": 3, "result": "error", "before": "no VMA", "after": "no VMA", "origin": None},
    # The second repeat says the same again, but for ten more.
    {"count": 60, "repeat": 2},
    {"count": 10, "access": "write", "after": "anon_vma", "origin": "heap", "repeat": 2},
    {"count": 30, "access": "write", "before": "anon_vma", "after": "anon_vma", "repeat": 2},
)


def test_reasons_add_up_to_the_faults_that_acquired_mmap_lock() -> None:
    timed = {"time_ns": 4000, "wait_ns": 1000, "log2_ns": [0, 0, 4]}
    vdso = {"origin": "vdso and vvar", "vm_ops": "special_mapping_vmops"}
    found = traced(
        {"count": 4, "path": "mmap", "reason": "bare VMA", **timed},
        {"count": 6, "path": "mmap", "reason": "bare VMA", "repeat": 2},  # their ends were missed
        {"count": 2, "path": "retry", "reason": "vm_ops without map_pages", **vdso},
        {"count": 1, "path": "mmap", "reason": "not told", "origin": None, "result": "error"},
        {"count": 7, "path": "mmap", "mode": "gup", "reason": "get_user_pages()", **vdso},
        {"count": 90},
        {"count": 5, "path": "vma", "reason": "I/O"},  # repeated, but under the VMA's lock again
    )
    table = faults.reasons(found)
    assert table["faults"].tolist() == [5, 3.5, 1, 0.5]
    assert table["reason"].tolist()[:3] == ["bare VMA", "get_user_pages()", _WITHOUT_MAP_PAGES]
    assert table["vm_ops"].dropna().tolist() == ["special_mapping_vmops"]
    assert table.loc[0, ["mean_ns", "wait_ns"]].tolist() == [1000, 250]
    assert table.loc[1:, ["mean_ns", "wait_ns"]].isna().all(axis=None)
    whole = faults.reasons_whole(found)
    assert (whole.total, whole.left_out(table)) == (10, 0)
    assert "0.500: the kernel" in faults.reasons_said(found, "the kernel lacks a function")
    assert faults.reasons_said(found[found["reason"] != "not told"], None) == ""


def test_of_a_run_that_is_older_no_reason_is_told() -> None:
    table = faults.reasons(MIXED)
    assert set(table["reason"]) == {"not told"} and table["faults"].sum() == 7.5
    assert "collect the run again" in faults.reasons_said(MIXED, None)


def test_transitions_are_the_mean_of_a_repeat_and_of_all_faults() -> None:
    every = faults.transitions(MIXED)
    assert every["faults"].sum() * 2 == MIXED["count"].sum()
    errors = every[every["ended"] == "error"]
    assert errors[["before", "after", "faults"]].to_numpy().tolist() == [["no VMA", "no VMA", 1.5]]
    table = every[every["ended"] == "done"].set_index(["before", "after"]).drop(columns="ended")
    assert table.loc[("bare", "bare")].to_dict() == {
        "read": 55,
        "write": 0,
        "exec": 0,
        "faults": 55,
    }
    assert table.loc[("bare", "anon_vma"), "write"] == 10
    assert table.loc[("anon_vma", "anon_vma"), "faults"] == 30
    assert table.loc[("vm_ops", "vm_ops"), "exec"] == 4.5
    assert "no VMA" not in table.index.get_level_values("before")
    assert table["faults"].is_monotonic_decreasing


def test_lock_paths_are_those_of_user_mode() -> None:
    table = faults.lock_paths(MIXED).set_index("change")
    assert table.loc["bare -> bare"].to_dict() == {"vma": 50, "retry": 0, "mmap": 3, "faults": 53}
    assert table.loc["bare -> anon_vma", "retry"] == 2.5
    unknown = faults.lock_paths(traced({"count": 2, "path": "unknown"}))
    assert unknown["unknown"].tolist() == [2]


def test_counterfactual() -> None:
    table = faults.counterfactual(MIXED).set_index("origin")
    # In user mode: 40 + 6 + 5 and 60 of /dev/zero, of which 5 made an anon_vma; heap 5 and 10.
    assert table.loc["private /dev/zero"].tolist() == [111 / 2, 5 / 2, 106 / 2]
    assert table.loc["heap"].tolist() == [15 / 2, 15 / 2, 0]
    assert table.loc["all"].tolist() == [126 / 2, 20 / 2, 106 / 2]
    assert list(table.index) == ["private /dev/zero", "heap", "all"]
    nothing = faults.counterfactual(traced({"count": 1, "before": "vm_ops", "after": "vm_ops"}))
    assert nothing.to_dict("records") == [
        {"origin": "all", "found bare": 0, "make anon_vma": 0, "spared": 0}
    ]


def test_by_mode_has_all_and_those_that_were_only_counted() -> None:
    table = faults.by_mode(MIXED, 2001.0).set_index("taken by")["faults"]
    assert table.sum() == MIXED["count"].sum() / 2 + 2001
    assert table.filter(like="get_user_pages").tolist() == [2001]
    assert faults.by_mode(MIXED.head(0)).empty


def test_by_origin_has_times_where_the_source_has() -> None:
    table = faults.by_origin(
        traced(
            {"count": 4, "time_ns": 4000, "log2_ns": [0, 3, 1]},
            {"count": 2, "time_ns": 0, "log2_ns": []},  # their ends were missed
            {"count": 1, "origin": "heap", "after": "anon_vma"},
            {"count": 1, "origin": "stack", "time_ns": 0, "log2_ns": []},
        )
    ).set_index("origin")
    assert math.isnan(table.loc["stack", "mean_ns"])
    assert table.loc["private /dev/zero"].tolist() == [6, 6, 6, 1000]
    assert table.loc["heap", "left bare"] == 0 and math.isnan(table.loc["heap", "mean_ns"])


def events(*rows: dict[str, Any]) -> pd.DataFrame:
    base = ROW | {"tid": 100, "vm_start": 0x1000, "duration_ns": 0}
    return pd.DataFrame([base | row for row in rows])


def test_per_vma_counts_faults_of_each() -> None:
    found = events(
        *({"address": 0x1000 + n * 4096, "time_ns": n} for n in range(3)),
        *({"address": 0x9000 + n * 4096, "vm_start": 0x9000, "time_ns": n} for n in range(3)),
        {"address": 0x1, "vm_start": 0x20000, "origin": "heap", "after": "anon_vma", "time_ns": 9},
        {"address": 0x2, "vm_start": 0x20000, "origin": "heap", "time_ns": 8},
        {"address": 0x3, "vm_start": 0, "origin": None, "result": "error", "time_ns": 9},
    )
    assert faults.per_vma(found).to_dict("records") == [
        {"origin": "private /dev/zero", "change": "bare -> bare", "faults": 3, "vmas": 2},
        {"origin": "heap", "change": "mixed", "faults": 2, "vmas": 1},
    ]


def test_over_time_loses_no_fault_of_the_first_repeat() -> None:
    rows = [{"address": 4096 * n, "time_ns": 5000 + n * 1000} for n in range(1000)]
    rows += [{"address": 1, "time_ns": 5000, "after": "anon_vma"}]
    rows += [{"address": 1, "time_ns": 5000, "before": "vm_ops", "after": "vm_ops"}]
    rows += [{"address": 1, "time_ns": 1, "repeat": 2}]
    table = faults.over_time(events(*rows), bins=10)
    assert len(table["ms"].unique()) == 10
    total = table.groupby("change")["faults"].sum()
    assert total.to_dict() == {
        "anon_vma -> anon_vma": 0,
        "bare -> anon_vma": 1,
        "bare -> bare": 1000,
        "other": 1,
    }


LOCK = {
    "repeat": 1,
    "process": 2,
    "tgid": 100,
    "comm": "vmload",
    "asked_by": "page fault",
    "mode": "read",
    "waited_for": True,
    "success": True,
    "foreign": False,
}


def test_lock_callers() -> None:
    rows = [
        {"count": 8, "contended": 2, "wait_ns": 8000, "longest_ns": 5000},
        {"count": 2, "contended": 0, "wait_ns": 0, "longest_ns": 0, "waited_for": False},
        {"count": 9, "contended": 9, "wait_ns": 9, "longest_ns": 9, "success": False},
        {
            "count": 1,
            "contended": 1,
            "wait_ns": 5e6,
            "longest_ns": 5e6,
            "foreign": True,
            "process": 0,
            "asked_by": "reader of /proc",
        },
    ]
    table = locks.callers(pd.DataFrame([LOCK | row for row in rows]))
    assert table["asked_by"].tolist() == ["page fault", "reader of /proc (another process)"]
    first = table.iloc[0]
    assert (first["taken"], first["contended"], first["mean_ns"]) == (10, 2, 800)
    assert table.iloc[1]["wait_ms"] == 5


def test_what_is_kept_of_a_lock_held_for_writing_is_not_asked_for() -> None:
    rows = [
        {"count": 5, "asked_by": "munmap", "mode": "write"},
        {"count": 5, "asked_by": "munmap", "waited_for": False},
        {"count": 3, "asked_by": "unheard of", "waited_for": False},
        {"count": 2, "success": False},  # mmap_read_trylock() asks, too
    ]
    own = locks.of_workload(pd.DataFrame([LOCK | row for row in rows]))
    assert own[["asked_by", "taken"]].to_numpy().tolist() == [["munmap", 5.0], ["page fault", 0.0]]


def tracings(*ratios: float) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for repeat, ratio in enumerate(ratios, 1):
        rows.append({"repeat": repeat, "traced": "untraced", "kb_per_s": 1000.0 * repeat})
        rows.append({"repeat": repeat, "traced": "faults", "kb_per_s": 1000.0 * repeat * ratio})
    return pd.DataFrame(rows).reindex(columns=SCHEMAS["tracing"].names)


def test_cost_is_of_pairs() -> None:
    (row,) = faults.cost(tracings(0.9, 0.9, 0.9)).to_dict("records")
    assert row["n"] == 3
    assert row["ratio"] == pytest.approx(0.9) and row["low"] == pytest.approx(row["high"])
    (row,) = faults.cost(tracings(0.8, 1.0)).to_dict("records")
    assert row["ratio"] == pytest.approx(0.8**0.5) and math.isnan(row["low"])  # n is too small
    (row,) = faults.cost(tracings(0.8, 1.0, 0.9)).to_dict("records")
    assert row["low"] < row["ratio"] < row["high"]
    (row,) = faults.cost(tracings(0.8)).to_dict("records")
    assert row["ratio"] == pytest.approx(0.8) and math.isnan(row["low"])
    assert (row["untraced"], row["with it"]) == pytest.approx((1000 / 1024, 800 / 1024))
    assert faults.cost(tracings()).empty


def test_cost_falls_back_on_time() -> None:
    table = tracings(0.5).assign(kb_per_s=None, seconds=[1.0, 4.0])
    assert faults.cost(table)["ratio"].tolist() == pytest.approx([0.25])


def test_attribution_leaves_out_what_has_no_exception() -> None:
    table = tracings(1.0).assign(counted=[None, 900], used=[None, 1000], unseen_gup=[None, 100])
    assert losses.attribution(table)["share"].tolist() == [1.0]


def test_what_an_older_run_did_not_record_is_not_said_to_be_nothing() -> None:
    table = tracings(1.0).assign(faults_lost=0, tasks_lost=0)
    known = losses.losses(table).set_index("lost")["count"]
    assert known[TRACING_LOSSES["faults_lost"]] == 0
    assert known[TRACING_LOSSES["misses"]] is pd.NA
    older, newer = losses.attribution_said(table), losses.attribution_said(table.assign(misses=0))
    assert older != newer and newer in older  # it says the same, and what it does not know


def test_a_share_of_which_something_was_lost_is_a_bound() -> None:
    assert losses.bounds_said(50, 100, *losses.unknown(tracings(1.0))) == ""
    # 100 were counted, 10 of them without their VMA; 25 more were charged, and never seen.
    table = tracings(1.0).assign(half_seen=10, faults_missed=20, faults_lost=5)
    assert losses.unknown(table) == (10, 25)
    said = losses.bounds_said(50, 100, *losses.unknown(table))
    for figure in ("40 %", "68 %", "35 faults"):  # 50 / 125 and (50 + 10 + 25) / 125
        assert figure in said


@pytest.mark.parametrize("name", ["transitions", "lock_paths"])
def test_plots_of_faults(name: str) -> None:
    ax = getattr(faults, f"plot_{name}")(MIXED)
    assert ax.get_title()
    plt.close("all")


# ---- files ----

COUNTS: dict[str, Any] = {
    "source": "tracepoint",
    "why_not_fentry": "it failed: Operation not permitted",
    "why_not_kprobe": "it failed: Operation not supported",
    "timed": False,
    "lock_paths": True,
    "page_size": 4096,
    "begun_ns": 1000,
    "ended_ns": 9000,
    "unseen_gup": 0,
    "faults_lost": 0,
    "events_lost": 0,
    "kinds_lost": 0,
    "tasks_lost": 0,
    "processes_lost": 0,
    "faults_missed": 0,
    "charged": 5,
    "tasks_differ": 0,
    "pending": 0,
    "refused": 0,
    "misses": {"one": 0, "two": 0},
    "processes": [
        {"id": 2, "tgid": 7, "parent": 1, "how": "execed", "comm": "x"},
        {"id": 1, "tgid": 7, "parent": 0, "how": "named", "comm": "y\n"},
    ],
    "kinds": [],
    "groups": [
        {
            "process": 2,
            "kind": 0,
            "mode": "user",
            "access": "read",
            "before": 3,
            "after": 7,
            "path": "vma",
            "result": "minor",
            "reason": "",
            "kernel_stack": -1,
            "count": 5,
            "time_ns": 0,
            "wait_ns": 0,
            "log2_ns": [],
        }
    ],
    "stacks": {},
}


def kind(number: int, **more: Any) -> dict[str, Any]:
    plain = {"id": number, "bits": 0, "prot": 3, "flags": 0, "dev": 0, "inode": 0}
    return {**plain, "vm_ops": None, "file": None, **more}


@pytest.mark.parametrize(
    ("about", "origin"),
    [
        ({}, "private anonymous"),
        ({"bits": 8}, "heap"),
        ({"bits": 16}, "stack"),
        ({"bits": 1 << 8}, "thread stack"),
        ({"bits": 1 << 9}, "named anonymous"),
        ({"bits": 4 | 1 << 10, "file": "zero"}, "private /dev/zero"),
        ({"bits": 4, "file": "card0"}, "driver without vm_ops"),
        ({"bits": 5 | 1 << 11, "file": "kvm", "vm_ops": "x"}, "driver"),
        ({"bits": 5, "file": "libc.so.6", "vm_ops": "filemap_fault"}, "private file"),
        ({"bits": 5, "file": "log", "prot": 11, "vm_ops": "filemap_fault"}, "shared file"),
        ({"bits": 5, "file": "dev/zero", "vm_ops": "shmem_fault"}, "shared anonymous"),
        ({"bits": 5, "file": "memfd:x", "vm_ops": "shmem_fault"}, "memfd"),
        ({"bits": 5, "file": "SYSV00000000", "vm_ops": "shm_fault"}, "SysV shm"),
        ({"bits": 5, "file": "[io_uring]", "vm_ops": "x"}, "anonymous inode"),
        ({"bits": 1, "vm_ops": "special_mapping_fault"}, "vdso and vvar"),
        ({"bits": 5, "flags": 0x400000, "vm_ops": "hugetlb_vm_op_fault"}, "hugetlb"),
    ],
)
def test_origins_are_those_of_the_census(about: dict[str, Any], origin: str) -> None:
    counts = COUNTS | {"kinds": [kind(1, **about)]}
    counts["groups"] = [COUNTS["groups"][0] | {"kind": 1}]
    assert read_faults(json.dumps(counts).encode()).faults["origin"].tolist() == [origin]


@pytest.mark.parametrize(("preemptible", "lost"), [(True, 7), (False, 4), (None, 7)])
def test_what_an_interrupt_is_turned_away_from_is_not_lost(
    preemptible: bool | None, lost: int
) -> None:
    counts = {"mmap_lock_read": 0, "mmap_lock_write": 0, "groups": [], "processes": []}
    counts |= {"stacks": {}, "witness": None, "why_no_witness": "no histogram"}
    counts |= {
        "things": [],
        "contended": [],
        "forks": [],
        "waits_lost": 0,
        "unended": 0,
        "forks_lost": 0,
    }
    counts |= {"misses": {"answered_tp": 4, "finds_it_taken_tp": 3}}
    if preemptible is not None:
        counts["preemptible"] = preemptible
    assert read_locks(json.dumps(counts).encode()).losses["misses"] == lost


@pytest.mark.parametrize(("stacks", "lost"), [({"user_stacks": {}}, 0), ({}, 5)])
def test_what_taking_a_stack_comes_upon_is_not_lost(stacks: dict[str, Any], lost: int) -> None:
    counts = COUNTS | {"misses": {"user_fault_begins": 0, "kernel_fault_begins": 5}} | stacks
    assert read_faults(json.dumps(counts).encode()).losses["misses"] == lost


def test_counts() -> None:
    found = read_faults(json.dumps(COUNTS).encode())
    (row,) = found.faults.to_dict("records")
    assert (row["before"], row["after"], row["count"]) == ("bare", "anon_vma", 5)
    assert (row["tgid"], row["comm"], row["time_ns"]) == (7, "x", None)
    table = to_table(found.faults.assign(repeat=1), SCHEMAS["faults"])
    assert table.num_rows == 1
    assert tracing.workload_processes(found.processes, "x") == {2}
    assert tracing.workload_processes(found.processes, "z") == {1, 2}


def test_a_name_that_is_not_utf8() -> None:
    text = json.dumps(COUNTS).encode().replace(b'"x"', b'"\xff\x80"')
    assert read_faults(text).processes["comm"].tolist() == ["y\n", r"\xff\x80"]


def test_damaged_counts_give_one_sentence() -> None:
    text = json.dumps(COUNTS).encode()
    for damaged in (b"", b"[]", b"{}", text[:-9], text.replace(b'"count"', b'"coumt"')):
        for reader in (read_faults, read_locks):
            with pytest.raises(FaultsError, match=r"^the counts of \w+( is| are|.*not)"):
                reader(damaged)


def events_file(path: Path, count: int, **header: int) -> Path:
    head = np.zeros(1, HEADER)
    head["magic"], head["format"], head["byte_order"] = b"VMAFALT", fault_events.FORMAT, 0x01020304
    head["header_size"], head["event_size"] = HEADER.itemsize, EVENT.itemsize
    head["page_size"], head["source"] = 4096, 2
    for name, value in header.items():
        head[name] = value
    body = np.zeros(count, EVENT)
    body["start_ns"] = 1000 + np.arange(count)[::-1]
    body["process"], body["mode"], body["access"] = 2, 1, 1
    body["before"], body["after"], body["path"], body["result"] = 3, 3, 1, 1
    body["reason"] = np.arange(count) % (len(REASONS) + 1)
    path.write_bytes(head.tobytes() + body.tobytes())
    return path


def test_events_come_in_the_order_they_began(tmp_path: Path) -> None:
    counted = read_faults(json.dumps(COUNTS).encode())
    found = read_events(events_file(tmp_path / "e", 5), counted)
    assert found["time_ns"].tolist() == [0, 1, 2, 3, 4]
    assert found[["comm", "before", "path"]].iloc[0].tolist() == ["x", "bare", "vma"]
    assert found["reason"].isna().tolist() == [False] * 4 + [True]
    assert found["reason"].tolist()[:4] == [REASONS[number] for number in (3, 2, 1, 0)]
    assert found["origin"].isna().all()
    table = to_table(found.assign(repeat=1), SCHEMAS["fault_events"])
    assert table.num_rows == 5
    assert read_events(events_file(tmp_path / "none", 0), counted).empty


def test_damaged_events_give_one_sentence(tmp_path: Path) -> None:
    counted = read_faults(json.dumps(COUNTS).encode())
    whole = events_file(tmp_path / "whole", 3).read_bytes()
    cases = {
        "holds no events": b"not at all",
        "holds no events of": b"",
        "cut short": whole[:-1],
    }
    for said, content in cases.items():
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(FaultsError, match=said):
            read_events(tmp_path / "bad", counted)
    for said, header in (
        ("other byte order", {"byte_order": 0x04030201}),
        ("events of format 9", {"format": 9}),
        ("contradicts its format", {"header_size": 8}),
    ):
        with pytest.raises(FaultsError, match=said):
            read_events(events_file(tmp_path / "bad", 1, **header), counted)
    with pytest.raises(FaultsError, match=r"cannot read .*: No such file"):
        read_events(tmp_path / "absent", counted)


def test_impossible_codes_are_unknown(tmp_path: Path) -> None:
    counted = read_faults(json.dumps(COUNTS).encode())
    path = events_file(tmp_path / "e", 1)
    content = bytearray(path.read_bytes())
    content[HEADER.itemsize + 40 : HEADER.itemsize + 46] = b"\xff" * 6
    path.write_bytes(content)
    found = read_events(path, counted)
    assert found[["mode", "before"]].iloc[0].tolist() == ["gup", "not looked at"]


def test_order_of_passes_turns_round() -> None:
    assert tracing.order(1) == ["untraced", "faults", "locks", "time"]
    assert tracing.order(2) == ["time", "locks", "faults", "untraced"]


def test_what_a_target_must_have_for_its_faults_to_be_traced() -> None:
    def features(**have: bool) -> dict[str, Any]:
        names = (
            *("fentry", "fexit", "kprobe_multi", "kretprobe_multi", "kprobes", "kretprobes"),
            "page_fault_tracepoint",
        )
        return {
            "features": {
                name: {
                    "available": have.get(name, False),
                    "reason": None if have.get(name) else f"no {name}",
                }
                for name in names
            }
        }

    assert tracing.refusal(features(fentry=True, fexit=True)) is None
    assert tracing.refusal(features(kprobe_multi=True, kretprobe_multi=True)) is None
    assert tracing.refusal(features(page_fault_tracepoint=True)) is None
    assert tracing.refusal(features(kprobes=True, kretprobes=True)) is None
    said = tracing.refusal(features(fentry=True, kretprobe_multi=True))
    lacking = ("fexit", "kprobe_multi", "kprobes", "kretprobes", "page_fault_tracepoint")
    assert said == "; ".join(f"{name}: no {name}" for name in lacking)


def test_every_loss_has_its_column() -> None:
    assert set(TRACING_LOSSES) <= set(SCHEMAS["tracing"].names)
