# SPDX-License-Identifier: GPL-2.0-only
"""What a report is about: one run, or the runs of two conditions; and what is said and drawn of it.

06-report shows a subject, `anonvma publish` sends one; both ask here, so they say the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pandas as pd

from anonvma.base.errors import RunError
from anonvma.base.section import Key, Section
from anonvma.compare import (
    attribution,
    changes,
    conditions,
    cost,
    kernel_changes,
    kernel_picture,
    outcomes,
)
from anonvma.perf import flame, profile
from anonvma.report import (
    answer,
    comparison,
    kernel_report,
    output,
    publication,
    redaction,
    run_report,
)
from anonvma.report import verdict as verdict_module
from anonvma.run import jobs, runs
from anonvma.run.runs import Run
from anonvma.tables import census, faults, locks, specimens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn: TypeAlias = "tuple[Figure, str]"
"""A figure and the words for those who do not see it."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes
    ----------
    conditions : mapping of str to sequence of Run
        One for a run, by its name; two or more for a comparison, compared with the first.
    specimens : Run or None
        Of the specimens, from the same machine if one is at hand.
    cost : Run or None
        Of what mmap_lock costs there (`anonvma.study.cost_experiment`).
    """

    conditions: Mapping[str, Sequence[Run]]
    specimens: Run | None = None
    cost: Run | None = None

    @property
    def runs(self) -> list[Run]:
        """Every run of it, those of the specimens and of the cost last."""
        every = [run for each in self.conditions.values() for run in each]
        return [*every, *(run for run in (self.specimens, self.cost) if run)]

    @property
    def run(self) -> Run | None:
        """The run, where it is about a single one."""
        return self.runs[0] if len(self.conditions) == 1 else None

    @property
    def has_profiles(self) -> bool:
        """Whether perf record looked at every run of it."""
        every = (run for each in self.conditions.values() for run in each)
        return all("samples" in run.manifest.tables for run in every)

    @property
    def title(self) -> str:
        """What the report is called."""
        return f"anonvma: {self.name}"

    @property
    def name(self) -> str:
        """What the report is about, in a few words."""
        return answer.name_of(self.run) if self.run else comparison.name(self.conditions)

    @property
    def verdict(self) -> verdict_module.Answer:
        """Whether any run of it has the VMA that the mail asks for."""
        every = [run for each in self.conditions.values() for run in runs.having(each, "census")]
        found = {verdict_module.of_run(run).answer for run in every}
        return (
            verdict_module.Answer.YES
            if verdict_module.Answer.YES in found
            else verdict_module.Answer.NO
        )

    @property
    def finding(self) -> str:
        """What was found, in a line."""
        return answer.finding(self.run) if self.run else comparison.finding(self.conditions)

    def sections(self, note: str | None = None, analysed: bool = False) -> list[Section]:
        """Say everything, the answer first.

        Parameters
        ----------
        note : str, optional
            Put before the answer, such as where the data come from.
        analysed : bool
            Whether to say what analyses it here and now.
        """
        if self.run:
            return run_report.sections(self.run, self.specimens, note, analysed, self.cost)
        first, *others = comparison.sections(self.conditions, analysed)
        said = [*([note] if note else []), *first.paragraphs]
        return [dataclasses.replace(first, paragraphs=said), *others]

    def shared(self, wall: redaction.Wall) -> Subject:
        """Return the same subject, its data redacted."""
        conditions = {
            name: [redaction.Shared(run, wall) for run in each]
            for name, each in self.conditions.items()
        }
        others = [
            redaction.Shared(run, wall) if run else None for run in (self.specimens, self.cost)
        ]
        return Subject(conditions, *others)

    def figures(self) -> dict[Key, list[Callable[[], Drawn]]]:
        """What there is to draw, by the key of the section that it belongs to.

        One panel a figure: side by side they could not be read on a phone.
        """
        if self.run is None:
            return _of_comparison(self.conditions)
        run, made = self.run, self.specimens
        drawn: dict[Key, list[Callable[[], Drawn]]] = {
            Key.ANSWER: [lambda: _classes(run), lambda: _origins(run)]
        }
        if "faults" in run.manifest.tables:
            drawn[Key.LOCK_PATHS] = [lambda: _lock_paths(run)]
        if "locks" in run.manifest.tables:
            drawn[Key.CALLERS] = [lambda: _callers(run)]
        if self.has_profiles:
            drawn[Key.PROFILE] = [lambda: _flames(run)]
        if made:
            drawn[Key.SPECIMENS] = [lambda: _specimens(made)]
        if measured := self.cost:
            drawn[Key.LOCK_COST] = [lambda: _cost(measured)]
        return drawn

    def fragments(self) -> dict[Key, str]:
        """Return what a page has besides the notebook: the interactive flame graph.

        By the key of the section that it stands in. Of a comparison it is the differential one
        of its first condition and its last.
        """
        if not self.has_profiles:
            return {}
        names = list(self.conditions)
        sides = [list(self.conditions[name]) for name in (names[-1], names[0])]
        if self.run:
            return {Key.PROFILE: flame.interactive(sides[0], title="Flame graph")}
        ends = (names[0], names[-1])
        title = f"Flame graph, {' to '.join(ends)}"
        return {Key.CHANGED: flame.interactive(*sides, title=title, names=ends)}


@dataclasses.dataclass(frozen=True)
class Survey(Subject):
    """Many kernels, each compared with the one before; `found` are their outcomes."""

    found: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)

    @property
    def name(self) -> str:
        """What the report is about, in a few words."""
        return f"{len(self.conditions)} kernels, {' '.join(self.conditions)}"

    @property
    def finding(self) -> str:
        """What was found, in a line."""
        return kernel_report.finding(self.found)

    def sections(self, note: str | None = None, analysed: bool = False) -> list[Section]:
        """Say everything, the answer first."""
        return kernel_report.sections(self.found, self.conditions, note, analysed)

    def shared(self, wall: redaction.Wall) -> Survey:
        """Return the same subject, its data redacted."""
        shown = super().shared(wall)
        found = self.found.apply(
            lambda words: words.map({w: wall.scrub(w) for w in set(words.dropna())})
        )
        return Survey({wall.scrub(k): r for k, r in shown.conditions.items()}, found=found)

    def figures(self) -> dict[Key, list[Callable[[], Drawn]]]:
        """Return the picture of what differs."""
        return {Key.CHANGED: [lambda: _kernels(self.found)]}

    def fragments(self) -> dict[Key, str]:
        """Return nothing: what is profiled here is not what is asked."""
        return {}


def find(
    run: str | Path | None,
    made: str | Path | None = None,
    base: str | None = None,
    head: str | None = None,
    cost: str | Path | None = None,
) -> Subject:
    """Open what a report is to be about.

    Parameters
    ----------
    run : str or path, optional
        A run, as `anonvma.run.runs.find` takes it; or the directory of a survey of kernels.
    made : str or path, optional
        Likewise, of the specimens; left out of a comparison.
    base, head : str, optional
        Instead of `run`: the runs of two conditions, as `anonvma.run.runs.find_all` takes them.
    cost : str or path, optional
        A run of what mmap_lock costs; left out of a comparison.

    Raises
    ------
    RunError
        When one of them is no run, or only one condition is given.
    """
    if base is None and head is None:
        if jobs.is_survey(Path(str(run))):
            kernels, failures = outcomes.conditions_of(Path(str(run)))
            return Survey(kernels, found=outcomes.of_runs(kernels, failures))
        opened = runs.find(str(run), ["census"])
        return Subject(
            {opened.id: [opened]},
            runs.find(made, ["specimens", "census"]) if made else None,
            runs.find(cost, ["lock_cost"]) if cost else None,
        )
    if base is None or head is None:
        raise RunError("a comparison has two sides: give both base and head.")
    publication.check_sides(base, head)
    return Subject(conditions.find([base, head]))


# ---- figures, each with its words ----


def _panel(size: tuple[float, float], plot: Callable[..., object], *data: object) -> Figure:
    """Draw one panel of this size (inches)."""
    import matplotlib.pyplot as plt

    drawn, ax = plt.subplots(figsize=size)
    plot(*data, ax=ax)
    return drawn


def _kernels(found: pd.DataFrame) -> Drawn:
    drawn = _figure_of(kernel_picture.plot(found))
    differ = kernel_changes.counts(found)["differ"]
    said = ", ".join(f"{part} {count}" for part, count in differ[differ > 0].items())
    return drawn, f"What differs between any two kernels, by part: {said or 'nothing'}."


def _cost(run: Run) -> Drawn:
    drawn = _panel((5.5, 3), cost.plot_by_threads, run)
    table = cost.by_threads(run).reset_index()
    said = output.in_words(table, "threads", "ratio", "low", "high")
    return drawn, f"Throughput under the VMA's lock over that under mmap_lock. {said}"


def _classes(run: Run) -> Drawn:
    vmas = census.last(run)
    drawn = _panel((5.5, 2.4), census.plot_by_class, vmas)
    table = census.by_class(vmas).reset_index()
    return drawn, f"Bare VMAs by class. {output.in_words(table, 'class', 'vmas')}"


def _origins(run: Run) -> Drawn:
    vmas = census.last(run)
    drawn = _panel((5.5, 2.6), census.plot_by_origin, vmas)
    table = census.by_origin(vmas).reset_index()
    said = output.in_words(table, "origin", "vmas", "anon_vma", "zero-page")
    return drawn, f"Anonymous VMAs by origin. {said}"


def _lock_paths(run: Run) -> Drawn:
    traced = run.table("faults")
    drawn = _panel((5.5, 2.6), faults.plot_lock_paths, traced)
    said = output.in_words(faults.lock_paths(traced), "change", "vma", "retry", "mmap")
    return drawn, f"The lock of each fault in user mode. {said}"


def _callers(run: Run) -> Drawn:
    taken = run.table("locks")
    drawn = _panel((5.5, 3), locks.plot_callers, taken)
    table = locks.callers(taken).head(run_report.CALLERS)
    table = table.assign(asked_by=table["asked_by"] + ", for " + table["mode"])
    return drawn, f"Who took mmap_lock. {output.in_words(table, 'asked_by', 'taken')}"


def _specimens(made: Run) -> Drawn:
    table = specimens.observed(made.table("specimens"), census.last(made))
    drawn = _panel((6, 0.24 * table["kind"].nunique() + 1), specimens.plot_observed, table)
    states = table["state"].astype(str).value_counts()
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    return drawn, f"What became of each specimen, a row per kind, a column per touch: {counted}."


def _flames(run: Run) -> Drawn:
    ax = flame.plot(run, title="Where the time went")
    table = profile.mean(run, profile.children).nlargest(5, "mean")
    table = table.rename_axis("symbol").reset_index()
    return _figure_of(ax), f"Flame graph. {output.in_words(table, 'symbol', 'mean')}"


def _of_comparison(
    conditions: Mapping[str, Sequence[Run]],
) -> dict[Key, list[Callable[[], Drawn]]]:
    drawn: dict[Key, list[Callable[[], Drawn]]] = {
        Key.CHANGED: [lambda: _changed(conditions)],
    }
    every = [run for each in conditions.values() for run in each]
    if all({"locks", "faults"} <= set(run.manifest.tables) for run in every):
        drawn[Key.ANSWER] = [lambda: _taken(conditions)]
    return drawn


def _taken(conditions: Mapping[str, Sequence[Run]]) -> Drawn:
    drawn = _panel((7, 1 + 0.6 * len(conditions)), attribution.plot_taken, conditions)
    totals = attribution.taken(conditions).sum(axis=1)
    said = ", ".join(f"{name}: {count:,.0f}" for name, count in totals.items())
    return drawn, f"Acquisitions of mmap_lock in one repeat, by reason. In all, {said}."


def _changed(conditions: Mapping[str, Sequence[Run]]) -> Drawn:
    rows = changes.shown(changes.table(conditions))
    drawn = _panel((7, 3.6), changes.plot_shown, rows)
    return drawn, f"Ratios with their intervals. {output.in_words(rows.head(6), 'metric', 'ratio')}"


def _figure_of(ax: Axes) -> Figure:
    from matplotlib.figure import Figure

    assert isinstance(ax.figure, Figure)
    return ax.figure
