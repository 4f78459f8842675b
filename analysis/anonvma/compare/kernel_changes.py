# SPDX-License-Identifier: GPL-2.0-only
"""What changed from one kernel to the next, and the commit that changed it.

Functions take `anonvma.compare.outcomes`. Kernels are neighbours in the order in which they are
given, which is that of their versions; where the version falls, another series begins, such as two
builds of one source, and nothing is compared across.

What is known of the causes is data/reference/kernel-changes.csv. Each row holds for some subjects,
an outcome before and one after, and for kernels with a release between them (`since`) or of certain
names (`from`, `to`); what no row holds for is unexplained.
"""

from __future__ import annotations

import csv
import functools
import itertools
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

import pandas as pd

from anonvma.base import paths
from anonvma.compare.outcomes import PARTS, VARIES

Version = tuple[int, ...]
_COMPARED = [part for part in PARTS if part not in ("tracing", "kernel")]
_ABOUT = {"regime": "page faults", "source": "specimens: source"}


class Cause(NamedTuple):
    """One row of the file of causes; patterns are those of a shell, and an empty one fits all."""

    part: str
    subject: str
    before: str
    after: str
    since: str
    from_: str
    to: str
    commit: str
    why: str | None

    def explains(self, part: str, subject: str, old: Seen, new: Seen) -> bool:
        """Tell whether this is why a subject has another outcome on one kernel than before."""
        return (
            self.part == part
            and any(_fits(pattern, subject) for pattern in self.subject.split("|"))
            and _fits(self.before, old.outcome)
            and _fits(self.after, new.outcome)
            and _fits(self.from_, old.release)
            and _fits(self.to, new.release)
            and (
                not self.since or version(old.release) < version(self.since) <= version(new.release)
            )
        )


class Seen(NamedTuple):
    """One outcome, and where."""

    kernel: str
    release: str
    outcome: str


_UNEXPLAINED = Cause("", "", "", "", "", "", "", "", None)


def _fits(pattern: str, text: object) -> bool:
    return not pattern or fnmatchcase(str(text), pattern)


@functools.cache
def causes() -> list[Cause]:
    """Return what is known."""
    file = paths.root() / "data" / "reference" / "kernel-changes.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        return [Cause(*row) for row in list(csv.reader(stream))[1:]]


def version(release: object) -> Version:
    """Return the numbers of a release, such as (6, 12, 117); a release of a series ends early.

    Examples
    --------
    >>> version("6.12.117-early")
    (6, 12, 117)
    """
    match = re.match(r"\d+(\.\d+){0,2}", str(release))
    return tuple(map(int, match[0].split("."))) if match else ()


def kernels(found: pd.DataFrame) -> pd.DataFrame:
    """Return the kernels, in their order.

    Returns
    -------
    DataFrame
        Index: kernel. Columns: release (null where it never ran), regime, source (of the faults
        of specimens), series (from 0) and why_not (why there is no run of it).

    Examples
    --------
    >>> from anonvma.compare import outcomes
    >>> kernels(outcomes.find("kernels")).loc[["early", "delayed"], "regime"].tolist()
    ['early', 'delayed']
    """
    table = found.groupby("kernel", sort=False).agg(release=("release", "first"))
    for name, subject in _ABOUT.items():
        of_each = found[found["subject"] == subject].groupby("kernel")["outcome"].first()
        table[name] = of_each.reindex(table.index)
    series: list[int] = []
    last: Version = ()
    number = 0
    for release in table["release"]:
        if release and version(release) < last:
            number += 1
        last = version(release) or last
        series.append(number)
    why_not = found[found["subject"] == "boots"].groupby("kernel")["note"].first()
    return table.assign(series=series, why_not=why_not.reindex(table.index))


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the outcomes with a column for each kernel: index part and subject."""
    rows = [(part, subject, *outcomes.values()) for part, subject, outcomes in _rows(found)]
    names = ["part", "subject", *kernels(found).index]
    return pd.DataFrame(rows, columns=names).set_index(["part", "subject"])


def _rows(found: pd.DataFrame) -> Iterator[tuple[str, str, dict[str, str | None]]]:
    """Yield each part and subject with its outcome on every kernel, None where not observed."""
    by_subject: dict[tuple[str, str], dict[str, str]] = {}
    seen = found[found["part"].isin(_COMPARED) & found["outcome"].notna()]
    for kernel, part, subject, outcome in zip(
        *(seen[name] for name in ("kernel", "part", "subject", "outcome")), strict=True
    ):
        by_subject.setdefault((part, subject), {})[kernel] = outcome
    names = list(kernels(found).index)
    for (part, subject), known in by_subject.items():
        yield part, subject, {name: known.get(name) for name in names}


def between(found: pd.DataFrame) -> pd.DataFrame:
    """Return what changed from each kernel to the next.

    What was not observed on a kernel is passed over there, and what varies from boot to boot of
    any of them altogether: it depends on something else.

    Returns
    -------
    DataFrame
        One row per change: part, subject, old and new (kernels), before and after (outcomes), since
        and commit (empty where unexplained) and why (null where unexplained).

    Examples
    --------
    >>> from anonvma.compare import outcomes
    >>> found = between(outcomes.find("kernels"))
    >>> found.loc[0, ["part", "before", "after", "since"]].tolist()
    ['regime', 'none', 'early', '6.4']
    """
    about, rows = kernels(found), []
    releases = about["release"].to_dict()
    for part, subject, outcomes in _rows(found):
        for _, names in about.groupby("series"):
            known = [
                Seen(name, releases[name], outcome)
                for name in names.index
                if (outcome := outcomes[name]) is not None and VARIES not in outcomes.values()
            ]
            for old, new in itertools.pairwise(known):
                if old.outcome != new.outcome:
                    reason = cause(part, subject, old, new)
                    seen = (part, subject, old.kernel, new.kernel, old.outcome, new.outcome)
                    rows.append((*seen, reason.since, reason.commit, reason.why))
    order = {name: place for place, name in enumerate(about.index)}
    rows.sort(key=lambda row: (order[row[3]], _COMPARED.index(row[0])))
    columns = ["part", "subject", "old", "new", "before", "after", "since", "commit", "why"]
    return pd.DataFrame(rows, columns=columns)


def cause(part: str, subject: str, old: Seen, new: Seen) -> Cause:
    """Return why a subject's outcome is another; without a `why` where that is not known."""
    fitting = (each for each in causes() if each.explains(part, subject, old, new))
    return next(fitting, _UNEXPLAINED)


