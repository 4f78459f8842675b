# SPDX-License-Identifier: GPL-2.0-only
"""Numbers as text: what is rounded never says what is not so."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonvma.base import numerals

finite = st.floats(-1e12, 1e12, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12.0, "12"),
        (4963414681, "4,963,414,681"),
        (17.3333, "17.3"),
        (1234.56, "1,235"),
        (0.00421, "0.00421"),
        (-0.5, "-0.500"),
        (-0.0, "0"),
        (3e-7, "3.00e-07"),
        (None, "-"),
        (float("nan"), "-"),
        (pd.NA, "-"),
        (np.int64(7), "7"),
    ],
)
def test_number(value: object, said: str) -> None:
    assert numerals.number(value) == said


def test_a_column_has_one_format() -> None:
    assert numerals.column([9.0, 16385.0, None]) == ["9", "16,385", "-"]
    assert numerals.column([9.0, 16.5, 25]) == ["9.0", "16.5", "25.0"]
    assert numerals.column([0.004, 12.5, 100]) == ["0.004", "12.500", "100.000"]
    assert numerals.column([]) == [] and numerals.column([0.0]) == ["0"]


def test_an_interval_does_not_contradict_its_verdict() -> None:
    assert numerals.interval(1.004, 2.22, apart=1) == "1.004 to 2.22"
    assert numerals.interval(0.5, 0.9996, apart=1) == "0.500 to 0.9996"
    assert numerals.interval(1.004, 2.22) == "1.00 to 2.22"
    assert numerals.interval(float("nan"), float("nan")) == "-"
    assert numerals.interval(4096.0, 4096.0) == "4,096 to 4,096"


@settings(deadline=None)
@given(finite, finite, st.sampled_from([0.0, 1.0]))
def test_no_bound_is_rounded_to_what_it_excludes(one: float, other: float, apart: float) -> None:
    low, high = sorted((one, other))
    shown = [float(part.replace(",", "")) for part in
             numerals.interval(low, high, apart=apart).split(" to ")]  # fmt: skip
    for bound, said in zip((low, high), shown, strict=True):
        if abs(bound - apart) > 1e-13 * max(abs(bound), 1):
            assert np.sign(bound - apart) == np.sign(said - apart)
        assert math.isclose(bound, said, rel_tol=0.006)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_part_is_neither_all_nor_nothing(share: float) -> None:
    said = numerals.percent(share)
    assert (said == "0 %") == (share == 0) and (said == "100 %") == (share == 1)
    assert math.isclose(float(said.strip("<> %")), 100 * share, abs_tol=0.05)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.173, "17.3 %"),
        (0.05, "5 %"),
        (0.07, "7 %"),  # 100 times it is no whole number, in binary
        (0.9997, "99.97 %"),
        (0.999999, ">99.99 %"),
        (0.0004, "0.04 %"),
        (1e-5, "<0.01 %"),
        (1.0001, "100.01 %"),
        (1.000001, ">100 %"),
        (-0.126, "-12.6 %"),
        (20.5, "2,050 %"),
        (None, "-"),
        (float("inf"), "-"),
    ],
)
def test_percent(share: float | None, said: str) -> None:
    assert numerals.percent(share) == said


def test_a_change_in_percent_has_its_sign() -> None:
    assert numerals.percent(0.135, signed=True) == "+13.5 %"
    assert numerals.percent(-1, signed=True) == "-100 %"
    assert numerals.percent(0.0, signed=True) == "0 %"


def _is_printed(formatted: ast.FormattedValue) -> bool:
    spec = formatted.format_spec
    return isinstance(spec, ast.JoinedStr) and ast.unparse(spec).endswith("%'")


def test_percent_is_spelt_in_one_place() -> None:
    """No other module has a format of its own for a share."""
    package = Path(numerals.__file__).parent
    for file in sorted(package.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        own = [node for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)]
        assert not any(map(_is_printed, own)), file
