# SPDX-License-Identifier: GPL-2.0-only
"""One progress bar for everything a command runs; nothing where there is no terminal."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from anonvma.base.steps import Tell

_WIDTH = 48


class Bar:
    """Counts the work of several notebooks, and shows what the one that runs says it does.

    Parameters
    ----------
    weights : dict of str to float
        How much work each notebook is, by name, as near as is known beforehand; others are 1.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        self._weights = weights
        self._shares = dict.fromkeys(weights, 0.0)
        self._lock = threading.Lock()  # notebooks may run side by side
        self._shown = None
        if sys.stderr.isatty():
            from tqdm.std import tqdm

            self._shown = tqdm(
                total=sum(weights.values()),
                bar_format="{percentage:3.0f} % |{bar:16}| {elapsed} {desc}",
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown is not None:
            self._shown.close()

    def of(self, name: str) -> Tell:
        """Return what the notebook of that name tells its progress to."""

        def tell(share: float, what: str) -> None:
            with self._lock:
                self._shares[name] = max(self._shares[name], share)
                if self._shown is not None:
                    done = sum(self._weights[each] * got for each, got in self._shares.items())
                    self._shown.n = done
                    self._shown.set_description_str(f"{name}: {what}"[:_WIDTH])

        return tell
