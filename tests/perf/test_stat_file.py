# SPDX-License-Identifier: GPL-2.0-only
"""Output of perf stat from elsewhere: each line is a count, known to be none, or refused.

Texts are in the words of tools/perf/util/stat-display.c.
"""

from __future__ import annotations

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

LOCALES = {
    "C": ("", "."),
    "en": (",", "."),
    "de": (".", ","),
    "fr": ("\u202f", ","),
    "cs": ("\u00a0", ","),
    "ch": ("\u2019", "."),
    "ch, older": ("'", "."),
    "pt": ("", ","),
    "copied": (" ", ","),
}


def read(text: str) -> list[Counts]:
    return stat_file.read(text.encode())


def values(text: str) -> dict[str, float | None]:
    (one,) = read(text)
    return {row["event"]: row["value"] for row in one.totals}


def grouped(value: float, decimals: int, locale: str) -> str:
    group, point = LOCALES[locale]
    return f"{value:,.{decimals}f}".translate({ord(","): group, ord("."): point})


def people(rows: list[tuple[str, str, str, str]], locale: str, seconds: float = 1.5) -> str:
    """A summary as for a person: place, value, unit and event of each row."""
    lines = [f"{place:>20} {value:>18} {unit:<4} {event:<24}" for place, value, unit, event in rows]
    elapsed = grouped(seconds, 9, locale)
    body = "\n".join(line.rstrip() for line in lines)
    head = " Performance counter stats for './x 1':"
    return f"\n{head}\n\n{body}\n\n   {elapsed} seconds time elapsed\n"


@pytest.mark.parametrize("locale", LOCALES)
def test_numbers_of_a_locale(locale: str) -> None:
    text = people(
        [
            ("", grouped(1101.01, 2, locale), "msec", "task-clock"),
            ("", "11", "", "context-switches"),
            ("", grouped(4321, 0, locale), "", "page-faults"),
            ("", grouped(4963414681, 0, locale), "", f"cycles   ({grouped(78.79, 2, locale)}%)"),
        ],
        locale,
    )
    (found,) = read(text)
    assert [row["value"] for row in found.totals] == [1101.01, 11, 4321, 4963414681]
    assert found.totals[3]["running_share"] == pytest.approx(0.7879) and found.seconds == 1.5


def test_a_count_alone_is_a_whole_number() -> None:
    head = " Performance counter stats for 'x':\n"
    assert values(f"{head}   4.321      page-faults\n") == {"page-faults": 4321}
    assert values(f"{head}   4,321      page-faults\n") == {"page-faults": 4321}
    assert values(f"{head}   4.321,50   page-faults\n") == {"page-faults": 4321.5}  # of repeats
    assert values(f"{head}   1,23,45,678   page-faults\n") == {"page-faults": 12345678}  # hi_IN
    assert values(f"{head}   1101.015976   task-clock (msec)  #  0.9 CPUs utilized\n") == {
        "task-clock": 1101.015976
    }


def test_latin_1_has_another_blank() -> None:
    text = (
        " Performance counter stats for 'x':\n 4\u00a0321 page-faults\n 0,5 seconds time elapsed\n"
    )
    (found,) = stat_file.read(text.encode("latin-1"))
    assert (found.totals[0]["value"], found.seconds) == (4321, 0.5)


def test_numbers_that_contradict_each_other_are_refused() -> None:
    head = " Performance counter stats for 'x':\n"
    for lines in (
        "  4.321,50 msec task-clock\n  4,321 page-faults\n",
        "  1,000 a\n  1.000 b\n",
        "  1,000 a\n  2.5 seconds time elapsed\n  1.000 b\n",
        "  1 000 a\n  1,000 b\n",
    ):
        with pytest.raises(ProfileError, match=r"line \d writes numbers in another way"):
            read(head + lines)


PLACES = {
    "cpu": ["CPU0", "CPU1", "CPU12"],
    "socket": ["S0        8", "S1        8"],
    "die": ["S0-D0        8", "S0-D1        8"],
    "core": ["S0-D0-C0        2", "S0-D0-C1        2"],
    "percore": ["S0-D0-C0", "S0-D0-C1"],
    "node": ["N0        8", "N1        8"],
    "cluster": ["S0-D0-CLS0        4", "S0-D0-CLS8        4"],
    "cache": ["S0-D0-L3-ID0        8", "S0-D0-L3-ID8        8"],
    "thread": ["worker-4711", "Web Content-4712", "kworker/0:1-ev-77"],
    "number": ["17 page-faults-4711", "3-4712"],
}


