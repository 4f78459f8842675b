# SPDX-License-Identifier: GPL-2.0-only
"""What became of each specimen, and the faults that its own range took."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from anonvma.tables import specimens
from anonvma.tables.faults.groups import transition


def of_specimens(made: pd.DataFrame, vmas: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """What became of each specimen, and the faults that its own range took, in their order.

    Parameters
    ----------
    made : DataFrame
        The ``specimens`` table of a run.
    vmas : DataFrame
        The census of the specimens' processes.
    events : DataFrame
        The ``fault_events`` of the same run.

    Returns
    -------
    DataFrame
        One row per specimen that could be made, in that order: kind, touch, vm_ops, anon_vma and
        state (see `anonvma.tables.specimens.observed`), faults (how many), what (each distinct kind
        of fault: access, change and, in brackets, lock path and reason), acquired (of the faults
        those that acquired mmap_lock), left_bare (those that found it bare and left it so) and
        explain. No fault of its own has what was not touched, was inherited over a fork, was moved
        here, or was filled by get_user_pages(), which is no exception.
    """
    seen = specimens.observed(made, vmas)
    table = seen[["kind", "touch", "vm_ops", "anon_vma", "state"]]
    faults, acquired, left_bare, what = [], [], [], []
    for found in own_faults(made, seen, events):
        told = found["access"].astype(str) + " " + transition(found)
        why = found["reason"].astype("object")
        told += " (" + found["path"].astype(str) + (": " + why).fillna("") + ")"
        faults.append(len(found))
        acquired.append(int(found["path"].isin(["mmap", "retry"]).sum()))
        left_bare.append(int(((found["before"] == "bare") & (found["after"] == "bare")).sum()))
        what.append("; ".join(dict.fromkeys(told)))
    table = table.assign(faults=faults, what=what, acquired=acquired, left_bare=left_bare)
    return table.assign(explain=seen["explain"])


def own_faults(
    made: pd.DataFrame, seen: pd.DataFrame, events: pd.DataFrame
) -> Iterator[pd.DataFrame]:
    """Yield the faults of each specimen in `seen` (`specimens.observed`), as they came."""
    ranges = made.loc[made["missing"].isna(), ["pid", "start", "end"]]
    # Of those that ended in an error, the ones that acquired mmap_lock for it.
    events = events[(events["result"] != "error") | events["reason"].notna()]
    events = events.sort_values("address", kind="stable")
    # A place may have held another mapping before; one with vm_ops never becomes anonymous.
    anonymous = events["before"].isin(["bare", "anon_vma", "no VMA"]).to_numpy()
    unseen = (events["before"] == "not looked at").to_numpy()  # it may have been either
    addresses, tgids = events["address"].to_numpy(), events["tgid"].to_numpy()
    for (pid, start, end), state in zip(ranges.itertuples(index=False), seen["state"], strict=True):
        low, high = np.searchsorted(addresses, np.array([start, end], np.uint64))
        fits = (anonymous[low:high] == (state != "vm_ops")) | unseen[low:high]
        mine = (tgids[low:high] == pid) & fits
        yield events.iloc[low:high][mine].sort_values("time_ns", kind="stable")
