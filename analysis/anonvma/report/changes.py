# SPDX-License-Identifier: GPL-2.0-only
"""What changed between conditions, in sections: the answer first, with the cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anonvma.base.section import Key, Section
from anonvma.base.tabular import LACKING
from anonvma.compare import attribution, design, environment, time_attribution
from anonvma.compare import conditions as setting
from anonvma.compare.attribution.blame import Verdict
from anonvma.compare.changes.printed import brief
from anonvma.compare.changes.rows import RULE, shown, table
from anonvma.compare.changes.words import answered
from anonvma.report import time_report
from anonvma.run.runs import Run


def sections(conditions: Mapping[str, Sequence[Run]], metric: str | None = None) -> list[Section]:
    """Say everything a comparison says, the answer first.

    Parameters
    ----------
    conditions : mapping of str to sequence of Run
        At least two; the first is what the others are compared with.
    metric : str, optional
        The primary metric.

    Returns
    -------
    list of Section
    """
    base, *heads = conditions
    found = table(conditions)
    *headline, most = answered(conditions, found, metric)
    answer = [" ".join(headline)]
    causes = {head: attribution.explain(conditions, head, metric) for head in heads}
    times = {head: time_attribution.explain(conditions, head, metric) for head in heads}
    for head in heads:
        # A paragraph each: a mail is to be read on two screens.
        answer += [" ".join(part.sentences) for part in (causes[head], times[head]) if part]
    answer.append(most)
    parts = [Section("Answer", answer, key=Key.ANSWER)]
    known = [head for head in heads if causes[head].verdict is not Verdict.UNKNOWN]
    for head in known:
        title = f"Which VMAs caused it: {base} to {head}"
        parts.append(Section(title, [attribution.HOW], attribution.printed(causes[head].table)))
        if len(waited := causes[head].waits):
            title = f"Which locks were waited for: {base} to {head}"
            parts.append(Section(title, [attribution.OF_WAITS], waited))
    if known or any(times.values()):
        parts += time_report.sections(conditions, times)
    kept = shown(found, metric)
    said = [f"{len(kept)} of {len(found)} rows. {RULE} low and high bound the 95 % interval."]
    parts.append(Section("What changed", said, brief(kept), key=Key.CHANGED))
    return parts + _setting_sections(conditions)


def _setting_sections(conditions: Mapping[str, Sequence[Run]]) -> list[Section]:
    _, turns = design.interleaving(conditions)
    how = design.said_of(conditions)
    rows = setting.differences(conditions)
    said = [turns, *([how] if how else []), *([] if len(rows) else ["Nothing by their manifests."])]
    title = "What differed between the conditions"
    parts = [Section(title, said, rows if len(rows) else None)]
    rows = environment.differences(conditions)
    if rows.empty:
        return [*parts, Section("What else differed", [rows.attrs[LACKING]])]
    said = [
        "Settings and states of the machine, recorded around each repeat: settings that differ, "
        "and states (mean and range of the runs) whose ranges lie apart."
    ]
    return [*parts, Section("What else differed", said, rows)]
