# SPDX-License-Identifier: GPL-2.0-only
"""Specimens: one mapping of each kind, touched in one way, and what it became.

The program ``specimens`` makes them and says what it made; the census says what the
kernel made of each. Together they answer the mail directly: every kind of VMA that has
a NULL ``vm_ops`` and that a page fault leaves without an ``anon_vma``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anonvma.base.axes import own
from anonvma.tables.census import COLOURS
from anonvma.tables.empty_figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOUCHES = ("untouched", "read", "written", "read-written")
STATES = {
    "zero-page": "bare, zero pages",
    "untouched": "bare, untouched",
    "guard": "bare, guard",
    "other": "bare, other",
    "anon_vma": "has an anon_vma",
    "vm_ops": "has vm_ops",
}
# Kinds that the program maps so, by its own word.
_PRIVATE_DEV_ZERO = (
    *("private-devzero", "private-devzero-readonly", "devzero-beside-written"),
    *("devzero-merge-by-offset", "thp-devzero"),
)
_NO_FILE = (
    "mapped from /dev/zero, for which this kernel keeps no file: vm_file is NULL, the offset is "
    "that of the address, and it becomes what private anonymous memory becomes there"
)
_COLOURS = COLOURS | {"vm_ops": "#ece7d5"}


def state_of(vmas: pd.DataFrame) -> pd.Series[str]:
    """Name the state of each VMA: its class if bare, else what it has."""
    has = np.where(vmas["anonymous"], "anon_vma", "vm_ops")
    return vmas["class"].astype("object").where(vmas["bare"], has)


def observed(specimens: pd.DataFrame, vmas: pd.DataFrame) -> pd.DataFrame:
    """Look every specimen up in the census.

    Parameters
    ----------
    specimens : DataFrame
        The ``specimens`` table of a run: kind, touch, pid, start, explain, missing.
    vmas : DataFrame
        The census of the specimens' processes.

    Returns
    -------
    DataFrame
        One row per specimen that could be made, in the order made: kind, touch, vm_ops (the
        symbol, null for NULL), anon_vma (bool), state (see `state_of`), origin, present,
        zero (pages), surprising (bool), explain. A specimen whose VMA is not in the census
        has state ``gone``.

    Notes
    -----
    ``surprising`` marks what the words "anonymous memory that has been touched has an
    anon_vma, untouched memory has none" get wrong.
    """
    made = specimens[specimens["missing"].isna()].reset_index(drop=True)
    found = _look_up(made, vmas)
    table = made[["kind", "touch"]].join(found)
    touched = table["touch"] != "untouched"
    surprising = table["vm_ops"].isna() & (touched ^ table["anon_vma"])
    table["surprising"] = surprising.fillna(False).astype(bool) & (table["state"] != "gone")
    return _without_file(table.join(made["explain"]))


def _without_file(table: pd.DataFrame) -> pd.DataFrame:
    """Say of private /dev/zero that it is that, also where the kernel keeps no file for it.

    What the program explains is of kernels that keep one.
    """
    nameless = table["kind"].isin(_PRIVATE_DEV_ZERO) & (table["origin"] == "private anonymous")
    return table.assign(
        origin=table["origin"].mask(nameless, "private /dev/zero"),
        explain=table["explain"].mask(nameless, _NO_FILE),
    )


def _look_up(made: pd.DataFrame, vmas: pd.DataFrame) -> pd.DataFrame:
    """The VMA around each specimen's start, or nulls."""
    columns = ["vm_ops", "anon_vma", "state", "origin", "present", "zero"]
    vmas = vmas.assign(
        state=state_of(vmas),
        anon_vma=vmas["anon_vma"].astype("boolean"),
        vm_ops=vmas["vm_ops"].astype("object"),
        origin=vmas["origin"].astype("object"),
        start=vmas["start"].astype("uint64"),
    ).sort_values("start")
    wanted = made[["pid", "start"]].astype("uint64").reset_index()
    joined = pd.merge_asof(
        wanted.sort_values("start"),
        vmas[["tgid", "start", "end", *columns]].astype({"tgid": "uint64"}),
        on="start",
        left_by="pid",
        right_by="tgid",
    )
    joined[columns] = joined[columns].where(joined["start"] < joined["end"])
    joined["state"] = joined["state"].fillna("gone")
    return joined.set_index("index").sort_index()[columns]


def answers(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that answer the mail: a fault has filled them, and they have no anon_vma.

    Some were not touched by the program but populated by the kernel, through the same fault.
    """
    return table[table["state"] == "zero-page"]


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """Return `observed` as a map: the state of each kind (a row) after each touch (a column)."""
    states = table.pivot_table(
        index="kind", columns="touch", values="state", aggfunc="first", sort=False
    )
    return states.reindex(columns=[touch for touch in TOUCHES if touch in states])


def missing(specimens: pd.DataFrame) -> pd.DataFrame:
    """Return what this kernel or machine lacks: kind, and the reason with its remedy."""
    lacking = specimens[specimens["missing"].notna()]
    return lacking.groupby("kind", sort=False)["missing"].first().reset_index()


def plot_observed(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw `grid`, a colour a state."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    from anonvma.base.drawing import sns

    ax = own(ax, 6, 0.24 * table["kind"].nunique() + 1)
    if table.empty:
        return blank(ax, "What became of each specimen", "no specimen was made")
    codes = {state: code for code, state in enumerate(STATES)}
    numbers = grid(table).apply(lambda column: column.map(codes)).astype(float)
    palette = [_COLOURS[state] for state in STATES]
    ax = sns.heatmap(
        numbers,
        cmap=ListedColormap(palette),
        vmin=-0.5,
        vmax=len(STATES) - 0.5,
        cbar=False,
        linewidths=1,
        yticklabels=True,
        ax=ax,
    )
    used = [state for state in STATES if (table["state"] == state).any()]
    handles = [Patch(color=_COLOURS[state], label=STATES[state]) for state in used]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    ax.xaxis.tick_top()
    ax.set(xlabel="", ylabel="")
    ax.set_title("What each kind of mapping became", pad=24)
    return ax
