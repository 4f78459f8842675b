# SPDX-License-Identifier: GPL-2.0-only
"""Causes as they are printed: one comparison's, and the verdicts of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anonvma.compare.attribution.decomposition import UNEXPLAINED
from anonvma.compare.attribution.explanation import explain
from anonvma.run.runs import Run

_LEAST = 0.01  # of all that changed: smaller rows are printed as one


def printed(table: pd.DataFrame, least: float = _LEAST) -> pd.DataFrame:
    """Return the cause table as it is printed, the small rows summed up in one.

    Returns
    -------
    DataFrame
        cause, of (origin or caller), what (access or mode, and the state of the VMA), faults, taken
        and wait ms each as ``base > head``, change, share (per cent, null where nothing changed).
    """
    if table.empty:
        return pd.DataFrame(
            columns=["cause", "of", "what", "faults", "taken", "wait ms", "change", "share"]
        )
    large = table["change"].abs() >= max(least * table["change"].abs().sum(), 0.5)
    kept = table[large | (table["cause"] == UNEXPLAINED)]
    small = table[~large & (table["cause"] != UNEXPLAINED)]
    rows = [_printed(row) for row in kept.to_dict(orient="records")]
    if len(small):
        rest = {"cause": "other", "of": f"{len(small)} smaller", "what": "", "faults": "",
                "taken": "", "wait ms": "", "change": float(small["change"].sum()),
                "share": 100 * float(small["share"].sum(min_count=1))}  # fmt: skip
        rows.insert(len(rows) - 1, rest)
    return pd.DataFrame(rows)


def _printed(row: Mapping[Any, Any]) -> dict[str, Any]:
    words = [
        next((row[n] for n in ("access", "mode") if isinstance(row[n], str)), ""),
        row["state"],
    ]
    return {
        "cause": row["cause"],
        "of": row["origin"] if isinstance(row["origin"], str) else "",
        "what": ", ".join(word for word in words if isinstance(word, str) and word),
        "faults": _both(row, "faults", "{:,.0f}"),
        "taken": _both(row, "taken", "{:,.0f}"),
        "wait ms": _both(row, "wait_ms", "{:,.1f}"),
        "change": float(row["change"]),
        "share": 100 * float(row["share"]),
    }


def _both(row: Mapping[Any, Any], name: str, shape: str) -> str:
    values = [row[f"{name}_base"], row[f"{name}_head"]]
    if any(value is None or not np.isfinite(value) for value in values):
        return ""
    return " > ".join(_unsigned(shape.format(value)) for value in values)


def _unsigned(text: str) -> str:
    """Return a number without a sign if it is printed as 0."""
    return text.removeprefix("-") if not text.strip("-0.") else text


def verdicts(cases: Mapping[str, Mapping[str, Sequence[Run]]]) -> pd.DataFrame:
    """Explain several comparisons, and set their verdicts in one table.

    Parameters
    ----------
    cases : mapping
        By what differs, the conditions; the last of each is explained against the first.

    Returns
    -------
    DataFrame
        One row per case: what differs, change (acquisitions), low, high, largest reason, bare VMAs
        (their share of the change, per cent; null where nothing changed), unexplained (likewise),
        verdict.
    """
    rows = []
    for what, conditions in cases.items():
        found = explain(conditions)
        reasons = found.table[found.table["cause"] != UNEXPLAINED]
        first = _printed(reasons.iloc[0].to_dict()) if found.bare_share is not None else None
        rows.append(
            {
                "what differs": what,
                "change": found.change,
                "low": found.low,
                "high": found.high,
                "largest reason": f"{first['cause']}: {first['of']} {first['what']}".strip()
                if first
                else "-",
                "bare VMAs": _percent(found.bare_share),
                "unexplained": _percent(found.unexplained_share),
                "verdict": found.verdict,
            }
        )
    return pd.DataFrame(rows)


def _percent(share: float | None) -> float:
    return float("nan") if share is None else 100 * abs(share)
