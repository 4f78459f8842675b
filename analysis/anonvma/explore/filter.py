# SPDX-License-Identifier: GPL-2.0-only
"""A filter: what a VMA has to be, and how flags and sizes are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from anonvma.run.vma_flags import FLAGS

STATES = ("zero-page", "untouched", "guard", "other", "anon_vma", "vm_ops")
"""In order of interest; the first four are the classes of bare VMAs."""


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
    """Return a number of bytes as people write it, such as 4 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if float(count).is_integer() else f"{count:,.1f} {unit}"
        count = count / 1024
    raise AssertionError  # the loop returns


def _bit(name: str) -> np.uint64:
    number = FLAGS[name] if name in FLAGS else int(name.removeprefix("bit "))
    return np.uint64(1 << number)


def bits_of(names: Sequence[str]) -> np.uint64:
    """Return the bits of ``vm_flags`` that have these names."""
    total = np.uint64(0)
    for name in names:
        total |= _bit(name)
    return total
