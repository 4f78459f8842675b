# SPDX-License-Identifier: GPL-2.0-only
"""Which runs there are, by name: those that come with the project, then the user's own.

None of them is opened here, nor is anything imported that would read one: whoever only has to know
whether there is such a run, and one that has the tables that are needed, is told at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from anonvma.base import bounded, paths
from anonvma.base.errors import RunError
from anonvma.base.nearest import hint

MANIFEST = "manifest.json"
_LARGEST = 16 << 20


def place(name: str | Path, needs: Sequence[str] = ()) -> Path:
    """Return the directory that `anonvma.run.runs.find` opens, with a look at its manifest only.

    Parameters
    ----------
    name : str or path
    needs : sequence of str
        The tables without which it is of no use; ``latest`` is the newest that has them.

    Raises
    ------
    RunError
        When there is none, with the name that was most likely meant; or it lacks what is needed,
        with the newest that has it.
    """
    if str(name) == "latest":
        return _latest(needs)
    for path in (Path(name), paths.recorded() / name, paths.runs() / name):
        if path.is_dir():
            return _with(path, needs)
    told = hint(
        Path(name).name,
        ["latest", *known()],
        "give the directory of a run, 'latest', or a name that 'anonvma runs' or "
        "'anonvma runs --in data/recorded' lists.",
    )
    raise RunError(f"there is no run {str(name)!r}: {told}")


def _latest(needs: Sequence[str]) -> Path:
    own = _own()
    if not own:
        raise RunError(f"there is no run in {paths.runs()} yet: collect one first.")
    if found := _newest(own, needs):
        return found
    raise RunError(
        f"none of the {len(own)} runs in {paths.runs()} has what is needed here "
        f"({', '.join(needs)}); the newest, {own[0].name}, has {', '.join(_tables(own[0]))}."
    )


def _with(path: Path, needs: Sequence[str]) -> Path:
    """Return a run's directory if it has the tables; one that is damaged is for its reader."""
    there = _tables(path)
    lacking = [table for table in needs if table not in there]
    if not there or not lacking:
        return path
    other = _newest(_own(), needs)
    told = f"the newest of yours that has is {other.name}" if other else "none of yours has"
    raise RunError(
        f"run {path.name} has no table {' and no '.join(lacking)}, which is needed here: it has "
        f"{', '.join(there)}; {told}."
    )


def _newest(own: Sequence[Path], needs: Sequence[str]) -> Path | None:
    return next((path for path in own if not needs or set(needs) <= set(_tables(path))), None)


def _own() -> list[Path]:
    """Return the user's runs, the newest first; those of specimens after all others.

    `make report` runs the specimens last, to go with the workload that it is about.
    """
    found = [path.parent for path in paths.runs().glob("*/" + MANIFEST)]
    own = sorted((path for path in found if path.suffix == ""), reverse=True)
    return sorted(own, key=lambda path: bool(re.search(r"-specimens(-\d+)?$", path.name)))


def _tables(path: Path) -> list[str]:
    """Return the names of a run's tables; none where its manifest cannot be read."""
    try:
        return sorted(json.loads(bounded.regular(path / MANIFEST, _LARGEST))["tables"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def known() -> list[str]:
    """Return the names of the recorded runs, then of the user's own; none of them is opened."""
    directories = (paths.recorded(), paths.runs())
    found = [path.parent for place in directories for path in sorted(place.glob("*/" + MANIFEST))]
    return list(dict.fromkeys(path.name for path in found if path.suffix == ""))


def named_pattern(text: str) -> tuple[str | None, str]:
    """Return the name and the pattern of ``NAME=PATTERN``, or None and a pattern alone.

    Examples
    --------
    >>> named_pattern("early=other-*")
    ('early', 'other-*')
    """
    name, equals, pattern = text.partition("=")
    is_named = bool(equals) and not set(name) & set("/*?")
    return (name, pattern) if is_named else (None, text)


def all_places(pattern: str) -> list[Path]:
    """Return the directories of the runs that `anonvma.run.runs.find_all` would open.

    Raises
    ------
    RunError
        When none matches.
    """
    parent, name = Path(pattern).parent, Path(pattern).name
    directories = [paths.recorded(), paths.runs()] if parent == Path() else [parent]
    for directory in directories:
        found = [path for path in sorted(directory.glob(name)) if (path / MANIFEST).exists()]
        if found:
            return found
    where = " or ".join(str(directory) for directory in directories)
    # Of the boots of a kernel, say, the name has the number's place held by a wildcard.
    names = known()
    offered = [name for each in names for name in (each, re.sub(r"\d+$", "*", each))]
    offered += {f"{each[: dash.end()]}*" for each in names for dash in re.finditer("-", each)}
    told = hint(pattern, offered, "'anonvma runs' lists yours.") if parent == Path() else ""
    raise RunError(f"no run is called {name!r} in {where}{': ' + told if told else '.'}")
