# SPDX-License-Identifier: GPL-2.0-only
"""Narrowing down a census: against plain pandas, and against what the kernel says of itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonvma.base.errors import SelectionError
from anonvma.explore import census_reader, export, filter, live
from anonvma.explore.filter import STATES, Filter
from anonvma.explore.selection import Vmas
from anonvma.run import runs, vma_flags
from anonvma.run.vma_flags import FLAGS

SPECIMENS = runs.find("specimens")
VMAS = Vmas.of_run(SPECIMENS)
FRAME = SPECIMENS.table("census")


def by_pandas(wanted: Filter) -> pd.Series:
    """The same question, asked of the run's table the slow and plain way."""
    state = FRAME["class"].astype("object")
    state = state.where(FRAME["bare"], np.where(FRAME["anonymous"], "anon_vma", "vm_ops"))
    met = pd.Series(True, index=FRAME.index)
    if wanted.processes:
        met &= FRAME["tgid"].isin(wanted.processes)
    if wanted.origins:
        met &= FRAME["origin"].astype("object").isin(wanted.origins)
    if wanted.states:
        met &= state.isin(wanted.states)
    if wanted.smallest is not None:
        met &= FRAME["bytes"] >= wanted.smallest
    if wanted.largest is not None:
        met &= FRAME["bytes"] <= wanted.largest
    for name in wanted.having:
        met &= FRAME["flags"].map(lambda flags, n=FLAGS[name]: bool(int(flags) >> n & 1))
    for name in wanted.lacking:
        met &= FRAME["flags"].map(lambda flags, n=FLAGS[name]: not int(flags) >> n & 1)
    if wanted.within:
        met &= (FRAME["start"] >= wanted.within[0]) & (FRAME["end"] <= wanted.within[1])
    return met.astype(bool)


def some(values: list[object], most: int = 3) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


edges = sorted(int(value) for value in FRAME["start"].unique()[::40])
filters = st.builds(
    Filter,
    processes=some(sorted(int(tgid) for tgid in FRAME["tgid"].unique())),
    origins=some(sorted(FRAME["origin"].astype("object").unique())),
    states=some(list(STATES)),
    smallest=st.none() | st.sampled_from([4096, 32768, 1 << 20]),
    largest=st.none() | st.sampled_from([4096, 65536, 1 << 30]),
    having=some(["READ", "WRITE", "EXEC", "GROWSDOWN"], 2),
    lacking=some(["WRITE", "SHARED", "MAYWRITE"], 2),
    within=st.none()
    | st.tuples(st.sampled_from(edges), st.sampled_from(edges)).map(
        lambda pair: (min(pair), max(pair))
    ),
)


@given(filters)
def test_a_filter_leaves_what_plain_pandas_leaves(wanted: Filter) -> None:
    expected = by_pandas(wanted)
    found = VMAS.select(wanted)
    assert found.mask.tolist() == expected.tolist()
    kept = FRAME[expected]
    assert len(found) == len(kept)
    assert found.total("bytes") == kept["bytes"].sum()
    counts = dict(zip(found.origins()["origin"], found.origins()["vmas"], strict=True))
    assert counts == kept["origin"].astype("object").value_counts().to_dict()
    processes = found.processes().set_index("tgid")["vmas"].to_dict()
    assert processes == kept["tgid"].value_counts().to_dict()
    states = found.states().set_index("state")
    assert states["vmas"].sum() == len(kept)
    assert states["zero"].sum() == kept["zero"].fillna(0).sum()


@given(filters, st.sampled_from(["start", "bytes", "zero"]), st.booleans(), st.integers(0, 400))
def test_rows_are_the_ordered_ones(wanted: Filter, key: str, descending: bool, begin: int) -> None:
    found = VMAS.select(wanted).rows(key, descending, begin, 20)
    kept = FRAME[by_pandas(wanted)].assign(**{key: lambda f: f[key].fillna(0)})
    expected = kept.sort_values(key, ascending=not descending, kind="stable")
    assert found.index.tolist() == expected.iloc[begin : begin + 20].index.tolist()


def test_a_repeat_is_read_as_the_whole_table_has_it() -> None:
    run = runs.find("small-allocs-mt")
    assert census_reader.repeats_of(run) == [1, 2, 3, 4, 5]
    table = run.table("census")
    expected = table[table["repeat"] == 3].drop(columns="repeat").reset_index(drop=True)
    found = Vmas.of_run(run, 3).frame
    assert list(found) == list(expected)
    for name in expected:
        left, right = found[name].astype("object"), expected[name].astype("object")
        assert (left.isna() == right.isna()).all(), name
        assert (left.dropna() == right.dropna()).all(), name
    with pytest.raises(SelectionError, match=r"has no repeat 9: it has 1, 2, 3, 4, 5\."):
        Vmas.of_run(run, 9)


