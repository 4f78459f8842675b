# SPDX-License-Identifier: GPL-2.0-only
"""Two conditions and what is set beside them, part by part, as 05-compare shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from anonvma.base.section import Section
from anonvma.compare import (
    attribution,
    changes,
    conditions,
    counts,
    design,
    environment,
    lkp,
    overcommitment,
    reference,
    scaling,
    time_attribution,
)
from anonvma.report import layout, time_report
from anonvma.run.runs import Run
from anonvma.tables import mapping_time

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.axes import Axes

Sides = Mapping[str, Sequence[Run]]

_OTHERS = {
    "nothing: other boots": "again=other-again-*",
    "twice the pages": "pages=other-pages-*",
    "mappings of 100 pages": "unit=other-unit-*",
    "a busy neighbour": "busy=other-busy-*",
}
"""Recorded runs that differ from ``other-plain-*`` in something else than the early check."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """A comparison; what a part needs and was not given is said in its place.

    Attributes
    ----------
    sides : mapping of str to sequence of Run
        The runs of each condition; others are compared with the first.
    beside : mapping of str to mapping
        The runs set beside them: control, scaled, profiled, overcommitted, as far as there are.
    metric : str, optional
        What it is about; None is the throughput.
    """

    sides: Sides
    beside: Mapping[str, Sides]
    metric: str | None = None

    @classmethod
    def find(
        cls,
        base: str,
        head: str,
        condition: Sequence[str] = (),
        metric: str | None = None,
        **beside: Sequence[str] | None,
    ) -> Compared:
        """Open the runs of both conditions, and those set beside them.

        Raises
        ------
        RunError
            When there are none, or they differ in more than the condition.
        """
        sides = conditions.find([base, head])
        conditions.check(sides, condition)
        return cls(sides, conditions.beside(sides, **beside), metric)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every metric of every source, as `anonvma.compare.changes.table` has it."""
        return changes.table(self.sides)

    @cached_property
    def shown(self) -> pd.DataFrame:
        """The rows of those that are worth a look."""
        return changes.shown(self.rows, self.metric)

    @cached_property
    def causes(self) -> attribution.Cause:
        """Which VMAs made the change in acquisitions of mmap_lock."""
        return attribution.explain(self.sides, metric=self.metric)

    @cached_property
    def times(self) -> time_attribution.TimeCause | None:
        """Which part of a mapping's time made the change in throughput; None if not traced."""
        return time_attribution.explain(self.sides, metric=self.metric)

    def answer(self) -> Markdown:
        """Say what changed, how sure that is, and what made it."""
        said = [*changes.answered(self.sides, self.rows, self.metric), *self.causes.sentences]
        said += self.times.sentences if self.times else []
        return _markdown(layout.markdown(Section("The answer", said)))

    def plot_time(self) -> Axes:
        """Draw where the time of one mapping goes, a bar a condition."""
        return mapping_time.plot(self.sides)

    def turns(self) -> Markdown:
        """Say in which order the runs of the conditions were made."""
        return _markdown(f"{design.interleaving(self.sides)[1]} {design.said_of(self.sides)}")

    def differences(self) -> pd.DataFrame:
        """What differs between the conditions, by their manifests."""
        return conditions.differences(self.sides)

    def environment(self) -> pd.DataFrame:
        """What the machines told of themselves and is not alike."""
        return environment.differences(self.sides)

    def regimes(self) -> pd.DataFrame:
        """Which lock the page faults of each kernel take."""
        return conditions.regimes(self.sides)

    def causes_by_size(self) -> pd.DataFrame:
        """What made the change in acquisitions of mmap_lock, the largest part first."""
        return attribution.printed(self.causes.table)

    def plot_acquisitions(self) -> Axes:
        """Draw who acquired mmap_lock, by kind of fault and by caller."""
        return attribution.plot_taken(self.sides)

    def parts_of_time(self) -> list[Any]:
        """Say and tabulate what a mapping costs, and which part of that changed."""
        last = list(self.sides)[-1]
        shown: list[Any] = []
        for part in time_report.sections(self.sides, {last: self.times}):
            shown += [_markdown("  \n".join(part.paragraphs)), part.table]
        return [each for each in shown if each is not None]

    def changes(self) -> list[Any]:
        """The rows worth a look, and how many there are in all."""
        said = f"{len(self.shown)} of {len(self.rows)} rows. {changes.RULE}"
        return [_markdown(said), changes.brief(self.shown)]

    def plot_changes(self) -> Axes:
        """Draw each of these rows with its interval."""
        return changes.plot_shown(self.shown)

    def robots_table(self) -> str:
        """The same in the kernel test robot's format."""
        return lkp.of_runs(self.sides, self.shown["metric"])

    def control(self) -> list[Any]:
        """The same comparison of another workload."""
        other = self.beside.get("control")
        if other is None:
            return [_not_given("runs of another workload", "control")]
        said = _markdown("  \n".join(attribution.explain(other).sentences))
        return [said, counts.side_by_side(other)]

    def expected(self) -> pd.DataFrame | Markdown:
        """The counts of these runs and of the control beside those worked out beforehand."""
        if "control" not in self.beside:
            return _not_given("runs of another workload", "control")
        each = (self.sides, self.beside["control"])
        return counts.expected([run for side in each for found in side.values() for run in found])

    def verdicts(self) -> pd.DataFrame | Markdown:
        """What the same analysis says of recorded runs that differ in something else."""
        if not conditions.are_recorded(self.sides):
            return _markdown("Recorded runs are set beside recorded ones only.")
        cases = {
            what: conditions.find(["plain=other-plain-*", head]) for what, head in _OTHERS.items()
        }
        return attribution.verdicts({**cases, "this comparison": self.sides})

    def scaling(self) -> list[Any]:
        """How throughput and waits grow with the number of tasks."""
        each = self._with("scaled")
        if each is None:
            return [_not_given("runs with other numbers of tasks", "scaled")]
        table, fits = scaling.by_threads(each), scaling.fit(scaling.points(each))
        scaling.plot_by_threads(table, fits)  # shown when the cell ends
        return [*map(_markdown, scaling.said(fits) + scaling.caveats(each)), table]

    def overcommitment(self) -> list[Any]:
        """What the ratio becomes on more virtual CPUs than there are real ones."""
        each = self._with("overcommitted")
        if each is None:
            return [_not_given("runs on more virtual CPUs", "overcommitted")]
        by_level = overcommitment.levels(each)
        said = _markdown("  \n".join(overcommitment.said(by_level)))
        overcommitment.plot_ratios(by_level)  # shown when the cell ends
        return [said, overcommitment.waiting(by_level)]

    def mails_rows(self) -> list[Any]:
        """The mail's rows beside ours of the same name."""
        profiled = self.beside.get("profiled")
        if profiled is None:
            return [_not_given("profiled runs", "profiled")]
        theirs = reference.beside(self.sides, profiled=profiled)
        return [_markdown(reference.agreement(theirs)), theirs]

    def _with(self, name: str) -> dict[str, list[Run]] | None:
        """The runs of each side and those of the same place that are set beside them."""
        if name not in self.beside:
            return None
        others = self.beside[name].values()
        return {
            side: [*runs, *more]
            for (side, runs), more in zip(self.sides.items(), others, strict=True)
        }


def _not_given(what: str, parameter: str) -> Markdown:
    return _markdown(f"Not shown: no {what} of these conditions were given ({parameter}).")


def _markdown(text: str) -> Markdown:
    from IPython.display import Markdown

    return Markdown(text)  # type: ignore[no-untyped-call]
