# SPDX-License-Identifier: GPL-2.0-only
"""The chains of a census: which anon_vmas may have pages of which VMA, as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import CensusError
from anonvma.probe import census_layout

_IDS = ("anon_vma", "root", "parent")


def chain_frame(links: npt.NDArray[np.void], vmas: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return one row per anon_vma_chain; the columns are those of ``anon_vma_chains``.

    The ids, which are random words in the file, become numbers from 1, as they come.
    """
    if len(links) and int(links["vma"].max()) >= len(vmas):
        raise CensusError(f"{path}: damaged: a chain of a VMA that is not in its tables")
    rows = vmas[["mm", "tgid", "comm", "start"]].take(links["vma"].astype(np.intp))
    frame = rows.reset_index(drop=True)
    ids, _ = pd.factorize(np.concatenate([links[name] for name in _IDS]))
    for name, column in zip(_IDS, np.split(ids + 1, len(_IDS)), strict=True):
        frame[name] = column.astype(np.uint32)
    frame["own"] = links["own"] != 0
    for name in ("num_children", "num_active_vmas"):
        unknown = links[name] == census_layout.LINK_UNKNOWN
        frame[name] = pd.arrays.IntegerArray(links[name].astype(np.uint32), unknown)
    return frame


def slab_frame(header: np.void) -> pd.DataFrame:
    """Return one row per slab cache that /proc/slabinfo has a line of, as in ``slabs``."""
    rows = [
        {"cache": name.removesuffix("_slab")}
        | {key: int(header[name][key]) for key in census_layout.SLAB.names or ()}
        for name in ("anon_vma_slab", "anon_vma_chain_slab")
        if header[name]["slabs"]
    ]
    return pd.DataFrame(rows, columns=["cache", *(census_layout.SLAB.names or ())])
