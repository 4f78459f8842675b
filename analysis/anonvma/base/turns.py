# SPDX-License-Identifier: GPL-2.0-only
"""The order ABBA: what is compared takes turns, so that a drift weighs on all of it alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def in_turns(things: Sequence[Thing], block: int) -> list[Thing]:
    """Return things in the order of a block, counted from 1: every other one is reversed."""
    return list(things) if block % 2 else list(reversed(things))
