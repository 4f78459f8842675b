# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs, and which calls, a change in the acquisitions of mmap_lock comes from."""

from __future__ import annotations

from anonvma.compare.attribution.acquisitions import NEEDED, STATES, Side, plot_taken, taken
from anonvma.compare.attribution.blame import PARTLY, Judgement, Verdict, judge
from anonvma.compare.attribution.decomposition import (
    CALLS,
    COLUMNS,
    NUMBER,
    PATH,
    REPEATED,
    UNEXPLAINED,
    Estimate,
    taken_apart,
)
from anonvma.compare.attribution.explanation import HOW, Cause, explain
from anonvma.compare.attribution.table import printed, verdicts
from anonvma.compare.attribution.waits import HOW as OF_WAITS
from anonvma.compare.attribution.words import sentences
