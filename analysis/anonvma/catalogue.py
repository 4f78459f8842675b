# SPDX-License-Identifier: GPL-2.0-only
"""Which runs there are, by name: those that come with the project, then the user's own.

None of them is opened here, nor is anything imported that would read one: whoever only has to know
whether there is such a run is told at once.
"""

from __future__ import annotations

import re
from pathlib import Path

from anonvma import places
from anonvma.errors import RunError
from anonvma.nearest import hint

__all__ = ["all_places", "known", "place"]

_MANIFEST = "manifest.json"


def place(name: str | Path) -> Path:
    """Return the directory that `anonvma.runs.find` would open, without a look into it.

    Raises
    ------
    RunError
        When there is none; with the name that was most likely meant.
    """
    if str(name) == "latest":
        return _latest()
    for path in (Path(name), places.recorded() / name, places.runs() / name):
        if path.is_dir():
            return path
    told = hint(
        Path(name).name,
        ["latest", *known()],
        "give the directory of a run, 'latest', or a name that 'anonvma runs' or "
        "'anonvma runs --in data/recorded' lists.",
    )
    raise RunError(f"there is no run {str(name)!r}: {told}")


def _latest() -> Path:
    own = [path for path in places.runs().glob("*/" + _MANIFEST) if path.parent.suffix == ""]
    if not own:
        raise RunError(f"there is no run in {places.runs()} yet: collect one first.")
    # `make report` runs the specimens last, to go with the workload that it is about.
    workloads = [path for path in own if not re.search(r"-specimens(-\d+)?$", path.parent.name)]
    return max(workloads or own).parent


def known() -> list[str]:
    """Return the names of the recorded runs, then of the user's own; none of them is opened."""
    directories = (places.recorded(), places.runs())
    found = [path.parent for place in directories for path in sorted(place.glob("*/" + _MANIFEST))]
    return list(dict.fromkeys(path.name for path in found if path.suffix == ""))


def all_places(pattern: str) -> list[Path]:
    """Return the directories of the runs that `anonvma.runs.find_all` would open.

    Raises
    ------
    RunError
        When none matches.
    """
    parent, name = Path(pattern).parent, Path(pattern).name
    directories = [places.recorded(), places.runs()] if parent == Path() else [parent]
    for directory in directories:
        found = [path for path in sorted(directory.glob(name)) if (path / _MANIFEST).exists()]
        if found:
            return found
    where = " or ".join(str(directory) for directory in directories)
    # Of the boots of a kernel, say, the name has the number's place held by a wildcard.
    offered = [name for each in known() for name in (each, re.sub(r"\d+$", "*", each))]
    told = hint(pattern, offered, "'anonvma runs' lists yours.") if parent == Path() else ""
    raise RunError(f"no run is called {name!r} in {where}{': ' + told if told else '.'}")
