# SPDX-License-Identifier: GPL-2.0-only
"""Text of perf script, however it is cut up and whatever is in it."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonvma.base.errors import ProfileError
from anonvma.perf import profile as perf_profile
from anonvma.perf.script import Parser, fields, read
from anonvma.perf.script_lines import is_script
from anonvma.perf.stacks import Profile

STACK = (
    b"\tffffffff81000001 clear_page_erms ([kernel.kallsyms])\n"
    b"\tffffffff81000c82 asm_exc_page_fault ([kernel.kallsyms])\n"
    b"\t            1191 main (/tmp/w)\n"
)


def sample(
    stack: bytes = STACK, time: int = 12_429_672_539_610, tid: int = 11, **more: Any
) -> bytes:
    head = b"%5d/%-5d [%03d] %5d.%09d: %10d %s: \n" % (
        more.get("pid", 10), tid, more.get("cpu", 0), *divmod(time, 10**9),
        more.get("period", 1003009), more.get("event", b"cpu-clock"),
    )  # fmt: skip
    return head + stack + b"\n"


def stacks(profile: Profile) -> list[list[str]]:
    """The symbols of each sample's stack, the innermost first."""
    offsets, symbols = profile.offsets, profile.frames["symbol"]
    return [
        [symbols[frame] for frame in profile.frame_ids[offsets[each] : offsets[each + 1]]]
        for each in profile.samples["stack"]
    ]


@pytest.mark.parametrize("name", ["perf-vdso.so-FLnuKX", "perf-vdso32.so-a_B9cd"])
def test_perfs_copy_of_the_vdso_has_the_same_name_each_time(name: str) -> None:
    stack = b"\t    a1f clock_gettime (/tmp/x/%s+0xa1f)\n" % name.encode()
    assert list(read([sample(stack)]).frames["file"]) == ["[vdso]"]


def test_columns_of_a_sample() -> None:
    text = sample() + sample(time=12_429_673_000_000, tid=12, cpu=3, period=7)
    found = read([text])
    assert found.samples["comm"].isna().all()  # a perf.data has the names
    rows = found.samples.drop(columns="comm").astype({"event": object}).to_numpy(object).tolist()
    assert rows == [
        [0, 0, 10, 11, "cpu-clock", 1003009, 0],
        [460_390, 3, 10, 12, "cpu-clock", 7, 0],
    ]
    assert stacks(found)[0] == ["clear_page_erms", "asm_exc_page_fault", "main"]
    assert list(found.frames["kernel"]) == [True, True, False]
    assert list(found.frames["file"]) == ["[kernel.kallsyms]", "[kernel.kallsyms]", "w"]


def test_stacks_are_stored_once_whatever_their_addresses() -> None:
    other = STACK.replace(b"1191", b"1199").replace(b"81000001", b"81000007")
    found = read([sample() + sample(other) + sample(b"\t 1 x (/tmp/w)\n") + sample()])
    # Two of the stacks are equal but for their addresses; by name they are drawn as one.
    assert stacks(found)[0] == stacks(found)[1] == stacks(found)[3]
    assert len(found.frames) == 4


@given(
    cuts=st.lists(st.integers(0, 40_000), max_size=8), count=st.integers(1, 60), seed=st.integers()
)
def test_text_may_be_cut_anywhere(cuts: list[int], count: int, seed: int) -> None:
    numbers = random.Random(seed)
    text = b"".join(
        sample(STACK if numbers.random() < 0.5 else b"\t 1 x (/tmp/w)\n", time=n, tid=n)
        for n in range(count)
    )
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    found = read(pieces)
    assert list(found.samples["tid"]) == list(range(count))
    whole = read([text])
    assert stacks(found) == stacks(whole)


@given(
    comm=st.binary(min_size=1, max_size=15).map(lambda name: name.replace(b"\0", b"")),
    count=st.integers(1, 3),
)
def test_somebody_elses_text_with_any_name_has_every_sample(comm: bytes, count: int) -> None:
    """The shares are right; the name is, but for the blanks around it."""
    if comm.startswith(b"\t") or b"\n\t" in comm or not comm.strip():
        return  # looks like a frame: only a perf.data tells
    text = (comm + b" 11 [000] 1.000000:  5 cycles: \n" + STACK + b"\n") * count
    found = read([text], theirs=True)
    assert list(found.samples["tid"]) == [11] * count
    assert stacks(found) == [["clear_page_erms", "asm_exc_page_fault", "main"]] * count
    if not set(comm) & set(b"\n\r\v\f\x1c\x1d\x1e\x85"):
        names = {name.strip() for name in found.samples["comm"]}
        assert names == {comm.decode("utf-8", "backslashreplace").strip()}


