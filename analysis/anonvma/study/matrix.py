# SPDX-License-Identifier: GPL-2.0-only
"""A study: targets x kernels x workloads x parameters x repeats, written down in one YAML file.

The file is data: YAML's safe subset without aliases, of bounded size, and every mistake in it is
told by line and column. Nothing in it becomes part of a command line for a shell.

A *job* is one run of the study. Its `id` says which one it is, for ever: the hash of what the file
asks for. Its `key` says whether what was done is what would be done now: the hash of that and of
everything it is done with, the notebook, the programs, the kernel image, the schemas.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from anonvma.base.errors import AnonvmaError, WorkloadError
from anonvma.base.turns import in_turns
from anonvma.collect.workload import Workload
from anonvma.study.axes import Axes
from anonvma.study.fingerprint import (
    canonical,
    digest,
    host_of,
    image_of,
    kernel_of,
    slug,
    tools,
)
from anonvma.study.study_file import Document, Model, Path_, Scalar, explained, quoted

_CELLS_MAX = 10_000


# ---- what is to be done ----


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes
    ----------
    name : str
        What it and its directory are called: a-z, 0-9, '.', '_' and '-'.
    id : str
        64 hexadecimal digits: which job it is.
    key : str
        64 more: what it would be done with now.
    target : str
        As `anonvma.collect.targets.parse` takes it.
    host : str
        On which nothing else may run meanwhile.
    axes : dict
        What sets it apart in its study: target, kernel, workload (labels) and parameters.
    place : int
        Where its combination stands in the file, from 0.
    repeat : int
        From 1.
    parameters : dict
        Of the notebook, but for ``out``.
    """

    name: str
    id: str
    key: str
    target: str
    host: str
    axes: dict[str, Scalar]
    place: int
    repeat: int
    parameters: dict[str, Scalar]


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study file asks for.

    Attributes
    ----------
    name : str
    file : Path
    notebook : Path
    cells : list of Cell
        In the order in which they are to run.
    compare : str or None
        The axis whose values are set side by side at the end.
    retries : int
        How often a job is tried again when its target went away or was late.
    timeout : float
        Seconds that one try may take.
    """

    name: str
    file: Path
    notebook: Path
    cells: list[Cell]
    compare: str | None
    retries: int
    timeout: float


def read(file: str | Path) -> Study:
    """Read a study file.

    Raises
    ------
    StudyError
        What is wrong in it, with line and column.
    SetupError
        When what it would run with is not built.
    """
    document = Document(Path(file))
    if not isinstance(document.content, dict):
        document.fail((), "a study is a mapping, and has at least 'workloads:'")
    try:
        model = Model.model_validate(document.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        document.fail(first["loc"], explained(first))
    return _Maker(document, model).study()


class _Maker(Axes):
    """Turns what the file says into jobs, finding what cannot be done before anything is."""

    def study(self) -> Study:
        """Return the study."""
        places_of = {}  # which entry of `include` a point came from
        points = list(self._matrix())
        points = self._without_excluded(points)
        for index, entry in enumerate(self.model.include):
            point = self._included(index, entry)
            if point in points:
                self.fail(("include", index), "this is in the study already")
            places_of[len(points)] = ("include", index)
            points.append(point)
        if not points:
            self.fail(("exclude",), "nothing is left: every combination is excluded")
        if len(points) * self.model.repeats > _CELLS_MAX:
            count = len(points) * self.model.repeats
            self.fail(("repeats",), f"these are {count:,} jobs, more than {_CELLS_MAX:,}")
        for number, point in enumerate(points):
            self._check_point(point, places_of.get(number))
        cells = self._distinct(points)
        name = self.model.name or slug(self.document.file.stem) or "study"
        return Study(
            name,
            self.document.file,
            self.notebook,
            cells,
            self.compared(points),
            self.model.retries,
            self.model.timeout,
        )

    # ---- combinations ----

    def _matrix(self) -> Iterator[dict[str, Scalar]]:
        names = list(self.model.parameters)
        for target, text in self.model.targets.items():
            kernels = list(self.model.kernels) if "{kernel}" in text else [None]
            for kernel, workload in itertools.product(kernels, self.workloads):
                for values in itertools.product(*self.model.parameters.values()):
                    point: dict[str, Scalar] = {"target": target, "kernel": kernel}
                    yield point | {"workload": workload} | dict(zip(names, values, strict=True))

    def _without_excluded(self, points: list[dict[str, Scalar]]) -> list[dict[str, Scalar]]:
        for index, entry in enumerate(self.model.exclude):
            for name, value in entry.items():
                self.check_axis_value(("exclude", index, name), name, value)
            kept = [p for p in points if any(p.get(n) != v for n, v in entry.items())]
            if len(kept) == len(points):
                self.fail(("exclude", index), "no combination is like this")
            points = kept
        return points

    def _included(self, index: int, entry: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return one more combination; an axis it does not name has one value, or a default."""
        axes = self.axis_values()
        for name, value in entry.items():
            self.check_scalar(("include", index, name), value)
            if name in ("target", "kernel", "workload"):
                self.check_axis_value(("include", index, name), name, value)
            else:
                self.check_parameter(("include", index, name), name)
        point: dict[str, Scalar] = {}
        for name, values in axes.items():
            if name in entry:
                point[name] = entry[name]
            elif len(values) == 1:
                point[name] = values[0]
            elif name in ("target", "workload"):
                self.fail(("include", index), f"it needs a {name}: there are several")
        text = self.model.targets[str(point["target"])]
        point.setdefault("kernel", None)
        if ("{kernel}" in text) != (point["kernel"] is not None):
            self.fail(("include", index), f"target {quoted(text)} and a kernel: both, or neither")
        return point | {name: value for name, value in entry.items() if name not in point}

    def _check_point(self, point: Mapping[str, Scalar], place: Path_ | None) -> None:
        """Find out now what the notebook would refuse."""
        given = self.parameters(point)
        fields = {
            name: given[name] for name in Workload.model_fields if given.get(name) is not None
        }
        try:
            Workload(**fields)
        except AnonvmaError as error:
            index = list(self.workloads).index(str(point["workload"]))
            self.fail(place or ("workloads", index), str(error))

    # ---- jobs ----

    def _in_order(self, points: list[dict[str, Scalar]]) -> Iterator[tuple[int, int]]:
        """Yield each point's number with that of its repeat, so that a drift weighs on all alike.

        Each repeat goes through everything, its settings shuffled; what is compared is adjacent,
        and in the opposite order in every other repeat (ABBA).
        """
        compared = self.compared(points)
        settings: dict[str, list[int]] = {}
        for number, point in enumerate(points):
            rest = {name: value for name, value in point.items() if name != compared}
            settings.setdefault(canonical(rest), []).append(number)
        shuffle = random.Random(self.model.seed)
        for repeat in range(1, self.model.repeats + 1):
            order = list(settings.values())
            shuffle.shuffle(order)
            for together in order:
                for number in in_turns(together, repeat):
                    yield number, repeat

    def _distinct(self, points: list[dict[str, Scalar]]) -> list[Cell]:
        cells = [self._cell(number, points[number], r) for number, r in self._in_order(points)]
        names, ids = Counter(cell.name for cell in cells), Counter(cell.id for cell in cells)
        for cell in cells:
            if ids[cell.id] > 1:
                self.fail((), f"two combinations ask for the same: {cell.name} is one of them")
        return [
            cell
            if names[cell.name] == 1
            else dataclasses.replace(cell, name=f"{cell.name}-{cell.id[:8]}")
            for cell in cells
        ]

    def _cell(self, number: int, point: Mapping[str, Scalar], repeat: int) -> Cell:
        template = self.model.targets[str(point["target"])]
        given = self.parameters(point)
        self._check_workload(given)
        asked = {
            "notebook": self.model.notebook,
            "target": template,
            "kernel": point["kernel"],
            "parameters": given,
            "repeat": repeat,
        }
        target = self._target(template, point["kernel"])
        identity = digest(asked)
        done_with = {"id": identity, "kernel": kernel_of(target), **tools(self.notebook)}
        return Cell(
            self._name(point, repeat),
            identity,
            digest(done_with),
            target,
            host_of(target),
            {name: value for name, value in point.items() if value is not None},
            number,
            repeat,
            {"target": target, **given},
        )

    def _check_workload(self, given: Mapping[str, Scalar]) -> None:
        """Refuse what no target could run, before any is asked."""
        of_workload = {name: given[name] for name in Workload.model_fields if name in given}
        try:
            Workload(**of_workload)
        except WorkloadError as error:
            self.fail(("workloads",), str(error))

    def _target(self, template: str, kernel: Scalar) -> str:
        """Return the target, its image by an absolute path: the notebook runs elsewhere."""
        if kernel is not None:
            return template.replace("{kernel}", str(self.image(str(kernel))))
        image = image_of(template)
        return template.replace(image, str(self.base / image), 1) if image else template

    def _name(self, point: Mapping[str, Scalar], repeat: int) -> str:
        words: list[object] = [point["target"]] if len(self.model.targets) > 1 else []
        words += [point["kernel"]] if point["kernel"] else []
        words.append(point["workload"])
        for name, value in point.items():
            if name not in ("target", "kernel", "workload"):
                words += [name, value]
        shown = [slug(str(word)) for word in words]
        return f"{'-'.join(word for word in shown if word)[:120]}-{repeat}"
