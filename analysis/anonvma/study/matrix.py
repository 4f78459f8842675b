# SPDX-License-Identifier: GPL-2.0-only
"""A study: targets x kernels x workloads x parameters x repeats, written down in one YAML file.

The file is data: YAML's safe subset without aliases, of bounded size, and every mistake in it is
told by line and column. Nothing in it becomes part of a command line for a shell.

A *cell* is one run of the study. Its `id` says which one it is, for ever: the hash of what the file
asks for. Its `key` says whether what was done is what would be done now: the hash of that and of
everything it is done with, the notebook, the programs, the kernel image, the schemas.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import functools
import hashlib
import itertools
import json
import os
import random
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from anonvma.base import paths
from anonvma.base.errors import AnonvmaError, StudyError, WorkloadError
from anonvma.collect.workload import Workload
from anonvma.run.manifest import FORMAT
from anonvma.run.schema import SCHEMAS

__all__ = ["THIS_MACHINE", "Cell", "Study", "read"]

_FILE_MAX = 256 << 10  # bytes
_CELLS_MAX = 10_000
THIS_MACHINE = "this machine"
"""The host of everything that runs here, guests too."""
_PROGRAMS = ("vmaprobe", "vmload", "specimens", "guest-init")
_OURS = ("target", "workload", "out")
"""Parameters of the notebook that a study fills in itself; it has to have them."""

Scalar = bool | int | float | str | None
Path_ = tuple[str | int, ...]


# ---- the file ----


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a dozen lines of them can stand for a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem="aliases are not taken; write it out", problem_mark=mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class _Document:
    """A YAML file as plain values, and where each of them is in it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.marks: dict[Path_, yaml.Mark] = {}
        self.content = self._plain(self._compose(), ())

    def _compose(self) -> yaml.Node:
        try:
            with self.file.open("rb") as stream:
                text = stream.read(_FILE_MAX + 1)
        except OSError as error:
            raise StudyError(f"cannot read the study {self.file}: {error.strerror}.") from None
        if len(text) > _FILE_MAX:
            raise StudyError(f"{self.file} is too large to be a study: {_FILE_MAX >> 10} KiB do.")
        try:
            loader = _Loader(text)
            try:
                node: yaml.Node | None = loader.get_single_node()
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            self._at(error.problem_mark, f"{error.problem or error.context}")
        except (yaml.YAMLError, UnicodeError):
            raise StudyError(f"{self.file} is not YAML: it holds unreadable characters.") from None
        except RecursionError:
            raise StudyError(f"{self.file} is nested too deeply to be a study.") from None
        if node is None:
            raise StudyError(f"{self.file} is empty: a study has at least 'workloads:'.")
        return node

    def _plain(self, node: yaml.Node, path: Path_) -> Any:
        self.marks.setdefault(path, node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self._plain(each, (*path, i)) for i, each in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode):
            self._at(node.start_mark, f"{node.tag} is not taken here")
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            self._at(node.start_mark, f"{_shown(node.value)} cannot be understood; quote it")
        return value if value is None or isinstance(value, bool | int | float | str) else node.value

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._at(key.start_mark, "a name is wanted here")
            name = str(key.value)
            if name in found:
                self._at(key.start_mark, f"{_shown(name)} is given twice")
            self.marks[(*path, name)] = key.start_mark
            found[name] = self._plain(value, (*path, name))
        return found

    def _at(self, mark: yaml.Mark | None, what: str) -> NoReturn:
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise StudyError(f"{self.file}{where}: {what.rstrip('.')}.") from None

    def fail(self, path: Sequence[str | int], what: str) -> NoReturn:
        """Raise StudyError at the place of a value, or of the nearest thing around it."""
        known = tuple(path)
        while known and known not in self.marks:
            known = known[:-1]
        self._at(self.marks.get(known), what)


