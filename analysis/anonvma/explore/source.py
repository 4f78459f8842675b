# SPDX-License-Identifier: GPL-2.0-only
"""What is explored: the VMAs of a run's repeat, or of a census of the live machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from anonvma.explore.census_reader import repeats_of
from anonvma.explore.selection import Vmas
from anonvma.report import answer
from anonvma.run.runs import Run


class Source:
    """What is explored: the VMAs of a run's repeat, or of a census of a live machine.

    Attributes
    ----------
    name : str
        What it is called in the notebook.
    where : str
        What the census was of, fit for a mail.
    vmas : Vmas
    run : Run or None
    """

    def __init__(
        self,
        name: str,
        where: str,
        vmas: Vmas,
        run: Run | None = None,
        tables: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.name, self.where, self.vmas, self.run = name, where, vmas, run
        self._tables = dict(tables or {})

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table beside the census, or None where there is none."""
        if name not in self._tables and self.run and name in self.run.manifest.tables:
            self._tables[name] = self.run.table(name)
        return self._tables.get(name)

    def why_not(self, name: str) -> str:
        """Say why there is no such table, and what would bring it."""
        if self.run is None:
            return "Choose a process in the filter, then press 'Trace its faults'."
        for lacking in self.run.manifest.unobserved:
            if name in lacking.tables:
                return f"{lacking.reason}. Remedy: {lacking.remedy}."
        return (
            f"It was collected by anonvma {self.run.manifest.anonvma} without them: collect it "
            "anew with tracing ('make report', or notebooks/01-collect.ipynb)."
        )

    @cached_property
    def every_repeat(self) -> tuple[Vmas, npt.NDArray[np.int32]]:
        """The VMAs of all repeats, and of each VMA the repeat."""
        known = [1] if self.run is None else repeats_of(self.run)
        if self.run is None or len(known) == 1:
            return self.vmas, np.full(len(self.vmas), known[0], np.int32)
        frame = self.run.table("census")
        return Vmas(frame, self.vmas.page_size), frame["repeat"].to_numpy(np.int32)


def source_of_run(run: Run, repeat: int | None = None) -> Source:
    """Return a run as what is explored: one repeat of it, the last by default.

    Raises
    ------
    SelectionError
        When it has no census, or none of that repeat.
    """
    known = repeats_of(run)
    number = known[-1] if repeat is None else repeat
    where = answer.name_of(run)
    if len(known) > 1:
        where += f", repeat {number} of {len(known)}"
    return Source(run.id, where, Vmas.of_run(run, number), run)
