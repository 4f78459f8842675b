# SPDX-License-Identifier: GPL-2.0-only
"""What changed between conditions, and how sure that is: every metric, with its interval."""

from __future__ import annotations

from anonvma.compare.changes.printed import brief, plot_shown, short, text
from anonvma.compare.changes.rows import (
    CHANGED,
    PRIMARY,
    RULE,
    Verdict,
    is_absolute,
    judged_anew,
    of_matrix,
    primary_of,
    primary_rows,
    shown,
    table,
    with_primary,
)
from anonvma.compare.changes.words import answered, most_said, of_primary, primary_said
