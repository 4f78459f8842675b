# SPDX-License-Identifier: GPL-2.0-only
"""What an early check would send to mmap_lock, by one kernel's trace, beside what another did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from anonvma.run.runs import Run, having
from anonvma.tables.faults.groups import handled, repeats


def prediction(runs: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """Set what is predicted on one kernel beside what another one did.

    Parameters
    ----------
    runs : mapping of str to sequence of Run
        By the name of a kernel, its runs of one workload, on kernels whose regime was observed;
        those without traced faults count for none.

    Returns
    -------
    DataFrame
        One row per kernel: kernel, regime, n (runs), predicted (faults an early check would send to
        mmap_lock, by its own trace, mean), to mmap_lock (those of them that its trace has under
        mmap_lock), aborts (``vma_lock_abort`` of /proc/vmstat; null where it is not counted).
    """
    rows = []
    for name, opened in runs.items():
        each = having(opened, "faults", "vmstat")
        parts = [_prediction(run) for run in each]
        rows.append(
            {
                "kernel": name,
                "regime": each[0].manifest.features["regime"]["name"],
                "n": len(each),
                **{key: float(np.mean([part[key] for part in parts])) for key in parts[0]},
            }
        )
    return pd.DataFrame(rows)


def _prediction(run: Run) -> dict[str, float]:
    faults = run.table("faults")
    found = handled(faults)
    found = found[(found["before"] == "bare") & (found["mode"] == "user")]
    vmstat = run.table("vmstat")
    aborts = vmstat.loc[vmstat["counter"] == "vma_lock_abort", "difference"].astype("float64")
    return {
        "predicted": found["count"].sum() / repeats(faults),
        "to mmap_lock": found.loc[found["path"] == "mmap", "count"].sum() / repeats(faults),
        "aborts": float(aborts.mean()),
    }
