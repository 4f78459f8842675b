# SPDX-License-Identifier: GPL-2.0-only
"""A selection: the VMAs of one census that a filter leaves, and what they amount to.

No widget in here. `Vmas` holds a census so that a changed `Filter` is answered quickly: words as
small codes, one pass over a column per condition, counts by `numpy.bincount`. A million VMAs take a
few hundredths of a second, and little more memory than the census itself.

A VMA's *state* is its class if it is bare, else what it has: ``anon_vma`` or ``vm_ops``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.base.errors import SelectionError
from anonvma.explore.census_reader import read, repeats_of
from anonvma.explore.filter import STATES, Filter, bits_of
from anonvma.run.runs import Run
from anonvma.run.vma_flags import flag_names

Mask = npt.NDArray[np.bool_]


class Vmas:
    """The VMAs of one census, ready to be narrowed down.

    Attributes
    ----------
    frame : DataFrame
        One row per VMA, columns as in the table ``census``.
    page_size : int
        Bytes.
    state : ndarray of int8
        The place of each VMA's state in `STATES`.
    """

    def __init__(self, frame: pd.DataFrame, page_size: int) -> None:
        self.frame, self.page_size = frame.reset_index(drop=True), page_size
        self.state = self._states()

    @classmethod
    def of_run(cls, run: Run, repeat: int | None = None) -> Vmas:
        """Read one repeat of a run, the last one by default.

        Raises
        ------
        SelectionError
            When the run has no census, or not of that repeat.
        """
        known = repeats_of(run)
        wanted = known[-1] if repeat is None else repeat
        if wanted not in known:
            raise SelectionError(
                f"run {run.id} has no repeat {wanted}: it has {', '.join(map(str, known))}."
            )
        return cls(read(run, wanted), int(run.manifest.target["page_size"]))

    def __len__(self) -> int:
        return len(self.frame)

    def _states(self) -> npt.NDArray[np.int8]:
        frame = self.frame
        has = np.where(frame["anonymous"], STATES.index("anon_vma"), STATES.index("vm_ops"))
        kind = frame["class"].cat
        place = np.array([*(STATES.index(name) for name in kind.categories), -1], np.int8)
        return np.where(frame["bare"], place[kind.codes], has).astype(np.int8)

    def numbers(self, name: str) -> npt.NDArray[np.uint64]:
        """Return a column of whole numbers as an array, a null as 0."""
        column = self.frame[name]
        if not isinstance(column.array, pd.arrays.IntegerArray):
            return column.to_numpy()
        if not column.hasnans:
            return column.to_numpy(np.uint64)
        return column.to_numpy(np.uint64, na_value=0)

    @cached_property
    def flags(self) -> list[str]:
        """The names of the flags that any of the VMAs has."""
        return flag_names(int(np.bitwise_or.reduce(self.numbers("flags"), initial=np.uint64(0))))

    @cached_property
    def _processes(self) -> tuple[npt.NDArray[np.int32], pd.DataFrame]:
        """Each VMA's process as a code, and by that the processes: tgid and comm."""
        places, tgids = pd.factorize(self.numbers("tgid"))
        codes: npt.NDArray[np.int32] = places.astype(np.int32)
        first = np.zeros(len(tgids), np.intp)
        first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        comm = self.frame["comm"].iloc[first].astype("object").to_numpy()
        return codes, pd.DataFrame({"tgid": tgids, "comm": comm})

    # ---- a filter's answer ----

    def mask(self, wanted: Filter) -> Mask:
        """Return, for each VMA, whether the filter leaves it."""
        found = np.ones(len(self), bool)
        for name in wanted.asked():
            found &= self._condition(name, getattr(wanted, name))
        return found

    def _condition(self, name: str, value: Any) -> Mask:
        if name == "processes":
            return np.asarray(np.isin(self.numbers("tgid"), np.array(value, np.uint64)), bool)
        if name == "origins":
            column = self.frame["origin"].cat
            chosen = np.append(np.isin(column.categories.astype("object"), list(value)), False)
            return np.asarray(chosen[column.codes], bool)
        if name == "states":
            chosen = np.isin(np.array(STATES), list(value))
            return np.asarray(chosen[self.state], bool)
        if name == "smallest":
            return np.asarray(self.numbers("bytes") >= np.uint64(value), bool)
        if name == "largest":
            return np.asarray(self.numbers("bytes") <= np.uint64(value), bool)
        if name == "within":
            low, high = np.uint64(value[0]), np.uint64(value[1])
            return np.asarray((self.numbers("start") >= low) & (self.numbers("end") <= high), bool)
        bits = bits_of(value)
        set_here = self.numbers("flags") & bits
        met: Mask = set_here == (bits if name == "having" else np.uint64(0))
        return met

    def select(self, wanted: Filter) -> Selection:
        """Return the VMAs that the filter leaves."""
        return Selection(self, wanted, self.mask(wanted))

    def why_nothing(self, wanted: Filter) -> str:
        """Say why a filter leaves nothing, and what to widen."""
        if not len(self):
            return "Nothing is selected: this census holds no VMA at all."
        asked = wanted.asked()
        guilty = []
        for name in asked:
            rest = int(self.mask(dataclasses.replace(wanted, **{name: _NOTHING[name]})).sum())
            if rest:
                guilty.append(f"without the condition on {_SHOWN[name]} there would be {rest:,}")
        said = "Nothing is selected: no VMA meets every condition"
        if guilty:
            return f"{said}; {' and '.join(guilty)}."
        return f"{said}, nor all but one of them: clear the filter and begin anew."


