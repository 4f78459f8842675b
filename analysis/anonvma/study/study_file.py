# SPDX-License-Identifier: GPL-2.0-only
"""The file of a study: YAML's safe subset without aliases, and what it may say."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from anonvma.base import paths
from anonvma.base.errors import StudyError
from anonvma.base.nearest import hint

_FILE_MAX = 256 << 10  # bytes

Scalar = bool | int | float | str | None
Path_ = tuple[str | int, ...]


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


class Document:
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
            told = f"cannot read the study {self.file}: {error.strerror}"
            beside = [path.name for path in self.file.parent.glob("*.y*ml")]
            meant = hint(self.file.name, beside, "") if not self.file.exists() else ""
            raise StudyError(f"{told}{f'; {meant}' if meant else '.'}") from None
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
            self._at(node.start_mark, f"{quoted(node.value)} cannot be understood; quote it")
        return value if value is None or isinstance(value, bool | int | float | str) else node.value

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._at(key.start_mark, "a name is wanted here")
            name = str(key.value)
            if name in found:
                self._at(key.start_mark, f"{quoted(name)} is given twice")
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


def quoted(text: object) -> str:
    """Return a value, fit to be shown in a sentence."""
    shown = ascii(text) if isinstance(text, str) else str(text)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _stock_kernels(place: Path, pattern: str) -> dict[str, str]:
    """Return the kernels that stock-kernel has fetched, whatever distribution's, by version."""
    # Those of another architecture are in a directory of its name.
    files = place.glob("/".join("*" for _ in pattern.split("/")) + "/vmlinuz")
    there = {str(file.parent.relative_to(place)): str(file) for file in files}
    found = [name for name in there if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(
            f"no stock kernel is there that {quoted(pattern)} fits: fetch one with "
            "analysis/setup/stock-kernel, such as 'stock-kernel --image-only newest'"
        )
    by_version = sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    return {name.replace("/", "-"): there[name] for name in by_version}


_DURATION = re.compile(r"(\d+(?:\.\d+)?) *([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Model(BaseModel):
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
            raise ValueError(f"{quoted(text)} is no name: use a-z, 0-9 and -")
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
        """Take a list, too: what ``make kernels`` has built, and ``stock:`` before a pattern."""
        if not isinstance(given, list):
            return given
        built = paths.build().resolve()
        found: dict[str, str] = {}
        for name in map(str, given):
            if name.startswith("stock:"):
                found |= _stock_kernels(built / "stock", name.removeprefix("stock:"))
            else:
                found[name.replace("/", "-")] = str(paths.kernel(name).absolute())
        return found

    @field_validator("targets", "kernels")
    @classmethod
    def _check_labels(cls, given: dict[str, str]) -> dict[str, str]:
        for label, text in given.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,31}", label):
                raise ValueError(f"{quoted(label)} is no name: use a-z, 0-9, '.', '_' and '-'")
            if not text or not text.isprintable() or len(text) > 4096:
                raise ValueError(f"{quoted(text)} is neither a host nor a path")
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
            raise ValueError(f"{quoted(given)} is no time: write such as 90s, 20m or 2h")
        return float(given) if type(given) is int else given


def explained(error: Any) -> str:
    """Say in a clause what pydantic found wrong."""
    where = str(error["loc"][0]) if error["loc"] else "the study"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, Model.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(Model.model_fields)}"
        return f"a study has no {quoted(where)}: {hint}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    ours = error.get("ctx", {}).get("error")  # raised by a validator of `Model`
    message = str(ours) if ours else error["msg"]
    return f"{where}: {message[0].lower()}{message[1:]}"
