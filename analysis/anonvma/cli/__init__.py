# SPDX-License-Identifier: GPL-2.0-only
"""The command line: thin, and every failure one sentence.

Exit codes: 0 done; 1 failed; 2 usage; 3 no privilege; 130 interrupted.

Commands import what they need when they run: pandas, seaborn and papermill together take
three seconds, and `--help` needs none of them.
"""

from __future__ import annotations

from anonvma.cli import (
    census,
    comparing,
    cost,
    doctor,
    exploring,
    profiling,
    publishing,
    rendering,
    studies,
    tracing,
)
from anonvma.cli.group import main
