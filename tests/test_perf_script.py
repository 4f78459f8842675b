# SPDX-License-Identifier: GPL-2.0-only
"""Text of perf script, however it is cut up and whatever is in it."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonvma.errors import ProfileError
from anonvma.perf_script import Profile, fields, read

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
    with pytest.raises(ProfileError, match="there is no sample in the text of perf script"):
        read([text], theirs=theirs)


def test_more_text_than_is_taken() -> None:
    with pytest.raises(ProfileError, match=r"is longer than 1 MiB: .*--limit"):
        read([sample() * 1000] * 10, limit=1 << 20)
