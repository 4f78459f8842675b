# SPDX-License-Identifier: GPL-2.0-only
"""The examples in docstrings, on recorded runs: they say what they print."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import anonvma

_PACKAGE = Path(anonvma.__file__).parent
_WITH_EXAMPLES = sorted(
    ".".join(("anonvma", *path.relative_to(_PACKAGE).with_suffix("").parts))
    for path in _PACKAGE.rglob("*.py")
    if "\n    >>> " in path.read_text()
)


@pytest.mark.parametrize("name", _WITH_EXAMPLES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
