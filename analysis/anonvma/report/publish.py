# SPDX-License-Identifier: GPL-2.0-only
"""Publishing: from runs to what can be posted, as text, as a ready message and as a page.

06-report is run by papermill behind the wall of `anonvma.report.redaction`; what it made becomes
the page, and the same sections become the text and the letter. What was rendered then goes through
the wall once more, and is not written while a fact is found in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anonvma.base import marker
from anonvma.base.errors import RedactionError
from anonvma.base.section import Key, Section
from anonvma.base.text import printable
from anonvma.report import (
    evidence,
    headers,
    html_page,
    layout,
    mail_body,
    mail_file,
    mail_lint,
    notebooks,
    publication,
    redaction,
    reproduction,
    subject,
)
from anonvma.report.evidence import Figure
from anonvma.report.mail import Envelope
from anonvma.report.subject import Subject
from anonvma.report.verdict import Answer


@dataclasses.dataclass(frozen=True)
class Rendered:
    """One subject, rendered and looked at.

    Attributes
    ----------
    about : Subject
        Behind the wall.
    name : str
        What it is about, in a few words.
    finding : str
        In a line: the subject of a mail.
    verdict : Answer
    sections : list of Section
    text, html : str
        The whole report.
    wall : Wall
        Which knows what it withheld.
    """

    about: Subject
    name: str
    finding: str
    verdict: Answer
    sections: list[Section]
    text: str
    html: str
    wall: redaction.Wall

    @property
    def title(self) -> str:
        """What the report is called."""
        return f"anonvma: {self.name}"


@dataclasses.dataclass(frozen=True)
class Published:
    """What was written, and what there is to say of it.

    Attributes
    ----------
    directory : Path
    files : dict
        By their kind: text, eml, mbox, html.
    rendered : list of Rendered
    complaints : list of Complaint
        About the message.
    withheld : dict
        What each replacement stands for; for the user's eyes only.
    """

    directory: Path
    files: dict[str, Path]
    rendered: list[Rendered]
    complaints: list[mail_lint.Complaint]
    withheld: dict[str, str]


# ---- rendering ----


def _find(name: str, made: str | None) -> Subject:
    """Open a run, as `anonvma.run.runs.find` takes it, or a comparison written ``BASE..HEAD``."""
    given = publication.sides(name)
    return subject.find(given.get("run"), made, given.get("base"), given.get("head"))


def render(name: str, scratch: Path, found: Subject, allow: Path | None = None) -> Rendered:
    """Render one run or comparison.

    Parameters
    ----------
    name : str
        What it was asked for by.
    scratch : path
        Where the executed notebook goes: not a part of what is published.
    found : Subject
    allow : path, optional
        The list of what may stay; see `anonvma.report.redaction.allowed_by`.
    """
    given = publication.sides(name)
    allowed = redaction.allowed_by(allow)
    parameters = {
        **({"run": str(found.run.path)} if found.run else _absolute(given)),
        "specimens": str(found.specimens.path) if found.specimens else "",
        "share": True,
        "allow": str(allow.resolve()) if allow else None,
    }
    executed = scratch / f"{publication.slug(name)}.ipynb"
    notebook = notebooks.execute("06-report", executed, parameters)
    # Not before: what they hold would be held twice, here and in the notebook's kernel.
    wall = redaction.Wall.around(found.runs, allowed)
    about = found.shared(wall)
    sections = about.sections(analysed=True)
    name = wall.scrub(headers.one_line(printable(about.name)))
    title = f"anonvma: {name}"
    text = wall.scrub(layout.text(sections, title, split=layout.COLUMNS))
    html = html_page.page(notebook, title, wall, about.fragments())
    _refuse_leaks(wall, text, html)
    finding = wall.scrub(headers.one_line(printable(about.finding)))
    return Rendered(about, name, finding, about.verdict, sections, text, html, wall)


def _absolute(given: dict[str, str]) -> dict[str, str]:
    """Make patterns with a directory independent of where a notebook runs."""
    return {
        side: str(Path(pattern).resolve()) if Path(pattern).parent != Path() else pattern
        for side, pattern in given.items()
    }


def _answer_of(sections: Sequence[Section]) -> str:
    return sections[0].paragraphs[0]


def _refuse_leaks(wall: redaction.Wall, *rendered: str) -> None:
    if left := sorted({value for text in rendered for value in wall.leaks(text)}):
        raise RedactionError(
            f"what was rendered would still have {len(left)} of the things that name this machine "
            f"or its users, such as {left[0]!r}; nothing was written (name it in the file of "
            "--allow if it may stay)."
        )


# ---- one, or several ----


def put(
    rendered: Sequence[Rendered], scratch: Path, envelope: Envelope
) -> tuple[dict[str, Path], list[mail_lint.Complaint]]:
    """Write everything that is published into a directory.

    Returns
    -------
    dict, list
        The files of the message and of the first page, by kind; and what a list would complain
        about.
    """
    if len(rendered) == 1:
        (one,) = rendered
        _put_report(one, scratch)
        title, withheld = one.finding, one.wall.said(one.text, one.html)
        body = one.wall.scrub(mail_body.body(one.sections, withheld, asked=_asks(envelope)))
        page_file = scratch / "report.html"
    else:
        title, parts = _summary(rendered)
        page_file = _put_index(rendered, scratch, title, parts)
        withheld = redaction.said(withheld_from(rendered))
        body = mail_body.body(parts, withheld, asked=_asks(envelope))
        data = reproduction.manifests_sha256([run for one in rendered for run in one.about.runs])
        body = redaction.Wall.joined((one.wall for one in rendered), [data]).scrub(body)
        (scratch / "report.txt").write_text(body, encoding="utf-8")
    for one in rendered:
        _refuse_leaks(one.wall, body)
    message = envelope.around(body, title)
    (scratch / "report.eml").write_bytes(message.as_bytes())
    mail_file.to_mbox(message, scratch / "report.mbox")
    kinds = {"text": "report.txt", "eml": "report.eml", "mbox": "report.mbox"}
    files = {kind: scratch / name for kind, name in kinds.items()} | {"html": page_file}
    return files, mail_lint.check(message.as_bytes())


def _asks(envelope: Envelope) -> bool:
    """Whether the mail has to say what it answers: a reply quotes it already."""
    return envelope.reply is None or not envelope.reply.above()


def _put_report(one: Rendered, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.txt").write_text(one.text, encoding="utf-8")
    (directory / "report.html").write_text(one.html, encoding="utf-8")


def _summary(rendered: Sequence[Rendered]) -> tuple[str, list[Section]]:
    """Say in one letter what several reports say."""
    table = _overview(rendered)
    yes = [one for one in rendered if one.verdict is Answer.YES]
    answer = (
        f"{'Yes' if yes else 'No'}: {len(yes)} of {len(rendered)} reports find VMAs with a NULL "
        "vm_ops that page faults have filled without giving them an anon_vma."
    )
    each = [_answer_of(one.sections) for one in rendered]
    said = (
        "One row per run: n repeats of it; mean of the VMAs that were read and never written, and "
        "its 95 % interval; and, where faults were traced, those that found a bare VMA and were "
        "taken under mmap_lock."
    )
    sources = tuple(f"{run.id}/manifest.json" for one in rendered for run in one.about.runs)
    parts = [
        Section("Answer", [answer, *each], key=Key.ANSWER),
        Section("Evidence", [said], table, sources=sources, key=Key.EVIDENCE),
        _joined(Key.METHOD, rendered),
        _joined(Key.UNOBSERVED, rendered),
        _repeated(rendered),
    ]
    title = f"{len(yes)} of {len(rendered)} workloads leave VMAs read and without an anon_vma"
    return title, parts


def _joined(key: Key, rendered: Sequence[Rendered]) -> Section:
    """Return in one section what several reports say in theirs of the same key."""
    same = [part for one in rendered for part in one.sections if part.key is key]
    words = dict.fromkeys(words for part in same for words in part.paragraphs)
    return Section(same[0].title, list(words), key=key)


def _repeated(rendered: Sequence[Rendered]) -> Section:
    every = [run for one in rendered for run in one.about.runs]
    typed = dict.fromkeys(
        command
        for one in rendered
        for part in one.sections
        for command in part.commands
        if command != reproduction.PUBLISH
    )
    return Section(
        "How to repeat it",
        reproduction.words(every, analysed=True),
        commands=list(typed),
        key=Key.REPRODUCTION,
    )


def _overview(rendered: Sequence[Rendered]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for one in rendered:
        specimens = one.about.specimens
        for run in (run for run in one.about.runs if run is not specimens):
            numbers = evidence.numbers(run)
            read, under = numbers[Figure.READ], numbers.get(Figure.UNDER_MMAP_LOCK)
            rows.append(
                {
                    "run": run.id,
                    "answer": "yes" if read.mean > 0 else "no",
                    "n": read.n,
                    "mean": read.mean,
                    "low": read.low,
                    "high": read.high,
                    "mmap_lock": under.mean if under else float("nan"),
                }
            )
    return pd.DataFrame(rows)


def _put_index(
    rendered: Sequence[Rendered], directory: Path, title: str, parts: Sequence[Section]
) -> Path:
    heads = ["report", "answer", "runs", "kernel"]
    rows, taken = [], set[str]()
    for one in rendered:
        slug = publication.slug(one.name)
        name = next(n for n in (slug, *(f"{slug}-{i}" for i in range(2, 10**6))) if n not in taken)
        taken.add(name)
        _put_report(one, directory / name)
        opened = [run for each in one.about.conditions.values() for run in each]
        kernels = dict.fromkeys(run.manifest.target["kernel_release"] for run in opened)
        about = [one.title, one.verdict.value, str(len(opened)), ", ".join(kernels)]
        rows.append([f"{name}/report.html", *about])
    words = parts[0].paragraphs[0]
    (directory / "index.html").write_text(
        html_page.index(title, words, heads, rows), encoding="utf-8"
    )
    return directory / "index.html"


def withheld_from(rendered: Iterable[Rendered]) -> dict[str, int]:
    """Return how many values of each kind were withheld from several reports together."""
    values: dict[str, set[str]] = {}
    for one in rendered:
        for name, value in one.wall.withheld.items():
            if name in one.text or name in one.html:
                values.setdefault(name[1:].rpartition(" ")[0], set()).add(value)
    return {kind: len(found) for kind, found in values.items()}


# ---- writing ----


def write(
    names: Sequence[str],
    scratch: Path,
    envelope: Envelope,
    *,
    output: Path,
    made: str | None = None,
    allow: Path | None = None,
) -> Published:
    """Publish runs or comparisons into a directory, which then holds nothing else.

    Parameters
    ----------
    names : sequence of str
        See `render`; or the directory of a study, which stands for its runs. Several become pages
        with an index, and one message.
    scratch : path
        A directory for what is not published.
    envelope : Envelope
    output : path
        Replaced if it was published before; anything else there is left alone.

    Raises
    ------
    AnonvmaError
        When something cannot be opened, rendered or written; then nothing was.
    """
    publication.check_output(output)  # now, and not when all is rendered
    found = {name: _find(name, made) for name in publication.each(names)}
    with notebooks.one_kernel():
        rendered = [render(name, scratch, about, allow) for name, about in found.items()]
    with marker.replacing(output) as partial:
        files, complaints = put(rendered, partial, envelope)
    placed = {kind: output / file.relative_to(partial) for kind, file in files.items()}
    withheld = {
        name: value
        for one in rendered
        for name, value in one.wall.withheld.items()
        if name in one.text or name in one.html
    }
    return Published(output, placed, rendered, complaints, withheld)
