# SPDX-License-Identifier: GPL-2.0-only
"""The answer: what a run says to the mail's question, as figures first and as sentences last.

> Is there perhaps a VMA for which we have a NULL vm_ops, but don't set an anon_vma on a page fault?

A census has VMAs and their pages; a trace, of another execution, has page faults. They are two
populations: no sentence divides one by the other. Pages may have come by get_user_pages(), which is
no page fault of the process, or before a process was watched; a command may leave processes
running, which are in neither.
"""

from __future__ import annotations

import dataclasses
import enum

import pandas as pd

from anonvma.base.numerals import number, percent
from anonvma.report import kernel_facts
from anonvma.run.runs import Run
from anonvma.tables import census, faults, losses

__all__ = [
    "QUESTION",
    "Answer",
    "Traced",
    "Verdict",
    "alarm_said",
    "fault_sentences",
    "finding",
    "kernel_of",
    "of_run",
    "sentences",
    "table_of",
    "workload_of",
]

QUESTION = (
    "Is there perhaps a VMA for which we have a NULL vm_ops, but don't set an anon_vma on a page "
    "fault?"
)


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


# ---- in words ----


def kernel_of(run: Run) -> str:
    """Name the kernel of a run and what it ran on."""
    target = run.manifest.target
    return f"Linux {target['kernel_release']} ({target['architecture']}, {target['cpus']} CPUs)"


def workload_of(run: Run) -> str:
    """Name what was observed: a workload, or a process that ran already."""
    kind, _, number_of = str(run.manifest.parameters.get("workload", "")).partition("pid:")
    return f"process {number_of}" if number_of and not kind else run.manifest.workload.name


def finding(run: Run) -> str:
    """Say in a line, such as a subject has room for, what a run found."""
    verdict, manifest = of_run(run), run.manifest
    of = f"{workload_of(run)}, Linux {manifest.target['kernel_release']}"
    if verdict.answer is Answer.NO:
        return f"{of}: no VMA filled without an anon_vma"
    how = "populated" if verdict.populated else "read"
    return f"{of}: {number(verdict.filled[-1])} of {number(verdict.vmas)} VMAs {how}, no anon_vma"


def sentences(run: Run) -> list[str]:
    """Answer the question for a run, in a few paragraphs.

    Returns
    -------
    list of str
        What there is; why; which lock the faults took, and what an early check makes of them.
    """
    verdict, release = of_run(run), str(run.manifest.target["kernel_release"])
    said = [alarm_said(verdict.alarm)] if verdict.alarm else []
    said.append(_first(run, verdict))
    if verdict.went_on:
        said.append(_went_on(verdict.went_on))
    if verdict.answer is Answer.YES:
        why = [kernel_facts.zero_page(release)]
        if "private /dev/zero" in verdict.origins:
            why.append(kernel_facts.dev_zero(release))
        said += [" ".join(why), kernel_facts.EARLY_CHECK]
    if verdict.unnamed is not None:
        times = f", {_count(verdict.unnamed, 'time')}" if verdict.unnamed else ""
        name = workload_of(run)
        mapped = f"{name} mapped /dev/zero, privately{times}."
        said.append(f"{mapped} {kernel_facts.DEV_ZERO_WITHOUT_FILE}")
    return said + _of_faults(verdict)


def alarm_said(alarm: census.Alarm) -> str:
    """Say that bare VMAs have pages of their own, and what that means."""
    return (
        f"Beware: {_count(alarm.vmas, 'bare VMA')} {'holds' if alarm.vmas == 1 else 'hold'} "
        f"{_count(alarm.pages, 'page')} that {'is' if alarm.pages == 1 else 'are'} not the zero "
        f"page. {kernel_facts.PAGES_OF_ITS_OWN}"
    )


def fault_sentences(run: Run) -> list[str]:
    """Say what the trace of a run means: of the paragraphs of `sentences`, those on its faults."""
    return _of_faults(of_run(run))


def _first(run: Run, verdict: Verdict) -> str:
    setting = _setting(run, verdict)
    if verdict.answer is Answer.NO:
        return f"Not here. {setting} {_none(verdict)}"
    filled = verdict.filled[-1]
    return (
        f"Yes. {setting} {number(filled)} of {_count(verdict.vmas, 'VMA')} "
        f"{'is' if filled == 1 else 'are'} bare (vm_ops is NULL, and so is anon_vma) and yet "
        f"{'holds' if filled == 1 else 'hold'} pages ({_agreement(verdict.filled)}); "
        f"{_origins(verdict)}. Of the {_count(verdict.pages, 'page')} spanned, "
        f"{number(verdict.zero)} {'is' if verdict.zero == 1 else 'are'} present, each the zero "
        f"page. {_came_by(verdict)}".rstrip()
    )


def _setting(run: Run, verdict: Verdict) -> str:
    name, where = workload_of(run), kernel_of(run)
    date = f"{run.manifest.created:%Y-%m-%d}"
    if verdict.watched is not None:
        return f"In {name} on {where}, watched for {verdict.watched:g} s on {date},"
    return f"After {name} on {where}, {date},"


def _none(verdict: Verdict) -> str:
    bare = sum(verdict.bare.values())
    kinds = ", ".join(f"{number(count)} {name}" for name, count in verdict.bare.items())
    rest = f"{number(bare)} {'is' if bare == 1 else 'are'}" if bare else "none is"
    return (
        "no VMA with a NULL vm_ops was left without an anon_vma by reading it "
        f"({_agreement(verdict.filled)}). Of {_count(verdict.vmas, 'VMA')} {rest} bare (vm_ops is "
        f"NULL, and so is anon_vma){f': {kinds}' if kinds else ''}."
    )