@pytest.mark.parametrize("place", PLACES)
def test_places_are_summed_up(place: str) -> None:
    places = PLACES[place]
    rows = [
        (where, f"{1000 * n:,}", "", event)
        for event in ("page-faults", "cycles")
        for n, where in enumerate(places, 1)
    ]
    total = 1000 * sum(range(1, len(places) + 1))
    assert values(people(rows, "en")) == {"page-faults": total, "cycles": total}
    text = "".join(
        f"{','.join(where.split('        '))},{value.replace(',', '')},,{event},100,100.00,,\n"
        for where, value, _, event in rows
    )
    assert values(text) == {"page-faults": total, "cycles": total}


@pytest.mark.parametrize(
    "place",
    ['"cpu" : "%d"', '"socket" : "S%d", "aggregate-number" : 8', '"core" : "S0-D0-C%d"',
     '"thread" : "web x-%d"', '"cgroup" : "kube/%d"', '"die" : "S0-D%d", "counters" : 2'],
)  # fmt: skip
def test_places_of_json_are_summed_up_in_any_locale(place: str) -> None:
    line = (
        '{%s, "counter-value" : "%d,000000", "unit" : "", "event" : "page-faults", '
        '"event-runtime" : 5, "pcnt-running" : 50,00, "metric-value" : 0,10, "metric-unit" : ""}\n'
    )
    (found,) = read("".join(line % (place % n, 1000 * n) for n in (1, 2)))
    assert [(r["value"], r["running_share"]) for r in found.totals] == [(3000, 0.5)]


def test_cgroups_and_units() -> None:
    rows = [("", "1,000", "", "page-faults  kube/a"), ("", "2,000", "", "page-faults  kube/b")]
    assert values(people(rows, "en")) == {"page-faults": 3000}
    (found,) = read(people([("", "12.50", "Furlongs", "power/energy-pkg/")], "en"))
    assert (found.totals[0]["event"], found.totals[0]["unit"]) == ("power/energy-pkg/", "Furlongs")


@pytest.mark.parametrize("sep", ["++", "|||", "*#", "%", " ; ", "=>"])
@pytest.mark.parametrize("place", ["", "CPU0", "S0-D0-C0", "worker-4711"])
def test_any_text_may_stand_between_fields(sep: str, place: str) -> None:
    fields = [*[place] * bool(place), *["2"] * place.startswith("S0")]
    rows = [["1.5", "msec", "task-clock"], ["44", "", "page-faults"], ["7", "", "minor-faults"]]
    lines = [
        sep.join([f"     {0.1 * second:.9f}", *fields, *row, "306721", "100.00", "0.14", "M/sec"])
        for second in (1, 2)
        for row in rows
    ]
    text = "\n".join(["# started on Thu Nov 20 10:00:00 2025", "", *lines, ""])
    assert stat_file.is_stat(text.encode())
    assert values(text) == {"task-clock": 3, "page-faults": 88, "minor-faults": 14}


def test_blanks_before_a_line_make_it_no_metric_of_the_one_before() -> None:
    text = "44  page-faults 306721 100.00 0.140 M/sec\n     and something else\n"
    with pytest.raises(ProfileError, match="line 2 is neither"):
        read(text)


def test_fields() -> None:
    repeated = "4700,,page-faults,0.31%,101000000,100.00,47.0,K/sec\n"
    assert values(repeated) == {"page-faults": 4700}
    with_metric = "100,,cycles,10,50.00,0.5,GHz\n,,,,,0.90,insn per cycle\n"
    assert values(with_metric) == {"cycles": 100}
    named = "9,,cpu/event=0x3c,umask=0x1/,10,50.00,,\n"
    assert values(named) == {"cpu/event=0x3c,umask=0x1/": 9}
    other = "<not supported>|-|cycles|0|100.00||\n44|msec|task-clock|7|100.00||\n"
    assert values(other) == {"cycles": None, "task-clock": 44}
    summary = "     1.000100000,5,,faults,10,100.00,,\n         summary,5,,faults,10,100.00,,\n"
    (found,) = read(summary)
    assert len(found.intervals) == 1 and found.totals[0]["value"] == 5


