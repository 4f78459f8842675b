# SPDX-License-Identifier: GPL-2.0-only
"""A selection: the VMAs of one census that a filter leaves, and what they amount to.

No widget in here. `Vmas` holds a census so that a changed `Filter` is answered quickly: words as
small codes, one pass over a column a condition, counts by `numpy.bincount`. A million VMAs take a
few hundredths of a second, and little more memory than the census itself.

A VMA's *state* is its class if it is bare, else what it has: ``anon_vma`` or ``vm_ops``.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from anonvma.base.errors import SelectionError
from anonvma.base.text import printable
from anonvma.report.sections import WIDTH
from anonvma.run.runs import Run
from anonvma.tables.census import CLASSES

__all__ = [
    "FLAGS",
    "STATES",
    "Filter",
    "Selection",
    "Vmas",
    "flag_names",
    "paragraph",
    "repeats_of",
    "size",
    "write",
]

STATES = ("zero-page", "untouched", "guard", "other", "anon_vma", "vm_ops")
"""In order of interest; the first four are the classes of bare VMAs."""

# include/linux/mm.h; the lower 32 bits, which have kept their meaning since 4.x. Bits above are
# an architecture's or have moved, so they go by their number.
FLAGS = {
    "READ": 0,
    "WRITE": 1,
    "EXEC": 2,
    "SHARED": 3,
    "MAYREAD": 4,
    "MAYWRITE": 5,
    "MAYEXEC": 6,
    "MAYSHARE": 7,
    "GROWSDOWN": 8,
    "UFFD_MISSING": 9,
    "PFNMAP": 10,
    "UFFD_WP": 12,
    "LOCKED": 13,
    "IO": 14,
    "SEQ_READ": 15,
    "RAND_READ": 16,
    "DONTCOPY": 17,
    "DONTEXPAND": 18,
    "LOCKONFAULT": 19,
    "ACCOUNT": 20,
    "NORESERVE": 21,
    "HUGETLB": 22,
    "SYNC": 23,
    "WIPEONFORK": 25,
    "DONTDUMP": 26,
    "SOFTDIRTY": 27,
    "MIXEDMAP": 28,
    "HUGEPAGE": 29,
    "NOHUGEPAGE": 30,
    "MERGEABLE": 31,
}
"""Names of the bits of ``vm_flags``, without ``VM_``."""

_COUNTS = ("present", "zero", "swapped", "huge", "guard")
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Filter:
    """What a VMA has to be; what is empty or None asks nothing.

    Attributes
    ----------
    processes : tuple of int
        One of these tgids.
    origins, states : tuple of str
        One of these.
    smallest, largest : int or None
        Bytes, both inclusive.
    having, lacking : tuple of str
        Every one of these flags set, and none of those; names as `flag_names` has them.
    within : tuple of int or None
        Begins at or above the first address and ends at or below the second.
    """

    processes: tuple[int, ...] = ()
    origins: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    smallest: int | None = None
    largest: int | None = None
    having: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    within: tuple[int, int] | None = None

    def asked(self) -> list[str]:
        """Return the names of the fields that ask something."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) not in ((), None)]

    def said(self) -> str:
        """Say it in words that name no process: they may go into a mail."""
        parts = []
        if self.processes:
            n = len(self.processes)
            parts.append("of one process" if n == 1 else f"of {n} processes")
        if self.origins:
            parts.append(f"of origin {_either(self.origins)}")
        if self.states:
            parts.append(f"in state {_either(self.states)}")
        if self.smallest is not None:
            parts.append(f"of at least {size(self.smallest)}")
        if self.largest is not None:
            parts.append(f"of at most {size(self.largest)}")
        if self.having:
            parts.append(f"with {', '.join(self.having)} set")
        if self.lacking:
            parts.append(f"without {', '.join(self.lacking)}")
        if self.within:
            parts.append("in one range of addresses")
        return ", ".join(parts)


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def size(count: float) -> str:
    """Return a number of bytes as a person says it."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if float(count).is_integer() else f"{count:,.1f} {unit}"
        count = count / 1024
    raise AssertionError  # the loop returns


def _bit(name: str) -> np.uint64:
    number = FLAGS[name] if name in FLAGS else int(name.removeprefix("bit "))
    return np.uint64(1 << number)


def _bits(names: Sequence[str]) -> np.uint64:
    total = np.uint64(0)
    for name in names:
        total |= _bit(name)
    return total


def flag_names(flags: int) -> list[str]:
    """Return the names of the bits that are set, lowest first; ``bit N`` where there is none."""
    known = {number: name for name, number in FLAGS.items()}
    return [known.get(n, f"bit {n}") for n in range(64) if flags >> n & 1]


# ---- the VMAs of one census ----


def repeats_of(run: Run) -> list[int]:
    """Return the repeats that a run has a census of.

    Raises
    ------
    SelectionError
        When it has none.
    """
    with _readable(run):
        column = _parquet(run).read(columns=["repeat"])["repeat"].unique().to_pylist()
    if not column:
        raise SelectionError(f"run {run.id} has a census without a single VMA: nothing to show.")
    return sorted(column)


def _parquet(run: Run) -> pq.ParquetFile:
    if "census" not in run.manifest.tables:
        raise SelectionError(
            f"run {run.id} has no census, so there are no VMAs to show: collect it anew."
        )
    return pq.ParquetFile(run.path / run.manifest.tables["census"].file)


@contextmanager
def _readable(run: Run) -> Iterator[None]:
    """Say in a sentence what Parquet has to say of a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise SelectionError(f"run {run.id}: its census cannot be read ({said}).") from None