def grouped(changed: pd.DataFrame) -> pd.DataFrame:
    """Return the changes with those of one kind as one row: count, and the subjects' names."""
    same = ["old", "new", "part", "before", "after", "since", "commit", "why"]
    rows = (
        changed.groupby(same, sort=False, dropna=False)["subject"]
        .agg([len, "; ".join])
        .reset_index()
    )
    rows = rows.rename(columns={"len": "count", "join": "subjects"})
    return rows[
        ["old", "new", "part", "count", "before", "after", "since", "commit", "why", "subjects"]
    ]


class Alike(NamedTuple):
    """Subjects of one part that have the same outcome as each other on every kernel."""

    part: str
    subjects: list[str]
    outcomes: dict[str, str | None]

    @property
    def label(self) -> str:
        """Name them in a few words."""
        apart = [subject.rpartition(", ") for subject in self.subjects]
        heads = {head for head, _, _ in apart}
        if len(heads) == 1 and len(apart) > 1 and all(heads):
            return f"{heads.pop()}, {' and '.join(tail for _, _, tail in apart)}"
        more = len(apart) - 1
        return f"{self.subjects[0]}, and {more} more" if more else self.subjects[0]


def differing(found: pd.DataFrame) -> list[Alike]:
    """Return the subjects whose outcome differs between two kernels, and does not vary."""
    same: dict[tuple[object, ...], Alike] = {}
    for part, subject, outcomes in _rows(found):
        if VARIES not in outcomes.values() and len(set(outcomes.values()) - {None}) > 1:
            key = (part, *outcomes.values())
            same.setdefault(key, Alike(part, [], outcomes)).subjects.append(subject)
    return list(same.values())


def counts(found: pd.DataFrame) -> pd.DataFrame:
    """Return of each part how many subjects there are, and of how many the outcome differs.

    Returns
    -------
    DataFrame
        Index: part. Columns: subjects, same (on all kernels where it was observed), differ, and
        vary (from boot to boot of one kernel).

    Examples
    --------
    >>> from anonvma.compare import outcomes
    >>> counts(outcomes.find("kernels")).loc["regime"].tolist()
    [1, 0, 1, 0]
    """
    differ = {(each.part, name) for each in differing(found) for name in each.subjects}
    rows = [
        (
            part,
            1,
            len(set(seen.values()) - {None}) == 1,
            (part, subject) in differ,
            VARIES in seen.values(),
        )
        for part, subject, seen in _rows(found)
    ]
    counted = pd.DataFrame(rows, columns=["part", "subjects", "same", "differ", "vary"])
    by_part = counted.groupby("part").sum()
    return by_part.reindex([part for part in _COMPARED if part in by_part.index])