@pytest.mark.parametrize(
    "line",
    [
        "1101,01,msec,task-clock,7,100,00,0,999,CPUs utilized",  # decimals and fields by one mark
        "44,,page-faults",
        "killed",
        "-5,,cycles,306721,100.00,,",
        "99999999999999999999,,cycles,306721,100.00,,",
        "5,,cycles,306721,178.79,,",
        '{"event" : "x"}',
    ],
)
def test_fields_that_are_none_are_refused(line: str) -> None:
    with pytest.raises(ProfileError, match="line 2 "):
        read(f"44,,page-faults,306721,100.00,,\n{line}\n")


@pytest.mark.parametrize("line", ["x: out of memory", "1,000", "CPU0 17 page-faults", "1 2 3 4"])
def test_lines_among_counters_are_not_passed_over(line: str) -> None:
    text = people([("", "1,000", "", "page-faults"), ("", "2,000", "", "cycles")], "en")
    broken = text.replace("\n\n   1.5", f"\n{line}\n   1.5")
    with pytest.raises(ProfileError, match=r"line 6 is neither a count"):
        read(broken)


def test_what_perf_says_besides_is_known() -> None:
    text = """the command's own output, 17 page-faults
# started on Thu Nov 20 10:00:00 2025


 Performance counter stats for './x' (3 runs):

     1,234,567      cycles:u                  #    0.523 GHz      ( +-  1.20% )  (66.67%)
                                              #      0.8 %  tma_retiring
   <not supported>      LLC-loads
\x1b[31m       100\x1b[m      branch-misses   [83.35%]

            # Table of individual measurements:
            1.0012 (+0.0002) ###
            1.0008 (-0.0002) #

            # Final result:
         1.00100 +- 0.00010 seconds time elapsed  ( +-  1.67% )

       0.900000000 seconds user
       0.100000000 seconds sys

Some events weren't counted. Try disabling the NMI watchdog:
\techo 0 > /proc/sys/kernel/nmi_watchdog
\tperf stat ...
\techo 1 > /proc/sys/kernel/nmi_watchdog
"""
    (found,) = read(text)
    assert [(row["event"], row["value"]) for row in found.totals] == [
        ("cycles:u", 1_234_567),
        ("LLC-loads", None),
        ("branch-misses", 100),
    ]
    assert (found.seconds, found.runs) == (1.001, 3)
    assert found.totals[2]["running_share"] == pytest.approx(0.8335)


def test_a_command_of_several_lines_is_no_counter() -> None:
    text = people([("", "1,000", "", "page-faults")], "en")
    text = text.replace("./x 1", "sh -c echo 1\n   17 cycles\nfor x in 1:\n 2")
    assert values(text) == {"page-faults": 1000}


# ---- several executions ----


def test_appended_executions_are_repeats(tmp_path: Path) -> None:
    def one(faults: int, seconds: float) -> str:
        rows = [("", f"{faults:,}", "", "page-faults")]
        return "# started on Thu Nov 20 10:00:00 2025\n\n" + people(rows, "en", seconds)

    path = tmp_path / "stat.txt"
    path.write_text(one(1000, 1.0) + one(1200, 0.5) + one(1100, 2.0))
    run = runs.Run.open(import_files([path], tmp_path).path)
    assert run.manifest.repeats == 3
    assert run.table("perf_stat")["value"].tolist() == [1000, 1200, 1100]
    assert run.table("repeats")["seconds"].tolist() == [1, 0.5, 2]
    # Without perf's line the heading tells them apart.
    assert len(read(one(1, 1.0).partition("\n")[2] + one(2, 1.0).partition("\n")[2])) == 2


