# SPDX-License-Identifier: GPL-2.0-only
"""The axes of a study, checked: its notebook, targets, kernels, workloads and parameters.

What cannot be done is found before anything is, and told at its place in the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from anonvma.base import paths
from anonvma.study.fingerprint import image_of, parameters_of
from anonvma.study.study_file import Document, Model, Path_, Scalar, quoted

OURS = ("target", "workload", "out")
"""Parameters of the notebook that a study fills in itself; it has to have them."""


class Axes:
    """What a study varies, as its file says."""

    def __init__(self, document: Document, model: Model) -> None:
        self.document, self.model = document, model
        self.fail = document.fail
        self.base = document.file.resolve().parent
        self.notebook = self._find_notebook()
        self.known = self._known_parameters()
        self.workloads = self._named_workloads()
        self._check_axes()

    def _find_notebook(self) -> Path:
        name = self.model.notebook
        if name.endswith(".ipynb"):
            path = self.base / name
        else:
            path = paths.root() / "notebooks" / f"{name}.ipynb"
        if "\0" in name or not path.is_file():
            self.fail(("notebook",), f"there is no notebook {quoted(name)}")
        return path

    def _known_parameters(self) -> list[str]:
        names = parameters_of(self.notebook)
        lacking = [name for name in OURS if name not in names]
        if lacking:
            self.fail(
                ("notebook",),
                f"{self.notebook.name} has no parameter {lacking[0]!r}, which a study needs",
            )
        return names

    def _check_axes(self) -> None:
        for name, values in self.model.parameters.items():
            self.check_parameter(("parameters", name), name)
            if not values:
                self.fail(("parameters", name), f"{name} has no values")
            for index, value in enumerate(values):
                self.check_scalar(("parameters", name, index), value)
                if value in values[:index]:
                    self.fail(("parameters", name, index), f"{quoted(value)} is given twice")
        for name, value in self.model.defaults.items():
            self.check_parameter(("defaults", name), name)
            self.check_scalar(("defaults", name), value)
        used = any("{kernel}" in text for text in self.model.targets.values())
        if self.model.kernels and not used:
            self.fail(("kernels",), "no target uses them: write a target 'guest:{kernel}'")
        if used and not self.model.kernels:
            self.fail(("targets",), "a target has {kernel} in it, and there are no 'kernels:'")
        for label, text in self.model.targets.items():
            self._check_target(("targets", label), text)
        for label in self.model.kernels:
            self.image(label)

    def check_parameter(self, path: Path_, name: str) -> None:
        """Refuse a parameter that the notebook does not have, or that a study sets itself."""
        if name in OURS:
            self.fail(path, f"{name} is not given here: a study sets it itself")
        if name not in self.known:
            near = difflib.get_close_matches(name, self.known, n=1)
            free = ", ".join(known for known in self.known if known not in OURS)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {free}"
            self.fail(path, f"{self.notebook.stem} has no parameter {quoted(name)}: {hint}")

    def check_scalar(self, path: Path_, value: object) -> None:
        """Refuse what is not one value to run with."""
        if value is not None and not isinstance(value, bool | int | float | str):
            self.fail(path, "one value is wanted here, not a list or mapping")
        if isinstance(value, float) and value - value != 0:
            self.fail(path, f"{value} is no number to run with")
        if isinstance(value, str) and ("\0" in value or len(value) > 4096):
            self.fail(path, "this text is too long, or has a NUL in it")

    def _check_target(self, path: Path_, text: str) -> None:
        if text.startswith("-"):
            self.fail(path, f"{quoted(text)} is no target")
        image = image_of(text)
        if image and "{kernel}" not in image and not (self.base / image).is_file():
            self.fail(path, f"there is no kernel image {quoted(image)}")

    def image(self, label: str) -> Path:
        """Return the image of a kernel, which has to be there."""
        text = self.model.kernels[label]
        path = self.base / text
        if not path.is_file():
            hint = (
                ": run 'make kernels' first" if path.is_relative_to(paths.build().resolve()) else ""
            )
            self.fail(("kernels", label), f"there is no kernel image {quoted(text)}{hint}")
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
                self.fail(path, f"there is a workload {quoted(label)} already; give it a 'name:'")
            own = {name: value for name, value in entry.items() if name != "name"}
            for name, value in own.items():
                self.check_scalar((*path, name), value)
                if name in self.model.parameters:
                    self.fail((*path, name), f"{name} is varied by 'parameters:' already")
                if name != "workload":
                    self.check_parameter((*path, name), name)
            named[label] = own
        return named

    def axis_values(self) -> dict[str, list[Scalar]]:
        """Return the axes of the study, each with its values."""
        found: dict[str, list[Scalar]] = {"target": list(self.model.targets)}
        if self.model.kernels:
            found["kernel"] = list(self.model.kernels)
        return found | {"workload": list(self.workloads)} | self.model.parameters

    def check_axis_value(self, path: Path_, name: str, value: object) -> None:
        """Refuse a value that an axis does not have."""
        axes = self.axis_values()
        if name not in axes:
            self.fail(path, f"the study does not vary {quoted(name)}: it varies {', '.join(axes)}")
        if value not in axes[name]:
            values = ", ".join(map(quoted, axes[name]))
            self.fail(path, f"{name} is never {quoted(value)}: it is one of {values}")

    def parameters(self, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the notebook's parameters: each of these overrides the one before it."""
        own = self.workloads[str(point["workload"])]
        axes = {n: v for n, v in point.items() if n not in ("target", "kernel", "workload")}
        return {**self.model.defaults, **own, **axes}

    def compared(self, points: Sequence[Mapping[str, Scalar]]) -> str | None:
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
            self.fail(("compare",), f"the study does not vary {quoted(asked)}: it varies {known}")
        return asked
