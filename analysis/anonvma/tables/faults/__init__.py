# SPDX-License-Identifier: GPL-2.0-only
"""Page faults, as traced: what each found and left, which lock it took, when."""

from __future__ import annotations

from anonvma.tables.faults.groups import (
    TRANSITION_COLOURS,
    by_mode,
    by_origin,
    counterfactual,
    handled,
    lock_paths,
    plot_lock_paths,
    plot_transitions,
    repeats,
    timed_count,
    traced,
    traced_repeats,
    transition,
    transitions,
    wholes,
)
from anonvma.tables.faults.overhead import cost
from anonvma.tables.faults.predicted import prediction
from anonvma.tables.faults.reasons import reasons, reasons_said, reasons_whole
from anonvma.tables.faults.specimen import of_specimens
from anonvma.tables.faults.times import over_time, per_vma, plot_over_time
