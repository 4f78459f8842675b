# SPDX-License-Identifier: GPL-2.0-only
"""JSON of perf stat from elsewhere: each line is a count, known to be none, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonvma.base.errors import ProfileError
from anonvma.collect.importing import import_files
from anonvma.perf import stat_file
from anonvma.perf.stat_file import Counts
from anonvma.run import runs

STARTED = "# started on Thu Nov 20 10:00:00 2025\n\n"


def read(text: str) -> list[Counts]:
    return stat_file.read(text.encode())


def line(event: str, value: object, share: float = 100.0, **more: object) -> str:
    told = {"counter-value": str(value), "unit": "", "event": event, "pcnt-running": share}
    return json.dumps(told | more) + "\n"


@pytest.mark.parametrize(
    "place",
    ['"cpu" : "%d"', '"socket" : "S%d", "aggregate-number" : 8', '"core" : "S0-D0-C%d"',
     '"thread" : "web x-%d"', '"cgroup" : "kube/%d"', '"die" : "S0-D%d", "counters" : 2'],
)  # fmt: skip
def test_places_are_summed_up_in_any_locale(place: str) -> None:
    text = (
        '{%s, "counter-value" : "%d,000000", "unit" : "", "event" : "page-faults", '
        '"event-runtime" : 5, "pcnt-running" : 50,00, "metric-value" : 0,10, "metric-unit" : ""}\n'
    )
    (found,) = read("".join(text % (place % n, 1000 * n) for n in (1, 2)))
    assert [(r["value"], r["running_share"]) for r in found.totals] == [(3000, 0.5)]


def test_what_is_not_a_count_is_known() -> None:
    metric = '{"metric-value" : 0.90, "metric-unit" : "insn per cycle"}\n'
    text = STARTED + line("cycles:u", 7, 66.67) + metric
    text += line("LLC-loads", "<not supported>", 0) + line("branches", "<not counted>", 0)
    (found,) = read(text)
    assert [(row["event"], row["value"], row["supported"]) for row in found.totals] == [
        ("cycles:u", 7, True),
        ("LLC-loads", None, False),
        ("branches", None, True),
    ]
    assert found.totals[0]["running_share"] == pytest.approx(0.6667)
    assert found.seconds is None


@pytest.mark.parametrize(
    "broken",
    [
        "killed",
        "44,,page-faults,306721,100.00,,",
        '{"event" : "x"}',
        '{"counter-value" : "5", "event" : ',
        line("cycles", -5),
        line("cycles", 99999999999999999999),
        line("cycles", "many"),
        line("cycles", 5, 178.79),
        line("cycles", 5, interval=-1.0),
        line("page-faults", 44),
    ],
)
def test_a_line_that_is_none_is_refused(broken: str) -> None:
    with pytest.raises(ProfileError, match="line 2 "):
        read(line("page-faults", 44) + broken + "\n")


# ---- several executions, and intervals ----


def test_appended_executions_are_repeats(tmp_path: Path) -> None:
    def one(faults: int, seconds: float) -> str:
        return STARTED + line("page-faults", faults) + line("duration_time", seconds * 1e9)

    path = tmp_path / "stat.json"
    path.write_text(one(1000, 1.0) + one(1200, 0.5) + one(1100, 2.0))
    run = runs.Run.open(import_files([path], tmp_path).path)
    assert run.manifest.repeats == 3
    counted = run.table("perf_stat")
    faults = counted.loc[counted["event"] == "page-faults", "value"]
    assert faults.tolist() == [1000, 1200, 1100]
    assert run.table("repeats")["seconds"].tolist() == [1, 0.5, 2]


def test_executions_that_nothing_parts_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"line 2 counts .* a second time"):
        read(line("faults", 7) * 2)
    intervals = line("a", 7, interval=1.0) + line("a", 8, interval=2.0)
    with pytest.raises(ProfileError, match="line 3 counts a a second time"):
        read(intervals * 2)
    with pytest.raises(ProfileError, match="line 3 counts b a second time"):
        read(intervals + line("b", 8, interval=1.0))


def test_intervals_and_their_summary() -> None:
    intervals = line("faults", 44, interval=1.0001) + line("faults", 46, interval=2.0002)
    (found,) = read(intervals)
    assert [row["value"] for row in found.intervals] == [44, 46]
    assert (found.totals[0]["value"], found.seconds) == (90, 2.0002)
    (found,) = read(intervals + line("faults", 91))
    assert len(found.intervals) == 2 and found.totals[0]["value"] == 91


# ---- any text ----

EVENTS = st.lists(st.text("abcxyz-_:/0123456789", min_size=1, max_size=12), min_size=1, max_size=5,
                  unique=True)  # fmt: skip


@settings(deadline=None)
@given(st.data(), EVENTS)
def test_every_line_is_taken(data: Any, events: list[str]) -> None:
    lines, sums = [], dict.fromkeys(events, 0)
    for event in events:
        for cpu in range(data.draw(st.integers(1, 3))):
            value = data.draw(st.integers(0, 10**12))
            sums[event] += value
            lines.append(line(event, value, data.draw(st.floats(0, 100)), cpu=str(cpu)))
    (found,) = read("".join(lines))
    assert {row["event"]: row["value"] for row in found.totals} == sums
    assert all(0 <= row["running_share"] <= 1 for row in found.totals)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_there_is_a_count_or_a_sentence(data: Any) -> None:
    text = (STARTED + line("x", 7.5, 9.0, interval=1.0) + line("y", 3)).encode()
    place = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 8))
    changed = text[:place] + data.draw(st.binary(max_size=8)) + text[place + length :]
    stat_file.is_stat(changed)
    try:
        found = stat_file.read(changed)
    except ProfileError as error:
        assert str(error).isprintable()
    else:
        for one in found:
            assert one.totals and all(
                row["value"] is None or row["value"] == row["value"] for row in one.totals
            )


@pytest.mark.parametrize(
    "text",
    [b"", b"a,b,c\n", b"{}", b"1 2 3\n", b"\xff\xfe\0", b"{" * 99999, b"," * 99999,
     b" Performance counter stats for 'x':\n\n 1,000 cycles\n"],
)  # fmt: skip
def test_text_of_something_else(text: bytes) -> None:
    assert not stat_file.is_stat(text)
    with pytest.raises(ProfileError):
        stat_file.read(text)