def _count(count: float, noun: str) -> str:
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def _origins(verdict: Verdict) -> str:
    if not verdict.origins:  # another repeat has them
        return "none in the last of them"
    (name, most), *others = verdict.origins.items()
    if others:
        return f"{number(most)} of them {name}"
    return name if most == 1 else f"all of them {name}"


def _agreement(filled: list[int]) -> str:
    """Say whether every repeat says the same, in a clause."""
    if len(filled) == 1:
        return "observed once"
    if min(filled) == max(filled):
        return f"the same in each of {len(filled)} repeats"
    return f"between {number(min(filled))} and {number(max(filled))} in {len(filled)} repeats"


def _came_by(verdict: Verdict) -> str:
    """Say how the pages came, where that is not by the page faults that were traced."""
    traced = verdict.traced
    if verdict.watched is not None:
        return "They may have come there before it was watched."
    if traced is None:
        return "Whether by page faults or by get_user_pages() was not traced."
    if not verdict.populated:
        return ""
    by = (
        f"get_user_pages(), with {number(traced.gup)} faults of its own in all (MAP_POPULATE, "
        "mlock(), MADV_POPULATE_READ and others), which are no page faults of the process and take "
        "mmap_lock on any kernel"
    )
    if traced.stayed == 0:
        return f"No page fault brought them: that was {by}."
    return f"Page faults brought {number(traced.stayed)} of such pages; the others came by {by}."


def _went_on(count: int) -> str:
    noun = "1 process" if count == 1 else f"{number(count)} processes"
    return (
        f"{noun} that the command left running when it ended (all repeats together) "
        f"{'is' if count == 1 else 'are'} in no number here: census, trace and perf end with the "
        "command. Run it in the foreground, or watch what it leaves by pid:NUMBER."
    )


_TAKEN = {
    "vma": "under their VMA's own lock",
    "mmap": "under mmap_lock",
    "retry": "first under the VMA's lock and again under mmap_lock",
}


def _of_faults(verdict: Verdict) -> list[str]:
    if verdict.traced is None:
        return []
    traced = verdict.traced
    said = [
        _stayed(verdict, traced),
        _what_if(verdict.regime, traced),
        losses.bounds_said(traced.stayed, traced.faults, traced.half_seen, traced.missed),
    ]
    return [paragraph for paragraph in said if paragraph]


def _stayed(verdict: Verdict, traced: Traced) -> str:
    if traced.faults == 0:
        if verdict.watched is not None:
            return (
                f"The process took no page fault in the {verdict.watched:g} s that its faults were "
                "traced."
            )
        return "The trace has no page fault."
    share = percent(traced.stayed / traced.faults)
    none = traced.stayed == 0
    said = (
        f"Of {_count(traced.faults, 'page fault')} (traced apart, mean of a repeat) "
        f"{'none' if none else f'{number(traced.stayed)} ({share})'} found a bare VMA and left it "
        "bare."
    )
    return said if none else f"{said} {_which_lock(traced)}".strip()


def _which_lock(traced: Traced) -> str:
    if not traced.paths.keys() <= _TAKEN.keys():
        return ""
    if len(traced.paths) == 1:
        (path,) = traced.paths
        return f"All of those were taken {_TAKEN[path]}."
    shares = {path: traced.paths[path] / traced.stayed for path in _TAKEN if path in traced.paths}
    told = ", ".join(f"{percent(share)} {_TAKEN[path]}" for path, share in shares.items())
    return f"Of those, {told}."


def _what_if(regime: str | None, traced: Traced) -> str:
    bare = _count(traced.found_bare, "fault")
    if traced.faults == 0:
        return ""
    if traced.found_bare == 0:
        return "No fault of user mode found a bare VMA, so an early check costs nothing here."
    if traced.spared == 0:
        every = f"the {bare}" if traced.found_bare == 1 else f"all {bare}"
        return (
            f"An early check costs nothing here: {every} of user mode that found a bare VMA "
            f"{'makes' if traced.found_bare == 1 else 'make'} an anon_vma, for which a delayed "
            "check takes mmap_lock as well."
        )
    for_nothing = f"{number(traced.spared)} of them make no anon_vma and go there for nothing"
    if regime == "early":
        return (
            f"This kernel checks early: it sent the {bare} of user mode that found a bare VMA to "
            f"mmap_lock. A delayed check spares {number(traced.spared)} of them; the other "
            f"{number(traced.makes)} make an anon_vma, for which it only tries to take mmap_lock."
        )
    if regime == "delayed":
        return (
            "This kernel checks late. An early check, as in Linux 6.4 to 6.9, sends the "
            f"{bare} of user mode that found a bare VMA to mmap_lock; {for_nothing}."
        )
    return (
        "With locks for VMAs and an early check, as in Linux 6.4 to 6.9, the "
        f"{bare} of user mode that found a bare VMA go to mmap_lock; {for_nothing}."
    )


def table_of(verdict: Verdict) -> pd.DataFrame:
    """Return the numbers that the sentences have, one row each: figure and value."""
    rows: list[tuple[str, float]] = [
        ("VMAs of the last repeat", verdict.vmas),
        *((f"bare, {name}", count) for name, count in verdict.bare.items()),
        ("bare and filled, fewest of a repeat", min(verdict.filled)),
        ("bare and filled, most of a repeat", max(verdict.filled)),
        *((f"filled, {name}", count) for name, count in verdict.origins.items()),
        ("zero pages in those", verdict.zero),
        ("pages that those span", verdict.pages),
    ]
    if verdict.traced is not None:
        rows += [
            (f"faults: {field.name}", value)
            for field in dataclasses.fields(verdict.traced)
            if isinstance(value := getattr(verdict.traced, field.name), float)
        ]
    return pd.DataFrame(rows, columns=["figure", "value"])
