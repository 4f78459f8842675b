# SPDX-License-Identifier: GPL-2.0-only
"""Statistics of two sets of runs: how much changed, how sure that is, and for how many rows.

Every row is one metric, and all rows are worked out at once: arrays are runs x metrics.

- The *difference* of the means has its interval and p-value by Welch's t-test: the variances may
  differ, and so may the numbers of runs; there are never more degrees of freedom than two sides of
  the smaller number have.
- The *ratio* of the means has its interval from the same test (Fieller's): it holds every ratio r
  that the runs do not rule out, head = r * base, and so leaves 1 out just when p is below 5 %.
  Where the first mean is 0 there is no ratio; where it cannot be told from 0, no interval.
- What counts in whole numbers was rounded, so its variance is taken for 1/12 at least (Sheppard).
- Runs that happen to count the same are not certain: two values that alternate at random agree
  three times in one of four cases. Their variance is taken for what counts of the same kind have in
  this comparison, as a multiple of their means (`_of_kind`). Where all of these agree in all runs,
  too, that is next to nothing; where none is there to learn from it is half of a Poisson count's.
  So three boots that count 3 against three that count 4 are no finding, 4,096 against 0 is one.
- Where all runs of both sides are alike, and no rounding is known, the p-value is that of a
  permutation test, which for three against three is 0.1 at best.
- With a single run on either side there is no interval, no p-value and no finding.
- Many rows find something by chance. `adjust` controls the share of false findings among the rows
  looked at (Benjamini and Hochberg), which with nothing to find is the chance of finding any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

LEVEL = 0.05
"""Error rate: 1 - LEVEL is the confidence of every interval."""

FEWEST = 3
"""Values of which a mean has an interval at all."""

_TINY = 1e-12  # relative: variances below it are of the arithmetic, not of the runs

Array = npt.NDArray[np.float64]


def student(df: npt.ArrayLike, level: float = LEVEL) -> Any:
    """Return how many standard errors an interval reaches to either side, by Student's t."""
    from scipy import special

    return special.stdtrit(df, 1 - level / 2)


