# SPDX-License-Identifier: GPL-2.0-only
"""Why two adjacent VMAs are not one: pairs made on purpose, and then made equal."""

from __future__ import annotations

from pathlib import Path

import adjacent
import numpy as np
import pandas as pd

from anonvma.base.tabular import LACKING
from anonvma.collect import targets
from anonvma.probe.vma_kinds import why_apart
from anonvma.tables import apart


def test_the_first_test_that_fails_is_named_and_without_it_they_merge(
    build: Path, tmp_path: Path
) -> None:
    with targets.parse("local") as here:
        pairs = adjacent.observe(here, adjacent.compiled(tmp_path), tmp_path)
    assert len(pairs) >= 30
    assert [pair for pair in pairs if pair.reason != pair.expected] == []
    merged = {pair.name for pair in pairs if pair.became == "merged"}
    assert merged == {pair.name for pair in pairs if pair.should == "merges"}


def test_the_kernel_s_order_and_what_is_no_pair() -> None:
    adjacent_bit = 1 << 15
    tests = [0, 1 << 2, adjacent_bit, adjacent_bit | 1 << 2, adjacent_bit | 1 << 9 | 1 << 6]
    names, alone = why_apart(np.array([*tests, adjacent_bit | 1 << 11 | 1 << 4], np.uint16))
    assert pd.Series(names).astype("object").fillna("-").tolist() == [
        "-",
        "-",
        "nothing",
        "flags",
        "name",
        "close",
    ]
    assert pd.Series(alone).fillna(False).tolist() == [False, False, True, True, False, False]


def frame(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"tgid": 1, "comm": "a", **columns}).astype(
        {"flags": "uint64", "apart": "category", "apart_alone": "boolean"}
    )


def test_what_would_be_left() -> None:
    vmas = frame(
        flags=[0x73, 0x71, 0x73, 0x100073, 0x100073],
        apart=[None, "flags", "flags", "flags", "offset"],
        apart_alone=[None, True, True, False, True],
    )
    table = apart.by_reason(vmas)
    assert table.to_dict("index") == {
        "flags": {"pairs": 3, "alone": 2, "left": 3},
        "offset": {"pairs": 1, "alone": 1, "left": 4},
    }
    assert apart.by_process(vmas)["left"].tolist() == [3, 4]
    flags = apart.by_flag(vmas)
    assert flags["pairs"].to_dict() == {"VM_WRITE": 2, "VM_ACCOUNT": 1}


def test_a_run_from_before_says_so() -> None:
    vmas = frame(flags=[0x73, 0x71], apart=[None, None], apart_alone=[None, None])
    for table in (apart.by_reason(vmas), apart.by_process(vmas), apart.by_flag(vmas)):
        assert table.empty and table.attrs[LACKING]
    apart.plot_by_reason(vmas)
