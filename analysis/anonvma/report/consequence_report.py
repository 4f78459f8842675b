# SPDX-License-Identifier: GPL-2.0-only
"""What bareness costs beside page faults, for a reader."""

from __future__ import annotations

from anonvma.base.section import Section
from anonvma.base.tabular import LACKING
from anonvma.report.sources import drawn_from
from anonvma.run.runs import Run
from anonvma.tables import consequences

TITLE = "What bareness costs beside page faults"


def section(run: Run) -> Section:
    """Return the operations whose locks, faults or outcome a missing anon_vma changed."""
    rows = consequences.last(run)
    said = sentences(run)
    if rows.empty:
        return Section(TITLE, said)
    table = consequences.differing(rows).reset_index()
    shown = ["operation", "locks, bare", "locks, anon_vma", "faults, bare", "faults, anon_vma"]
    shown += ["became, bare", "became, anon_vma"]
    return Section(TITLE, said, table[shown], sources=drawn_from(run, "consequences"))


def sentences(run: Run) -> list[str]:
    """Say how many operations were tried, in how many bareness mattered, and what decided."""
    rows = consequences.last(run)
    if rows.empty:
        return [str(rows.attrs[LACKING])]
    differ = consequences.differing(rows)
    tried = rows.loc[rows["trials"] > 0, "operation"].nunique()
    said = [
        f"{tried} operations were done to a VMA that is bare, and to one that differs in "
        f"this alone. In {len(differ)} of them the locks, the faults or the outcome differ."
    ]
    untried = rows[rows["trials"] == 0].groupby("operation")["error"].first()
    said += [f"{name} was not tried: no {why}." for name, why in untried.items()]
    decided = differ.loc[differ["decided_by"] != "", ["decided_by", "since"]]
    for name, (function, since) in zip(decided.index, decided.to_numpy(), strict=True):
        said.append(f"{name}: {function}{f' (since {since})' if since else ''}.")
    return said