def test_nothing_says_what_to_widen() -> None:
    wanted = Filter(origins=("heap",), states=("guard",))
    assert not len(VMAS.select(wanted))
    heaps = int((FRAME["origin"] == "heap").sum())
    said = VMAS.why_nothing(wanted)
    assert said.startswith("Nothing is selected")
    assert f"without the condition on the state there would be {heaps:,}" in said
    hopeless = Filter(origins=("heap",), states=("guard",), smallest=1 << 50)
    assert VMAS.why_nothing(hopeless).endswith("clear the filter and begin anew.")
    assert "no VMA at all" in Vmas(VMAS.frame.iloc[:0], 4096).why_nothing(Filter())


def test_flags_are_those_of_smaps(build: Path) -> None:
    """The kernel's own two-letter names of the flags, for a process of ours."""
    letters = {
        "rd": "READ",
        "wr": "WRITE",
        "ex": "EXEC",
        "sh": "SHARED",
        "mr": "MAYREAD",
        "mw": "MAYWRITE",
        "me": "MAYEXEC",
        "ms": "MAYSHARE",
        "gd": "GROWSDOWN",
        "pf": "PFNMAP",
        "io": "IO",
        "de": "DONTEXPAND",
        "dd": "DONTDUMP",
        "ac": "ACCOUNT",
        "nr": "NORESERVE",
    }
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            with live.Observer() as observer:
                frame = observer.census([process.pid]).census.vmas
            smaps = Path(f"/proc/{process.pid}/smaps").read_text()
        finally:
            process.kill()
    flags = dict(zip(frame["start"].tolist(), frame["flags"].tolist(), strict=True))
    compared = 0
    for block in re.finditer(r"^([0-9a-f]+)-\S+ .*?^VmFlags: ([\w ]+)$", smaps, re.M | re.S):
        if int(block[1], 16) not in flags:  # [vsyscall], which no mm has
            continue
        names = set(vma_flags.flag_names(flags[int(block[1], 16)])) & set(letters.values())
        assert names == {letters[word] for word in block[2].split() if word in letters}
        compared += 1
    assert compared > 5


def test_sizes_read_like_a_person_says_them() -> None:
    said = [filter.size(n) for n in (0, 4096, 1 << 20, 3 << 29, (1 << 47) - 4096)]
    assert said == ["0 B", "4 KiB", "1 MiB", "1.5 GiB", "128.0 TiB"]


# ---- taking it along ----


def test_paragraph_is_ready_for_a_mail() -> None:
    tgid = int(FRAME["tgid"].iloc[0])
    found = VMAS.select(Filter(states=("zero-page",), processes=(tgid,), smallest=8192))
    text = export.paragraph(found, "specimens on Linux 6.18 (x86_64, 2 CPUs)")
    assert max(map(len, text.splitlines())) <= 72 and text.endswith(".\n")
    flat = " ".join(text.split())
    assert flat.startswith(f"{len(found):,} of {len(VMAS):,} VMAs (specimens on Linux 6.18")
    assert "those of one process, in state zero-page, of at least 8 KiB" in flat
    zero = int(FRAME[by_pandas(found.filter)]["zero"].sum())
    assert f"{zero:,} of these the zero page" in flat
    assert str(tgid) not in text
    none = export.paragraph(VMAS.select(Filter(smallest=1 << 50)), "somewhere")
    assert none == f"Of {len(VMAS):,} VMAs (somewhere), those of at least 1,024 TiB: none.\n"


def test_export_is_the_selection_in_three_ways(tmp_path: Path) -> None:
    found = VMAS.select(Filter(states=("zero-page", "guard")))
    parquet, csv, text = export.write(found, "here", "mine", tmp_path / "new" / "place")
    frame = found.frame()
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), frame, check_dtype=False)
    again = pd.read_csv(csv)
    assert again["start"].tolist() == frame["start"].tolist()
    assert set(again["state"]) == {"zero-page", "guard"}
    assert text.read_text() == export.paragraph(found, "here")
    assert sorted(path.name for path in parquet.parent.iterdir()) == [
        "mine.csv",
        "mine.parquet",
        "mine.txt",
    ]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a\nb"])
def test_export_refuses_a_name_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(SelectionError, match="cannot be the name of a file here"):
        list(export.write(VMAS.select(Filter()), "here", name, tmp_path))
    assert not list(tmp_path.iterdir())


def test_export_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SelectionError, match=r"cannot write .*: (Not a directory|File exists)"):
        list(export.write(VMAS.select(Filter()), "here", "x", tmp_path / "file"))
    assert os.listdir(tmp_path) == ["file"]
