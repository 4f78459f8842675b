# SPDX-License-Identifier: GPL-2.0-only
"""Words that name nobody: those that anonvma's own sources use, and what every machine has.

A report says "perf" whether or not perf was running.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path


@functools.cache
def sources() -> str:
    """Return everything that our own sources say."""
    said = []
    package = Path(__file__).parent.parent
    files = [*package.rglob("*.py")]
    for folder in ("probe", "workload", "guest"):
        files += (package.parent / folder).glob("*.[ch]")
    for file in sorted(files):
        said.append(file.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(said)


@functools.cache
def _vocabulary() -> frozenset[str]:
    """Return the words that our own sources have, which therefore tell nothing."""
    # What the C library says of an error is in no source of ours, and in many of our sentences.
    said = "\n".join([sources(), *map(os.strerror, range(1, 134))])
    words = re.findall(r"[A-Za-z_][\w-]*", said)
    return frozenset([*words, *re.findall(r"[A-Za-z]+", said)])


@functools.cache
def _spelt_out() -> frozenset[str]:
    """Return what our own sources have between blanks and quotes, such as paths."""
    return frozenset(re.findall(r"[^\s\"'`(){}\[\],;]+", sources()))


_PUBLIC_PATHS = re.compile(
    r"(?:\[kernel\.kallsyms\]|\[unknown\]|/?dev/zero|/\[aio\]|anon_inode:\[[\w-]+\]|/?memfd:specimen|/SYSV00000000|/secretmem"
    r"|/usr/lib/(?:[\w-]+/)?(?:ld|lib(?:c|m|pthread|dl|rt))[-.][\w.-]*|\[(?:heap|stack|vdso|vvar"
    r"|vvar_vclock|vsyscall|uprobes)\])(?: \(deleted\))?"
)


_PID = re.compile(r"pid[:-]\d+")
"""A workload that runs already; its number names nobody."""


@functools.lru_cache(maxsize=1 << 16)  # the runs of a comparison share their words
def is_public(value: str) -> bool:
    """Tell whether a value says nothing of the machine or of who works on it."""
    if _PUBLIC_PATHS.fullmatch(value) or _PID.fullmatch(value):
        return True
    if f'"{value}"' in sources():  # one of our own names for something, such as a caller
        return True
    if "/" in value.strip("/") and value in _spelt_out():
        return True
    words = re.findall(r"[^\s()]+", value)
    return all(is_ours(word.lstrip("-") or word) for word in words)


def is_ours(word: str) -> bool:
    """Tell whether a word without blanks is one of ours, a number, or too short to name anybody."""
    return word in _vocabulary() or bool(re.fullmatch(r"[\d.,]+[kmgtKMGT%]?|.{0,2}", word))


@functools.cache
def _of_systems() -> frozenset[str]:
    lines = Path(__file__).with_name("words.txt").read_text(encoding="ascii").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@functools.lru_cache(maxsize=1 << 16)
def is_of_systems(name: str) -> bool:
    """Tell whether a function, an event or a counter has a name of words of a library or a kernel.

    Anybody's program may be called vmload, and anybody may name an event (perf probe), so that
    where a name is from does not tell whose it is; and words that our sources say in passing are
    no names of functions.
    """
    if len(name) > 500 or not name.isascii() or re.search(r"\d{7}", name):
        return False
    return all(map(_is_of_words, re.findall(r"[\w-]+", name)))


def _is_of_words(name: str) -> bool:
    if "_" in name and name in _vocabulary():
        return True
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", name)]
    short = [word for word in words if len(word) <= 2]
    return len(short) <= 3 and _of_systems().issuperset(set(words).difference(short))


_VERSION = re.compile(r"\d+(?:\.\d+)*(?:\+g[0-9a-f]{7,12}(?:\.dirty)?)?")


def own_words(text: str) -> Iterator[str]:
    """Yield the words of a text that are not made of ours."""
    for word in re.findall(r"[^\s\"'`()\[\]{},;<>]+", text):
        bare = word.strip(".:!?*=-|")
        parts = list(filter(None, re.split(r"[-_./=:@+%]+", bare)))
        ours = all(map(is_ours, parts)) and not _is_pieced(parts)
        if not (is_public(bare) or ours or _VERSION.fullmatch(bare)):
            yield bare


def _is_pieced(parts: Sequence[str]) -> bool:
    """Tell whether something else is taken to pieces that are too short to be somebody's words."""
    short = [part for part in parts if len(part) <= 2 or not part.isalpha()]
    numbers = sum(part.isdigit() for part in parts)
    return len(short) == len(parts) and len(parts) > (3 if numbers == len(parts) else 2)