def test_appended_fields_and_json() -> None:
    fields = "44,,page-faults,306721,100.00,,\n"
    started = "# started on Thu Nov 20 10:00:00 2025\n\n"
    assert [c.totals[0]["value"] for c in read((started + fields) * 2)] == [44, 44]
    json = '{"counter-value" : "7", "unit" : "", "event" : "faults", "pcnt-running" : 100.00}\n'
    assert [c.totals[0]["value"] for c in read((started + json) * 2)] == [7, 7]
    for text in (fields * 2, json * 2):
        with pytest.raises(ProfileError, match=r"line 2 counts .* a second time"):
            read(text)
    intervals = "1.0,7\n2.0,8\n".replace(".0,", ".000000000,").replace("\n", ",,a,9,100.00,,\n")
    with pytest.raises(ProfileError, match="line 3 counts a a second time"):
        read(intervals * 2)


# ---- any text ----

WORDS = st.text("abcxyz-_:/0123456789", min_size=1, max_size=12)
EVENTS = st.lists(WORDS.filter(lambda w: w[0].isalpha() and "/" not in w), min_size=1, max_size=5,
                  unique=True)  # fmt: skip
COUNTS = st.integers(0, 10**12)


@settings(deadline=None)
@given(st.data(), EVENTS, st.sampled_from(sorted(LOCALES)))
def test_every_count_for_people_is_taken(data: Any, events: list[str], locale: str) -> None:
    counts = [data.draw(COUNTS) for _ in events]
    rows = [("", grouped(n, 0, locale), "", e) for n, e in zip(counts, events, strict=True)]
    assert values(people(rows, locale)) == dict(zip(events, counts, strict=True))


@settings(deadline=None)
@given(st.data(), EVENTS, st.sampled_from(",;|\t"))
def test_every_line_of_fields_is_taken(data: Any, events: list[str], sep: str) -> None:
    lines, sums = [], dict.fromkeys(events, 0)
    for event in events:
        for cpu in range(data.draw(st.integers(1, 3))):
            value = data.draw(COUNTS)
            sums[event] += value
            share = data.draw(st.floats(0, 100))
            lines.append(
                sep.join([f"CPU{cpu}", str(value), "", event, "9", f"{share:.2f}", "", ""])
            )
    (found,) = read("\n".join(lines))
    assert {row["event"]: row["value"] for row in found.totals} == sums
    assert all(0 <= row["running_share"] <= 1 for row in found.totals)


SAMPLE = people([("", "1,000", "", "page-faults"), ("", "2.50", "msec", "task-clock")], "en")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_there_is_a_count_or_a_sentence(data: Any) -> None:
    text = data.draw(
        st.sampled_from(
            [
                SAMPLE,
                "CPU0,10,,cycles,100,100.00,,\nCPU1,30,,cycles,100,50.00,,\n",
                '{"counter-value" : "7.5", "unit" : "", "event" : "x", "pcnt-running" : 9.00}\n'
                * 2,
                "     1.000100000 S0        8          1,000,000      page-faults\n",
            ]
        )
    ).encode()
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


INTERVALS = """     1.000100000,44,,page-faults,1001000,100.00,44.0,/sec
     1.000100000,788234,,cycles,1001000,78.79,,
     2.000200000,46,,page-faults,1001000,100.00,46.0,/sec
     2.000200000,888234,,cycles,1001000,78.79,,
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (INTERVALS, {"page-faults": 90, "cycles": 1_676_468}),
        (people([("", "1 101,01", "msec", "task-clock"), ("", "4 321", "", "faults")], "copied"),
         {"task-clock": 1101.01, "faults": 4321}),
        (people([("", "16,012.41", "msec", "cpu-clock"),
                 ("", "1,234,567,890", "", "TOPDOWN.SLOTS   #  12.1 %  tma_backend_bound")], "en"),
         {"cpu-clock": 16012.41, "TOPDOWN.SLOTS": 1_234_567_890}),
        (people([("", "<not counted>", "", "cycles   (0.00%)"),
                 ("", "<not supported>", "", "LLC-loads")], "en"),
         {"cycles": None, "LLC-loads": None}),
    ],
)  # fmt: skip
def test_what_people_send(text: str, told: dict[str, float | None]) -> None:
    assert values(text) == told


@pytest.mark.parametrize(
    "text", [b"", b"a,b,c\n", b"{}", b"1 2 3\n", b"\xff\xfe\0", b"{" * 99999, b"," * 99999]
)
def test_text_of_something_else(text: bytes) -> None:
    assert not stat_file.is_stat(text)
    with pytest.raises(ProfileError):
        stat_file.read(text)
