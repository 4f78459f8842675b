# SPDX-License-Identifier: GPL-2.0-only
"""The steps of a long collection, as a notebook tells them: to a bar of its own, or to who asked.

The command line runs a notebook and shows one bar for all that it runs. What the notebook is doing
only the notebook knows; it says so in outputs of a kind of their own, which `anonvma.report.engine`
takes out again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ASKED = "ANONVMA_STEPS"
"""The environment variable that is set where somebody takes the steps in."""

STEPS = "application/vnd.anonvma.step+json"

Show = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what is being done now."""

Tell = Callable[[float, str], None]
"""Called with the share of a notebook that is done, and what is being done now."""


@contextmanager
def bar() -> Iterator[Show]:
    """Return what `anonvma.collect.collection.collect` tells its progress to."""
    if ASKED in os.environ:
        yield _publish
        return
    from tqdm.auto import tqdm

    with tqdm(unit="step") as shown:

        def show(done: int, total: int, what: str) -> None:
            shown.total, shown.n = total, done
            shown.set_description(what)

        yield show


def _publish(done: int, total: int, what: str) -> None:
    from IPython.display import display

    step = {"share": done / total, "what": what}
    display({STEPS: step}, raw=True)  # type: ignore[no-untyped-call]
