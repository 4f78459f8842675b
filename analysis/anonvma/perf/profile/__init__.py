# SPDX-License-Identifier: GPL-2.0-only
"""Where the time goes: shares of what perf sampled, by function, call path and purpose."""

from __future__ import annotations

from anonvma.perf.profile.purpose import PARTS, fault_callers, parts, plot_parts, waits
from anonvma.perf.profile.reading import events, folded, main_event, of_run, select, shown
from anonvma.perf.profile.shares import (
    Kind,
    Weighed,
    calltrace,
    children,
    mean,
    metrics,
    rows,
    self_,
    without_copies,
)
from anonvma.perf.profile.summary import by_vma_class, sentences, tables
