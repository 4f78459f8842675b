# SPDX-License-Identifier: GPL-2.0-only
"""What changed, in words: the primary metric, and what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from anonvma.base import numerals, statistics
from anonvma.compare.changes.printed import short
from anonvma.compare.changes.rows import (
    CHANGED,
    Verdict,
    primary,
    primary_of,
    primary_rows,
    shown,
)
from anonvma.run import processors
from anonvma.run.runs import Run


def primary_said(found: pd.DataFrame, base: str) -> list[str]:
    """Say what `primary_rows` found, a sentence per condition."""
    return [_primary_sentence(row, base) for row in found.to_dict(orient="records")]


def answered(
    conditions: Mapping[str, Sequence[Run]], found: pd.DataFrame, metric: str | None = None
) -> list[str]:
    """Say what became of the primary metric, on which CPUs, and what changed most.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
    found : DataFrame
        As `table` returns it.
    metric : str, optional
        The primary metric; by default the first of `PRIMARY` there is.
    """
    base = next(iter(conditions))
    return [*of_primary(conditions, found, metric), most_said(found, base)]


def of_primary(
    conditions: Mapping[str, Sequence[Run]],
    found: pd.DataFrame | None = None,
    metric: str | None = None,
) -> list[str]:
    """Say what became of the primary metric, and on which CPUs; `found` is `table`, if given."""
    rows = primary_rows(conditions, metric) if found is None else primary_of(found, metric)
    return [*primary_said(rows, next(iter(conditions))), *processors.said(conditions)]


def _primary_sentence(row: Mapping[Any, Any], base: str) -> str:
    name, head = row["metric"], row["condition"]
    ns = f"n = {row['n_base']} and {row['n']}"
    if row["n"] == 0 or row["n_base"] == 0:
        return f"{name} was measured in one of {base} and {head} only."
    if not np.isfinite(row["ratio"]):
        return f"{name} is {row['base']:.4g} in {base} and {row['mean']:.4g} in {head} ({ns})."
    ratio = f"{numerals.number(row['ratio'])} times that of {base}"
    if row["verdict"] == Verdict.SINGLE_RUN:
        return f"{name} of {head} is {ratio} ({ns}): one run per side shows no change."
    bounds = numerals.interval(row["low"], row["high"], apart=1)
    within = f"{ratio}, 95 % interval {bounds} ({ns})"
    if row["verdict"] == Verdict.EQUIVALENT:
        return f"{name} of {head} is equivalent: {within}."
    if row["verdict"] == Verdict.INCONCLUSIVE:
        width = numerals.percent(row["half_width"]) if row["half_width"] < 10 else "a multiple"
        return (
            f"No change of {name} is shown: that of {head} is {within}; with these runs the ratio "
            f"is known to ±{width} only."
        )
    return f"{name} of {head} is {row['verdict']}: {within}."


def most_said(found: pd.DataFrame, base: str) -> str:
    """Say which rows of `table` changed most, whatever they are, and how many did at all."""
    changed = shown(found)
    # Judged with all others, the primary metric, too.
    changed = changed[changed["verdict"].isin(CHANGED)]
    named = changed["metric"] == primary(set(found["metric"]), missing_ok=True)
    key = found.set_index(["metric", "condition"])["q"]
    own = key.reindex(pd.MultiIndex.from_frame(changed[["metric", "condition"]])).to_numpy()
    changed = changed[~named | (own < statistics.LEVEL)]
    if found["p"].isna().all():
        return f"None of {len(found)} rows can be judged: that takes two runs per side."
    if changed.empty:
        return f"None of the {len(found)} rows that were looked at changed."
    others = changed[~changed["metric"].isin([primary(set(found["metric"]), missing_ok=True)])]
    largest = [
        f"{row['metric']} from {short(row['base'])} in {base} to {short(row['mean'])} in "
        f"{row['condition']}"
        for row in (others if len(others) else changed).head(2).to_dict(orient="records")
    ]
    return (
        f"Of {len(found)} rows that were looked at {len(changed)} changed; most of all "
        f"{' and '.join(largest)}."
    )
