# SPDX-License-Identifier: GPL-2.0-only
"""What a run says to the mail's question, as figures.

A census has VMAs and their pages; a trace, of another execution, has page faults. They are two
populations: no sentence divides one by the other. Pages may have come by get_user_pages(), which is
no page fault of the process, or before a process was watched; a command may leave processes
running, which are in neither.
"""

from __future__ import annotations

import dataclasses
import enum

import pandas as pd

from anonvma.run.runs import Run, once
from anonvma.tables import census, faults, losses


class Answer(enum.Enum):
    """To the question, of what was looked at."""

    YES = "yes"
    NO = "no"


@dataclasses.dataclass(frozen=True)
class Traced:
    """The page faults of a run: means of the repeats that were traced.

    Attributes
    ----------
    faults : float
        Page faults that did not end in an error; not those of get_user_pages().
    stayed : float
        Of these, those that found a bare VMA and left it bare.
    paths : dict
        By lock path, how many of `stayed` took it.
    found_bare, makes, spared : float
        Those of user mode that found a bare VMA; that made an anon_vma; and that did not.
    gup : float
        Faults of get_user_pages(), whatever they found.
    half_seen, missed : float
        Faults of which no more is known than that they happened; see
        `anonvma.tables.losses.unknown`.
    """

    faults: float
    stayed: float
    paths: dict[str, float]
    found_bare: float
    makes: float
    spared: float
    gup: float
    half_seen: float = 0.0
    missed: float = 0.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run says to the question.

    Attributes
    ----------
    vmas : int
        In the census of the last repeat.
    bare : dict
        Of these, those that are bare, by class, without classes that have none.
    filled : list of int
        Of the bare ones, those with pages in them, in each repeat.
    origins : dict
        Those of the last repeat by origin, most frequent first.
    zero, pages : int
        The zero pages in those, and the pages that they span.
    traced : Traced or None
        None where faults were not traced.
    regime : str or None
        Of the kernel.
    watched : float or None
        The seconds, of a process that ran already.
    alarm : census.Alarm or None
        Bare VMAs with pages of their own, in the last repeat.
    unnamed : int or None
        The mappings of private /dev/zero that the workload made and that no VMA is named after, on
        a kernel that keeps no file for them; 0 if how many is not known; None elsewhere.
    went_on : int
        Processes that the command left running, in all repeats together.
    """

    vmas: int
    bare: dict[str, int]
    filled: list[int]
    origins: dict[str, int]
    zero: int
    pages: int
    traced: Traced | None
    regime: str | None
    watched: float | None
    alarm: census.Alarm | None
    unnamed: int | None
    went_on: int

    @property
    def answer(self) -> Answer:
        """Yes if any repeat has such a VMA."""
        return Answer.YES if any(self.filled) else Answer.NO

    @property
    def populated(self) -> bool:
        """Whether get_user_pages() brought pages that no page fault did, as far as was traced."""
        traced = self.traced
        if self.watched is not None or traced is None or traced.gup < 1:
            return False
        return self.zero > traced.stayed + 1  # one more or less is the start of a program


@once
def of_run(run: Run) -> Verdict:
    """Return what a run with a census says to the question."""
    manifest = run.manifest
    every = run.table("census")
    zero_page = every["class"] == "zero-page"
    counts = every[zero_page].groupby("repeat").size()
    counts = counts.reindex(range(1, manifest.repeats + 1), fill_value=0)
    vmas = every[every["repeat"] == manifest.repeats]
    found = vmas[vmas["class"] == "zero-page"]
    bare = census.by_class(vmas)["vmas"]
    origins = found["origin"].astype("object").value_counts()
    watched = manifest.parameters.get("seconds")
    return Verdict(
        vmas=len(vmas),
        bare={str(name): int(count) for name, count in bare.items() if count},
        filled=[int(count) for count in counts],
        origins={str(name): int(count) for name, count in origins.items()},
        zero=int(found["zero"].sum()),
        pages=int(found["bytes"].sum()) // int(manifest.target["page_size"]),
        traced=_traced(run),
        regime=manifest.features.get("regime", {}).get("name"),
        watched=None if watched is None else float(watched),
        alarm=census.alarm(vmas),
        unnamed=_unnamed(run, vmas),
        went_on=int(manifest.losses.get("went_on", 0)),
    )


def _unnamed(run: Run, vmas: pd.DataFrame) -> int | None:
    command = run.manifest.workload
    if command.maps != "private /dev/zero" or (vmas["origin"] == command.maps).any():
        return None
    return command.mappings or 0


def _traced(run: Run) -> Traced | None:
    if not {"faults", "tracing"} <= set(run.manifest.tables):
        return None
    table, tracing = run.table("faults"), run.table("tracing")
    runs_traced = tracing[tracing["traced"].isin(["faults", "events"])]
    n = max(len(faults.traced_repeats(run)), 1)
    count = table["count"].astype("float64").where(table["result"] != "error", 0.0)
    by_gup = table["mode"] == "gup"
    own, bare = count.mask(by_gup, 0.0), table["before"] == "bare"
    stayed = own.where(bare & (table["after"] == "bare"), 0.0)
    user = own.where(bare & (table["mode"] == "user"), 0.0)
    spared = user.where(table["after"] == "bare", 0.0)
    half_seen, missed = losses.unknown(tracing)
    unseen = runs_traced["unseen_gup"].fillna(0).astype("float64")
    paths = stayed.groupby(table["path"].astype("object")).sum() / n
    return Traced(
        faults=float(own.sum()) / n,
        stayed=float(stayed.sum()) / n,
        paths={str(path): float(value) for path, value in paths.items() if value},
        found_bare=float(user.sum()) / n,
        makes=float((user - spared).sum()) / n,
        spared=float(spared.sum()) / n,
        gup=(float(count.where(by_gup, 0.0).sum()) + float(unseen.sum())) / n,
        half_seen=half_seen,
        missed=missed,
    )
