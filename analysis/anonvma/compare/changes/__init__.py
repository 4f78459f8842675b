# SPDX-License-Identifier: GPL-2.0-only
"""What changed between conditions, and how sure that is: every metric, with its interval."""

from __future__ import annotations

from anonvma.compare.changes.printed import brief, plot_shown, short, text
from anonvma.compare.changes.rows import (
    CHANGED,
    HEADLINES,
    RULE,
    Verdict,
    headline,
    headline_of,
    is_absolute,
    judged_anew,
    of_matrix,
    shown,
    table,
    with_headline,
)
from anonvma.compare.changes.words import answered, headline_said, most_said, of_headline