def test_files_and_symbols_with_newlines() -> None:
    stack = (
        b"\t 1218 spin (/tmp/a\n\nb c)\n\t 11dd operator() (/tmp/(x) y)\n"
        b"\t 7 foo\nbar (/tmp/w (deleted))\n\t 8 gone (inlined)\n"
    )
    found = read([sample(stack) + sample()])
    assert stacks(found)[0] == ["spin", "operator()", r"foo\nbar", "gone"]
    assert list(found.frames["file"][:3]) == [r"a\n\nb c", "(x) y", "w"]
    assert list(found.frames["inlined"][:4]) == [False, False, False, True]
    assert len(found.samples) == 2


def test_samples_of_one_line_among_others() -> None:
    line = b"   10/11    [001] 12429.853953572:          1 page-faults:  "
    line += b"ffffffff8175336a elf_load ([kernel.kallsyms])\n"
    found = read([sample() + line + line + sample(time=12_430 * 10**9)])
    assert stacks(found)[1] == ["elf_load"] and len(found.samples) == 4
    assert list(found.samples["event"]) == ["cpu-clock", "page-faults", "page-faults", "cpu-clock"]
    assert len(read([line * 3]).samples) == 3


def test_a_sample_without_a_stack_is_one() -> None:
    found = read([sample(b"") + sample()])
    assert stacks(found) == [[], ["clear_page_erms", "asm_exc_page_fault", "main"]]


def test_events_with_colons_and_slashes() -> None:
    names = [b"cycles:u", b"sched:sched_switch", b"cpu/event=0x3c,umask=0x0/"]
    found = read([b"".join(sample(event=name) for name in names)])
    assert [name.encode() for name in found.samples["event"]] == names


def test_fields_that_a_recording_has_not() -> None:
    assert fields(False, False)[-1] == "pid,tid,time,event,ip,sym,dso"
    text = b"   10/11    12429.853953572: cpu-clock: \n" + STACK + b"\n"
    found = read([text * 2], cpu=False, period=False)
    assert found.samples["cpu"].isna().all() and list(found.samples["period"]) == [1, 1]


@pytest.mark.parametrize("text", [b"", b"\n\n", b"hello\n", STACK, b"\0" * 5000, b"{}\n\n" * 500])
@pytest.mark.parametrize("theirs", [True, False])
def test_text_of_something_else(text: bytes, theirs: bool) -> None:
    why = "there is no sample in the text of perf script" + r"|line \d+ is neither" * theirs
    with pytest.raises(ProfileError, match=why):
        read([text], theirs=theirs)


# ---- somebody else's text: every line accounted for ----

HEADS = (
    b"bench 100 [000] 10.000100:    1000000 cpu-clock: \n",
    b"   bench   100/101   [001]    10.000100500:    1000000 cpu-clock:u: \n",
    b"bench 100 10.000100: sched:sched_switch: prev_comm=x ==> next_comm=y\n",
    b"kworker/u16:3-events_unbound 7 [000] 10.000100: 1 cycles: \n",
    b"Web Content 100 10.000100: 250000 cpu_core/cycles/P: \n",
    b"bench 100 [000] K      10.000100:    1000000 cpu-clock: \n",
)
FRAMES = (
    b"\t            1234 spin+0x4 (/srv/bench)\n",
    b"\tffffffff81000001 clear_page_erms+0x1 ([kernel.kallsyms])\n\tffff [unknown] ([unknown])\n",
    b"\t            1300 main+0x10 (/srv/a b (deleted))\n  bench.c:12\n",
    b"\t 7 gone (inlined)\n",
    b"",
)
NEITHER = (
    b"# ========\n# hostname : secret-host\n# cmdline : /usr/bin/perf record -g -- ./bench\n#\n",
    b"         swapper     0     0.000000: PERF_RECORD_MMAP -1/0: [0xff(0x10) @ 0]: x [k]_text\n",
    b"           bench   100    10.000000: PERF_RECORD_COMM: bench:100/100\n",
    b"           bench   100/100   [000] 10.000150: PERF_RECORD_FORK(101:101):(100:100)\n",
    b"   bench   100 [000]    10.000150: PERF_RECORD_SWITCH_CPU_WIDE OUT  next pid/tid: 1/1\n",
    b"bench 100 10.1: PERF_RECORD_NAMESPACES 100/100 - nr_namespaces: 2\n"
    b"\t\t[0/net: 3/0xf0000098, 1/uts: 3/0xeffffffe,\n\t\t 2/ipc: 3/0xefffffff]\n",
    b"bench 100 10.000100: PERF_RECORD_NAMESPACES 100/100 - nr_namespaces: 2\n"
    b"\t\t[0/net: 0/0, 1/uts: 0/0,\n\t\t 2/ipc: 0/0]\n",
    b"build id event received for [kernel.kallsyms]: e4f18d9dc1d0e [20]\n",
    b"PERF_RECORD_FINISHED_ROUND\n",
    b":-1    -1 [000] 1.000000: PERF_RECORD_KSYMBOL addr ffff len 53 type 1 flags 0x0 name bpf\n",
    b"[kernel.kallsyms] with build id 0123456789abcdef not found, continuing without symbols\n",
    b"Warning:\n1 out of order events recorded.\n",
    b"Warning:\nProcessed 5 events and lost 2 chunks!\n\nCheck IO/CPU overload!\n\n",
    b"no symbols found in /usr/bin/bench, maybe install a debug package?\n",
    b"addr2line: DWARF error: could not find variable specification at offset 3f\n",
    b"[ perf record: Woken up 1 times to write data ]\n",
    b"\n",
)
pieces = st.one_of(
    st.tuples(st.just("sample"), st.sampled_from(HEADS), st.sampled_from(FRAMES)),
    st.tuples(st.just("neither"), st.sampled_from(NEITHER), st.just(b"")),
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=12), st.integers(0, 2000))
def test_every_sample_is_taken_and_nothing_else(parts: list[Any], cut: int) -> None:
    text = b"".join(head + frames + b"\n" for _, head, frames in parts)
    heads = [head for kind, head, _ in parts if kind == "sample"]
    if not heads:
        return
    found = read([text[:cut], text[cut:]], theirs=True)
    assert len(found.samples) == len(heads)
    names = {"bench", "Web Content", "kworker/u16:3-events_unbound"}
    assert set(found.samples["comm"]) <= names
    assert set(found.frames["symbol"]) <= {"spin", "clear_page_erms", "main", "gone", "[unknown]"}


