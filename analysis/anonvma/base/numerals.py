# SPDX-License-Identifier: GPL-2.0-only
"""Numbers and intervals as text: the one place where they are rounded.

How to use it:

- `number` for one number in a sentence or in a table of unlike things: ``17``, ``17.3``,
  ``4,963,414,681``, ``0.0042``, ``-`` for what is not there.
- `column` for a column of like things, all in one format: counts as counts, and where one of them
  is a mean, each with the decimals that the column deserves.
- `interval` for the two bounds of one. ``apart`` is what the verdict beside it speaks of: 1 for a
  ratio, 0 for a difference. Rounding never moves a bound to it or across it, so that 1.004 to 2.22
  does not read "1 to 2.22" beside "higher".
- `percent` for a share: one spelling, and digits that follow from the share
  alone, so that the same share reads the same wherever it stands. Never 100 % of less than all, nor
  0 % of more than nothing.

An interval is of `anonvma.base.statistics.estimate`; where it has none, both bounds are null, and
`interval` says ``-``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

_NOTHING = "-"
_DIGITS = 3  # significant ones of what is no count
_MOST = 15  # of a float


def number(value: Any, digits: int = _DIGITS) -> str:
    """Return a number: whole ones whole, others with `digits` significant ones, `-` for null."""
    known = _known(value)
    if known is None:
        return _NOTHING
    if known.is_integer():
        return f"{known:,.0f}" if abs(known) < 1e15 else f"{known:.{digits}g}"
    if abs(known) < 1e-4:
        return f"{known:.{digits - 1}e}"
    return f"{known:,.{_decimals(known, digits)}f}"


def column(values: Iterable[Any], at_most: int | None = None) -> list[str]:
    """Return the numbers of a column in one format.

    Whole numbers, if all are; else as many decimals as its median needs for three
    significant digits, or more where a number that is not 0 would read as 0; but with `at_most`
    no more than show the largest in so many digits.
    """
    known = [_known(value) for value in values]
    there = sorted(abs(value) for value in known if value)
    decimals = 0
    if there and not all(value.is_integer() for value in there):
        decimals = max(_decimals(there[len(there) // 2], _DIGITS), _decimals(there[0], 1))
        if at_most is not None:
            decimals = min(decimals, _decimals(there[-1], at_most))
    # Rounded first, and the 0.0 added, so that nothing reads "-0".
    return [
        _NOTHING if value is None else f"{round(value, decimals) + 0.0:,.{decimals}f}"
        for value in known
    ]


def interval(low: Any, high: Any, *, apart: float | None = None) -> str:
    """Return the bounds of an interval, such as ``1.004 to 2.22``; `-` where it has none.

    Parameters
    ----------
    low, high : float or null
    apart : float, optional
        What no bound is rounded to or across: 1 of a ratio, 0 of a difference.
    """
    bounds = [_known(low), _known(high)]
    if bounds[0] is None or bounds[1] is None:
        return _NOTHING
    return " to ".join(_bound(bound, apart) for bound in bounds if bound is not None)


def percent(share: Any, *, signed: bool = False) -> str:
    """Return a share, 0 to 1, as ``17.3 %``; of a change, `signed`, as ``+17.3 %``.

    Whole ones whole, others with one decimal; with two where one would say none or all, and with
    ``<`` or ``>`` where two would.
    """
    known = _known(share)
    if known is None:
        return _NOTHING
    size = abs(known)
    sign = "-" if known < 0 else "+" if signed and known > 0 else ""
    whole = round(100 * size, 9)  # no more than the arithmetic has left of it
    if whole.is_integer() and (whole not in (0, 100) or size in (0, 1)):
        return f"{sign}{whole:,.0f} %"
    decimals = 1 if _is_between(f"{100 * size:.1f}", size) else 2
    shown = f"{100 * size:,.{decimals}f}"
    if _is_between(shown, size):
        return f"{sign}{shown} %"
    return f"{sign}<0.01 %" if size < 1 / 2 else f"{sign}>99.99 %" if size < 1 else f"{sign}>100 %"


def _is_between(shown: str, size: float) -> bool:
    """Tell whether a share reads as some and, if it is less than all, as less."""
    said = float(shown.replace(",", ""))
    return said > 0 and (said < 100) == (size < 1) and (said > 100) == (size > 1)


def _bound(value: float, apart: float | None) -> str:
    digits = _DIGITS
    shown = number(value, digits)
    while apart is not None and digits < _MOST and _side(shown, apart) != _of(value, apart):
        digits += 1
        shown = number(value, digits)
    return shown


def _side(shown: str, apart: float) -> int:
    return _of(float(shown.replace(",", "")), apart)


def _of(value: float, apart: float) -> int:
    return (value > apart) - (value < apart)


def _known(value: Any) -> float | None:
    """Return a number as a float; None for null of any kind, and for what is infinite."""
    try:
        found = float(value)
    except (TypeError, ValueError):  # None, pandas.NA
        return None
    return found + 0.0 if math.isfinite(found) else None  # no minus at a 0


def _decimals(value: float, digits: int) -> int:
    """Return how many decimals give a number that many significant digits."""
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
