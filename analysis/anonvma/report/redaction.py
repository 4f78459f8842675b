# SPDX-License-Identifier: GPL-2.0-only
"""Redaction: what names the machine, its users or what they run does not leave with a report.

Two walls. The first is at the data: a `Shared` run has the names that processes, files and
symbols gave themselves replaced before anything is drawn, so that no figure shows them. The second,
the `Wall`, reads what was rendered and looks for what `anonvma.report.identities` knows: the facts
of the run, those of the machine it is rendered on, and the shapes of addresses, pointers, ids and
paths.

What is replaced becomes ``[host 1]``, ``[path 2]`` and so on, the same for the same, so that a
reader can still tell things apart. The user can name what may stay, word by word, in a file.
"""

from __future__ import annotations

import copy
import functools
import html
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from anonvma.base import bounded
from anonvma.base.errors import RedactionError
from anonvma.base.text import printable
from anonvma.report import reproduction
from anonvma.report.identities import (
    OF_FEW_WORDS,
    OF_KINDS,
    SHAPES,
    Fact,
    facts_of_machine,
    facts_of_run,
    foreign,
    hashes_of,
)
from anonvma.report.public_words import is_public
from anonvma.run.manifest import Manifest
from anonvma.run.runs import Run


def allowed_by(file: str | Path | None) -> frozenset[str]:
    """Return what a user's list lets stay: one value a line, ``#`` begins a comment.

    Raises
    ------
    RedactionError
        When the list cannot be read.
    """
    if file is None:
        return frozenset()
    try:
        lines = bounded.read(Path(file), 1 << 20).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RedactionError(f"cannot read the list {file}: {error}.") from None
    kept = (line.strip() for line in lines if not line.lstrip().startswith("#"))
    return frozenset(line for line in kept if line)


