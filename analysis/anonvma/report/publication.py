# SPDX-License-Identifier: GPL-2.0-only
"""What is to be published and where it goes: all that can be wrong before anything is rendered.

Nothing is imported here that reads a run, so whoever mistypes a name is told at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from anonvma.base import bounded, marker, paths
from anonvma.base.errors import AnonvmaError, RunError
from anonvma.run import catalogue, jobs


def each(names: Sequence[str]) -> list[str]:
    """Put the runs of a study in the place of its directory; a survey of kernels is one report."""
    found: list[str] = []
    for name in names:
        apart = not jobs.is_survey(Path(name))
        done = sorted(Path(name).glob("cells/*/manifest.json")) if apart else []
        found += [str(file.parent) for file in done] or [name]
    return found


def sides(text: str) -> dict[str, str]:
    """Return what `anonvma.report.subject.find` takes, of a run's name or of ``BASE..HEAD``."""
    # Not the ".." of a path, which has a slash beside it.
    both = re.fullmatch(r"(.*[^./])\.\.((?:\.{1,2}/)*[^./].*|/.*)", text)
    if both and not Path(text).is_dir():
        return {"base": both[1], "head": both[2]}
    return {"run": text}


def check_names(names: Sequence[str]) -> None:
    """Refuse names that `anonvma.report.publish.write` would not find.

    Raises
    ------
    AnonvmaError
        The sentence that it would have failed with.
    """
    for name in each(names):
        given = sides(name)
        if "run" in given:
            catalogue.place(given["run"], ["census"])
        else:
            check_sides(**given)


def check_output(place: Path) -> None:
    """Refuse a place that is somebody else's, or that cannot be written.

    Raises
    ------
    AnonvmaError
    """
    marker.check(place)
    try:
        with marker.draft(place):
            pass
    except OSError as error:
        raise AnonvmaError(f"cannot write {place}: {error.strerror}.") from None


def check_sides(base: str, head: str) -> None:
    """Refuse to compare runs of two patterns that did not run the same, or have no census.

    Raises
    ------
    RunError
        It says what each of them ran, or lacks; or no run is called so.
    """
    ran = [_what_ran(pattern) for pattern in (base, head)]
    if ran[0] != ran[1]:
        raise RunError(
            f"{base} ran {ran[0]}, {head} ran {ran[1]}: only runs of one workload can be compared."
        )
    for pattern in (base, head):
        if not any("census" in _said(run, "tables") for run in catalogue.all_places(pattern)):
            raise RunError(
                f"no run of {pattern} has a census, from which the answer is: "
                "`anonvma compare` sets the rest of such runs side by side."
            )


def _what_ran(pattern: str) -> str:
    found = catalogue.all_places(pattern)
    each_ran = {", ".join(f"{k} {v}" for k, v in _said(run, "parameters").items()) for run in found}
    if len(each_ran) > 1:
        raise RunError(f"the runs {', '.join(r.name for r in found)} differ in their workload.")
    return each_ran.pop()


def _said(run: Path, key: str) -> dict[str, object]:
    """Return a part of a manifest; empty if that is damaged, which is for its reader to say."""
    try:
        return dict(json.loads(bounded.regular(run / "manifest.json", 16 << 20))[key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def default_output(names: Sequence[str]) -> Path:
    """Return where a publication goes when nothing else is said: beside the runs."""
    name = slug(names[0]) if len(names) == 1 else f"{len(names)}-reports"
    if list(names) == ["latest"]:
        name = slug(catalogue.place("latest", ["census"]).name)
    return paths.runs().parent / "published" / name


def slug(name: str) -> str:
    """Return a name as a directory may be called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "report"
