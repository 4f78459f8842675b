# SPDX-License-Identifier: GPL-2.0-only
"""What the machine itself was like around each repeat, and whether that differed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from anonvma.base.tabular import LACKING
from anonvma.run.runs import Run


def of_repeats(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the facts of some runs in one table, or one without rows where none was recorded.

    Returns
    -------
    DataFrame
        Columns: run, repeat, moment, fact, number, word.
    """
    found = [
        run.table("environment").assign(run=run.id)
        for run in runs
        if "environment" in run.manifest.tables
    ]
    columns = ["run", "repeat", "moment", "fact", "number", "word"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def differences(conditions: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """What of the machine was not alike between conditions, or changed within one.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run

    Returns
    -------
    DataFrame
        One row per fact: fact, then a column per condition. A setting is shown when its words
        differ anywhere; a state, as mean and range over the runs, when the ranges of two conditions
        lie apart. No rows where nothing differed or nothing was recorded; which of the two is in
        its ``attrs``.
    """
    told = {name: of_repeats(each) for name, each in conditions.items()}
    # What a run leaves behind is its own doing.
    told = {name: table[table["moment"] != "after"] for name, table in told.items() if len(table)}
    facts = sorted({fact for table in told.values() for fact in table["fact"].unique()})
    found = []
    for fact in facts:
        each = {name: table[table["fact"] == fact] for name, table in told.items()}
        row = _settings(each) if _is_setting(each) else _ranges(each)
        if row:
            found.append({"fact": fact, **{name: row.get(name, "-") for name in conditions}})
    differing = pd.DataFrame(found, columns=["fact", *conditions])
    differing.attrs[LACKING] = (
        "No setting or state of the machine, as recorded around each repeat, differed."
        if told
        else "The machine's load and settings were not recorded with these runs."
    )
    return differing


def _is_setting(each: Mapping[str, pd.DataFrame]) -> bool:
    return any(table["word"].notna().any() for table in each.values())


def _settings(each: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    words = {name: sorted(set(table["word"].dropna())) for name, table in each.items()}
    if len({tuple(found) for found in words.values()}) == 1 and len(next(iter(words.values()))) < 2:
        return {}
    return {name: ", ".join(found) or "-" for name, found in words.items()}


def _ranges(each: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    runs = {
        name: table.groupby("run")["number"].mean().dropna()
        for name, table in each.items()
        if len(table)
    }
    runs = {name: values for name, values in runs.items() if len(values)}
    lows, highs = ([f(v) for v in runs.values()] for f in (np.min, np.max))
    # One run has no range: that it differs a little says nothing.
    apart = len(runs) > 1 and max(lows) > min(highs)
    if not apart or any(len(values) < 2 for values in runs.values()):
        return {}
    return {
        name: f"{values.mean():.4g} [{values.min():.4g}, {values.max():.4g}]"
        for name, values in runs.items()
    }