def _shown(text: object) -> str:
    """Return a value, fit to be shown in a sentence."""
    shown = ascii(text) if isinstance(text, str) else str(text)
    return shown if len(shown) <= 60 else shown[:59] + "…"


# ---- what it may say ----

_DURATION = re.compile(r"(\d+(?:\.\d+)?) *([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class _Model(BaseModel):
    """What a study file may say; the user's view of it is in data/studies/README.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str | None = None
    notebook: str = "01-collect"
    targets: dict[str, str] = Field(default={"local": "local"}, min_length=1)
    kernels: dict[str, str] = {}
    workloads: list[dict[str, Any]] = Field(min_length=1)
    parameters: dict[str, list[Any]] = {}
    defaults: dict[str, Any] = {}
    repeats: int = Field(default=1, ge=1, le=1000)
    include: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    compare: str | None = None
    seed: int = 0
    retries: int = Field(default=1, ge=0, le=10)
    timeout: float = Field(default=1800.0, gt=0, le=7 * 86400)

    @field_validator("name")
    @classmethod
    def _check_name(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", text):
            raise ValueError(f"{_shown(text)} is no name: use a-z, 0-9 and -")
        return text

    @field_validator("targets", mode="before")
    @classmethod
    def _name_targets(cls, given: Any) -> Any:
        """Take a list of targets, too, and name them by their kinds: a host's name is not told."""
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list):
            return given
        kinds = [str(text).partition(":")[0] for text in given]
        named: dict[str, Any] = {}
        for kind, text in zip(kinds, given, strict=True):
            number = sum(name.startswith(kind) for name in named) + 1
            named[f"{kind}{number}" if kinds.count(kind) > 1 else kind] = text
        return named

    @field_validator("kernels", mode="before")
    @classmethod
    def _name_kernels(cls, given: Any) -> Any:
        """Take a list of names, too: of those that ``make kernels`` has built."""
        if not isinstance(given, list):
            return given
        built = paths.build().resolve() / "kernels"
        return {str(name): str(built / str(name) / "bzImage") for name in given}

    @field_validator("targets", "kernels")
    @classmethod
    def _check_labels(cls, given: dict[str, str]) -> dict[str, str]:
        for label, text in given.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,31}", label):
                raise ValueError(f"{_shown(label)} is no name: use a-z, 0-9, '.', '_' and '-'")
            if not text or not text.isprintable() or len(text) > 4096:
                raise ValueError(f"{_shown(text)} is neither a host nor a path")
        return given

    @field_validator("workloads", mode="before")
    @classmethod
    def _as_mappings(cls, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return [{"workload": one} if isinstance(one, str) else one for one in given]

    @field_validator("timeout", mode="before")
    @classmethod
    def _in_seconds(cls, given: Any) -> Any:
        match = _DURATION.fullmatch(given) if isinstance(given, str) else None
        if match:
            return float(match[1]) * _SECONDS[match[2]]
        if isinstance(given, str):
            raise ValueError(f"{_shown(given)} is no time: write such as 90s, 20m or 2h")
        return float(given) if type(given) is int else given


# ---- what is to be done ----


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes
    ----------
    name : str
        What it and its directory are called: a-z, 0-9, '.', '_' and '-'.
    id : str
        64 hexadecimal digits: which cell it is.
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
        How often a cell is tried again when its target went away or was late.
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
    document = _Document(Path(file))
    if not isinstance(document.content, dict):
        document.fail((), "a study is a mapping, and has at least 'workloads:'")
    try:
        model = _Model.model_validate(document.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        document.fail(first["loc"], _told(first))
    return _Maker(document, model).study()


def _told(error: Any) -> str:
    where = str(error["loc"][0]) if error["loc"] else "the study"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, _Model.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(_Model.model_fields)}"
        return f"a study has no {_shown(where)}: {hint}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}"


class _Maker:
    """Turns what the file says into cells, finding what cannot be done before anything is."""

    def __init__(self, document: _Document, model: _Model) -> None:
        self.document, self.model = document, model
        self.fail = document.fail
        self.base = document.file.resolve().parent
        self.notebook = self._find_notebook()
        self.known = self._known_parameters()
        self.workloads = self._named_workloads()
        self._check_axes()

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
            self.fail(("repeats",), f"these are {count:,} cells, more than {_CELLS_MAX:,}")
        for number, point in enumerate(points):
            self._check_point(point, places_of.get(number))
        cells = self._distinct(points)
        name = self.model.name or _slug(self.document.file.stem) or "study"
        return Study(
            name,
            self.document.file,
            self.notebook,
            cells,
            self._compared(points),
            self.model.retries,
            self.model.timeout,
        )

    # ---- the notebook and its parameters ----

    def _find_notebook(self) -> Path:
        name = self.model.notebook
        if name.endswith(".ipynb"):
            path = self.base / name
        else:
            path = paths.root() / "notebooks" / f"{name}.ipynb"
        if "\0" in name or not path.is_file():
            self.fail(("notebook",), f"there is no notebook {_shown(name)}")
        return path

    def _known_parameters(self) -> list[str]:
        names = _parameters_of(self.notebook)
        lacking = [name for name in _OURS if name not in names]
        if lacking:
            self.fail(
                ("notebook",),
                f"{self.notebook.name} has no parameter {lacking[0]!r}, which a study needs",
            )
        return names

    def _check_axes(self) -> None:
        for name, values in self.model.parameters.items():
            self._check_parameter(("parameters", name), name)
            if not values:
                self.fail(("parameters", name), f"{name} has no values")
            for index, value in enumerate(values):
                self._check_scalar(("parameters", name, index), value)
                if value in values[:index]:
                    self.fail(("parameters", name, index), f"{_shown(value)} is given twice")
        for name, value in self.model.defaults.items():
            self._check_parameter(("defaults", name), name)
            self._check_scalar(("defaults", name), value)
        used = any("{kernel}" in text for text in self.model.targets.values())
        if self.model.kernels and not used:
            self.fail(("kernels",), "no target uses them: write a target 'guest:{kernel}'")
        if used and not self.model.kernels:
            self.fail(("targets",), "a target has {kernel} in it, and there are no 'kernels:'")
        for label, text in self.model.targets.items():
            self._check_target(("targets", label), text)
        for label in self.model.kernels:
            self._image(label)

    def _check_parameter(self, path: Path_, name: str) -> None:
        if name in _OURS:
            self.fail(path, f"{name} is not given here: a study sets it itself")
        if name not in self.known:
            near = difflib.get_close_matches(name, self.known, n=1)
            free = ", ".join(known for known in self.known if known not in _OURS)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {free}"
            self.fail(path, f"{self.notebook.stem} has no parameter {_shown(name)}: {hint}")

    def _check_scalar(self, path: Path_, value: object) -> None:
        if value is not None and not isinstance(value, bool | int | float | str):
            self.fail(path, "one value is wanted here, not a list or mapping")
        if isinstance(value, float) and value - value != 0:
            self.fail(path, f"{value} is no number to run with")
        if isinstance(value, str) and ("\0" in value or len(value) > 4096):
            self.fail(path, "this text is too long, or has a NUL in it")

    def _check_target(self, path: Path_, text: str) -> None:
        if text.startswith("-"):
            self.fail(path, f"{_shown(text)} is no target")
        image = _image_of(text)
        if image and "{kernel}" not in image and not (self.base / image).is_file():
            self.fail(path, f"there is no kernel image {_shown(image)}")

    def _image(self, label: str) -> Path:
        text = self.model.kernels[label]
        path = self.base / text
        if not path.is_file():
            hint = (
                ": run 'make kernels' first" if path.is_relative_to(paths.build().resolve()) else ""
            )
            self.fail(("kernels", label), f"there is no kernel image {_shown(text)}{hint}")
        if re.search(r",[a-z]+=", str(path)):
            self.fail(("kernels", label), "a target cannot hold this path; link it elsewhere")
        return path

    def _named_workloads(self) -> dict[str, dict[str, Scalar]]:
        """Return the parameters of each workload, by its label."""
        named: dict[str, dict[str, Scalar]] = {}
        for index, entry in enumerate(self.model.workloads):
            path: Path_ = ("workloads", index)
            label = entry.get("name") or entry.get("workload")
            if not isinstance(entry.get("workload"), str):
                self.fail(path, "a workload is a text, or a mapping with 'workload:'")
            if not isinstance(label, str) or label in named:
                self.fail(path, f"there is a workload {_shown(label)} already; give it a 'name:'")
            own = {name: value for name, value in entry.items() if name != "name"}
            for name, value in own.items():
                self._check_scalar((*path, name), value)
                if name in self.model.parameters:
                    self.fail((*path, name), f"{name} is varied by 'parameters:' already")
                if name != "workload":
                    self._check_parameter((*path, name), name)
            named[label] = own
        return named

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
                self._check_axis_value(("exclude", index, name), name, value)
            kept = [p for p in points if any(p.get(n) != v for n, v in entry.items())]
            if len(kept) == len(points):
                self.fail(("exclude", index), "no combination is like this")
            points = kept
        return points

    def _included(self, index: int, entry: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return one more combination; an axis it does not name has one value, or a default."""
        axes = self._axis_values()
        for name, value in entry.items():
            self._check_scalar(("include", index, name), value)
            if name in ("target", "kernel", "workload"):
                self._check_axis_value(("include", index, name), name, value)
            else:
                self._check_parameter(("include", index, name), name)
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
            self.fail(("include", index), f"target {_shown(text)} and a kernel: both, or neither")
        return point | {name: value for name, value in entry.items() if name not in point}

    def _axis_values(self) -> dict[str, list[Scalar]]:
        found: dict[str, list[Scalar]] = {"target": list(self.model.targets)}
        if self.model.kernels:
            found["kernel"] = list(self.model.kernels)
        return found | {"workload": list(self.workloads)} | self.model.parameters

    def _check_axis_value(self, path: Path_, name: str, value: object) -> None:
        axes = self._axis_values()
        if name not in axes:
            self.fail(path, f"the study does not vary {_shown(name)}: it varies {', '.join(axes)}")
        if value not in axes[name]:
            values = ", ".join(map(_shown, axes[name]))
            self.fail(path, f"{name} is never {_shown(value)}: it is one of {values}")

    def _check_point(self, point: Mapping[str, Scalar], place: Path_ | None) -> None:
        """Find out now what the notebook would refuse."""
        given = self._parameters(point)
        fields = {
            name: given[name] for name in Workload.model_fields if given.get(name) is not None
        }
        try:
            Workload(**fields)
        except AnonvmaError as error:
            index = list(self.workloads).index(str(point["workload"]))
            self.fail(place or ("workloads", index), str(error))

    def _compared(self, points: Sequence[Mapping[str, Scalar]]) -> str | None:
        """Return the axis whose values are compared: the one named, or the first that varies."""
        asked = self.model.compare
        varying = [
            name
            for name in dict.fromkeys(name for point in points for name in point)
            if len({point.get(name) for point in points}) > 1
        ]
        if asked is None:
            chosen = [n for n in ("kernel", "target", *self.model.parameters) if n in varying]
            return chosen[0] if chosen else None
        if asked not in varying:
            known = ", ".join(varying) or "nothing"
            self.fail(("compare",), f"the study does not vary {_shown(asked)}: it varies {known}")
        return asked

    # ---- cells ----

    def _parameters(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the notebook's parameters: each of these outdoes the one before it."""
        own = self.workloads[str(point["workload"])]
        axes = {n: v for n, v in point.items() if n not in ("target", "kernel", "workload")}
        return {**self.model.defaults, **own, **axes}

    def _in_order(self, points: list[dict[str, Scalar]]) -> Iterator[tuple[int, int]]:
        """Yield each point's number with that of its repeat, so that a drift weighs on all alike.

        Each repeat goes through everything, its settings shuffled; what is compared is adjacent,
        and in the opposite order in every other repeat (ABBA).
        """
        compared = self._compared(points)
        settings: dict[str, list[int]] = {}
        for number, point in enumerate(points):
            rest = {name: value for name, value in point.items() if name != compared}
            settings.setdefault(_canonical(rest), []).append(number)
        shuffle = random.Random(self.model.seed)
        for repeat in range(1, self.model.repeats + 1):
            order = list(settings.values())
            shuffle.shuffle(order)
            for together in order:
                for number in together if repeat % 2 else reversed(together):
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
        given = self._parameters(point)
        self._check_workload(given)
        asked = {
            "notebook": self.model.notebook,
            "target": template,
            "kernel": point["kernel"],
            "parameters": given,
            "repeat": repeat,
        }
        target = self._target(template, point["kernel"])
        identity = _hash(asked)
        done_with = {"id": identity, "kernel": _kernel_of(target), **_tools(self.notebook)}
        return Cell(
            self._name(point, repeat),
            identity,
            _hash(done_with),
            target,
            _host_of(target),
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
            return template.replace("{kernel}", str(self._image(str(kernel))))
        image = _image_of(template)
        return template.replace(image, str(self.base / image), 1) if image else template

    def _name(self, point: Mapping[str, Scalar], repeat: int) -> str:
        words: list[object] = [point["target"]] if len(self.model.targets) > 1 else []
        words += [point["kernel"]] if point["kernel"] else []
        words.append(point["workload"])
        for name, value in point.items():
            if name not in ("target", "kernel", "workload"):
                words += [name, value]
        shown = [_slug(str(word)) for word in words]
        return f"{'-'.join(word for word in shown if word)[:120]}-{repeat}"


# ---- words and hashes ----


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:48]


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hash(value: object) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _image_of(target: str) -> str | None:
    """Return the path of a guest's image; what follows it begins at a comma and a name."""
    if not target.startswith("guest:"):
        return None
    return re.split(r",(?=[a-z]+=)", target.removeprefix("guest:"))[0] or None


def _host_of(target: str) -> str:
    """Return what can run one measurement at a time: guests run on this machine."""
    if target == "local" or target.startswith("guest:"):
        return THIS_MACHINE
    return re.split(r",(?=[a-z]+=)", target)[0]


@functools.cache
def _file_hash(path: Path, size: int, time_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash_of(path: Path) -> str:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return _file_hash(path, about.st_size, about.st_mtime_ns)


def _kernel_of(target: str) -> str | None:
    """Return what the kernel is: an image's hash, our own release; None: only the target knows."""
    image = _image_of(target)
    if image:
        return _hash_of(Path(image))
    return os.uname().release if target == "local" else None


@functools.cache
def _tools(notebook: Path) -> dict[str, str]:
    """Return the hashes of what every cell is done with."""
    cells = json.loads(notebook.read_bytes())["cells"]
    sources = [[cell["cell_type"], "".join(cell["source"])] for cell in cells]
    tables = {name: str(declared.remove_metadata()) for name, declared in SCHEMAS.items()}
    return {
        "notebook": _hash(sources),
        "schemas": _hash([FORMAT, tables]),
        **{name: _hash_of(paths.program(name)) for name in _PROGRAMS},
    }


@functools.cache
def _parameters_of(notebook: Path) -> list[str]:
    import papermill  # half a second, and only here

    try:
        return list(papermill.inspect_notebook(str(notebook).replace("{", "{{").replace("}", "}}")))
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{notebook} is not a notebook.") from None
