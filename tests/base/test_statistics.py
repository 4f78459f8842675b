# SPDX-License-Identifier: GPL-2.0-only
"""Statistics against SciPy's own, a search by brute force, hand-worked cases and simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anonvma.base import statistics

BASE = np.array([10.0, 12.0, 11.0, 13.0])
HEAD = np.array([20.0, 19.0, 22.0, 23.0])


def one(base: object, head: object, **options: float) -> pd.Series[float]:
    return statistics.between(np.array(base, float), np.array(head, float), **options).iloc[0]


def test_difference_is_welchs_as_scipy_has_it() -> None:
    found = one(BASE, HEAD)
    wanted = stats.ttest_ind(HEAD, BASE, equal_var=False)
    interval = wanted.confidence_interval()
    assert found["p"] == pytest.approx(wanted.pvalue)
    assert found["difference_low"] == pytest.approx(interval.low)
    assert found["difference_high"] == pytest.approx(interval.high)
    assert (found["n_base"], found["n"], found["base"], found["mean"]) == (4, 4, 11.5, 21.0)
    assert found["ratio"] == pytest.approx(21 / 11.5)
    assert found["sd"] == pytest.approx(np.std(HEAD, ddof=1))


def test_ratio_has_the_interval_that_a_search_finds() -> None:
    """Every ratio r is tried: head - r * base is tested against 0."""
    found = one(BASE, HEAD)
    df = stats.ttest_ind(HEAD, BASE, equal_var=False).df
    tried = np.linspace(1, 3, 200_001)
    error = np.sqrt(HEAD.var(ddof=1) / 4 + tried**2 * BASE.var(ddof=1) / 4)
    t = np.abs(HEAD.mean() - tried * BASE.mean()) / error
    kept = tried[t <= stats.t.ppf(0.975, df)]
    assert found["low"] == pytest.approx(kept.min(), abs=2e-5)
    assert found["high"] == pytest.approx(kept.max(), abs=2e-5)


@given(
    st.lists(st.floats(1, 1000), min_size=2, max_size=6),
    st.lists(st.floats(1, 1000), min_size=2, max_size=6),
    st.floats(1e-3, 1e6),
)
@settings(deadline=None, max_examples=200)
def test_interval_p_value_and_unit_agree(base: list[float], head: list[float], unit: float) -> None:
    found = one(base, head)
    if np.isfinite(found["low"]) and abs(found["p"] - 0.05) > 1e-9:
        assert (found["low"] <= 1 <= found["high"]) == (found["p"] > 0.05)
    scaled = one(np.array(base) * unit, np.array(head) * unit)
    for name in ("ratio", "low", "high", "p", "effect"):
        assert scaled[name] == pytest.approx(found[name], rel=1e-6, nan_ok=True)


def test_effect_is_hedges_g_worked_out_by_hand() -> None:
    """Pooled variance (5/3 + 10/3) / 2 = 2.5; 9.5 / sqrt(2.5) * (1 - 3 / 23)."""
    assert one(BASE, HEAD)["effect"] == pytest.approx(9.5 / math.sqrt(2.5) * (1 - 3 / 23))


def test_a_single_run_has_no_interval_and_no_finding() -> None:
    for base, head in (([10], [20, 21, 22]), ([10, 11, 12], [20]), ([10], [20])):
        found = one(base, head, resolution=1.0)
        assert found["ratio"] > 1.5
        nothing = ["low", "high", "difference_low", "difference_high", "effect", "p"]
        assert found[nothing].isna().all()


def test_unequal_numbers_of_runs_are_no_finding_by_themselves() -> None:
    """A tool in wide use calls whatever has unequal n significant, by swallowing an exception."""
    same = one([10, 11, 12], [10, 11, 12, 11, 10, 12, 11])
    assert same["p"] > 0.5 and same["low"] < 1 < same["high"]
    assert (same["n_base"], same["n"]) == (3, 7)
    # No more degrees of freedom than three against three: 4.
    wide = one([10, 11, 12], [20, 21, 22, 21, 20, 22, 21])
    a, b = 1 / 3, np.var([20, 21, 22, 21, 20, 22, 21], ddof=1) / 7
    df = min((a + b) ** 2 / (a**2 / 2 + b**2 / 6), 4)
    t = (21 - 11) / math.sqrt(a + b)
    assert wide["p"] == pytest.approx(2 * stats.t.sf(t, df))


def test_zero_means() -> None:
    gone = one([4096, 4096, 4096], [0, 0, 0], resolution=1.0)
    assert gone["ratio"] == 0 and gone["low"] == 0 and gone["high"] < 0.02 and gone["p"] < 1e-6
    came = one([0, 0, 0], [4096, 4096, 4096], resolution=1.0)
    assert came[["ratio", "low", "high"]].isna().all() and came["p"] < 1e-6
    never = one([0, 0], [0, 0], resolution=1.0)
    assert np.isnan(never["ratio"]) and never["p"] == 1
    # A base that cannot be told from 0 bounds no ratio.
    loose = one([0, 0, 3], [5, 6, 7])
    assert loose["ratio"] == pytest.approx(6) and np.isnan(loose["low"])
    assert np.isnan(one([-1, -2], [1, 2])["ratio"])


def test_constant_series() -> None:
    assert one([5, 5, 5], [5, 5, 5])["p"] == 1
    # Without a known rounding: two ways of twenty to deal six runs part them like this.
    parted = one([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    assert parted["p"] == pytest.approx(0.1)
    assert parted[["low", "high", "effect"]].isna().all()
    # Whole numbers are known to half a unit: 3 against 4 is no finding among many.
    assert one([3] * 3, [4] * 3, resolution=1.0)["p"] > 0.01
    assert one([30] * 3, [40] * 3, resolution=1.0)["p"] > 0.01
    assert one([3000] * 3, [4000] * 3, resolution=1.0)["p"] < 1e-4
    # Nor are the last digits of the arithmetic.
    assert one([0.1 + 0.2, 0.3, 0.3], [0.3, 0.3, 0.1 + 0.2])["p"] == 1


def test_missing_values_count_for_nothing() -> None:
    nan = float("nan")
    base = np.array([[1.0, nan], [2.0, nan], [3.0, 5.0]])
    head = np.array([[2.0, 1.0], [nan, 2.0], [4.0, 3.0]])
    found = statistics.between(base, head)
    assert found["n_base"].tolist() == [3, 1] and found["n"].tolist() == [2, 3]
    assert found["base"].tolist() == [2.0, 5.0] and found["mean"].tolist() == [3.0, 2.0]
    assert found.loc[0, "p"] == pytest.approx(one([1, 2, 3], [2, 4])["p"])
    assert np.isnan(found.loc[1, "p"])
    empty = statistics.between(np.full((2, 1), nan), np.ones((2, 1)))
    assert empty.loc[0, "n_base"] == 0 and np.isnan(empty.loc[0, "ratio"])


def test_correction_is_benjamini_and_hochbergs_worked_out_by_hand() -> None:
    found = statistics.adjust([0.01, 0.04, float("nan"), 0.03])
    assert found[[0, 1, 3]].tolist() == pytest.approx([0.03, 0.04, 0.04])
    assert np.isnan(found[2])
    assert np.isnan(statistics.adjust([float("nan")])).all()


def test_interval_of_a_mean() -> None:
    three = statistics.estimate([1.0, 2.0, 3.0])
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert (three.mean, three.high, three.sd) == pytest.approx((2, 2 + half, 1))
    assert three.low == 0  # 2 - half is below nothing
    assert statistics.estimate([-1.0, 2.0, 3.0]).low < 0
    assert statistics.estimate([7.0])[:2] == (1, 7) and np.isnan(statistics.estimate([7.0]).low)
    assert np.isnan(statistics.estimate([]).mean)


def test_two_values_are_too_few_for_an_interval() -> None:
    two = statistics.estimate([1.2, 0.9, np.nan], ratio=True)
    assert two.n == 2 and two.mean == pytest.approx((1.2 * 0.9) ** 0.5)
    assert np.isnan([two.low, two.high]).all()
    assert "n of 2 is too small" in statistics.too_few([2, 3, 5]) and not statistics.too_few([3])


def test_interval_of_ratios_is_of_their_logarithms() -> None:
    ratios = np.array([0.5, 1.0, 4.0])
    found = statistics.estimate(ratios, ratio=True)
    half = stats.t.ppf(0.975, 2) * np.log(ratios).std(ddof=1) / math.sqrt(3)
    middle = np.log(ratios).mean()
    wanted = np.exp([middle, middle - half, middle + half])
    assert (found.mean, found.low, found.high) == pytest.approx(tuple(wanted))


def test_half_width() -> None:
    assert statistics.half_width(2.0, 1.8, 2.2) == pytest.approx(0.1)


# ---- nothing to find, and something ----

AA = [(2, 2), (3, 3), (5, 5), (10, 10), (2, 10), (3, 5), (4, 9)]


@pytest.mark.parametrize(("n", "m"), AA)
def test_comparing_like_with_like_finds_no_more_than_the_error_rate(n: int, m: int) -> None:
    """Two thousand comparisons of 60 rows each: measurements, counts, and constants among them."""
    rng = np.random.default_rng(100 * n + m)
    times, rows = 2000, 60
    found = 0
    for _ in range(times):
        level = np.exp(rng.normal(6, 3, rows))
        noise = rng.choice([0.0, 0.02, 0.1, 0.3], rows)
        values = level * np.exp(noise * rng.normal(0, 1, (n + m, rows)))
        counts = rng.random(rows) < 0.4
        values = np.where(counts, rng.poisson(np.minimum(level, 1e6), (n + m, rows)), values)
        table = statistics.between(values[:n], values[n:], resolution=np.where(counts, 1.0, 0.0))
        found += bool((statistics.adjust(table["p"]) < statistics.LEVEL).any())
    # The share of comparisons that claim anything at all, with what 2,000 of them may be off by.
    allowed = statistics.LEVEL + 3 * math.sqrt(0.05 * 0.95 / times)
    assert found / times <= allowed


NOISE = {
    "two values": lambda rng, shape: rng.choice([100.0, 110.0], shape),
    "two values far apart": lambda rng, shape: rng.choice([0.0, 4096.0], shape),
    "one in five": lambda rng, shape: np.where(rng.random(shape) < 0.2, 300.0, 100.0),
    "half of the rows": lambda rng, shape: np.where(
        (rng.random(shape) < 0.5) & (np.arange(shape[1]) % 2 == 0), 100.0, 130.0
    ),
    "rare": lambda rng, shape: rng.poisson(0.5, shape).astype(float),
    "Poisson": lambda rng, shape: rng.poisson(20, shape).astype(float),
}


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("noise", NOISE)
def test_counts_that_happen_to_agree_are_no_finding(noise: str, n: int) -> None:
    rng = np.random.default_rng(n)
    times, found = 300, 0
    for _ in range(times):
        values = NOISE[noise](rng, (2 * n, 40))
        table = statistics.between(values[:n], values[n:], resolution=1.0)
        found += bool((statistics.adjust(table["p"]) < statistics.LEVEL).any())
    assert found / times <= statistics.LEVEL + 3 * math.sqrt(0.05 * 0.95 / times)


def test_counts_that_always_agree_are_a_finding_when_they_change() -> None:
    base = np.tile([4096.0, 3.0, 20480.0, 7.0], (3, 10))
    head = base.copy()
    head[:, 0], head[:, 1] = 0, 4
    table = statistics.between(base, head, resolution=1.0)
    assert table["p"][0] < 1e-6 and table["p"][1] > 0.01 and (table["p"][2:] == 1).all()
    # Other kinds of counts have nothing to do with it.
    noisy = np.random.default_rng(1).choice([10.0, 1e6], (3, 40))
    kinds = ["exact"] * 40 + ["noisy"] * 40
    both = [np.hstack([base, noisy]), np.hstack([head, noisy])]
    apart = statistics.between(*both, resolution=1.0, kinds=kinds)
    assert apart["p"][0] < 1e-6


def test_a_change_of_3_per_cent_is_found_when_n_allows_and_not_claimed_when_it_does_not() -> None:
    """A spread of 1 % a run: known to ±0.7 % with 20 runs a side, not at all with two."""
    rng = np.random.default_rng(3)

    def share_found(n: int, change: float) -> float:
        base = 100 * np.exp(0.01 * rng.normal(0, 1, (n, 1000)))
        head = 100 * change * np.exp(0.01 * rng.normal(0, 1, (n, 1000)))
        table = statistics.between(base, head)
        # Each column is a comparison of its own, with one row that was to be judged.
        return float((table["p"] < statistics.LEVEL).mean())

    assert share_found(20, 1.03) > 0.99
    assert share_found(6, 1.03) > 0.95
    assert share_found(2, 1.03) < 0.5
    assert share_found(20, 1.0) < 0.07
    # One among 300 rows of nothing, corrected for all of them.
    hits, false = 0, []
    for _ in range(200):
        values = 100 * np.exp(0.01 * rng.normal(0, 1, (40, 301)))
        values[20:, 0] *= 1.03
        flagged = statistics.adjust(statistics.between(values[:20], values[20:])["p"]) < 0.05
        hits += bool(flagged[0])
        false.append(flagged[1:].sum() / max(flagged.sum(), 1))
    assert hits == 200 and np.mean(false) < 0.08


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(100, 5, (5, 4000))
    head = rng.normal(130, 9, (5, 4000))
    table = statistics.between(base, head)
    held = ((table["low"] <= 1.3) & (table["high"] >= 1.3)).mean()
    assert 0.935 <= held <= 0.97


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(deadline=None)
def test_correction_is_scipys(p: list[float]) -> None:
    wanted = stats.false_discovery_control(p)
    np.testing.assert_allclose(statistics.adjust(p), wanted)
