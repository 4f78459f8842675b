# SPDX-License-Identifier: GPL-2.0-only
"""Waiting for what has to happen. No test asserts time: a machine may be slow, or busy."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds after which something hangs for certain, on any machine: for every deadline in the tests.
PATIENCE = 600.0


def until(so: Callable[[], object], otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait until something is so; fail, with what `otherwise` returns, if it never is."""
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