class Wall:
    """What may not pass, and what it was replaced with.

    Parameters
    ----------
    facts : iterable of Fact
        What to look for.
    allowed : set of str
        What may stay although it is a fact or has the shape of one.
    """

    def __init__(self, facts: Iterable[Fact], allowed: Iterable[str] = ()) -> None:
        self.allowed = frozenset(allowed)
        self._numbers: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self.withheld: dict[str, str] = {}
        self._facts: dict[str, str] = {}
        for kind, value in facts:
            value = value.strip()
            if len(value) > 2 and value not in self.allowed:
                self._facts.setdefault(value, kind)
        for value, kind in self._facts.items():  # numbered now, so the same in every rendering
            self._name(kind, value)
        # What must be in a text, at the least, for a fact to be in it; the longest facts first.
        self._needles = {
            value: _needles(value)
            for value in sorted(self._facts, key=len, reverse=True)
            if not is_public(value)
        }

    @classmethod
    def none(cls) -> Wall:
        """Return a wall that everything passes, for what stays with the user."""
        return _Open([])

    @classmethod
    def around(cls, runs: Iterable[Run], allowed: Iterable[str] = ()) -> Wall:
        """Make the wall for some runs on this machine; the hashes of their files may pass."""
        facts: list[Fact] = []
        opened = list(runs)
        public = {*allowed, reproduction.manifests_sha256(opened)}
        for run in opened:
            facts += facts_of_run(run)
            public |= hashes_of(run)
        return cls([*facts_of_machine(), *facts], public)

    @classmethod
    def joined(cls, walls: Iterable[Wall], allowed: Iterable[str] = ()) -> Wall:
        """Make the wall that nothing passes which one of these would stop as a fact."""
        every = list(walls)
        facts = [(kind, value) for wall in every for value, kind in wall._facts.items()]
        return cls(facts, {*allowed, *(value for wall in every for value in wall.allowed)})

    def _name(self, kind: str, value: str) -> str:
        key = value.casefold()
        if key not in self._numbers:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._numbers[key] = f"[{kind} {self._counts[kind]}]"
        return self._numbers[key]

    def _withhold(self, kind: str, value: str) -> str:
        name = self._name(kind, value)
        self.withheld[name] = value
        return name

    def value(self, kind: str, value: str) -> str:
        """Return a value of the data as it may be shown: itself, or what it is replaced with."""
        if value in self.allowed or is_public(value):
            return value
        return self._withhold(kind, value)

    def scrub(self, text: str, *, shapes: bool = True) -> str:
        """Return text with everything replaced that may not pass.

        Parameters
        ----------
        text : str
        shapes : bool
            Whether to look for `SHAPES`, too, which a program's text may have by chance.
        """
        for value in self._present(text):
            fact = functools.partial(self._fact, self._facts[value], value)
            text = _pattern(value).sub(fact, text)
        for kind, shape, check in SHAPES if shapes else ():
            text = shape.sub(functools.partial(self._shape, kind, check), text)
        return text

    def _fact(self, kind: str, value: str, _: re.Match[str]) -> str:
        return self._withhold(kind, value)

    def _shape(self, kind: str, check: Callable[[str], bool], found: re.Match[str]) -> str:
        if found[0] in self.allowed or not check(found[0]):
            return found[0]
        return self._withhold(kind, found[0])

    def leaks(self, text: str) -> list[str]:
        """Return the facts that are still in a text, in any spelling of `_spellings`."""
        text = _PICTURE.sub("", text)
        return [value for value in self._present(text) if _pattern(value).search(text)]

    def narrowed(self, document: str) -> Wall:
        """Return the same wall, quick for the parts of one document: it looks for what is there."""
        narrow = copy.copy(self)
        narrow._needles = {value: self._needles[value] for value in self._present(document)}
        return narrow

    def _present(self, text: str) -> list[str]:
        """Return the facts that may be in a text, the longest first."""
        folded = text.casefold()
        return [
            value
            for value, needles in self._needles.items()
            if any(needle in folded for needle in needles)
        ]

    def summary(self, *rendered: str) -> dict[str, int]:
        """Return how many different values of each kind were withheld from what was rendered."""
        counts: dict[str, int] = {}
        for name in self.withheld:
            if any(name in text for text in rendered):
                kind = name[1:].rpartition(" ")[0]
                counts[kind] = counts.get(kind, 0) + 1
        return counts

    def said(self, *rendered: str) -> str:
        """Say in a sentence what was withheld; empty if nothing was."""
        return said(self.summary(*rendered))


def said(counts: Mapping[str, int]) -> str:
    """Say in a sentence what was withheld, by its kinds; empty if nothing was."""
    if not counts:
        return ""
    parts = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items())
    return (
        "Withheld, since it may name the machine, its users or what they run, and shown as "
        f"[kind number]: {parts}."
    )


def _plural(kind: str, count: int) -> str:
    if count == 1:
        return kind
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


class _Open(Wall):
    def scrub(self, text: str, *, shapes: bool = True) -> str:
        return text


# Most of a page, and what its letters spell by chance is no fact.
_PICTURE = re.compile(r"(?<=data:image/png;base64,)[A-Za-z0-9+/=]{1000,}")


def _spellings(value: str) -> set[str]:
    """Return how a value may be spelt in HTML, JSON, an address, or where it is made printable."""
    in_json = json.dumps(value)[1:-1]
    return {
        value,
        html.escape(value),
        html.escape(value, quote=False),
        in_json,
        in_json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        json.dumps(value, ensure_ascii=False)[1:-1],
        urllib.parse.quote(value),
        urllib.parse.quote(value, safe=""),
        printable(value),
    }


def _parts(value: str) -> list[str]:
    return re.findall(r"[^\W_]+", value)


