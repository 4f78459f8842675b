# SPDX-License-Identifier: GPL-2.0-only
"""The nearest known word to one that is not known, for "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that someone who typed `word` most likely meant, or None."""
    by_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=0.65)
    return by_case[near[0]] if near else None


def hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of a sentence on an unknown word: what was meant, or else what there is."""
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else otherwise
