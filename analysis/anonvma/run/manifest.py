# SPDX-License-Identifier: GPL-2.0-only
"""The manifest of a run: what ran where, and what could not be observed."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from anonvma.base.errors import RunError
from anonvma.run import files as run_files
from anonvma.run.catalogue import MANIFEST

FORMAT = 1
"""Of the run directory; a change that an older anonvma would misread is a new one."""
_MANIFEST_MAX = 2 << 20  # the largest of ours have some 10 kB


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} does not lie in the run directory")
    return path


def _plain(value: Any, depth: int = 20) -> Any:
    """Refuse what JSON may hold and no table can: half characters, endless and huge numbers."""
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError(f"{value!r} is not Unicode")
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a number has more than 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    elif isinstance(value, dict):
        for key, item in value.items():
            _plain(key, depth - 1)
            _plain(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _plain(item, depth - 1)
    return value


# What is asked of a target and of a kernel's features, by its kind; null where it is not known.
_TARGET: dict[str, type] = {
    **dict.fromkeys(
        ("kind", "kernel_release", "architecture", "cpu_model", "thp", "image_sha256", "accel"), str
    ),
    **dict.fromkeys(("config_sha256", "append", "accel_reason", "link"), str),
    **dict.fromkeys(("perf_version", "qemu_version", "qemu_threads"), str),
    **dict.fromkeys(("cpus", "memory_bytes", "memory_given_bytes", "page_size"), int),
    **dict.fromkeys(("max_map_count", "overcommit_memory", "real_cpus"), int),
    "config": dict,
}
_ALWAYS = (
    "kind",
    "kernel_release",
    "architecture",
    "cpus",
    "cpu_model",
    "memory_bytes",
    "page_size",
)
_KNOWN = ("kernel_release", "cpus", "page_size")
_OF_ELSEWHERE = {"repeats", "perf_stat", "perf_intervals", "samples", "stacks", "frames"}
"""The tables that an import gives, of a machine of which little may be known."""
_LARGEST = {"cpus": 1 << 31, "real_cpus": 1 << 31, "page_size": 1 << 31, "memory_bytes": 1 << 63}
_LONGEST = 8192  # characters: a kernel's command line may have 4096
_KIND_WORDS = {str: "words", int: "a whole number", dict: "an object"}


def _target(facts: dict[str, Any]) -> dict[str, Any]:
    for name, kind in _TARGET.items():
        value = facts.get(name)
        if value is None:
            continue
        if type(value) is not kind:
            raise ValueError(f"{name} is not {_KIND_WORDS[kind]}")
        if isinstance(value, int) and name in _LARGEST and not 1 <= value < _LARGEST[name]:
            raise ValueError(f"there is no machine whose {name} is {value}")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError(f"{name} has {len(value)} characters")
        if name.endswith("_sha256") and not re.fullmatch(r"[0-9a-f]{64}", str(value)):
            raise ValueError(f"{name} is no SHA-256")
    return {**dict.fromkeys(_ALWAYS), **facts}


def _features(told: dict[str, Any]) -> dict[str, Any]:
    regime = told.get("regime", {})
    if not isinstance(regime, dict):
        raise ValueError("regime is not an object")
    if any(not isinstance(word, str | None) for word in regime.values()):
        raise ValueError("regime has something other than words")
    if not isinstance(told.get("features", {}), dict):
        raise ValueError("features is not an object")
    return told


class TableFile(_Strict):
    """A table of a run."""

    file: str
    rows: int = Field(ge=0)
    sha256: str
    _lies_inside = field_validator("file")(_inside)


class RawFile(_Strict):
    """What a program wrote, as it wrote it."""

    file: str
    bytes: int = Field(ge=0)
    sha256: str
    _lies_inside = field_validator("file")(_inside)


class Unobserved(_Strict):
    """Something that this run could not observe, and the tables that it lacks for it."""

    what: str
    reason: str
    remedy: str
    tables: list[str] = []


class Command(_Strict):
    """The workload as it was run."""

    name: str
    argv: list[str]
    maps: str | None = None
    mappings: int | None = None


class Manifest(_Strict):
    """What a run is; names neither the host nor its user.

    Attributes
    ----------
    format : int
        Of the run directory; see `FORMAT`.
    anonvma : str
        Version that made it.
    created, finished : datetime
        When it was begun and when it was whole, UTC.
    target : dict
        Facts about the target; see `anonvma.target.facts.facts_of`.
    workload : Command
        The workload's name and its words.
    parameters : dict
        Of the workload; see `anonvma.collect.workload.Workload`.
    repeats : int
        How often it was observed.
    features : dict
        What the target's kernel allows, from ``vmaprobe features``.
    tables : dict
        The tables, by name.
    raw : list
        The raw files.
    unobserved : list
        What could not be observed, why, and what would enable it.
    losses : dict
        What the censuses lost, summed over the repeats; all zero in perfect ones.
    pages_how : str or None
        How the pages in bare VMAs were looked at.
    notes : list of str
        Whatever else a reader has to know.
    """

    format: int = FORMAT
    anonvma: str
    created: datetime.datetime
    finished: datetime.datetime
    target: dict[str, Any]
    workload: Command
    parameters: dict[str, Any]
    repeats: int = Field(ge=0, lt=1 << 31)
    features: dict[str, Any]
    tables: dict[str, TableFile]
    raw: list[RawFile]
    unobserved: list[Unobserved]
    losses: dict[str, int]
    pages_how: str | None = None
    notes: list[str]
    _is_plain = model_validator(mode="before")(_plain)
    _target_is_one = field_validator("target")(_target)
    _features_are_some = field_validator("features")(_features)

    @model_validator(mode="after")
    def _machine_is_known(self) -> Manifest:
        """Of what was measured, and not imported, the machine is known."""
        for name in _KNOWN if set(self.tables) - _OF_ELSEWHERE else ():
            if self.target[name] is None:
                raise ValueError(f"target: {name} is missing")
        return self


def read_manifest(path: Path) -> Manifest:
    """Return what a run says it is; `Run.open` makes sure that the rest of it is so, too.

    Raises
    ------
    RunError
        When there is none, or it is damaged or of another version.
    """
    file = path / MANIFEST
    if not path.is_dir():
        raise RunError(f"{path} is not a run: there is no such directory.")
    if not os.path.lexists(file):
        raise RunError(f"{path} is not a run: it has no {MANIFEST}.")
    try:
        content = json.loads(run_files.contents(file, _MANIFEST_MAX))
    except (ValueError, RecursionError):
        raise RunError(f"{file} is damaged: it is not whole JSON.") from None
    _check_format(file, content)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(f"{file} is not a valid manifest: {where}: {first['msg']}.") from None


def _check_format(file: Path, content: Any) -> None:
    if not isinstance(content, dict) or "anonvma" not in content:
        raise RunError(f"{file} is not a manifest of anonvma.")
    found = content.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise RunError(f"{file} is not a valid manifest: its format is {found!r}.")
    if found > FORMAT:
        raise RunError(
            f"{file}: the run has format {found}, newer than the {FORMAT} that this anonvma reads: "
            f"it was made by anonvma {content['anonvma']}; use that one or a later one."
        )
    if found < FORMAT:
        raise RunError(
            f"{file}: the run has format {found}, older than the {FORMAT} that this anonvma reads: "
            f"it was made by anonvma {content['anonvma']}; open it with that, or repeat the run."
        )
