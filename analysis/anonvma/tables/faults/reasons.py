# SPDX-License-Identifier: GPL-2.0-only
"""Why faults acquired mmap_lock: by the kernel's own tests, in the order in which it makes them.

A fault of user mode tries its VMA's lock. `lock_vma_under_rcu()` may find no VMA (*nothing mapped*,
*stack growth*, *VMA replaced*: another was there a moment later), or one that is *write-locked*,
*detached* or, to an early check, *bare*. Under the VMA's lock the handler may say VM_FAULT_RETRY:
*anon_vma, mmap_lock busy* (`vmf_anon_prepare()`), *I/O*, *userfaultfd*, or *vm_ops without
map_pages*, whose fault handler may not be called so (`vmf_can_call_fault()`). A detached VMA is
looked up again (vma_lock_miss in /proc/vmstat), so it is seldom a reason of its own.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from anonvma.base.numerals import number
from anonvma.base.section import Whole
from anonvma.run.vocabulary import NOT_TOLD
from anonvma.tables.faults.groups import repeats, timed_count

_OPERATION = "vm_ops without map_pages"


def _acquired(faults: pd.DataFrame) -> pd.DataFrame:
    """Return the faults that acquired mmap_lock; a run that is older tells of none why."""
    found = faults[faults["path"].isin(["mmap", "retry"])]
    return found.assign(reason=found["reason"].astype("object").fillna(NOT_TOLD))


def reasons(faults: pd.DataFrame) -> pd.DataFrame:
    """The faults that acquired mmap_lock, by the reason and the origin of the VMA.

    Returns
    -------
    DataFrame
        One row per reason and origin, most faults first: reason, origin (null where there was no
        VMA), vm_ops (where these are the reason, else null), faults (mean of one repeat, those too
        that ended in an error), mean_ns (time of one fault) and wait_ns (of that, from asking for
        mmap_lock to having it); null where the source has no times.
    """
    found = _acquired(faults).astype({"origin": "object", "vm_ops": "object"})
    found["vm_ops"] = found["vm_ops"].where(found["reason"] == _OPERATION, None)
    rows = []
    for key, part in found.groupby(["reason", "origin", "vm_ops"], dropna=False):
        timed = timed_count(part).sum() or np.nan
        sums = [
            part[name].astype("float64").sum(min_count=1) / timed for name in ("time_ns", "wait_ns")
        ]
        rows.append([*key, part["count"].astype("float64").sum() / repeats(faults), *sums])
    columns = ["reason", "origin", "vm_ops", "faults", "mean_ns", "wait_ns"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("faults", ascending=False, kind="stable", ignore_index=True)


def reasons_whole(faults: pd.DataFrame, most: int | None = None) -> Whole:
    """What the rows of `reasons` add up to, of which the first `most` are shown."""
    total = float(_acquired(faults)["count"].astype("float64").sum()) / repeats(faults)
    rest = len(reasons(faults)) - most if most else 0
    others = f"{rest} other reason{'s' * (rest > 1)} and origins" if rest > 0 else ""
    return Whole("faults", total, "page faults that acquired mmap_lock", others)


def reasons_said(faults: pd.DataFrame, why_not: object) -> str:
    """Say of how many faults the reason is not told, and what would tell; empty where all are.

    Parameters
    ----------
    faults : DataFrame
    why_not : str or null
        What the tracer says of it: ``why_no_reasons``.
    """
    found = _acquired(faults)
    untold = found.loc[found["reason"] == NOT_TOLD, "count"].astype("float64").sum()
    if not untold:
        return ""
    said = f"Not told of {number(untold / repeats(faults))}: "
    if faults["reason"].isna().all():
        return f"{said}they were recorded before reasons were. To have them, collect the run again."
    if not isinstance(why_not, str):
        return f"{said}the VMAs changed as they were looked at, or the kernel left the tracer out."
    return (
        f"{said}{why_not}. Another kernel may tell, traced by fentry or kprobe.multi "
        "(CONFIG_FPROBE=y): -p target guest:IMAGE."
    )
