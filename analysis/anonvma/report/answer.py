# SPDX-License-Identifier: GPL-2.0-only
"""The answer in words: what a run says to the mail's question.

> Is there perhaps a VMA for which we have a NULL vm_ops, but don't set an anon_vma on a page fault?

`anonvma.report.verdict` has the figures.
"""

from __future__ import annotations

from anonvma.base.numerals import number, percent
from anonvma.report import kernel_facts
from anonvma.report.verdict import Answer, Traced, Verdict, of_run
from anonvma.run.runs import Run
from anonvma.tables import census, losses

QUESTION = (
    "Is there perhaps a VMA for which we have a NULL vm_ops, but don't set an anon_vma on a page "
    "fault?"
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


def name_of(run: Run) -> str:
    """Name what was observed and where."""
    return f"{workload_of(run)} on {kernel_of(run)}"


def finding(run: Run) -> str:
    """Say in a line, such as a subject has room for, what a run found."""
    verdict, manifest = of_run(run), run.manifest
    of = f"{workload_of(run)} on {manifest.target['kernel_release']}"
    if verdict.answer is Answer.NO:
        return f"no VMA filled without an anon_vma: {of}"
    how = "populated" if verdict.populated else "read"
    filled = f"{number(verdict.filled[-1])} of {_count(verdict.vmas, 'VMA')}"
    return f"{filled} {how}, but without an anon_vma: {of}"


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
        f"{_origins(verdict)}. {_present(verdict)} {_came_by(verdict)}".rstrip()
    )


def _present(verdict: Verdict) -> str:
    if verdict.pages == 1:  # of one that is filled
        return "The one page that it spans is present, and it is the zero page."
    by = "it spans" if verdict.filled[-1] == 1 else "they span"
    spanned = f"{_count(verdict.pages, 'page')} that {by}"
    if verdict.zero == verdict.pages:
        return f"All {spanned} are present, each the zero page."
    return (
        f"Of the {spanned}, {number(verdict.zero)} {'is' if verdict.zero == 1 else 'are'} present, "
        "each the zero page."
    )


def _setting(run: Run, verdict: Verdict) -> str:
    name, where = workload_of(run), kernel_of(run)
    date = f"{run.manifest.created:%Y-%m-%d}"
    if verdict.watched is not None:
        return f"In {name} on {where}, watched for {verdict.watched:g} s on {date},"
    return f"After a run of {name} on {where}, on {date},"


_CLASSES = {
    "guard": "guard (no access permitted, so it cannot fault)",
    "untouched": "untouched (no page present)",
}


def _none(verdict: Verdict) -> str:
    bare = sum(verdict.bare.values())
    kinds = ", ".join(
        f"{number(count)} {_CLASSES.get(name, name)}" for name, count in verdict.bare.items()
    )
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
    return f"it is {name}" if most == 1 else f"all of them {name}"


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
            f"An early check costs next to nothing here: {every} of user mode that found a bare "
            f"VMA {'makes' if traced.found_bare == 1 else 'make'} an anon_vma, for which a delayed "
            "check takes mmap_lock as well, though not for the whole of the fault."
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
