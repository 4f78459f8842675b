# SPDX-License-Identifier: GPL-2.0-only
"""What ``vmaprobe consequences`` wrote: its outcomes, and the census that it took of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from anonvma.probe import census_file


def read(outcomes: Path, census: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of ``consequences``, and why no acquisition was counted, if none was."""
    told = json.loads(outcomes.read_bytes())
    vmas = census_file.read(census).vmas
    return [_row(each, vmas) for each in told["outcomes"]], told["uncounted"]


def _row(outcome: dict[str, Any], vmas: pd.DataFrame) -> dict[str, Any]:
    there = vmas[(vmas["end"] > outcome["start"]) & (vmas["start"] < outcome["end"])]
    trials = outcome["trials"]
    per_operation = ("reads", "writes", "faults", "faults_after")
    means = {
        name: None if outcome[name] is None or not trials else outcome[name] / trials
        for name in per_operation
    }
    names = ["operation", "bare", "trials", "median_ns", "child_faults", "dumped", "pages", "error"]
    return {
        **{name: outcome[name] for name in names},
        **means,
        "vmas": len(there) if trials else None,
        "anon_vma": bool(there["anon_vma"].iloc[0]) if trials and len(there) else None,
    }