class Vmas:
    """The VMAs of one census, ready to be narrowed down.

    Attributes
    ----------
    frame : DataFrame
        One row a VMA, columns as in the table ``census``.
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
        return cls(_read(run, wanted), int(run.manifest.target["page_size"]))

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
        bits = _bits(value)
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


def _read(run: Run, repeat: int) -> pd.DataFrame:
    """Read one repeat column by column, so that nothing but the frame is ever there whole."""
    with _readable(run):
        file = _parquet(run)
        numbers = file.read(columns=["repeat"])["repeat"].to_numpy()
        rows = np.flatnonzero(numbers == repeat)
        # The repeats lie one behind the other: a slice where a selection would be a copy.
        whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
        columns = {}
        for name in file.schema_arrow.names:
            if name == "repeat":
                continue
            column = file.read(columns=[name], use_threads=False)[name]
            part = column.slice(rows[0], len(rows)) if whole else column.take(pa.array(rows))
            columns[name] = _to_pandas(part)
            del column, part
    pa.default_memory_pool().release_unused()
    return pd.DataFrame(columns, copy=False)


def _to_pandas(column: pa.ChunkedArray) -> Any:
    if pa.types.is_unsigned_integer(column.type) and column.null_count:
        values = column.fill_null(0).to_numpy().astype(np.uint64)
        return pd.arrays.IntegerArray(values, column.is_null().to_numpy())
    if pa.types.is_dictionary(column.type):
        merged = column.unify_dictionaries().combine_chunks()
        if isinstance(merged, pa.ChunkedArray):
            merged = merged.chunk(0) if merged.num_chunks else pa.array([], column.type)
        codes = merged.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        names = pd.Index(merged.dictionary.to_pylist(), dtype="str")
        return pd.Categorical.from_codes(codes, categories=names)
    return column.to_numpy()


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
            One row a state that occurs, in the order of `STATES`: state, vmas, bytes, and pages:
            present, zero, swapped (of the bare VMAs whose pages were looked at).
        """
        table = self._measures(self.vmas.state, len(STATES))
        table.insert(0, "state", list(STATES))
        return table[table["vmas"] > 0].reset_index(drop=True)

    def origins(self) -> pd.DataFrame:
        """Count them by origin, most VMAs first: origin, a column a state, and as `states`."""
        column = self.vmas.frame["origin"].cat
        return self._by(column.codes.to_numpy(), {"origin": column.categories.to_numpy("object")})

    def processes(self) -> pd.DataFrame:
        """Count them by process, most VMAs first: tgid, comm, a column a state, and as `states`."""
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


# ---- taking it along ----


def paragraph(selection: Selection, where: str) -> str:
    """Return a paragraph for a mail: counts, no name of a process, file, user or machine.

    Parameters
    ----------
    selection : Selection
    where : str
        What the census was of, such as ``small-allocs-mt on Linux 6.18 (x86_64, 2 CPUs)``.

    Returns
    -------
    str
        Lines of at most 72 columns, ending in a newline.
    """
    asked = selection.filter.said()
    which = f", those {asked}" if asked else ""
    if not selection.count:
        said = f"Of {len(selection.vmas):,} VMAs ({where}){which}: none."
        return _wrapped(said)
    kinds = selection.states()
    named = ", ".join(f"{row.vmas:,} {row.state}" for row in kinds.itertuples())
    bare = int(kinds.loc[kinds["state"].isin(CLASSES), "vmas"].sum())
    said = (
        f"{selection.count:,} of {len(selection.vmas):,} VMAs ({where}){which}: {named}. "
        f"{bare:,} of them are bare (vm_ops and anon_vma both NULL). They span "
        f"{size(selection.total('bytes'))}."
    )
    if bare and selection.vmas.frame["present"].iloc[selection.positions].notna().any():
        present, zero = selection.total("present"), selection.total("zero")
        said += f" In the bare ones {present:,} pages are present, {zero:,} of these the zero page."
    return _wrapped(said)


def _wrapped(words: str) -> str:
    lines = textwrap.wrap(printable(words), WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


_KINDS = ("parquet", "csv", "txt")


def write(selection: Selection, where: str, name: str, directory: Path) -> Iterator[Path]:
    """Write a selection as Parquet, as CSV and as a paragraph, and yield each path.

    Parameters
    ----------
    selection : Selection
    where : str
        As for `paragraph`.
    name : str
        What the files are called, without an ending.
    directory : path
        Where they go; made if it is missing.

    Raises
    ------
    SelectionError
        When the name is none, or a file cannot be written.
    """
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise SelectionError(
            f"{name!r} cannot be the name of a file here: use letters, digits, '-', '_' and '.'."
        )
    frame = selection.frame()
    for kind in _KINDS:
        path = directory / f"{name}.{kind}"
        partial = path.with_name(f".{path.name}.partial")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if kind == "parquet":
                frame.to_parquet(partial, compression="zstd", index=False)
            elif kind == "csv":
                frame.to_csv(partial, index=False)
            else:
                partial.write_text(paragraph(selection, where), encoding="utf-8")
            partial.rename(path)
        except OSError as error:
            raise SelectionError(f"cannot write {path}: {error.strerror or error}.") from None
        yield path