def between(
    base: npt.ArrayLike,
    head: npt.ArrayLike,
    *,
    resolution: npt.ArrayLike = 0.0,
    kinds: npt.ArrayLike | None = None,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Compare two sets of runs in every metric.

    Parameters
    ----------
    base, head : array_like, float, runs x metrics
        One row per run, NaN where a run lacks a metric. The numbers of runs may differ.
    resolution : array_like, float
        Of each metric, or of all: 1 for what counts in whole numbers, 0 if there is none.
    kinds : array_like, optional
        Of each metric a name; counts of one kind are taken to vary alike. By default all are.
    level : float
        1 less the confidence of the intervals.

    Returns
    -------
    DataFrame
        One row per metric: n_base, n (runs that have it), base, mean, base_sd, sd (sample standard
        deviation; null for n = 1), ratio, low, high, difference, difference_low,
        difference_high, effect (Hedges' g), p. Null is what does not exist: the ratio to a mean
        of 0, the interval of a single run, the effect where nothing varies.
    """
    from scipy import special

    one, other = _moments(base), _moments(head)
    floor = np.square(np.asarray(resolution, float)) / 12
    borrowed = _of_kind(one, other, np.broadcast_to(floor > 0, one.n.shape), kinds)
    enough = (one.n > 1) & (other.n > 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(one.mean != 0, other.mean / one.mean, np.nan)
        ratio = np.where(ratio >= 0, ratio, np.nan)  # of unlike signs: nothing that one would say
        errors = [
            np.where(
                side.variance == 0, np.maximum(borrowed, floor), np.maximum(side.variance, floor)
            )
            / side.n
            for side in (one, other)
        ]
        df = _degrees(one, other, errors[0], errors[1])
        margin = student(df, level)
        spread = np.sqrt(errors[0] + errors[1])
        difference = other.mean - one.mean
        low, high = _fieller(one.mean, other.mean, errors[0], errors[1], margin)
        varies = spread > 0
        p = 2 * special.stdtr(df, -np.abs(difference) / spread)
        p = np.where(varies, p, _of_constants(one, other))
        effect = _hedges(one, other)
    known = enough & varies
    has_ratio = known & np.isfinite(ratio)
    return pd.DataFrame(
        {
            "n_base": one.n.astype("int64"),
            "n": other.n.astype("int64"),
            "base": one.mean,
            "mean": other.mean,
            "base_sd": np.sqrt(one.variance),
            "sd": np.sqrt(other.variance),
            "ratio": ratio,
            "low": np.where(has_ratio, low, np.nan),
            "high": np.where(has_ratio, high, np.nan),
            "difference": difference,
            "difference_low": np.where(known, difference - margin * spread, np.nan),
            "difference_high": np.where(known, difference + margin * spread, np.nan),
            "effect": np.where(enough, effect, np.nan),
            "p": np.where(enough, p, np.nan),
        }
    )


class _Moments:
    """Number, mean and variance of each column, of what is there."""

    def __init__(self, values: Array) -> None:
        there = np.isfinite(values)
        self.n = there.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.mean = np.where(there, values, 0.0).sum(axis=0) / self.n
            off = np.where(there, values - self.mean, 0.0)
            variance = np.square(off).sum(axis=0) / (self.n - 1)
            rounding = np.square(self.mean * _TINY)
        # What differs in the last digit of the arithmetic does not vary.
        variance = np.where(variance > rounding, variance, 0.0)
        self.variance = np.where(self.n > 1, variance, np.nan)


def _moments(values: npt.ArrayLike) -> _Moments:
    array = np.asarray(values, float)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    return _Moments(array)


def _of_kind(
    one: _Moments, other: _Moments, counts: npt.NDArray[np.bool_], kinds: npt.ArrayLike | None
) -> Array:
    """Return the variance that each count may have whose runs agree; 0 for what is no count."""
    with np.errstate(invalid="ignore"):
        mean = (np.abs(one.mean) + np.abs(other.mean)) / 2  # of one side alone nothing is judged
    labels = np.zeros(counts.shape, int) if kinds is None else pd.factorize(np.asarray(kinds))[0]
    found = np.zeros(counts.shape)
    for label in np.unique(labels[counts]):
        mine = counts & (labels == label) & (mean > 0)
        sides = np.concatenate([side.variance[mine] / mean[mine] for side in (one, other)])
        sides = sides[np.isfinite(sides)]
        # As if two sides more had been seen, with a Poisson count's variance.
        found[mine] = mean[mine] * (sides.sum() + _PRIOR) / (len(sides) + _PRIOR)
    return found


_PRIOR = 2


def _degrees(one: _Moments, other: _Moments, a: Array, b: Array) -> Array:
    """Return Welch's degrees of freedom for the squared errors of the two means."""
    df = np.square(a + b) / (np.square(a) / (one.n - 1) + np.square(b) / (other.n - 1))
    # As two sides of the smaller number would have at most: with two runs against ten Welch's own
    # find something among a hundred rows of nothing three times in five.
    found: Array = np.minimum(df, 2.0 * (np.minimum(one.n, other.n) - 1))
    return found


def _fieller(base: Array, head: Array, a: Array, b: Array, t: Array) -> tuple[Array, Array]:
    """Return the ratios r with (head - r * base)^2 <= t^2 (b + r^2 a), of positive ones."""
    # Where the base cannot be told from 0 they have no bounds.
    square = np.where(
        np.square(base) > np.square(t) * a, np.square(base) - np.square(t) * a, np.nan
    )
    root = np.sqrt(
        np.maximum(np.square(base * head) - square * (np.square(head) - np.square(t) * b), 0.0)
    )
    return np.maximum((base * head - root) / square, 0.0), (base * head + root) / square


def _of_constants(one: _Moments, other: _Moments) -> Array:
    """Return the p-value of two constant sides: 1 if alike, else what a permutation test gives."""
    from scipy import special

    # Of all ways to deal the runs to two sides, the two that separate them.
    best = np.minimum(2 / special.comb(one.n + other.n, one.n), 1.0)
    alike = np.isclose(one.mean, other.mean, rtol=_TINY, atol=0)
    return np.where(alike, 1.0, best)


def _hedges(one: _Moments, other: _Moments) -> Array:
    df = one.n + other.n - 2
    pooled = ((one.n - 1) * one.variance + (other.n - 1) * other.variance) / df
    correction = 1 - 3 / (4 * df - 1)
    found: Array = np.where(
        pooled > np.square(_TINY * one.mean),
        correction * (other.mean - one.mean) / np.sqrt(pooled),
        np.nan,
    )
    return found


def adjust(p: npt.ArrayLike) -> Array:
    """Correct p-values (Benjamini and Hochberg) for the number of rows; null stays null."""
    values = np.asarray(p, float)
    looked = np.isfinite(values)
    found = np.full(values.shape, np.nan)
    if looked.any():
        found[looked] = _step_up(values[looked])
    return found


def _step_up(p: Array) -> Array:
    """Return, of p-values that are all there, the least rate at which each would be a finding.

    As scipy.stats.false_discovery_control has it; but scipy.stats takes longer to import than a
    whole comparison does.
    """
    order = np.argsort(p)
    ranks = np.arange(1, len(p) + 1)
    rates = p[order] * len(p) / ranks
    found = np.empty_like(p)
    found[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1.0)
    return found


def half_width(ratio: Any, low: Any, high: Any) -> Any:
    """Return half the width of a ratio's interval, as a share of the ratio: 0.02 is ±2 %."""
    return (high - low) / 2 / ratio


def around(
    difference: float,
    base: npt.ArrayLike,
    head: npt.ArrayLike,
    *,
    resolution: float = 0.0,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the interval of a difference that these runs of two sides let vary, as `between` does.

    Null bounds where a side has a single run.
    """
    one, other = _moments(base), _moments(head)
    if min(one.n[0], other.n[0]) < 2:
        return float("nan"), float("nan")
    errors = [np.maximum(side.variance, resolution**2 / 12) / side.n for side in (one, other)]
    spread = float(np.sqrt(errors[0] + errors[1])[0])
    if not spread:
        return difference, difference
    margin = float(student(_degrees(one, other, errors[0], errors[1]), level)[0])
    return difference - margin * spread, difference + margin * spread


class Estimate(NamedTuple):
    """What some runs say of one quantity.

    Attributes
    ----------
    n : int
        How many there are.
    mean, sd : float
        Mean and sample standard deviation; the latter null for n of 1.
    low, high : float
        Bounds of the mean's interval; null for n below `FEWEST`.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def estimate(values: npt.ArrayLike, *, ratio: bool = False) -> Estimate:
    """Estimate a mean by Student's t, from what is there of some runs' values.

    Parameters
    ----------
    values : array_like, float
        One a run; null where a run has none.
    ratio : bool
        Whether they are ratios, all above 0: the mean is then the geometric one, and the interval
        Student's on the logarithms.

    Notes
    -----
    Two values bound their mean by 12.7 standard errors to either side, which tells nothing that
    could be acted on (a cost of "0.16 to 6.65 times"), so fewer than `FEWEST` have no interval: n
    is too small. Of values none of which is negative, no bound is negative.
    """
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    if ratio:
        array = array[array > 0]
    n, nothing = len(array), float("nan")
    if not n:
        return Estimate(0, nothing, nothing, nothing, nothing)
    used = np.log(array) if ratio else array
    mean, sd = float(used.mean()), float(used.std(ddof=1)) if n > 1 else nothing
    low = high = nothing
    if n >= FEWEST:
        margin = float(student(n - 1)) * sd / n**0.5
        low, high = mean - margin, mean + margin
    if ratio:
        spread = float(array.std(ddof=1)) if n > 1 else nothing
        return Estimate(n, math.exp(mean), spread, math.exp(low), math.exp(high))
    if low < 0 <= array.min():
        low = 0.0
    return Estimate(n, mean, sd, low, high)


def too_few(ns: Iterable[int]) -> str:
    """Return a sentence on estimates that have no interval, for n is too small; "" if all have."""
    few = sorted({n for n in ns if n < FEWEST})
    if not few:
        return ""
    return f"n of {' or '.join(map(str, few))} is too small for an interval: it takes {FEWEST}."
