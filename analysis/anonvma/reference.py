# SPDX-License-Identifier: GPL-2.0-only
"""Reference: the figures that the mail quotes, beside ours, row by row.

``data/reference/mail.csv`` holds them; `beside` sets each beside the same row of a comparison, or
beside the row of ours that is about the same thing, and says whether the direction agrees and how
the sizes compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anonvma import compare, places
from anonvma.errors import RunError
from anonvma.numerals import percent

__all__ = ["MAIL", "agreement", "beside", "mail"]

MAIL = ("vm-scalability.throughput", 3.0)
"""The mail's headline: "over 3x throughput improvement", without figures."""


def mail(file: Path | None = None) -> pd.DataFrame:
    """Return the mail's rows.

    Returns
    -------
    DataFrame
        One row a quoted row, in the mail's order: metric, base, base_sd_percent, change (str, as
        quoted), head, head_sd_percent, nearest, why (str, empty for none), absolute (bool:
        change is a difference).

    Raises
    ------
    RunError
        When the file is missing or damaged.
    """
    file = file or places.root() / "data" / "reference" / "mail.csv"
    words = {"change": "str", "nearest": "str", "why": "str", "metric": "str"}
    try:
        table = pd.read_csv(file, dtype=words)
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, UnicodeError):
        raise RunError(f"{file} is damaged: it is not the table that it should be.") from None
    wanted = ["metric", "base", "base_sd_percent", "change", "head", "head_sd_percent"]
    if list(table.columns) != [*wanted, "nearest", "why"]:
        raise RunError(f"{file} is damaged: it has other columns than it should.")
    table = table.fillna({name: "" for name in words})
    return table.assign(absolute=[compare.is_absolute(name) for name in table["metric"]])


def beside(found: pd.DataFrame, condition: str | None = None) -> pd.DataFrame:
    """Set the mail's rows beside ours.

    Parameters
    ----------
    found : DataFrame
        As `anonvma.compare.table` returns it.
    condition : str, optional
        Which one, where there are several; the last by default.

    Returns
    -------
    DataFrame
        One row a row of the mail: metric; theirs (its change); ours (the name of our row:
        the same, the nearest, or ``-``); our change (per cent, or the difference), n, verdict;
        direction (``same``, ``other``, ``no change``, or ``not measured``); size, our ratio over
        theirs where both are ratios, null elsewhere. Verdicts are corrected for these rows.
    """
    condition = condition or str(found["condition"].iloc[-1])
    theirs = mail()
    asked = found["metric"].isin([*theirs["metric"], *theirs["nearest"]])
    # Looked at are these rows and no others: they were chosen by the mail.
    ours = compare.judged_anew(found[asked & (found["condition"] == condition)])
    rows = [_beside(row, ours.set_index("metric")) for row in theirs.to_dict(orient="records")]
    return pd.DataFrame(rows)


def _beside(theirs: Mapping[Any, Any], ours: pd.DataFrame) -> dict[str, Any]:
    name = next((n for n in (theirs["metric"], theirs["nearest"]) if n in ours.index), None)
    their_ratio = _ratio(theirs)
    told = theirs["change"] or f"over {MAIL[1]:g}x"
    row: dict[str, Any] = {
        "metric": theirs["metric"],
        "theirs": told.replace("%", " %"),
        "ours": name or "-",
    }
    if name is None:
        nothing = float("nan")
        return row | {"base": nothing, "head": nothing, "our change": "-", "n": 0,
                      "verdict": "-", "direction": "not measured", "size": nothing}  # fmt: skip
    mine = ours.loc[name]
    moved = mine["verdict"] in ("higher", "lower")
    up = told.startswith(("+", "over"))
    direction = "no change"
    if moved:
        direction = "same" if (mine["verdict"] == "higher") == up else "other"
    comparable = not theirs["absolute"] and np.isfinite(their_ratio) and name == theirs["metric"]
    return row | {
        "base": float(mine["base"]),
        "head": float(mine["mean"]),
        "our change": _change(mine),
        "n": int(min(mine["n"], mine["n_base"])),
        "verdict": str(mine["verdict"]),
        "direction": direction,
        "size": float(mine["ratio"]) / their_ratio if comparable else float("nan"),
    }


def _change(mine: pd.Series[Any]) -> str:
    if mine["absolute"]:
        return f"{mine['change']:+.1f}" if np.isfinite(mine["change"]) else "-"
    return percent(mine["change"] / 100, signed=True)


def _ratio(theirs: Mapping[Any, Any]) -> float:
    if theirs["metric"] == MAIL[0]:
        return MAIL[1]
    if not theirs["base"] or not np.isfinite(theirs["base"]):
        return float("nan")
    return float(theirs["head"] / theirs["base"])


def agreement(table: pd.DataFrame) -> str:
    """Say in a sentence how far ours agrees with theirs."""
    counts = table["direction"].value_counts()
    told = [
        f"{counts[name]} {words}"
        for name, words in (
            ("same", "went the same way"),
            ("other", "went the other way"),
            ("no change", "show no change here"),
            ("not measured", "were not measured here"),
        )
        if name in counts
    ]
    return f"Of the mail's {len(table)} rows {', '.join(told)}."