_NOTHING: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Filter)}
_SHOWN = {
    "processes": "the process",
    "origins": "the origin",
    "states": "the state",
    "smallest": "the smallest size",
    "largest": "the largest size",
    "having": "flags that are set",
    "lacking": "flags that are not",
    "within": "the range of addresses",
}


# ---- what is left ----


class Selection:
    """The VMAs that a filter leaves.

    Attributes
    ----------
    vmas : Vmas
        All of them.
    filter : Filter
    mask : ndarray of bool
        One a VMA.
    """

    def __init__(self, vmas: Vmas, wanted: Filter, mask: Mask) -> None:
        self.vmas, self.filter, self.mask = vmas, wanted, mask
        self.count = int(np.count_nonzero(mask))

    def __len__(self) -> int:
        return self.count

    @cached_property
    def positions(self) -> npt.NDArray[np.intp]:
        """Where they are among all VMAs."""
        return np.flatnonzero(self.mask)

    def frame(self) -> pd.DataFrame:
        """Return them as a frame of their own: the census' columns, and state."""
        return self._with_state(self.positions).reset_index(drop=True)

    def _with_state(self, places: npt.NDArray[np.intp]) -> pd.DataFrame:
        names = pd.Index(STATES, dtype="str")
        state = pd.Categorical.from_codes(self.vmas.state[places], names)
        return self.vmas.frame.iloc[places].assign(state=state)

    def total(self, name: str) -> int:
        """Return the sum of a column, nulls left out."""
        return int(self.vmas.numbers(name)[self.positions].sum())

    def states(self) -> pd.DataFrame:
        """Count them by state.

        Returns
        -------
        DataFrame
            One row per state that occurs, in the order of `STATES`: state, vmas, bytes, and pages:
            present, zero, swapped (of the bare VMAs whose pages were looked at).
        """
        table = self._measures(self.vmas.state, len(STATES))
        table.insert(0, "state", list(STATES))
        return table[table["vmas"] > 0].reset_index(drop=True)

    def origins(self) -> pd.DataFrame:
        """Count them by origin, most VMAs first: origin, a column per state, and as `states`."""
        column = self.vmas.frame["origin"].cat
        return self._by(column.codes.to_numpy(), {"origin": column.categories.to_numpy("object")})

    def processes(self) -> pd.DataFrame:
        """Count them by process, most VMAs first: tgid, comm, a column per state, as `states`."""
        codes, named = self.vmas._processes
        return self._by(codes, {"tgid": named["tgid"], "comm": named["comm"]})

    def _by(self, codes: npt.NDArray[Any], names: Mapping[str, Any]) -> pd.DataFrame:
        count = len(next(iter(names.values())))
        table = pd.DataFrame(dict(names))
        if not count:
            return table.reindex(columns=[*names, "vmas", *STATES, "bytes", "present", "zero"])
        known = self.positions[codes[self.positions] >= 0]
        both = codes[known].astype(np.int64) * len(STATES) + self.vmas.state[known]
        cells = np.bincount(both, minlength=count * len(STATES)).reshape(count, len(STATES))
        measures = self._measures(codes, count)
        table["vmas"] = measures.pop("vmas")
        table[list(STATES)] = cells
        table = table.join(measures)
        table = table[table["vmas"] > 0]
        return table.sort_values("vmas", ascending=False, kind="stable", ignore_index=True)

    def _measures(self, codes: npt.NDArray[Any], count: int) -> pd.DataFrame:
        known = self.positions[codes[self.positions] >= 0]
        found = codes[known]
        table = {"vmas": np.bincount(found, minlength=count)}
        for name in ("bytes", "present", "zero", "swapped"):
            # bincount adds up as floating point: exact to 2**53 bytes or pages.
            weights = self.vmas.numbers(name)[known]
            table[name] = np.bincount(found, weights, count).astype(np.int64)
        return pd.DataFrame(table)

    def rows(
        self, key: str = "start", descending: bool = False, begin: int = 0, count: int = 50
    ) -> pd.DataFrame:
        """Return some of them, in order.

        Parameters
        ----------
        key : str
            The column to sort by: a number.
        descending : bool
        begin, count : int
            From which on, and how many.

        Returns
        -------
        DataFrame
            Index: the place among all VMAs. Columns: as the census, and state.
        """
        values = self.vmas.numbers(key)[self.positions]
        if descending:
            values = values.max(initial=0) - values
        # Only as much of the order as is shown.
        last = min(begin + count, self.count)
        if last < self.count:
            edge = np.partition(values, last - 1)[last - 1] if last else 0
            near = np.flatnonzero(values <= edge)
        else:
            near = np.arange(self.count)
        chosen = near[np.argsort(values[near], kind="stable")][begin:last]
        return self._with_state(self.positions[chosen])
