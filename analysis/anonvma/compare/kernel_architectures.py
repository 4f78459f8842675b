# SPDX-License-Identifier: GPL-2.0-only
"""One kernel on two architectures: the same outcomes, or what differs and why.

A survey of another architecture names its kernels by that (``arm64-7.3``, which the study calls
``stock:arm64/7.3``); beside each stands the kernel of the same name without it. Why an outcome is
another there is said by the same rows of data/reference/kernel-changes.csv that say why it changed
from one kernel to the next, from a release of ``*-amd64`` to one of ``*-arm64``.
"""

from __future__ import annotations

import pandas as pd

from anonvma.compare import kernel_changes
from anonvma.compare.kernel_changes import Seen
from anonvma.compare.outcomes import VARIES

X86, ARM64 = "x86-64", "arm64"


def side_by_side(found: pd.DataFrame, other: pd.DataFrame, name: str = ARM64) -> pd.DataFrame:
    """Return each outcome that was observed of a kernel on both architectures.

    Parameters
    ----------
    found, other : DataFrame
        `anonvma.compare.outcomes` of x86-64, and of another architecture.
    name : str
        What the kernels' names in `other` begin with.

    Returns
    -------
    DataFrame
        One row per kernel, part and subject: kernel, part, subject, a column of outcomes for each
        architecture, verdict ("same", "differ", or "varies" from boot to boot of either), and why
        (null unless it differs and the cause is known).
    """
    here, there = kernel_changes.table(found), kernel_changes.table(other)
    releases = {**_releases(found), **_releases(other)}
    rows = []
    for kernel in here.columns:
        beside = f"{name}-{kernel}"
        if beside not in there:
            continue
        both = pd.concat([here[kernel], there[beside]], axis=1, join="inner").dropna()
        for (part, subject), outcomes in zip(both.index, both.to_numpy(), strict=True):
            seen = [
                Seen(each, releases[each], outcome)
                for each, outcome in zip((kernel, beside), outcomes, strict=True)
            ]
            verdict, why = _verdict(part, subject, *seen)
            rows.append((kernel, part, subject, *outcomes, verdict, why))
    columns = ["kernel", "part", "subject", X86, name, "verdict", "why"]
    return pd.DataFrame(rows, columns=columns)


def _releases(found: pd.DataFrame) -> dict[str, str]:
    releases = kernel_changes.kernels(found)["release"]
    return {str(kernel): str(release) for kernel, release in releases.items()}


def _verdict(part: str, subject: str, old: Seen, new: Seen) -> tuple[str, str | None]:
    if VARIES in (old.outcome, new.outcome):
        return VARIES, None
    if old.outcome == new.outcome:
        return "same", None
    return "differ", kernel_changes.cause(part, subject, old, new).why


def counts(both: pd.DataFrame) -> pd.DataFrame:
    """Return how many outcomes are alike: one row per part and kernel, a column per verdict."""
    counted = both.groupby(["part", "kernel", "verdict"], sort=False).size()
    return counted.unstack(fill_value=0).reindex(columns=["same", "differ", VARIES], fill_value=0)


def differing(both: pd.DataFrame, name: str = ARM64) -> pd.DataFrame:
    """Return what differs, in one row for the kernels and subjects of one kind.

    Returns
    -------
    DataFrame
        part, kernels, count (of subjects), a column of outcomes for each architecture, why, and
        subjects.
    """
    rows = both[both["verdict"] == "differ"].fillna({"why": ""})
    same = ["part", X86, name, "why"]
    grouped = rows.groupby(same, sort=False)
    table = grouped.agg(
        kernels=("kernel", lambda of: ", ".join(dict.fromkeys(of))),
        count=("subject", "nunique"),
        subjects=("subject", lambda of: "; ".join(dict.fromkeys(of))),
    ).reset_index()
    return table[["part", "kernels", "count", X86, name, "why", "subjects"]]
