# SPDX-License-Identifier: GPL-2.0-only
"""Flame graphs: of one run, and of the difference between two."""

from __future__ import annotations

from anonvma.perf.flame.figure import plot
from anonvma.perf.flame.layout import (
    COLOURS,
    LEAST,
    LEGEND,
    MAP,
    Box,
    Source,
    boxes,
    colour_of,
    ink,
    scale_of,
)
from anonvma.perf.flame.web import interactive, page