@pytest.mark.parametrize("neither", NEITHER)
def test_what_is_no_sample_is_no_part_of_one(neither: bytes) -> None:
    one = HEADS[0] + FRAMES[0] + b"\n"
    found = read([neither + one + neither + one + neither], theirs=True)
    assert list(found.samples["comm"]) == ["bench", "bench"]
    assert list(found.samples["event"]) == ["cpu-clock"] * 2 and stacks(found) == [["spin"]] * 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADS[0] + FRAMES[0] + b"a line of a program's own output\n", 3),
        (b"something else that is longer\n" + HEADS[0] + FRAMES[0], 1),
        (FRAMES[0] + b"\n" + HEADS[0] + FRAMES[0], 1),
        (HEADS[0] + FRAMES[0] + b"\n" + b"bench 100 no time at all: cpu-clock:\n" + FRAMES[0], 4),
        ((HEADS[0] + FRAMES[0] + b"\n") * 70_000 + b"Segmentation fault (core dumped)\n", 210_001),
        (HEADS[0] + FRAMES[0] + b"\nshort\n", 4),
    ],
)
def test_any_other_line_is_named(text: bytes, line: int) -> None:
    with pytest.raises(ProfileError, match=rf"^line {line} is neither of a sample nor of a frame"):
        read([text], theirs=True)


def test_what_its_records_say_was_lost_is_counted() -> None:
    one = HEADS[0] + FRAMES[0] + b"\n"
    lost = b"bench 100 [000] 10.000200: PERF_RECORD_LOST lost 5\n"
    samples = b"bench 100 10.000300: PERF_RECORD_LOST_SAMPLES lost 7\n"
    assert read([one, lost + one + samples], theirs=True).lost == 12
    assert read([one * 2], theirs=True).lost == 0


def test_records_may_stand_before_the_first_sample() -> None:
    records = b"    swapper     0 [000]  1.000000: PERF_RECORD_SWITCH_CPU_WIDE OUT\n" * 2000
    assert is_script(records) and is_script(HEADS[0]) and not is_script(STACK)
    assert len(read([records + HEADS[0] + FRAMES[0]], theirs=True).samples) == 1


def test_a_name_with_an_empty_line_may_be_cut() -> None:
    one = b"a b\n\n1/1 [0]\xff\t 11/11 [000] 1.000000: 5 cycles: \n" + FRAMES[0] + b"\n"
    text = one * 100
    parser = Parser(theirs=True)
    for piece in (text[:3000], text[3000:]):
        parser.feed(piece)
        parser._advance()
    assert set(parser.finish().samples["comm"]) == {"a b\n\n1/1 [0]\\xff"}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_there_are_samples_or_a_sentence(data: Any) -> None:
    text = data.draw(st.sampled_from(HEADS)) + FRAMES[1] + b"\n"
    text = data.draw(st.sampled_from(NEITHER)) + text + text
    place, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 8))
    changed = text[:place] + data.draw(st.binary(max_size=8)) + text[place + length :]
    try:
        found = read([changed], theirs=True)
    except ProfileError as error:
        assert str(error).isprintable()
    else:
        for event in perf_profile.events(found):
            with suppress(ProfileError):  # every period 0
                assert perf_profile.self_(found, event).between(0, 100.000001).all()


def test_more_text_than_is_taken() -> None:
    with pytest.raises(ProfileError, match=r"is longer than 1 MiB: .*--limit"):
        read([sample() * 1000] * 10, limit=1 << 20)
