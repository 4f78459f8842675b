# SPDX-License-Identifier: GPL-2.0-only
"""How long the rest of a study will take, from how long its like took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from anonvma.study.matrix import Cell


class Clock:
    """How long the rest will take, from how long its like took."""

    def __init__(self) -> None:
        self._left: Counter[str] = Counter()
        self._times: dict[str, list[float]] = {}

    def begin(self, cells: Iterable[Cell]) -> None:
        """Take in what is left to do."""
        self._left = Counter(cell.host for cell in cells)

    def done(self, cell: Cell, seconds: float | None) -> None:
        """Take in that a job is done, and how long it took where that is known."""
        self._left[cell.host] -= 1
        if seconds is not None:
            self._times.setdefault(cell.host, []).append(seconds)

    def failed(self, cell: Cell) -> None:
        """Take in that a job will not be tried again."""
        self._left[cell.host] -= 1

    def left(self) -> float | None:
        """Return the seconds that the busiest host still takes; None while nothing is known."""
        every = [second for times in self._times.values() for second in times]
        if not every:
            return None
        mean = sum(every) / len(every)
        times = [
            count * (sum(own) / len(own) if (own := self._times.get(host)) else mean)
            for host, count in self._left.items()
        ]
        return round(max(times, default=0.0), 1)