def _slugs(value: str) -> list[str]:
    """Return patterns of a value whose punctuation was changed, as in a file's name or an id.

    An id has 40 characters of it (`anonvma.run.writer.RunWriter`).
    """
    parts = _parts(value)
    if len("".join(parts)) < 6 or len(value) > 200:
        return []
    found = [r"[\W_]{1,3}".join(map(re.escape, parts))] if len(parts) > 1 else []
    slug = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
    cut = slug[:40].rstrip("-")
    return [*found, *([re.escape(cut)] if len(cut) < len(slug) else [])]


def _needles(value: str) -> tuple[str, ...]:
    """Return what, one of it at the least, is in every text that has a value in it."""
    words = {spelt.split()[0].casefold() for spelt in _spellings(value)}
    return tuple(words | ({_parts(value)[0].casefold()} if _parts(value) else set()))


@functools.lru_cache(maxsize=65536)
def _pattern(value: str) -> re.Pattern[str]:
    """Return what finds a value: whole if it is short, and across lines if it has spaces."""
    gap = r"(?:[ \t]*\\?\n[ \t>]*|[ \t]+)"
    spelt = (gap.join(map(re.escape, s.split())) for s in _spellings(value))
    either = "|".join([*sorted(set(spelt), key=len, reverse=True), *_slugs(value)])
    if len(value) < 8 or value.isalpha():
        return re.compile(rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9])", re.I)
    return re.compile(either, re.I)


# ---- the first wall ----


class Shared(Run):
    """A run as it may be shown to others: the words of others in its tables are replaced.

    Parameters
    ----------
    run : Run
    wall : Wall
        Made around it.
    """

    def __init__(self, run: Run, wall: Wall) -> None:
        self._wall = wall
        told = json.loads(run.manifest.model_dump_json())
        for facts in ("target", "features"):
            told[facts] = _named_apart(told[facts], wall)
        shown = _scrubbed(told, wall)
        # Of the command a reader learns no more than the wall lets pass.
        for name in ("format", "created", "finished", "tables", "raw"):
            shown[name] = told[name]
        super().__init__(run.path, Manifest.model_validate(shown))
        self.id = wall.scrub(run.id)

    def arrow(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table as `Run.arrow` does, the words that are not ours replaced."""
        table = super().arrow(name)  # whole: of which file a symbol is stands in another column
        words_in = [column.name for column in table.schema if _is_words(column.type)]
        for column, kind, words in list(foreign(table.select(words_in).to_pandas())):
            names = {word: self._wall.value(kind, word) for word in words}
            place = table.column_names.index(column)
            replaced = _replaced(table.column(place).combine_chunks(), names)
            table = table.set_column(place, table.schema.field(place), replaced)
        if columns is None:
            return table
        return table.select([column for column in columns if column in table.column_names])


def _is_words(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))


def _replaced(column: pa.Array, names: Mapping[str, str]) -> pa.Array:
    """Return a column with some words replaced, and without a word that no row has."""
    words = column.cast(pa.string())
    places = pc.index_in(words, pa.array(names.keys(), pa.string()))
    replaced = pc.coalesce(pa.array(names.values(), pa.string()).take(places), words)
    if not pa.types.is_dictionary(column.type):
        return replaced
    return replaced.dictionary_encode().cast(column.type)


def _named_apart(facts: dict[str, Any], wall: Wall) -> dict[str, Any]:
    """Replace what somebody named, common word or not, in what else has words of few kinds only."""
    shown = dict(facts)
    for name, (apart, known) in OF_FEW_WORDS.items():
        if isinstance(told := facts.get(name), str):
            pieces = re.split(f"({apart})", told)
            for place, piece in enumerate(pieces[::2]):
                if not known.fullmatch(piece) and piece not in wall.allowed:
                    pieces[2 * place] = wall._withhold(OF_KINDS[name], piece)
            shown[name] = "".join(pieces)
    return shown


def _scrubbed(value: Any, wall: Wall) -> Any:
    if isinstance(value, str):
        return wall.scrub(value)
    if isinstance(value, dict):
        return {wall.scrub(key): _scrubbed(item, wall) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrubbed(item, wall) for item in value]
    return value
